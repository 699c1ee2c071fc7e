//! Publish, GetRetainedMessage, ListRetainedMessages.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use broker::codec::{MessageProperties, PayloadFormat, Qos, Str, UserProperties};
use broker::topic::TopicName;
use broker::{Post, PostError, Poster};
use data_encoding::BASE64;
use http::{HeaderMap, StatusCode};
use policy::{Action, MessageFacts};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{Asked, Speaker, on_a_thread};
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::{find, read};
use crate::page::{MAX_TOKEN_ITEM_BYTES, PageRequest};

/// Most retained messages of a page.
const PAGE_MESSAGES: usize = 200;
const USER_PROPERTIES: &str = "x-amz-mqtt5-user-properties";
const PAYLOAD_FORMAT: &str = "x-amz-mqtt5-payload-format-indicator";
const CORRELATION_DATA: &str = "x-amz-mqtt5-correlation-data";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Retained<'a> {
    topic: &'a str,
    /// Base64.
    payload: String,
    qos: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified_time: Option<u64>,
    /// Base64 of a JSON list.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_properties: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetainedSummary<'a> {
    topic: &'a str,
    payload_size: usize,
    qos: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_modified_time: Option<u64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetainedPage<'a> {
    retained_topics: Vec<RetainedSummary<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// Publishes a message; answers when it is as safe as one that is answered with PUBACK.
pub(super) async fn publish(asked: Asked) -> Result<Answer, ApiError> {
    let post = read_post(&asked)?;
    let poster = match &asked.speaker {
        Speaker::Device(device) => Poster::Device(Arc::clone(&device.standing)),
        Speaker::Operator(_) => Poster::Service,
    };
    let broker = asked.rooms.broker.clone();
    broker.check_post(&post, &poster).map_err(told)?;
    let asked = Arc::new(asked);
    let (asking, topic, facts) = (Arc::clone(&asked), post.topic.clone(), post.facts());
    on_a_thread(move || judge(&asking, topic.as_str(), &facts)).await?;
    // Begun, it is done to its end: half of its receivers are not to have it because the publisher has hung up.
    let (publisher, topic, facts) = (Arc::clone(&asked), post.topic.clone(), post.facts());
    let may = move || may(&publisher, topic.as_str(), &facts);
    let publishing = tokio::spawn(async move {
        broker.post(post, poster, may).await?;
        asked.log();
        Ok(())
    });
    let published = publishing.await;
    published
        .map_err(|error| ApiError::internal(&error))?
        .map_err(told)?;
    Answer::json(&json!({"message": "OK"}))
}

/// What a message asks for, in the order in which MQTT asks.
fn actions(facts: &MessageFacts) -> impl Iterator<Item = Action> {
    let retain = (facts.retain == Some(true)).then_some(Action::RetainPublish);
    std::iter::once(Action::Publish).chain(retain)
}

fn judge(asked: &Asked, topic: &str, facts: &MessageFacts) -> Result<(), ApiError> {
    for action in actions(facts) {
        asked.require(action, topic, facts).inspect_err(|_| {
            let of_retaining = action == Action::RetainPublish;
            asked.rooms.broker.count_denied_post(of_retaining);
        })?;
    }
    Ok(())
}

/// Whether it may be published now. An operator's request is judged once.
fn may(asked: &Asked, topic: &str, facts: &MessageFacts) -> bool {
    let Speaker::Device(device) = &asked.speaker else {
        return true;
    };
    let at = SystemTime::now();
    let grant = device.grant(&asked.rooms, &asked.peer, at);
    let mut actions = actions(facts);
    device.standing.now().is_active(at)
        && actions.all(|action| grant.decide_for(action, topic, facts).is_allow())
}

fn told(error: PostError) -> ApiError {
    let text = error.to_string();
    match error {
        PostError::Refused(_) | PostError::Full(_) => ApiError::invalid(text),
        PostError::Behind => ApiError::unavailable(&text),
        PostError::TooMany => {
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "ThrottlingException", text)
        }
        PostError::NoLonger => ApiError::forbidden("ForbiddenException", text),
    }
}

