//! Random questions, each turn chosen by a byte: small words, so that patterns and names meet often.

use std::net::IpAddr;
use std::sync::Arc;

use super::Case;
use super::documents::document;
use policy::{
    CertificateValues, ConnectAttributes, Context, Field, Holder, Listener, MessageFacts, Networks,
    Posture, Realm, ThingFacts, TlsVersion, UnresolvedDeny,
};

/// What is chosen by, byte for byte; no more bytes choose the first of all.
pub(super) struct Bytes<'b>(std::slice::Iter<'b, u8>);

impl<'b> Bytes<'b> {
    pub(super) fn new(bytes: &'b [u8]) -> Self {
        Self(bytes.iter())
    }

    pub(super) fn below(&mut self, count: usize) -> usize {
        self.0.next().map_or(0, |byte| usize::from(*byte) % count)
    }

    /// Once in `count` times.
    pub(super) fn seldom(&mut self, count: usize) -> bool {
        self.below(count) == count - 1
    }

    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    fn maybe<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        match self.below(of.len() + 1) {
            0 => None,
            at => Some(of[at - 1]),
        }
    }

    /// A text of up to `max` pieces.
    pub(super) fn text(&mut self, pieces: &[&str], max: usize) -> String {
        (0..self.below(max + 1)).map(|_| self.one(pieces)).collect()
    }
}

const VALUES: &[&str] = &[
    "a",
    "b",
    "ab",
    "A",
    "a/b",
    "",
    "*",
    "a?",
    "+",
    "#",
    "é",
    "$",
    "ΑΣ",
    "ας",
    "1",
    "12",
    "10.1.2.3",
    "true",
    "2026-03-01T12:00:00Z",
];
const NETWORKS: &[(&str, &[&str])] = &[
    ("plant", &["10.1.0.0/16", "2001:db8::/32"]),
    ("host", &["10.1.2.3"]),
    ("all", &["0.0.0.0/0", "::/0"]),
];
/// A Sunday.
const NOON: i64 = 1_772_366_400;

pub(super) fn case(bytes: &mut Bytes<'_>) -> Case {
    let action = bytes.one(&[
        "Publish",
        "Subscribe",
        "Connect",
        "Receive",
        "Subscribe",
        "Publish",
        "RetainPublish",
        "GetThingShadow",
        "ListRetainedMessages",
        "AssumeRoleWithCertificate",
        "UpdateJobExecution",
    ]);
    let documents = 0..=bytes.below(2);
    let documents = documents.map(|_| document(bytes, action)).collect();
    let name = match action {
        "Subscribe" => filter(bytes),
        _ => bytes.text(
            &[
                "a",
                "a",
                "b",
                "/",
                "ab",
                "é",
                "*",
                "?",
                "+",
                "#",
                ":",
                "$",
                "A",
                "${iot:ClientId}",
            ],
            6,
        ),
    };
    Case {
        documents,
        realm: Realm {
            region: bytes.maybe(&["local", "us-east-1"]).map(Into::into),
            account: bytes.one(&["1", "12"]).into(),
            unresolved_deny: bytes.one(&[UnresolvedDeny::Open, UnresolvedDeny::Closed]),
            textual_subscriptions: bytes.seldom(3),
        },
        context: context(bytes),
        networks: NETWORKS,
        action,
        name,
        message: MessageFacts {
            size_bytes: bytes.maybe(&[0, 1, 12]),
            qos: bytes.maybe(&[0, 1, 2]),
            retain: bytes.maybe(&[true, false]),
        },
    }
}

fn filter(bytes: &mut Bytes<'_>) -> String {
    let mut levels: Vec<String> = Vec::new();
    if bytes.seldom(6) {
        levels.extend(["$share".to_owned(), bytes.one(&["a", "g"]).to_owned()]);
    }
    for _ in 0..=bytes.below(4) {
        levels.push(
            bytes
                .one(&["a", "+", "b", "", "ab", "a*", "?", "é", "$a", "$"])
                .to_owned(),
        );
    }
    if bytes.seldom(3) {
        levels.push("#".to_owned());
    }
    levels.join("/")
}

