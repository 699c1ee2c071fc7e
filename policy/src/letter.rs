//! The language by the letter of AWS's documentation, one line per behaviour.

use serde_json::{Value, json};

use crate::vectors;
use crate::{Decision, UnresolvedDeny};

const ARN: &str = "arn:aws:iot:us-east-1:123456789012:";

fn context() -> Value {
    json!({
        "clientId": "thing1",
        "thing": {
            "name": "thing1", "type": "sensor", "isAttached": true,
            "attributes": {"building": "b7", "level": "12", "hash": "a/#", "empty": "", "a,b": "comma"},
            "attachment": "NON_EXCLUSIVE_THING"
        },
        "certificate": {
            "id": "ab".repeat(32), "serialNumber": "12345",
            "subject": {
                "CommonName": ["cn-1"], "Organization": ["Example Corp", "AnyCompany"],
                "Country": ["US"], "Title": ["a*"], "Surname": "One", "GivenName": "Νικοσ",
                "OrganizationalUnit": ["0", "1", "2", "3", "4", "5"]
            },
            "issuer": {"CommonName": ["Plant CA"]},
            "san": {"DNSName": ["d1.example"], "IPAddress": ["10.0.0.9"]}
        },
        "sourceIp": "10.1.2.3", "domainName": "iot.example.com",
        "connectAttributes": ["PersistentConnect"],
        "now": "2026-03-01T12:00:00Z"
    })
}

fn decide(statements: &Value, action: &str, resource: &str, setting: UnresolvedDeny) -> String {
    let text = statements.to_string().replace('~', ARN);
    let statements: Value = serde_json::from_str(&text).unwrap();
    let resource = resource.replace('~', ARN);
    let decisions = ["Allow", "ExplicitDeny", "ImplicitDeny"];
    let vectors = decisions.map(|expect| {
        json!({
            "id": expect, "action": action, "resource": resource, "expect": expect,
            "policies": [{"Version": "2012-10-17", "Statement": statements}],
            "context": context(), "why": "", "source": ""
        })
    });
    let file = json!({"region": "us-east-1", "account": "123456789012", "vectors": vectors});
    let report = vectors::run(&file.to_string(), Some(setting)).unwrap();
    assert_eq!(
        report.passed, 1,
        "{statements} {action} {resource}: {report}"
    );
    let failed = |decision: &&&str| !report.failures.iter().any(|f| f.id == **decision);
    (*decisions.iter().find(failed).unwrap()).to_owned()
}

fn check(statements: &Value, action: &str, resource: &str, expected: Decision) {
    let got = decide(statements, action, resource, UnresolvedDeny::Open);
    assert_eq!(
        got,
        format!("{expected:?}"),
        "{statements} {action} {resource}"
    );
}

