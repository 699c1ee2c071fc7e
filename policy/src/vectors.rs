//! Policy test files: decisions with what they should be, judged as strictly as AWS does, so
//! that a user's policies have unit tests.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::action::{Action, Kind};
use crate::context::{
    CertificateValues, ConnectAttributes, Context, Listener, MessageFacts, Posture, ThingFacts,
    TlsVersion,
};
use crate::decision::Decision;
use crate::document::Policy;
use crate::grant::{Grant, NamedPolicy};
use crate::key::{Field, Holder};
use crate::networks::Networks;
use crate::realm::{Realm, UnresolvedDeny};
use crate::shown::{NAME_MAX_CHARS, nearest, shown};
use crate::values::date;

/// Bytes of the largest test file.
pub const FILE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A test file that cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// Not JSON, or not of the format.
    #[error("the policy test file is not understood: {0}")]
    Format(#[from] serde_json::Error),
    /// A file without cases would pass whatever the policies say.
    #[error("the policy test file has no case in \"vectors\": add one")]
    Empty,
    /// Too large.
    #[error("the policy test file has {bytes} bytes, {FILE_MAX_BYTES} are the limit: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Outcome of a test file. `Display` writes one line per failing case and a last line
/// `PASS n of m`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Cases that came out as expected.
    pub passed: usize,
    /// All cases.
    pub total: usize,
    /// The others, in the file's order.
    pub failures: Vec<Failure>,
}

/// A case that did not come out as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The case's name in the file.
    pub id: String,
    /// What the file says.
    pub expected: Decision,
    /// What the engine says; `None` where it refused a policy or the case.
    pub got: Option<Decision>,
    /// The deciding statement, or the refusal.
    pub why: String,
}

impl Report {
    /// Whether every case came out as expected.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = shown(&self.id, NAME_MAX_CHARS);
        match self.got {
            Some(got) => {
                write!(
                    f,
                    "{id}: expected {:?}, got {got:?}: {}",
                    self.expected, self.why
                )
            }
            None => write!(
                f,
                "{id}: expected {:?}, got a refusal: {}",
                self.expected, self.why
            ),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        write!(f, "PASS {} of {}", self.passed, self.total)
    }
}

#[derive(Deserialize)]
struct File<'t> {
    // Each case names its resource in full; these say for whom the file was written.
    #[serde(rename = "region")]
    _region: String,
    #[serde(rename = "account")]
    _account: String,
    /// The server's setting of the same name.
    #[serde(default, alias = "unresolved_deny", rename = "unresolvedDeny")]
    unresolved_deny: Option<UnresolvedDeny>,
    #[serde(borrow)]
    vectors: Vec<Vector<'t>>,
}

#[derive(Deserialize)]
struct Vector<'t> {
    id: String,
    #[serde(borrow)]
    policies: Vec<&'t RawValue>,
    #[serde(default)]
    context: Facts,
    action: String,
    resource: String,
    expect: Decision,
    #[serde(default, alias = "unresolved_deny", rename = "unresolvedDeny")]
    unresolved_deny: Option<UnresolvedDeny>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Facts {
    client_id: Option<String>,
    thing: Option<Thing>,
    certificate: Option<Certificate>,
    source_ip: Option<String>,
    domain_name: Option<String>,
    connect_attributes: Option<Vec<String>>,
    last_will_topic_arn: Option<String>,
    now: Option<String>,
    posture: Health,
    /// `mqtt`, `wss` or `https`.
    listener: Option<Listener>,
    /// `1.2` or `1.3`.
    tls_version: Option<TlsVersion>,
    /// The addresses of named networks.
    networks: BTreeMap<String, Vec<String>>,
    message: Message,
    #[serde(flatten)]
    rest: Rest,
}

/// Members that nothing asks for: a word for the reader, or a slip.
type Rest = BTreeMap<String, IgnoredAny>;

/// Refuses a slip: a case would pass for the wrong reason.
fn check(of: &str, rest: &Rest, known: &[&'static str]) -> Result<(), String> {
    let mut slips = rest.keys();
    match slips.find_map(|found| Some((found, nearest(found, known)?))) {
        Some((found, meant)) => Err(format!(
            "{of}{found:?} is not known: did you mean {meant:?}?"
        )),
        None => Ok(()),
    }
}

/// What is known of the message, or of the subscription.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct Message {
    /// Bytes of the payload.
    size: Option<usize>,
    qos: Option<u8>,
    retain: Option<bool>,
}