fn context(bytes: &mut Bytes<'_>) -> Context {
    let text = |text: Option<&str>| text.map(Arc::<str>::from);
    let attributes = [("x", bytes.maybe(VALUES)), ("y", bytes.maybe(VALUES))];
    let thing = ThingFacts {
        name: bytes.one(VALUES).into(),
        type_name: text(bytes.maybe(VALUES)),
        attributes: attributes
            .into_iter()
            .filter_map(|(name, value)| Some((name.into(), value?.into())))
            .collect(),
    };
    let fields = [
        (Holder::Subject, Field::CommonName),
        (Holder::Subject, Field::Organization),
        (Holder::Issuer, Field::CommonName),
        (Holder::Subject, Field::DnsName),
        (Holder::Subject, Field::IpAddress),
    ];
    let fields = (0..bytes.below(9)).map(|_| {
        let (holder, field) = bytes.one(&fields);
        (holder, field, bytes.one(VALUES).into())
    });
    let fields = fields.collect();
    let will = match bytes.below(4) {
        0 => Some("".to_owned()),
        1 => Some(format!(
            "arn:aws:iot:local:1:topic/{}",
            bytes.text(&["a", "b", "/", ":"], 3)
        )),
        _ => None,
    };
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    Context {
        only_denying: None,
        client_id: bytes.one(VALUES).into(),
        thing: (!bytes.seldom(4)).then(|| thing.into()),
        certificate: Arc::new(CertificateValues {
            id: text(bytes.maybe(&["ab", "cd"])),
            serial_number: text(bytes.maybe(&["12", "1"])),
            fields,
            not_before: bytes.maybe(&[NOON - 12, NOON - 86_400, NOON + 1]),
            not_after: bytes.maybe(&[NOON + 12, NOON + 86_400, NOON - 1]),
            key_kind: text(bytes.maybe(&["P-256", "RSA-2048"])),
            enrolled_by: text(bytes.maybe(VALUES)),
        }),
        source_ip: bytes
            .maybe(&["10.1.2.3", "10.2.2.3", "2001:db8::1", "::ffff:10.1.2.3"])
            .map(address),
        domain_name: text(bytes.maybe(&["a", "b"])),
        connect: ConnectAttributes {
            persistent: bytes.seldom(2),
            last_will: will.map(Into::into),
        },
        now: bytes.maybe(&[NOON, NOON + 1, NOON - 43_201, 12]),
        networks: networks(),
        listener: bytes.maybe(&[Listener::Mqtt, Listener::Https, Listener::Wss]),
        tls_version: bytes.maybe(&[TlsVersion::V1_2, TlsVersion::V1_3]),
        posture: Arc::new(Posture {
            firmware_name: text(bytes.maybe(VALUES)),
            firmware_version: text(bytes.maybe(VALUES)),
            quarantined: bytes.maybe(&[true, false]),
            attested: bytes.maybe(&[true, false]),
            attested_until: bytes.maybe(&[NOON, NOON + 1, NOON + 12]),
            last_violation: bytes.maybe(&[NOON - 12, NOON + 1]),
        }),
    }
}

fn networks() -> Arc<Networks> {
    let ranges = |ranges: &[&str]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
    let owned: Vec<_> = NETWORKS
        .iter()
        .map(|(name, all)| (*name, ranges(all)))
        .collect();
    let named = owned
        .iter()
        .map(|(name, ranges)| (*name, ranges.as_slice()));
    Networks::read(named).unwrap().into()
}

/// Questions to a document that anybody wrote.
pub(super) fn questions(document: &str) -> impl Iterator<Item = Case> {
    let known: Vec<u8> = (0..64_u8).map(|n| n * 3 + 1).collect();
    let asked = [
        ("Connect", "lamp"),
        ("Publish", "dt/lamp/x"),
        ("Subscribe", "cmd/lamp/#"),
        ("Receive", "a"),
        ("GetThingShadow", "lamp"),
    ];
    let asked = asked
        .into_iter()
        .flat_map(|asked| [(asked, 0), (asked, 64)]);
    asked.map(move |((action, name), known_bytes)| Case {
        documents: vec![document.to_owned()],
        realm: Realm::live("1"),
        context: context(&mut Bytes::new(&known[..known_bytes])),
        networks: NETWORKS,
        action,
        name: name.to_owned(),
        message: MessageFacts::default(),
    })
}
