use std::net::IpAddr;
use std::time::SystemTime;

use broker::topic::{TopicFilter, TopicName};
use ca::CertificateId;
use fleet::{CertificateStatus, StandingNow, ThingName};
use http::Method;
use policy::{
    Action, ConnectAttributes, Context, Decision, Explanation, Grant, Listener, MessageFacts,
    Posture, TlsVersion,
};
use serde::{Deserialize, Serialize};

use super::moment;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::page::MAX_PAGE_ITEMS;
use crate::rooms::Rooms;

/// Digits of a certificate's id that are told.
const SHORT_ID_CHARS: usize = 12;

/// Other certificates of a thing that the sentence names.
const OTHERS_TOLD: usize = 3;

/// Longest client id or topic explained: MQTT's own bound of a string.
const MAX_NAME_BYTES: usize = 65_535;

pub(super) const OPERATION: Operation = Operation {
    name: "ExplainPolicy",
    method: Method::POST,
    path: "/muster/v1/policies/explain",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_name: ThingName,
    action: String,
    /// Topic name, or filter for `subscribe`; for `connect` there is none.
    topic: Option<String>,
    /// The thing's name where it is left out; nothing where the listener is `https`.
    client_id: Option<String>,
    /// The certificate it comes with, by the first digits of its id; an active one where it is left out.
    certificate: Option<String>,
    /// The moment it is judged at, for conditions on time; now where it is left out.
    at: Option<String>,
    /// Where the connection comes from.
    source_ip: Option<IpAddr>,
    /// Bytes of the message's payload.
    message_size: Option<usize>,
    /// Its quality of service, or the one that a subscription asks for.
    qos: Option<u8>,
    /// Its retain flag.
    retain: Option<bool>,
    /// Where the connection comes in: `mqtt`, `wss` or `https`.
    listener: Option<String>,
    /// `1.2` or `1.3`.
    tls_version: Option<String>,
    /// The server name that the handshake asked for.
    domain_name: Option<String>,
    /// Whether the session outlives its connection.
    #[serde(default)]
    persistent: bool,
    /// The topic of its will.
    will_topic: Option<String>,
    /// In place of what is known of the device's health.
    #[serde(default)]
    posture: AssumedPosture,
}

/// What a device's health is taken to be; what is left out is as it is known.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct AssumedPosture {
    quarantined: Option<bool>,
    attested: Option<bool>,
    firmware_name: Option<String>,
    firmware_version: Option<String>,
    /// Seconds.
    violation_age: Option<u32>,
}