#[test]
fn conditions_are_met_as_documented() {
    for (met, condition) in [
        (true, json!({})),
        (true, json!({"StringEquals": {"iot:ClientId": "thing1"}})),
        (true, json!({"StringEquals": {"IOT:clientid": "thing1"}})),
        (false, json!({"StringEquals": {"iot:ClientId": "Thing1"}})),
        (
            true,
            json!({"StringEqualsIgnoreCase": {"iot:ClientId": "THING1"}}),
        ),
        (
            false,
            json!({"StringNotEqualsIgnoreCase": {"iot:ClientId": "THING1"}}),
        ),
        // Letter by letter: the sigma at the end of a word is another small letter.
        (
            true,
            json!({"StringEqualsIgnoreCase": {"iot:Certificate.Subject.GivenName": "ΝΙΚΟΣ"}}),
        ),
        (
            true,
            json!({"StringNotEquals": {"iot:ClientId": ["x", "y"]}}),
        ),
        (
            false,
            json!({"StringNotEquals": {"iot:ClientId": ["x", "thing1"]}}),
        ),
        (true, json!({"StringLike": {"iot:ClientId": "th?ng*"}})),
        (false, json!({"StringLike": {"iot:ClientId": "th${?}ng1"}})),
        (false, json!({"StringNotLike": {"iot:ClientId": "t*"}})),
        (false, json!({"StringEquals": {"iot:ClientId": "thing*"}})),
        (
            true,
            json!({"StringEquals": {"iot:Certificate.Subject.Title": "a${*}"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:ClientId": "${iot:Connection.Thing.ThingName}"}}),
        ),
        (
            false,
            json!({"StringEquals": {"iot:ClientId": "${iot:Certificate.Subject.Title}"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:ClientId": "${iot:Connection.Thing.Attributes[no], 'thing1'}"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:Thing.Attributes[building]": "b7"}}),
        ),
        (
            false,
            json!({"StringEquals": {"iot:Connection.Thing.Attributes[Building]": "b7"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:Connection.Thing.ThingTypeName": "sensor"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:CertificateId": "ab".repeat(32)}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:Certificate.SerialNumber": 12345}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:Certificate.Subject.Surname": "One"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:Certificate.Subject.Organization": "Example Corp"}}),
        ),
        (
            false,
            json!({"StringEquals": {"iot:Certificate.Subject.Organization": "AnyCompany"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:Certificate.Subject.Organization.1": "AnyCompany"}}),
        ),
        (
            false,
            json!({"StringLike": {"iot:Certificate.Subject.Organization.2": "*"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:Certificate.Subject.OrganizationalUnit.4": "4"}}),
        ),
        (
            false,
            json!({"StringLike": {"iot:Certificate.Subject.OrganizationalUnit.5": "*"}}),
        ),
        (
            false,
            json!({"ForAnyValue:StringEquals": {"iot:Certificate.Subject.OrganizationalUnit.List": "5"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:Certificate.Subject.AlternativeName.DNSName": "d1.example"}}),
        ),
        (
            true,
            json!({"IpAddress": {"iot:Certificate.Subject.AlternativeName.IPAddress": "10.0.0.0/24"}}),
        ),
        (
            true,
            json!({"StringEquals": {"iot:DomainName": "iot.example.com"}}),
        ),
        // A missing key.
        (
            false,
            json!({"StringEquals": {"iot:Certificate.Subject.Pseudonym": "x"}}),
        ),
        (
            true,
            json!({"StringNotEquals": {"iot:Certificate.Subject.Pseudonym": "x"}}),
        ),
        (
            true,
            json!({"StringEqualsIfExists": {"iot:Certificate.Subject.Pseudonym": "x"}}),
        ),
        (
            false,
            json!({"StringEqualsIfExists": {"iot:Certificate.Subject.CommonName": "x"}}),
        ),
        (
            false,
            json!({"NumericLessThan": {"iot:Connection.Thing.Attributes[no]": "1"}}),
        ),
        (
            true,
            json!({"NotIpAddress": {"iot:Connection.Thing.Attributes[no]": "10.0.0.0/8"}}),
        ),
        (
            false,
            json!({"Bool": {"iot:Connection.Thing.Attributes[no]": "true"}}),
        ),
        (
            true,
            json!({"ArnNotLike": {"iot:LastWillTopic": "arn:aws:iot:*:*:topic/*"}}),
        ),
        (
            true,
            json!({"Null": {"iot:Certificate.Subject.Pseudonym": "true"}}),
        ),
        (
            false,
            json!({"Null": {"iot:Certificate.Subject.Pseudonym": false}}),
        ),
        (
            true,
            json!({"Null": {"iot:Certificate.SerialNumber": "false", "iot:Certificate.Subject.CommonName": "false"}}),
        ),
        (
            false,
            json!({"StringEquals": {"aws:PrincipalTag/team": "x"}}),
        ),
        // Numbers.
        (
            true,
            json!({"NumericEquals": {"iot:Connection.Thing.Attributes[level]": 12.0}}),
        ),
        (
            false,
            json!({"NumericNotEquals": {"iot:Connection.Thing.Attributes[level]": "12"}}),
        ),
        (
            true,
            json!({"NumericLessThan": {"iot:Connection.Thing.Attributes[level]": "100"}}),
        ),
        (
            true,
            json!({"NumericLessThanEquals": {"iot:Connection.Thing.Attributes[level]": "12"}}),
        ),
        (
            false,
            json!({"NumericGreaterThan": {"iot:Connection.Thing.Attributes[level]": "12"}}),
        ),
        (
            true,
            json!({"NumericGreaterThanEquals": {"iot:Connection.Thing.Attributes[level]": "11.9"}}),
        ),
        (false, json!({"NumericEquals": {"iot:ClientId": "1"}})),
        (true, json!({"NumericNotEquals": {"iot:ClientId": "1"}})),
        // Dates.
        (
            true,
            json!({"DateGreaterThan": {"aws:CurrentTime": "2026-03-01T11:59:59Z"}}),
        ),
        (
            false,
            json!({"DateLessThan": {"aws:CurrentTime": "2026-03-01T12:00:00Z"}}),
        ),
        (
            true,
            json!({"DateLessThanEquals": {"AWS:currenttime": "2026-03-01T12:00:00Z"}}),
        ),
        (
            true,
            json!({"DateEquals": {"aws:CurrentTime": "2026-03-01T13:00:00+01:00"}}),
        ),
        (
            true,
            json!({"DateNotEquals": {"aws:CurrentTime": "2026-03-01"}}),
        ),
        (
            true,
            json!({"DateGreaterThanEquals": {"aws:EpochTime": "1577836800"}}),
        ),
        (
            true,
            json!({"NumericGreaterThan": {"aws:EpochTime": "1577836800"}}),
        ),
        // Truth.
        (
            true,
            json!({"Bool": {"iot:Connection.Thing.IsAttached": true}}),
        ),
        (
            false,
            json!({"Bool": {"iot:Connection.Thing.IsAttached": ["false"]}}),
        ),
        (true, json!({"Bool": {"aws:SecureTransport": "true"}})),
        (
            true,
            json!({"BinaryEquals": {"iot:Certificate.Subject.Country": "VVM="}}),
        ),
        (
            false,
            json!({"BinaryEquals": {"iot:Certificate.Subject.Country": "VVQ="}}),
        ),
        // Addresses.
        (
            true,
            json!({"IpAddress": {"aws:SourceIp": ["192.168.0.0/16", "10.0.0.0/8"]}}),
        ),
        (true, json!({"IpAddress": {"aws:SourceIp": "10.1.2.3"}})),
        (
            false,
            json!({"IpAddress": {"aws:SourceIp": "2001:DB8::/32"}}),
        ),
        (
            false,
            json!({"NotIpAddress": {"aws:SourceIp": ["192.168.0.0/16", "10.0.0.0/8"]}}),
        ),
        // Sets.
        (
            true,
            json!({"ForAllValues:StringEquals": {"iot:Certificate.Subject.Organization.List": ["Example Corp", "AnyCompany", "x"]}}),
        ),
        (
            false,
            json!({"ForAllValues:StringEquals": {"iot:Certificate.Subject.Organization.List": ["Example Corp"]}}),
        ),
        (
            true,
            json!({"ForAllValues:StringEquals": {"iot:Certificate.Subject.Initials.List": ["x"]}}),
        ),
        (
            false,
            json!({"ForAnyValue:StringEquals": {"iot:Certificate.Subject.Initials.List": ["x"]}}),
        ),
        (
            false,
            json!({"ForAnyValue:StringNotEquals": {"iot:Certificate.Subject.Initials.List": ["x"]}}),
        ),
        (
            true,
            json!({"ForAnyValue:StringNotEquals": {"iot:Certificate.Subject.Organization.List": ["AnyCompany"]}}),
        ),
        (
            false,
            json!({"ForAllValues:StringNotEquals": {"iot:Certificate.Subject.Organization.List": ["AnyCompany"]}}),
        ),
        (
            true,
            json!({"ForAllValues:StringNotLike": {"iot:Certificate.Subject.Organization.List": ["Other*"]}}),
        ),
        (
            true,
            json!({"ForAllValues:StringEquals": {"iot:Connection.Thing.Attributes[empty]": "x"}}),
        ),
        (
            true,
            json!({"ForAnyValue:StringLike": {"iot:Certificate.AvailableKeys": "iot:Certificate.Subject.*"}}),
        ),
        (
            false,
            json!({"ForAnyValue:StringEquals": {"iot:Certificate.AvailableKeys": "iot:Certificate.Subject.Pseudonym"}}),
        ),
        (
            true,
            json!({"ForAnyValue:StringEquals": {"iot:ConnectAttributes": "PersistentConnect"}}),
        ),
        (
            false,
            json!({"ForAllValues:StringEquals": {"iot:ConnectAttributes": []}}),
        ),
        (
            false,
            json!({"ForAllValues:StringEquals": {"iot:ConnectAttributes": ["LastWill"]}}),
        ),
        // Operators and keys are ANDed.
        (
            false,
            json!({"StringEquals": {"iot:ClientId": "thing1", "iot:DomainName": "x"}}),
        ),
        (
            false,
            json!({"StringEquals": {"iot:ClientId": "thing1"}, "Bool": {"iot:Connection.Thing.IsAttached": "false"}}),
        ),
    ] {
        let allow = |effect| {
            json!([
                {"Effect": effect, "Action": "iot:Publish", "Resource": "*", "Condition": condition},
                {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": "*"}
            ])
        };
        let yes = |decision| {
            if met {
                decision
            } else {
                Decision::ImplicitDeny
            }
        };
        check(
            &allow("Allow"),
            "iot:Publish",
            "~topic/a",
            yes(Decision::Allow),
        );
        check(
            &allow("Deny"),
            "iot:Publish",
            "~topic/a",
            yes(Decision::ExplicitDeny),
        );
    }
}

#[test]
fn resources_match_as_documented() {
    for (allowed, action, resource, on) in [
        (
            true,
            "iot:Publish",
            "~topic/${iot:Certificate.Subject.Surname}",
            "~topic/One",
        ),
        (
            false,
            "iot:Publish",
            "~topic/${iot:Certificate.Subject.Title}",
            "~topic/a*",
        ),
        (
            false,
            "iot:Publish",
            "~topic/${iot:Certificate.Subject.Organization.List}",
            "~topic/Example Corp",
        ),
        (
            true,
            "iot:Publish",
            "~topic/${iot:Certificate.Subject.OrganizationalUnit.4}",
            "~topic/4",
        ),
        (
            false,
            "iot:Publish",
            "~topic/${iot:Certificate.Subject.OrganizationalUnit.5}",
            "~topic/5",
        ),
        (
            true,
            "iot:Publish",
            "~topic/${iot:certificateid}",
            &format!("~topic/{}", "ab".repeat(32)),
        ),
        (
            true,
            "iot:Connect",
            "~client/${iot:Certificate.SerialNumber}",
            "~client/12345",
        ),
        (
            true,
            "iot:Publish",
            "~topic/${aws:SourceIp}",
            "~topic/10.1.2.3",
        ),
        (
            true,
            "iot:Publish",
            "~topic/${iot:DomainName}/x",
            "~topic/iot.example.com/x",
        ),
        (
            true,
            "iot:Subscribe",
            "~topicfilter/${iot:Connection.Thing.Attributes[hash]}",
            "~topicfilter/a/#",
        ),
        (false, "iot:Publish", "~topic/${aws:username}", "~topic/x"),
        (false, "iot:Publish", "~topic/${aws:username}", "~topic/"),
        (
            true,
            "iot:Publish",
            "~topic/${aws:username, 'all'}",
            "~topic/all",
        ),
        (
            true,
            "iot:Publish",
            "~topic/${iot:Connection.Thing.Attributes[a,b]}",
            "~topic/comma",
        ),
        (true, "iot:Publish", "~topic/a${?}", "~topic/a?"),
        (false, "iot:Publish", "~topic/a${?}", "~topic/ab"),
        (
            true,
            "iot:Publish",
            "~topic/${$}{iot:ClientId}",
            "~topic/${iot:ClientId}",
        ),
        (
            true,
            "iot:Publish",
            "~topic/$aws/rules/r/*",
            "~topic/$aws/rules/r/x",
        ),
        (
            true,
            "iot:Subscribe",
            "~topicfilter/$share/*/test/topic",
            "~topicfilter/$share/g1/test/topic",
        ),
        (
            true,
            "iot:Subscribe",
            "~topicfilter/a/*",
            "~topicfilter/a/+/b/#",
        ),
        (
            true,
            "iot:GetThingShadow",
            "~thing/thing1/*",
            "~thing/thing1/cfg",
        ),
        (
            true,
            "iot:ListNamedShadowsForThing",
            "~thing/thing1",
            "~thing/thing1",
        ),
        (
            true,
            "iot:UpdateJobExecution",
            "~thing/${iot:Connection.Thing.ThingName}",
            "~thing/thing1",
        ),
        (true, "iot:ListRetainedMessages", "*", "*"),
        (false, "iot:ListRetainedMessages", "~topic/*", "*"),
        (true, "iot:GetRetainedMessage", "~topic/*", "~topic/x"),
        (true, "iot:DeleteConnection", "~client/*", "~client/x"),
        (false, "iot:Publish", "arn:aws:s3:::topic/x", "~topic/x"),
        (false, "iot:Publish", "~thinggroup/*", "~topic/x"),
        (
            false,
            "iot:Publish",
            "arn:aws:iot:us-east-1:*:client/*",
            "~topic/x:client/y",
        ),
    ] {
        let statement = json!({"Effect": "Allow", "Action": action, "Resource": resource});
        let expected = if allowed {
            Decision::Allow
        } else {
            Decision::ImplicitDeny
        };
        check(&statement, action, on, expected);
        let but = json!({"Effect": "Allow", "Action": action, "NotResource": [resource]});
        let expected = if allowed {
            Decision::ImplicitDeny
        } else {
            Decision::Allow
        };
        check(&but, action, on, expected);
    }
}

#[test]
fn actions_match_as_documented() {
    for (speaks, actions) in [
        (true, json!({"Action": ["iot:Pub*", "s3:GetObject"]})),
        (false, json!({"Action": ["greengrass:Discover"]})),
        (true, json!({"NotAction": ["iot:Connect", "greengrass:*"]})),
        (false, json!({"NotAction": "iot:p?BLISH"})),
        (false, json!({"NotAction": "*"})),
    ] {
        for (effect, decision) in [("Allow", Decision::Allow), ("Deny", Decision::ExplicitDeny)] {
            let mut statement = actions.clone();
            statement["Effect"] = effect.into();
            statement["Resource"] = "*".into();
            let expected = if speaks {
                decision
            } else {
                Decision::ImplicitDeny
            };
            check(&statement, "iot:Publish", "~topic/a", expected);
        }
    }
}

#[test]
fn a_deny_without_a_value_is_open_or_closed_as_set() {
    let denies = |deny: Value| {
        let allow = json!({"Effect": "Allow", "Action": "*", "Resource": "*"});
        let statements = json!([allow, deny]);
        [UnresolvedDeny::Open, UnresolvedDeny::Closed]
            .map(|setting| decide(&statements, "iot:Publish", "~topic/a/b", setting))
            .map(|decision| decision == "ExplicitDeny")
    };
    let deny =
        |resource: &str| denies(json!({"Effect": "Deny", "Action": "*", "Resource": resource}));
    assert_eq!(
        deny("~topic/${iot:Connection.Thing.Attributes[no]}/b"),
        [false, true]
    );
    assert_eq!(
        deny("~topic/${iot:Connection.Thing.Attributes[no]}/c"),
        [false, false]
    );
    assert_eq!(
        deny("~topic/${iot:Certificate.Subject.Title}*"),
        [false, true]
    );
    assert_eq!(deny("~topic/${iot:ClientId}/b"), [false, false]);
    let on = |value: &str| {
        denies(json!({"Effect": "Deny", "Action": "*", "Resource": "*",
            "Condition": {"StringEquals": {"iot:ClientId": value}}}))
    };
    assert_eq!(on("${iot:Connection.Thing.Attributes[no]}"), [false, true]);
    assert_eq!(on("x"), [false, false]);
    let spares = json!({"Effect": "Allow", "Action": "*",
        "NotResource": "~topic/${iot:Connection.Thing.Attributes[no]}/b"});
    let decisions = [UnresolvedDeny::Open, UnresolvedDeny::Closed]
        .map(|setting| decide(&spares, "iot:Publish", "~topic/a/b", setting));
    assert_eq!(decisions, ["Allow", "ImplicitDeny"]);
}