fn read_post(asked: &Asked) -> Result<Post, ApiError> {
    let query = |name| find(&asked.query, name);
    let topic: TopicName = read("topic", asked.path("topic"))?;
    let qos = match query("qos") {
        None | Some("0") => Qos::AtMostOnce,
        Some("1") => Qos::AtLeastOnce,
        Some(_) => return Err(ApiError::invalid("qos is 0 or 1")),
    };
    let retain = query("retain").map(|text| read("retain", text));
    let response = query("responseTopic").map(|text| read("responseTopic", text));
    let expiry = query("messageExpiry").map(|text| read("messageExpiry", text));
    let properties = MessageProperties {
        payload_format: match header(&asked.headers, PAYLOAD_FORMAT)? {
            None => None,
            Some("UNSPECIFIED_BYTES") => Some(PayloadFormat::Bytes),
            Some("UTF8_DATA") if std::str::from_utf8(&asked.body).is_err() => {
                return Err(ApiError::invalid(format!(
                    "{PAYLOAD_FORMAT} says UTF8_DATA and the payload is no UTF-8"
                )));
            }
            Some("UTF8_DATA") => Some(PayloadFormat::Utf8),
            Some(_) => {
                return Err(ApiError::invalid(format!(
                    "{PAYLOAD_FORMAT} is UNSPECIFIED_BYTES or UTF8_DATA"
                )));
            }
        },
        content_type: query("contentType")
            .map(|text| mqtt_text("contentType", text))
            .transpose()?,
        response_topic: response.transpose()?,
        correlation_data: match header(&asked.headers, CORRELATION_DATA)? {
            Some(text) => Some(mqtt_bytes(
                CORRELATION_DATA,
                base64(CORRELATION_DATA, text)?,
            )?),
            None => None,
        },
        user: match header(&asked.headers, USER_PROPERTIES)? {
            Some(text) => user_properties(&base64(USER_PROPERTIES, text)?)?,
            None => UserProperties::new(),
        },
    };
    Ok(Post {
        topic,
        payload: asked.body.clone(),
        qos,
        retain: retain.transpose()?.unwrap_or(false),
        properties,
        expiry_s: expiry.transpose()?,
    })
}

fn header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    match (values.next().map(|value| value.to_str()), values.next()) {
        (None, _) => Ok(None),
        (Some(Ok(value)), None) => Ok(Some(value)),
        _ => Err(ApiError::invalid(format!(
            "header {name} is there once at most, in ASCII"
        ))),
    }
}

fn base64(name: &str, text: &str) -> Result<Vec<u8>, ApiError> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|error| ApiError::invalid(format!("header {name} is no base64: {error}")))
}

/// What MQTT calls a UTF-8 encoded string: without NUL, and not too long for its two bytes of length.
fn mqtt_text(name: &str, text: &str) -> Result<Str, ApiError> {
    if text.contains('\0') {
        return Err(ApiError::invalid(format!("{name} holds the character NUL")));
    }
    mqtt_bytes(name, text.as_bytes().to_vec())?;
    Ok(Str::from(text))
}

fn mqtt_bytes(name: &str, bytes: Vec<u8>) -> Result<bytes::Bytes, ApiError> {
    if bytes.len() > usize::from(u16::MAX) {
        return Err(ApiError::invalid(format!(
            "{name} has more than 65,535 bytes"
        )));
    }
    Ok(bytes.into())
}

/// A list of objects, each with properties in it: `[{"a": "1"}, {"b": "2"}]`. AWS's command line sends it as a text once
/// more.
fn user_properties(text: &[u8]) -> Result<UserProperties, ApiError> {
    let wrong = |why: &dyn std::fmt::Display| {
        ApiError::invalid(format!(
            "header {USER_PROPERTIES} is the base64 of a JSON list such as [{{\"name\": \"value\"}}]: {why}"
        ))
    };
    let text = match serde_json::from_slice(text) {
        Ok(Value::String(inner)) => inner.into_bytes(),
        _ => text.to_vec(),
    };
    let list: Vec<Map<String, Value>> = serde_json::from_slice(&text).map_err(|e| wrong(&e))?;
    let mut properties = UserProperties::new();
    for (name, value) in list.into_iter().flatten() {
        let Value::String(value) = value else {
            return Err(wrong(&format!(
                "the value of {:?} is no text",
                name.chars().take(80).collect::<String>()
            )));
        };
        properties.push((
            mqtt_text(USER_PROPERTIES, &name)?,
            mqtt_text(USER_PROPERTIES, &value)?,
        ));
    }
    Ok(properties)
}