impl AssumedPosture {
    fn over(&self, known: &Posture, now: Option<i64>) -> Posture {
        let text = |word: &Option<String>| word.as_deref().map(Into::into);
        let age = self.violation_age.map(i64::from);
        Posture {
            quarantined: self.quarantined.or(known.quarantined),
            attested: self.attested.or(known.attested),
            attested_until: known.attested_until.filter(|_| self.attested.is_none()),
            firmware_name: text(&self.firmware_name).or_else(|| known.firmware_name.clone()),
            firmware_version: text(&self.firmware_version)
                .or_else(|| known.firmware_version.clone()),
            last_violation: age
                .and_then(|age| now?.checked_sub(age))
                .or(known.last_violation),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_name: ThingName,
    certificate_id: CertificateId,
    /// Only an active certificate can use what its policies allow.
    certificate_status: CertificateStatus,
    /// Whether it is active and within its life at the moment that was asked for.
    certificate_usable: bool,
    /// What the thing's other certificates come to, each with its own policies.
    other_certificates: Vec<Other>,
    /// The explanation for people.
    text: String,
    #[serde(flatten)]
    explanation: Explanation,
}

/// Another certificate of the same thing.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Other {
    certificate_id: CertificateId,
    certificate_usable: bool,
    decision: Decision,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    let action: Action = body
        .action
        .parse()
        .map_err(|error| ApiError::invalid(format!("action: {error}")))?;
    let listener = listener(body.listener.as_deref())?;
    // Over HTTPS there is none.
    let client_id = body.client_id.unwrap_or_else(|| match listener {
        Some(Listener::Https) if action != Action::Connect => String::new(),
        _ => body.thing_name.to_string(),
    });
    let name = match (action, body.topic) {
        (Action::Connect, None) => client_id.clone(),
        (Action::Connect, Some(_)) => {
            return Err(ApiError::invalid(
                "topic: connecting has none; give a clientId to explain another than the thing's name",
            ));
        }
        (_, Some(topic)) => topic,
        // It acts on everything, and on nothing by name.
        (Action::ListRetainedMessages, None) => "*".to_owned(),
        (_, None) => {
            return Err(ApiError::invalid(format!(
                "topic is missing: {action} is judged by it"
            )));
        }
    };
    judged_as(action, &name)?;
    if name.len().max(client_id.len()) > MAX_NAME_BYTES {
        return Err(ApiError::invalid(format!(
            "topic and clientId have at most {MAX_NAME_BYTES} bytes"
        )));
    }

    let at = match &body.at {
        None => call.now,
        Some(text) => moment::read("at", text)?,
    };
    let tls_version = tls_version(body.tls_version.as_deref())?;
    let connect = connect_attributes(rooms, body.persistent, body.will_topic.as_deref())?;
    let message = MessageFacts {
        size_bytes: body.message_size,
        qos: body.qos,
        retain: body.retain,
    };
    let will = body.will_topic.as_deref();
    let will = will.filter(|_| action == Action::Connect);
    known_of(action, listener, &message, will.is_some())?;
    let explained = |certificate: &CertificateId, status| {
        let standing = rooms.fleet.standing(certificate)?.now();
        let known = standing.context(&client_id, at);
        let context = Context {
            source_ip: body.source_ip,
            listener,
            tls_version,
            domain_name: body.domain_name.as_deref().map(Into::into),
            connect: connect.clone(),
            posture: body.posture.over(&known.posture, known.now).into(),
            ..known
        };
        let realm = rooms.fleet.realm().clone();
        let grant = Grant::new(realm, standing.policies.clone(), context);
        // As the broker: what is to be retained needs both, and a will is judged when its client connects.
        let retained = (body.retain == Some(true)).then_some(Action::RetainPublish);
        let explanation = match (action, will) {
            (Action::Connect, Some(topic)) => {
                let publishes = [Some(Action::Publish), retained].into_iter().flatten();
                let publishes = publishes.map(|action| (action, topic, message));
                grant.explain_each((action, &name, MessageFacts::default()), publishes)
            }
            (Action::Publish, _) => {
                let retained = retained.map(|action| (action, name.as_str(), message));
                grant.explain_each((action, &name, message), retained)
            }
            _ => grant.explain_for(action, &name, &message),
        };
        Ok::<_, ApiError>((explanation, unusable(&standing, status, at)))
    };

    let all = certificates(rooms, &body.thing_name)?;
    let (certificate, status) = chosen(&all, body.certificate.as_deref(), &body.thing_name)?;
    let (explanation, unusable) = explained(&certificate, status)?;
    let mut text = match &unusable {
        Some(why) => format!(
            "{why}, so it can do nothing, whatever its policies say; they say: {explanation}"
        ),
        None => explanation.to_string(),
    };
    let mut others = Vec::new();
    for (id, status) in all.iter().filter(|(id, _)| *id != certificate) {
        let (other, unusable) = explained(id, *status)?;
        others.push(Other {
            certificate_id: *id,
            certificate_usable: unusable.is_none(),
            decision: other.decision,
        });
    }
    let usable = others.iter().filter(|other| other.certificate_usable);
    for other in usable.take(OTHERS_TOLD) {
        let (this, that) = (short(&certificate), short(&other.certificate_id));
        let same = if other.decision == explanation.decision {
            "the same"
        } else {
            "otherwise"
        };
        text.push_str(&format!(
            "; so by certificate {this}; by its certificate {that} {same}: {} (--certificate {that})",
            other.decision
        ));
    }
    Answer::json(&Output {
        thing_name: body.thing_name,
        certificate_id: certificate,
        certificate_status: status,
        certificate_usable: unusable.is_none(),
        other_certificates: others,
        text,
        explanation,
    })
}

/// As much of an id as tells a thing's certificates apart.
fn short(id: &CertificateId) -> String {
    id.to_string().chars().take(SHORT_ID_CHARS).collect()
}

/// Why a certificate can do nothing at a moment, if so.
fn unusable(standing: &StandingNow, status: CertificateStatus, at: SystemTime) -> Option<String> {
    if status != CertificateStatus::Active || standing.status != Some(CertificateStatus::Active) {
        // Active itself, and signed by an authority that is switched off.
        let said = match (status, standing.status) {
            (CertificateStatus::Active, _) => "not active: the authority that signed it is not",
            (status, _) => status.as_str(),
        };
        return Some(format!("its certificate is {said}"));
    }
    if at < standing.not_before {
        return Some("its certificate is not valid yet then".to_owned());
    }
    (at > standing.not_after).then(|| "its certificate has ended by then".to_owned())
}

fn listener(word: Option<&str>) -> Result<Option<Listener>, ApiError> {
    Ok(Some(match word {
        None => return Ok(None),
        Some("mqtt") => Listener::Mqtt,
        Some("wss") => Listener::Wss,
        Some("https") => Listener::Https,
        Some(_) => return Err(ApiError::invalid("listener: mqtt, wss or https")),
    }))
}

fn tls_version(word: Option<&str>) -> Result<Option<TlsVersion>, ApiError> {
    Ok(Some(match word {
        None => return Ok(None),
        Some("1.2") => TlsVersion::V1_2,
        Some("1.3") => TlsVersion::V1_3,
        Some(_) => return Err(ApiError::invalid("tlsVersion: 1.2 or 1.3")),
    }))
}

/// What CONNECT asked for, as the broker tells policies of it.
fn connect_attributes(
    rooms: &Rooms,
    persistent: bool,
    will: Option<&str>,
) -> Result<ConnectAttributes, ApiError> {
    let will = will.map(|topic| {
        judged_as(Action::Publish, topic)?;
        let account = &rooms.fleet.realm().account;
        Ok::<_, ApiError>(format!("arn:aws:iot::{account}:topic/{topic}").into())
    });
    Ok(ConnectAttributes {
        persistent,
        last_will: will.transpose()?,
    })
}

/// What is said of a message where there is none, or of a way in on which nobody asks for the action, would be judged
/// as if it were known.
fn known_of(
    action: Action,
    listener: Option<Listener>,
    message: &MessageFacts,
    has_will: bool,
) -> Result<(), ApiError> {
    let published = matches!(
        action,
        Action::Publish | Action::RetainPublish | Action::Receive
    ) || has_will;
    let subscribed = action == Action::Subscribe;
    let said = [
        ("messageSize", message.size_bytes.is_some(), published),
        ("retain", message.retain.is_some(), published),
        ("qos", message.qos.is_some(), published || subscribed),
    ];
    if let Some((field, ..)) = said.into_iter().find(|(_, said, known)| *said && !known) {
        let mend = match action {
            Action::Connect => "; of a will it has, with a willTopic",
            _ => "",
        };
        return Err(ApiError::invalid(format!(
            "{field}: {action} has none, so no policy can ask for it there: leave it out{mend}"
        )));
    }
    let only_mqtt = matches!(
        action,
        Action::Connect | Action::Subscribe | Action::Receive
    );
    if listener == Some(Listener::Https) && only_mqtt {
        return Err(ApiError::invalid(format!(
            "listener: nobody asks for {action} over HTTPS; mqtt or wss"
        )));
    }
    Ok(())
}

/// What no packet can ask for has no answer: "allow" for it would be none.
fn judged_as(action: Action, topic: &str) -> Result<(), ApiError> {
    let refused = match action {
        Action::Publish | Action::Receive | Action::RetainPublish | Action::GetRetainedMessage
            if topic.contains(['+', '#']) =>
        {
            Some(format!(
                "a topic name has no + or #, and {action} is judged by one; name one topic, or ask about the filter with the action subscribe"
            ))
        }
        Action::Publish | Action::Receive | Action::RetainPublish | Action::GetRetainedMessage => {
            topic
                .parse::<TopicName>()
                .err()
                .map(|error| error.to_string())
        }
        Action::Subscribe => topic
            .parse::<TopicFilter>()
            .err()
            .map(|error| error.to_string()),
        _ => None,
    };
    match refused {
        Some(why) => Err(ApiError::invalid(format!("topic {topic:?}: {why}"))),
        None => Ok(()),
    }
}

/// The certificates of a thing, active ones first.
fn certificates(
    rooms: &Rooms,
    thing: &ThingName,
) -> Result<Vec<(CertificateId, CertificateStatus)>, ApiError> {
    rooms.fleet.thing(thing)?;
    let mut all = Vec::new();
    for id in rooms.fleet.principals(thing, None, MAX_PAGE_ITEMS)?.items {
        all.push((id, rooms.fleet.certificate(&id)?.status));
    }
    all.sort_by_key(|(_, status)| *status != CertificateStatus::Active);
    Ok(all)
}

/// The certificate whose policies are explained.
fn chosen(
    all: &[(CertificateId, CertificateStatus)],
    begin: Option<&str>,
    thing: &ThingName,
) -> Result<(CertificateId, CertificateStatus), ApiError> {
    let named = |id: &CertificateId| begin.is_none_or(|begin| id.to_string().starts_with(begin));
    let mut found = all.iter().filter(|(id, _)| named(id));
    if let (Some(begin), first, second) = (begin, found.next(), found.next())
        && (first.is_none() || second.is_some())
    {
        let shown: String = begin.chars().take(64).collect();
        let those: Vec<String> = all.iter().map(|(id, _)| short(id)).collect();
        return Err(ApiError::invalid(format!(
            "certificate {shown:?}: the beginning of the id of one certificate of thing {thing}, which has {}",
            if those.is_empty() {
                "none".to_owned()
            } else {
                those.join(", ")
            }
        )));
    }
    let mut found = all.iter().filter(|(id, _)| named(id));
    found.next().copied().ok_or_else(|| {
        ApiError::invalid(format!(
            "thing {thing} has no certificate, so it can do nothing; give it one (device replace)"
        ))
    })
}