/// What is known of the device's health; `attestedUntil` and `lastViolation` in seconds since 1970.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Health {
    firmware_name: Option<String>,
    firmware_version: Option<String>,
    quarantined: Option<bool>,
    attested: Option<bool>,
    attested_until: Option<i64>,
    last_violation: Option<i64>,
}

impl Health {
    fn known(&self) -> Posture {
        let text = |text: &Option<String>| text.as_deref().map(Arc::from);
        Posture {
            firmware_name: text(&self.firmware_name),
            firmware_version: text(&self.firmware_version),
            quarantined: self.quarantined,
            attested: self.attested,
            attested_until: self.attested_until,
            last_violation: self.last_violation,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Thing {
    name: String,
    #[serde(default, rename = "type")]
    type_name: Option<String>,
    #[serde(default)]
    attributes: Option<BTreeMap<String, String>>,
    #[serde(default)]
    is_attached: bool,
    #[serde(default)]
    attachment: Option<String>,
    #[serde(flatten)]
    rest: Rest,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Certificate {
    id: Option<String>,
    serial_number: Option<String>,
    subject: Option<Names>,
    issuer: Option<Names>,
    san: Option<Names>,
    #[serde(alias = "ian", alias = "issuerAlternativeName")]
    issuer_san: Option<Names>,
    /// The kind of its key, as in `P-256`.
    key_kind: Option<String>,
    /// The way it came in, as in `claim`.
    enrolled_by: Option<String>,
    /// First and last second of its life.
    not_before: Option<String>,
    not_after: Option<String>,
    #[serde(flatten)]
    rest: Rest,
}

/// Fields with their values.
type Names = BTreeMap<String, OneOrMany>;

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A moment in seconds since 1970.
fn seconds(member: &str, text: &str) -> Result<i64, String> {
    let moment = date(text).ok_or_else(|| format!("{member}: {text:?} is no moment"))?;
    i64::try_from(moment.div_euclid(1_000_000_000)).map_err(|error| error.to_string())
}

impl Certificate {
    fn values(&self) -> Result<CertificateValues, String> {
        let moment = |member, text: &Option<String>| {
            text.as_deref()
                .map(|text| seconds(member, text))
                .transpose()
        };
        let text = |text: &Option<String>| text.as_deref().map(Arc::from);
        let mut fields = Vec::new();
        for (holder, names) in [
            (Holder::Subject, &self.subject),
            (Holder::Subject, &self.san),
            (Holder::Issuer, &self.issuer),
            (Holder::Issuer, &self.issuer_san),
        ] {
            for (name, values) in names.iter().flatten() {
                // What AWS has no variable for, no policy can ask for.
                let Some(field) = Field::named(name) else {
                    continue;
                };
                let values = match values {
                    OneOrMany::One(value) => std::slice::from_ref(value),
                    OneOrMany::Many(values) => values,
                };
                fields.extend(
                    values
                        .iter()
                        .map(|v| (holder, field, Arc::from(v.as_str()))),
                );
            }
        }
        Ok(CertificateValues {
            id: text(&self.id),
            serial_number: text(&self.serial_number),
            fields,
            not_before: moment("certificate.notBefore", &self.not_before)?,
            not_after: moment("certificate.notAfter", &self.not_after)?,
            key_kind: text(&self.key_kind),
            enrolled_by: text(&self.enrolled_by),
        })
    }
}

const FACTS: [&str; 13] = [
    "clientId",
    "thing",
    "certificate",
    "sourceIp",
    "domainName",
    "connectAttributes",
    "lastWillTopicArn",
    "now",
    "posture",
    "listener",
    "tlsVersion",
    "networks",
    "message",
];
const THING: [&str; 5] = ["name", "type", "attributes", "isAttached", "attachment"];
const CERTIFICATE: [&str; 10] = [
    "id",
    "serialNumber",
    "subject",
    "issuer",
    "san",
    "issuerSan",
    "keyKind",
    "enrolledBy",
    "notBefore",
    "notAfter",
];

impl Facts {
    /// As AWS resolves them: the thing speaks only through a certificate attached to it, and
    /// unless that attachment is exclusive, only under its own name.
    fn context(&self) -> Result<Context, String> {
        check("context: ", &self.rest, &FACTS)?;
        if let Some(thing) = &self.thing {
            check("context: thing: ", &thing.rest, &THING)?;
        }
        if let Some(certificate) = &self.certificate {
            check("context: certificate: ", &certificate.rest, &CERTIFICATE)?;
        }
        let client_id = self.client_id.as_deref().unwrap_or_default();
        let speaks = |thing: &&Thing| {
            let exclusive = thing.attachment.as_deref() == Some("EXCLUSIVE_THING");
            thing.is_attached && (exclusive || thing.name == client_id)
        };
        let facts = |thing: &Thing| {
            let attributes = thing.attributes.iter().flatten();
            Arc::new(ThingFacts {
                name: thing.name.as_str().into(),
                type_name: thing.type_name.as_deref().map(Into::into),
                attributes: attributes
                    .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                    .collect(),
            })
        };
        let has = |word| {
            let mut words = self.connect_attributes.iter().flatten();
            words.any(|attribute| attribute == word)
        };
        let will = self.last_will_topic_arn.as_deref();
        let certificate = self.certificate.as_ref().map(Certificate::values);
        let certificate = certificate.transpose()?;
        let networks = self.networks.iter();
        let networks = networks.map(|(name, ranges)| (name.as_str(), ranges.as_slice()));
        let networks = Networks::read(networks).map_err(|error| format!("networks: {error}"))?;
        Ok(Context {
            client_id: client_id.into(),
            thing: self.thing.as_ref().filter(speaks).map(facts),
            certificate: certificate.unwrap_or_default().into(),
            source_ip: match &self.source_ip {
                Some(ip) => Some(
                    ip.parse()
                        .map_err(|_| format!("sourceIp: {ip:?} is no address"))?,
                ),
                None => None,
            },
            domain_name: self.domain_name.as_deref().map(Into::into),
            connect: ConnectAttributes {
                persistent: has("PersistentConnect"),
                last_will: (has("LastWill") || will.is_some())
                    .then(|| will.unwrap_or_default().into()),
            },
            now: self
                .now
                .as_deref()
                .map(|text| seconds("now", text))
                .transpose()?,
            posture: self.posture.known().into(),
            networks: networks.into(),
            only_denying: None,
            listener: self.listener,
            tls_version: self.tls_version,
        })
    }
}

/// Runs a test file. `unresolved_deny` wins over what the file says of it.
///
/// # Errors
/// When the file itself is not understood; a policy in it that is not is a failing case.
pub fn run(json: &str, unresolved_deny: Option<UnresolvedDeny>) -> Result<Report, VectorError> {
    if json.len() > FILE_MAX_BYTES {
        return Err(VectorError::TooLarge { bytes: json.len() });
    }
    let file: File<'_> = serde_json::from_str(json)?;
    if file.vectors.is_empty() {
        return Err(VectorError::Empty);
    }
    let failures = file.vectors.iter().filter_map(|vector| {
        let setting = unresolved_deny
            .or(vector.unresolved_deny)
            .or(file.unresolved_deny);
        vector.judge(setting.unwrap_or_default()).err()
    });
    let failures = failures.collect::<Vec<_>>();
    let total = file.vectors.len();
    Ok(Report {
        passed: total.saturating_sub(failures.len()),
        total,
        failures,
    })
}

impl Vector<'_> {
    fn judge(&self, unresolved_deny: UnresolvedDeny) -> Result<(), Failure> {
        let failure = |got, why| Failure {
            id: self.id.clone(),
            expected: self.expect,
            got,
            why,
        };
        let explanation = self
            .explain(unresolved_deny)
            .map_err(|why| failure(None, why))?;
        if explanation.0 == self.expect {
            Ok(())
        } else {
            Err(failure(Some(explanation.0), explanation.1))
        }
    }

    /// The decision and its grounds, or the refusal.
    fn explain(&self, unresolved_deny: UnresolvedDeny) -> Result<(Decision, String), String> {
        let mut policies = Vec::with_capacity(self.policies.len());
        for (index, document) in self.policies.iter().enumerate() {
            let name = format!("policy-{}", index + 1);
            let policy = Policy::parse_leniently(document.get())
                .map_err(|error| format!("{name}: {error}"))?;
            let name = name.parse().map_err(|error| format!("{error}"))?;
            policies.push(NamedPolicy {
                name,
                policy: Arc::new(policy),
            });
        }
        let action: Action = self.action.parse().map_err(|error| format!("{error}"))?;
        let (mut realm, kind, name) = request(&self.resource).ok_or_else(|| {
            let resource = shown(&self.resource, NAME_MAX_CHARS);
            format!(
                "resource {resource:?} is no arn:aws:iot:REGION:ACCOUNT:client/…, topic/…, topicfilter/… or thing/…, and not \"*\""
            )
        })?;
        realm.unresolved_deny = unresolved_deny;
        let grant = Grant::new(Arc::new(realm), policies.into(), self.context.context()?);
        let message = MessageFacts {
            size_bytes: self.context.message.size,
            qos: self.context.message.qos,
            retain: self.context.message.retain,
        };
        let explanation = grant.explain_as(action, kind, name, &message);
        Ok((explanation.decision, explanation.summary))
    }
}

/// Takes the ARN of a request apart.
fn request(arn: &str) -> Option<(Realm, Kind, &str)> {
    if arn == "*" {
        return Some((Realm::exact("", ""), Kind::Everything, arn));
    }
    let (region, rest) = arn.strip_prefix("arn:aws:iot:")?.split_once(':')?;
    let (account, resource) = rest.split_once(':')?;
    let (kind, name) = Kind::NAMED
        .into_iter()
        .find_map(|kind| Some((kind, resource.strip_prefix(kind.prefix())?)))
        .unwrap_or((Kind::Other, resource));
    Some((Realm::exact(region, account), kind, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(vectors: &str) -> String {
        format!("{{\"region\":\"eu-west-1\",\"account\":\"42\",\"vectors\":[{vectors}]}}")
    }

    fn case(id: &str, statement: &str, context: &str, resource: &str, expect: &str) -> String {
        format!(
            r#"{{"id":"{id}","policies":[{{"Version":"2012-10-17","Statement":{statement}}}],
            "context":{context},"action":"iot:Publish","resource":"arn:aws:iot:eu-west-1:42:{resource}",
            "expect":"{expect}","why":"","source":""}}"#
        )
    }

    const OWN: &str = r#"{"Effect":"Allow","Action":"iot:*",
        "Resource":"arn:aws:iot:eu-west-1:42:topic/${iot:Connection.Thing.ThingName}/${iot:Certificate.Subject.CommonName}"}"#;

    fn context(client_id: &str, attached: bool, attachment: &str) -> String {
        format!(
            r#"{{"clientId":"{client_id}","thing":{{"name":"pump","isAttached":{attached},
            "attachment":"{attachment}"}},"certificate":{{"subject":{{"CommonName":["x","y"]}}}}}}"#
        )
    }

    #[test]
    fn the_thing_speaks_as_aws_lets_it() {
        for (client_id, attached, attachment, expected) in [
            ("pump", true, "NON_EXCLUSIVE_THING", Decision::Allow),
            ("other", true, "NON_EXCLUSIVE_THING", Decision::ImplicitDeny),
            ("other", true, "EXCLUSIVE_THING", Decision::Allow),
            ("pump", false, "EXCLUSIVE_THING", Decision::ImplicitDeny),
        ] {
            let context = context(client_id, attached, attachment);
            let expect = format!("{expected:?}");
            let report = run(
                &file(&case("c", OWN, &context, "topic/pump/x", &expect)),
                None,
            )
            .unwrap();
            assert!(
                report.is_pass(),
                "{client_id} {attached} {attachment}: {report}"
            );
            assert_eq!(report.to_string(), "PASS 1 of 1");
        }
    }

    #[test]
    fn a_connection_and_a_message_can_be_said() {
        let facts = r#"{"clientId":"pump","now":"2026-11-25T12:30:00Z","listener":"wss","tlsVersion":"1.3",
            "sourceIp":"10.1.2.3","networks":{"plant":["10.0.0.0/8"]},
            "message":{"size":10,"qos":1,"retain":false},"posture":{"attested":true,"attestedUntil":1795609801},
            "certificate":{"keyKind":"P-256","enrolledBy":"claim","notBefore":"2026-11-25T11:30:00Z",
            "notAfter":"2026-11-26T12:30:00Z"},"why":"for the reader"}"#;
        for (condition, met) in [
            (r#""StringEquals":{"muster:Listener":"wss"}"#, true),
            (r#""StringEquals":{"muster:Listener":"mqtt"}"#, false),
            (r#""StringEquals":{"muster:TlsVersion":"1.3"}"#, true),
            (
                r#""ForAnyValue:StringEquals":{"muster:SourceNetwork":"plant"}"#,
                true,
            ),
            (r#""NumericLessThan":{"muster:MessageSize":"11"}"#, true),
            (r#""NumericLessThan":{"muster:MessageSize":"10"}"#, false),
            (r#""NumericEquals":{"muster:QoS":"1"}"#, true),
            (r#""Bool":{"muster:Retain":"false"}"#, true),
            (r#""Bool":{"muster:Attested":"true"}"#, true),
            (
                r#""StringEquals":{"muster:CertificateKeyKind":"P-256"}"#,
                true,
            ),
            (r#""StringEquals":{"muster:EnrolmentWay":"claim"}"#, true),
            (r#""NumericEquals":{"muster:CertificateAge":"3600"}"#, true),
            (
                r#""NumericEquals":{"muster:CertificateRemainingLife":"86400"}"#,
                true,
            ),
        ] {
            let statement = format!(
                r#"{{"Effect":"Allow","Action":"iot:Publish","Resource":"*","Condition":{{{condition}}}}}"#
            );
            let expect = if met { "Allow" } else { "ImplicitDeny" };
            let report = run(
                &file(&case("c", &statement, facts, "topic/t", expect)),
                None,
            );
            let report = report.unwrap();
            assert!(report.is_pass(), "{condition}: {report}");
        }
    }

    #[test]
    fn a_slip_in_what_is_known_is_no_pass() {
        for (slip, meant) in [
            (r#"{"clientID":"pump"}"#, "clientId"),
            (r#"{"thing":{"name":"a","isAttachd":true}}"#, "isAttached"),
            (r#"{"certificate":{"keykind":"P-256"}}"#, "keyKind"),
        ] {
            let report = run(
                &file(&case("c", OWN, slip, "topic/t", "ImplicitDeny")),
                None,
            );
            let report = report.unwrap().to_string();
            assert!(
                report.contains(&format!("did you mean {meant:?}?")),
                "{report}"
            );
        }
    }

    #[test]
    fn a_failing_case_is_one_line_with_its_grounds() {
        let context = context("pump", true, "");
        let condition = OWN.replace("\"Action\"", "\"Condition\":[],\"Action\"");
        let report = run(
            &file(
                &[
                    case("right", OWN, &context, "topic/pump/x", "Allow"),
                    case("wrong", OWN, &context, "topic/pump/x", "ImplicitDeny"),
                    case("foreign", OWN, &context, "topic/pump/y", "Allow"),
                    case(
                        "refused",
                        &condition,
                        &context,
                        "topic/pump/x",
                        "ImplicitDeny",
                    ),
                    case("kind", OWN, &context, "topic/x", "ImplicitDeny")
                        .replace("arn:aws:iot:eu-west-1:42:topic/x", "topic/x"),
                ]
                .join(","),
            ),
            None,
        )
        .unwrap();
        let text = report.to_string();
        let lines = text.lines().collect::<Vec<_>>();
        let begins = [
            "wrong: expected ImplicitDeny, got Allow: allow: statement 1 of policy policy-1",
            "foreign: expected Allow, got ImplicitDeny: implicit deny: no statement allows",
            "refused: expected ImplicitDeny, got a refusal: policy-1: line 1, column 67: Condition is a list",
            "kind: expected ImplicitDeny, got a refusal: resource \"topic/x\"",
            "PASS 1 of 5",
        ];
        assert_eq!(lines.len(), begins.len(), "{text}");
        for (line, begin) in lines.iter().zip(begins) {
            assert!(line.starts_with(begin), "{line}\n{begin}");
        }
    }

    #[test]
    fn regions_and_accounts_are_strict() {
        let context = context("pump", true, "");
        for foreign in [
            OWN.replace("eu-west-1", "us-east-1"),
            OWN.replace(":42:", ":43:"),
        ] {
            let vector = case("c", &foreign, &context, "topic/pump/x", "ImplicitDeny");
            assert!(run(&file(&vector), None).unwrap().is_pass());
        }
    }

    #[test]
    fn a_file_that_tests_nothing_or_is_not_understood_is_an_error() {
        assert!(matches!(run(&file(""), None), Err(VectorError::Empty)));
        let vector = case("c", OWN, "{}", "topic/x", "Alow");
        let error = run(&file(&vector), None).unwrap_err().to_string();
        assert!(error.contains("unknown variant `Alow`"), "{error}");
        assert!(matches!(run("{}", None), Err(VectorError::Format(_))));
        assert!(matches!(
            run(&" ".repeat(FILE_MAX_BYTES + 1), None),
            Err(VectorError::TooLarge { .. })
        ));
    }
}
