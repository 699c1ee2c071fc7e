//! Random documents of the language, with everything that it has.

use serde_json::{Map, Value, json};

use super::cases::Bytes;

/// A document that has something to say of an action, more often than not.
pub(super) fn document(bytes: &mut Bytes<'_>, action: &str) -> String {
    let version = if bytes.seldom(8) {
        "2008-10-17"
    } else {
        "2012-10-17"
    };
    let statements: Vec<Value> = (0..=bytes.below(3))
        .map(|_| statement(bytes, action))
        .collect();
    let statements = match <[Value; 1]>::try_from(statements) {
        Ok([statement]) if bytes.seldom(2) => statement,
        Ok(one) => Value::from(one.to_vec()),
        Err(many) => many.into(),
    };
    json!({"Version": version, "Statement": statements}).to_string()
}

/// One, or a list.
fn some(bytes: &mut Bytes<'_>, mut each: impl FnMut(&mut Bytes<'_>) -> Value) -> Value {
    match bytes.below(4) {
        0 => each(bytes),
        1 | 2 => Value::from(vec![each(bytes)]),
        _ => Value::from(vec![each(bytes), each(bytes)]),
    }
}

fn statement(bytes: &mut Bytes<'_>, asked: &str) -> Value {
    let mut statement = Map::new();
    let effect = if bytes.seldom(3) { "Deny" } else { "Allow" };
    statement.insert("Effect".into(), effect.into());
    let action = if bytes.seldom(6) {
        "NotAction"
    } else {
        "Action"
    };
    let actions = some(bytes, |bytes| match bytes.below(4) {
        0 | 1 => format!("iot:{asked}").into(),
        _ => bytes
            .one(&[
                "*",
                "iot:*",
                "iot:Publish",
                "iot:Subscribe",
                "IOT:receive",
                "iot:Connect",
                "iot:Pub*",
                "iot:*e",
                "iot:?ubscribe",
                "iot:Get*",
            ])
            .into(),
    });
    statement.insert(action.into(), actions);
    let resource = if bytes.seldom(6) {
        "NotResource"
    } else {
        "Resource"
    };
    statement.insert(
        resource.into(),
        some(bytes, |bytes| self::resource(bytes, asked).into()),
    );
    let mut conditions = Map::new();
    for _ in 1..bytes.below(4) {
        condition(bytes, &mut conditions);
    }
    if !conditions.is_empty() {
        statement.insert("Condition".into(), conditions.into());
    }
    statement.into()
}

/// Pieces of texts with variables.
const PIECES: &[&str] = &[
    "a",
    "a",
    "b",
    "/",
    "*",
    "*",
    "?",
    "é",
    "+",
    "#",
    ":",
    "$",
    "A",
    "${*}",
    "${?}",
    "${$}",
    "${iot:ClientId}",
    "${iot:ClientId}",
    "${IOT:clientid}",
    "${iot:Connection.Thing.ThingName}",
    "${iot:Connection.Thing.ThingTypeName}",
    "${iot:Connection.Thing.Attributes[x]}",
    "${iot:Connection.Thing.Attributes[y]}",
    "${iot:Connection.Thing.IsAttached}",
    "${iot:Certificate.Subject.CommonName}",
    "${iot:Certificate.Subject.Organization}",
    "${iot:Certificate.Subject.Organization.1}",
    "${iot:Certificate.Subject.Organization.5}",
    "${iot:Certificate.Subject.Organization.List}",
    "${iot:Certificate.Issuer.CommonName}",
    "${iot:Certificate.Subject.AlternativeName.DNSName}",
    "${iot:Certificate.SerialNumber}",
    "${iot:CertificateId}",
    "${iot:DomainName, 'a'}",
    "${iot:Connection.Thing.Attributes[y], '#'}",
    "${aws:SourceIp}",
    "${muster:CertificateKeyKind}",
    "${muster:FirmwareName}",
];