/// Milliseconds since 1970.
fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.as_ref().map_or(0, Duration::as_millis);
    u64::try_from(millis).unwrap_or(u64::MAX)
}

pub(super) fn get_retained(asked: &Asked) -> Result<Answer, ApiError> {
    let topic: TopicName = read("topic", asked.path("topic"))?;
    let nothing = MessageFacts::default();
    asked.require(Action::GetRetainedMessage, topic.as_str(), &nothing)?;
    let Some(message) = asked.rooms.broker.retained(topic.as_str()) else {
        return Err(ApiError::not_found("nothing is retained under this topic"));
    };
    let user = message.properties.as_deref().map(|all| &all.user);
    let user = user.filter(|user| !user.is_empty()).map(|user| {
        let one = |(name, value): &(Str, Str)| json!({(&**name): &**value});
        let list: Value = user.iter().map(one).collect();
        BASE64.encode(list.to_string().as_bytes())
    });
    Answer::json(&Retained {
        topic: message.topic.as_str(),
        payload: BASE64.encode(&message.payload),
        qos: message.qos as u8,
        last_modified_time: message.since.map(millis),
        user_properties: user,
    })
}

pub(super) fn list_retained(asked: &Asked) -> Result<Answer, ApiError> {
    asked.require(Action::ListRetainedMessages, "*", &MessageFacts::default())?;
    let size = find(&asked.query, "maxResults");
    let within = |text: &str| text.parse().is_ok_and(|n| (1..=PAGE_MESSAGES).contains(&n));
    if size.is_some_and(|size| !within(size)) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "InvalidRequestException",
            format!("maxResults is 1 to {PAGE_MESSAGES}"),
        ));
    }
    let list = asked.operation.name.to_owned();
    let page = PageRequest::read(list, size, find(&asked.query, "nextToken"))?;
    let most = page.limit.min(PAGE_MESSAGES);
    let broker = &asked.rooms.broker;
    let (messages, next) = broker.retained_behind(page.after.as_deref(), most);
    let summaries = messages.iter().map(|message| RetainedSummary {
        topic: message.topic.as_str(),
        payload_size: message.payload_bytes,
        qos: message.qos as u8,
        last_modified_time: message.since.map(millis),
    });
    Answer::json(&RetainedPage {
        retained_topics: summaries.collect(),
        next_token: page.token(next.map(shortened)),
    })
}

/// A topic to go on behind. One that is too long for a token stands for all that begin like it.
fn shortened(mut topic: String) -> String {
    if topic.len() > MAX_TOKEN_ITEM_BYTES {
        topic.truncate(topic.floor_char_boundary(MAX_TOKEN_ITEM_BYTES - char::MAX.len_utf8()));
        topic.push(char::MAX);
    }
    topic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_goes_on_behind_a_topic_of_any_length() {
        assert_eq!(shortened("dt/a".into()), "dt/a");
        let long = "é".repeat(5_000);
        let short = shortened(long.clone());
        assert!(short > long && short.len() <= MAX_TOKEN_ITEM_BYTES);
        let page = PageRequest::read("l".into(), None, None).unwrap();
        let token = page.token(Some(short.clone())).unwrap();
        let next = PageRequest::read("l".into(), None, Some(&token)).unwrap();
        assert_eq!(next.after, Some(short));
    }

    #[test]
    fn user_properties_are_a_list_of_objects() {
        let read = |text: &str| user_properties(text.as_bytes());
        let pair = |name: &str, value: &str| (Str::from(name), Str::from(value));
        assert_eq!(
            read(r#"[{"a": "1", "b": "2"}, {"a": "3"}]"#).unwrap(),
            [pair("a", "1"), pair("b", "2"), pair("a", "3")]
        );
        assert_eq!(read("[]").unwrap(), []);
        let once_more = json!(r#"[{"a": "1"}]"#).to_string();
        assert_eq!(read(&once_more).unwrap(), [pair("a", "1")]);
        for wrong in [
            "",
            "{}",
            r#"{"a": "1"}"#,
            r#"[{"a": 1}]"#,
            r#"["a"]"#,
            r#"[{"a": "\u0000"}]"#,
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let long = "x".repeat(65_536);
        assert!(read(&format!(r#"[{{"a": "{long}"}}]"#)).is_err());
    }
}