fn resource(bytes: &mut Bytes<'_>, action: &str) -> String {
    if bytes.seldom(6) {
        return "*".into();
    }
    let region = bytes.one(&["*", "local", "us-east-1", "us-*-?"]);
    let account = bytes.one(&["1", "*", "1?", "1*", "12"]);
    let own = match action {
        "Connect" => "client/",
        "Subscribe" => "topicfilter/",
        "AssumeRoleWithCertificate" => "rolealias/",
        "Publish" | "Receive" | "RetainPublish" => "topic/",
        _ => "thing/",
    };
    let kind = bytes.one(&[
        own,
        own,
        own,
        own,
        "topic/",
        "topicfilter/",
        "topic*/",
        "client/",
        "thing/",
        "rolealias/",
        "*",
        "top*",
        "?opic/",
        "t*/",
        "*/",
        "*i*/",
        "c*t?",
        "topicfilter/$share/",
    ]);
    format!(
        "arn:aws:iot:{region}:{account}:{kind}{}",
        bytes.text(PIECES, 6)
    )
}

const TEXTS: &[&str] = &[
    "iot:ClientId",
    "IOT:CLIENTID",
    "iot:Connection.Thing.ThingName",
    "iot:Thing.ThingName",
    "iot:Connection.Thing.ThingTypeName",
    "iot:Connection.Thing.Attributes[x]",
    "iot:Connection.Thing.Attributes[y]",
    "iot:Certificate.Subject.CommonName",
    "iot:Certificate.Subject.Organization",
    "iot:Certificate.Subject.Organization.1",
    "iot:Certificate.Subject.Organization.List",
    "iot:Certificate.Issuer.CommonName.List",
    "iot:Certificate.Subject.AlternativeName.DNSName.List",
    "iot:Certificate.SerialNumber",
    "iot:Certificate.AvailableKeys",
    "iot:ConnectAttributes",
    "iot:DomainName",
    "iot:CertificateId",
    "aws:SourceIp",
    "muster:SourceNetwork",
    "muster:Listener",
    "muster:TlsVersion",
    "muster:Weekday",
    "muster:CertificateKeyKind",
    "muster:EnrolmentWay",
    "muster:FirmwareName",
    "muster:FirmwareVersion",
];
const WORDS: &[&str] = &[
    "mqtt",
    "https",
    "1.2",
    "1.3",
    "Sunday",
    "Monday",
    "P-256",
    "plant",
    "host",
    "PersistentConnect",
    "LastWill",
    "iot:Certificate.Subject.*",
];
const NUMBERS: &[&str] = &[
    "iot:Connection.Thing.Attributes[x]",
    "iot:Connection.Thing.Attributes[y]",
    "iot:Certificate.SerialNumber",
    "aws:EpochTime",
    "aws:CurrentTime",
    "iot:Certificate.Subject.Organization.List",
    "muster:MessageSize",
    "muster:QoS",
    "muster:CertificateAge",
    "muster:CertificateRemainingLife",
    "muster:LastViolationAge",
    "muster:TlsVersion",
];
const FLAGS: &[&str] = &[
    "iot:Connection.Thing.IsAttached",
    "aws:SecureTransport",
    "iot:Connection.Thing.Attributes[x]",
    "muster:Retain",
    "muster:Quarantined",
    "muster:Attested",
];
const ADDRESSES: &[&str] = &[
    "aws:SourceIp",
    "iot:Connection.Thing.Attributes[x]",
    "iot:Certificate.Subject.AlternativeName.IPAddress",
    "iot:Certificate.Subject.AlternativeName.IPAddress.List",
];
const DATES: &[&str] = &[
    "aws:CurrentTime",
    "aws:EpochTime",
    "iot:Connection.Thing.Attributes[x]",
];

fn condition(bytes: &mut Bytes<'_>, conditions: &mut Map<String, Value>) {
    let set = bytes.one(&["", "", "ForAllValues:", "ForAnyValue:"]);
    let if_exists = bytes.one(&["", "", "IfExists"]);
    let order = bytes.one(&[
        "Equals",
        "NotEquals",
        "LessThan",
        "LessThanEquals",
        "GreaterThan",
        "GreaterThanEquals",
    ]);
    let word: fn(&mut Bytes<'_>) -> Value = |bytes| match bytes.below(6) {
        0 => bytes.one(WORDS).into(),
        1 => 12.into(),
        2 => true.into(),
        _ => bytes.text(PIECES, 4).into(),
    };
    let (operator, keys, value): (String, &[&str], fn(&mut Bytes<'_>) -> Value) =
        match bytes.below(9) {
            0 | 1 => {
                let operator = [
                    "StringEquals",
                    "StringNotEquals",
                    "StringEqualsIgnoreCase",
                    "StringNotEqualsIgnoreCase",
                    "StringLike",
                    "StringNotLike",
                ];
                (bytes.one(&operator).into(), TEXTS, word)
            }
            2 => (format!("Numeric{order}"), NUMBERS, |bytes| {
                bytes
                    .one(&[
                        "12",
                        "1",
                        "0",
                        "-1",
                        "11.5",
                        "12.0",
                        "86400",
                        "1.25",
                        "340282366920938463463374607431768211456",
                    ])
                    .into()
            }),
            3 if bytes.seldom(2) => (format!("Date{order}"), &["muster:TimeOfDay"], |bytes| {
                bytes
                    .one(&["12:00", "11:59:59", "12:00:01", "00:00"])
                    .into()
            }),
            3 => (format!("Date{order}"), DATES, |bytes| {
                bytes
                    .one(&[
                        "2026-03-01T12:00:00Z",
                        "2026-03-01",
                        "2026-03",
                        "2026",
                        "1772366400",
                        "1772366401",
                        "12",
                    ])
                    .into()
            }),
            4 => ("Bool".into(), FLAGS, |bytes| {
                bytes
                    .one(&[
                        "true",
                        "false",
                        "TRUE",
                        "${iot:Connection.Thing.Attributes[x]}",
                    ])
                    .into()
            }),
            5 => ("BinaryEquals".into(), TEXTS, |bytes| {
                bytes.one(&["YQ==", "Yg==", "", "w6k="]).into()
            }),
            6 => (
                bytes.one(&["IpAddress", "NotIpAddress"]).into(),
                ADDRESSES,
                |bytes| {
                    bytes
                        .one(&[
                            "10.1.0.0/16",
                            "10.1.2.3",
                            "0.0.0.0/0",
                            "2001:db8::/32",
                            "::/0",
                            "10.2.0.0/15",
                        ])
                        .into()
                },
            ),
            7 => {
                let operator = bytes.one(&["ArnEquals", "ArnLike", "ArnNotEquals", "ArnNotLike"]);
                (
                    operator.into(),
                    &["iot:LastWillTopic", "iot:ClientId"],
                    |bytes| match bytes.below(3) {
                        0 => "*".into(),
                        _ => format!(
                            "arn:aws:iot:{}:1*:{}",
                            bytes.one(&["*", "local", "eu"]),
                            bytes.text(PIECES, 4)
                        )
                        .into(),
                    },
                )
            }
            _ => (
                "Null".into(),
                [TEXTS, NUMBERS, FLAGS][bytes.below(3)],
                |bytes| bytes.one(&["true", "false", "True"]).into(),
            ),
        };
    let operator = if operator == "Null" {
        operator
    } else {
        format!("{set}{operator}{if_exists}")
    };
    let mut asked = Map::new();
    for _ in 0..=bytes.below(2) {
        let values = if bytes.seldom(12) {
            json!([])
        } else {
            some(bytes, value)
        };
        asked.insert(bytes.one(keys).into(), values);
    }
    conditions.insert(operator, asked.into());
}
