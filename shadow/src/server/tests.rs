//! The room on a temporary store, with the real registry beneath it.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use ::ca::{Authority, AuthorityConfig};
use ::fleet::Fleet;
use ::policy::Realm;
use ::store::Store;
use serde_json::{Value, json};

use super::*;
use crate::request::{REQUEST_MAX_BYTES, Rejection};
use crate::topic::{Place, Verb};

/// Longest wait for something on another thread; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);

struct House {
    directory: tempfile::TempDir,
    room: Option<Room>,
}

struct Room {
    store: Store,
    fleet: Fleet,
    shadows: Shadows,
    published: Receiver<Message>,
}

fn make(fleet: &Fleet, thing: &str) {
    let now = std::time::SystemTime::now();
    let name = thing.parse().unwrap();
    fleet
        .create_thing(&name, Default::default(), None, now)
        .unwrap();
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut house = Self {
            directory,
            room: None,
        };
        house.restart();
        make(&house.room().fleet, "lamp");
        house
    }

    fn room(&self) -> &Room {
        self.room.as_ref().unwrap()
    }

    /// Ends the room as a crash would leave it.
    fn restart(&mut self) {
        if let Some(room) = self.room.take() {
            room.store.stop_watches();
        }
        let dir = self.directory.path();
        let deadline = Instant::now() + PATIENCE;
        // The thread lets the directory go when it ends.
        let store = loop {
            match Store::open(&dir.join("store")) {
                Ok(store) => break store,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::yield_now();
        };
        let config = AuthorityConfig {
            name: "test".into(),
            public_url: "http://localhost".into(),
        };
        let now = std::time::SystemTime::now();
        let authority = Authority::open_or_create(&dir.join("ca"), config, now).unwrap();
        let realm = Realm::live("000000000000");
        let fleet = Fleet::open(&store, Arc::new(authority), realm, now).unwrap();
        let (tell, published): (Sender<Message>, _) = channel();
        let publish: Publish = Arc::new(move |message| drop(tell.send(message)));
        let shadows = Shadows::open(&store, fleet.clone(), publish).unwrap();
        self.room = Some(Room {
            store,
            fleet,
            shadows,
            published,
        });
    }

    fn send(
        &self,
        source: Source,
        place: &Place,
        verb: Verb,
        payload: Vec<u8>,
    ) -> Receiver<ShadowReply> {
        let (reply, answer) = channel();
        self.room().shadows.ask(ShadowRequest {
            who: "tests".into(),
            place: place.clone(),
            verb,
            payload,
            source,
            reply: Box::new(move |answer| drop(reply.send(answer))),
        });
        answer
    }

    /// Asks over HTTPS.
    fn ask(&self, name: &str, verb: Verb, body: &Value) -> Result<Value, Rejection> {
        self.ask_of("lamp", name, verb, body)
    }

    fn ask_of(
        &self,
        thing: &str,
        name: &str,
        verb: Verb,
        body: &Value,
    ) -> Result<Value, Rejection> {
        let payload = match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        };
        let answer = self.send(Source::Https, &place(thing, name), verb, payload);
        let reply = answer.recv_timeout(PATIENCE).unwrap();
        assert_eq!(reply.direct, None);
        reply
            .answer
            .map(|text| serde_json::from_slice(&text).unwrap())
    }

    /// What topics have heard since.
    fn heard(&self) -> Vec<(String, Value)> {
        let read = |message: Message| {
            let end = message.topic.split_once("/shadow/").unwrap().1.to_owned();
            (end, serde_json::from_slice(&message.payload).unwrap())
        };
        self.room().published.try_iter().map(read).collect()
    }

    fn names(&self, after: Option<&str>, limit: usize) -> (Vec<String>, bool) {
        let found = self
            .room()
            .shadows
            .named(&"lamp".parse().unwrap(), after, limit)
            .unwrap();
        (found.names, found.more)
    }
}

fn place(thing: &str, name: &str) -> Place {
    Place {
        thing: thing.into(),
        name: (!name.is_empty()).then(|| name.parse().unwrap()),
    }
}

fn desired(value: Value) -> Value {
    json!({"state": {"desired": value}})
}

fn missing(name: &str) -> Rejection {
    Rejection::NoShadow(name.into())
}

#[test]
fn a_shadow_lives_through_a_crash_and_its_version_through_its_end() {
    let mut house = House::new();
    for name in ["", "light"] {
        let shown = if name.is_empty() {
            "lamp"
        } else {
            "lamp~light"
        };
        assert_eq!(
            house.ask(name, Verb::Get, &Value::Null),
            Err(missing(shown))
        );
        assert_eq!(
            house
                .ask(name, Verb::Update, &desired(json!({"on": true})))
                .unwrap()["version"],
            1
        );
        let second =
            json!({"state": {"reported": {"on": false}}, "version": 1, "clientToken": "t"});
        let answer = house.ask(name, Verb::Update, &second).unwrap();
        assert_eq!(
            (&answer["version"], &answer["clientToken"]),
            (&json!(2), &json!("t"))
        );
        assert_eq!(
            house.ask(name, Verb::Update, &second),
            Err(Rejection::Conflict)
        );
    }
    house.restart();
    for name in ["", "light"] {
        let got = house
            .ask(name, Verb::Get, &json!({"clientToken": "x"}))
            .unwrap();
        assert_eq!(
            got["state"],
            json!({"desired": {"on": true}, "reported": {"on": false}, "delta": {"on": true}})
        );
        assert_eq!(
            (&got["version"], &got["clientToken"]),
            (&json!(2), &json!("x"))
        );
        assert_eq!(
            house.ask(name, Verb::Delete, &json!({"version": 1})),
            Err(Rejection::Conflict)
        );
        assert_eq!(
            house.ask(name, Verb::Delete, &Value::Null).unwrap()["version"],
            2
        );
        assert!(house.ask(name, Verb::Get, &Value::Null).is_err());
        assert!(house.ask(name, Verb::Delete, &Value::Null).is_err());
    }
    house.restart();
    for name in ["", "light"] {
        let answer = house.ask(name, Verb::Update, &desired(json!({}))).unwrap();
        assert_eq!(answer["version"], 3);
        assert_eq!(
            house.ask(name, Verb::Get, &Value::Null).unwrap()["state"],
            json!({})
        );
    }
}

#[test]
fn topics_hear_of_every_change_and_of_answers_to_topics_alone() {
    let house = House::new();
    house
        .ask("", Verb::Update, &desired(json!({"on": true})))
        .unwrap();
    let heard = house.heard();
    let ends: Vec<&str> = heard.iter().map(|(end, _)| end.as_str()).collect();
    assert_eq!(
        ends,
        ["update/accepted", "update/documents", "update/delta"]
    );
    assert_eq!(heard[1].1.get("previous"), None);
    assert_eq!(heard[2].1["state"], json!({"on": true}));
    let reported = json!({"state": {"reported": {"on": true}}});
    house.ask("", Verb::Update, &reported).unwrap();
    let heard = house.heard();
    assert_eq!(heard.len(), 2, "nothing differs: {heard:?}");
    assert_eq!(heard[1].1["previous"]["version"], 1);
    house.ask("", Verb::Get, &Value::Null).unwrap();
    house.ask("", Verb::Update, &json!({})).unwrap_err();
    assert_eq!(house.heard(), []);
    for (verb, payload, end) in [
        (Verb::Get, "", "name/n/get/rejected"),
        (Verb::Update, r#"{"state":{}}"#, "name/n/update/accepted"),
        (Verb::Get, r#"{"clientToken":"c"}"#, "name/n/get/accepted"),
        (
            Verb::Update,
            r#"{"clientToken":"c"}"#,
            "name/n/update/rejected",
        ),
        (Verb::Delete, "", "name/n/delete/accepted"),
    ] {
        let answer = house.send(Source::Topic, &place("lamp", "n"), verb, payload.into());
        answer.recv_timeout(PATIENCE).unwrap();
        let heard = house.heard();
        assert_eq!(heard[0].0, end);
        assert_eq!(
            heard[0].1.get("clientToken").is_some(),
            payload.contains("clientToken")
        );
    }
}

#[test]
fn a_thing_has_so_many_names_and_what_is_too_long_changes_nothing() {
    let house = House::new();
    let name = |n: usize| format!("n{n:03}");
    for n in 0..NAMED_LIMIT_ITEMS {
        house
            .ask(&name(n), Verb::Update, &desired(json!({"n": n})))
            .unwrap();
    }
    let one_more = house.ask("more", Verb::Update, &desired(json!({})));
    assert_eq!(one_more, Err(Rejection::Named(NAMED_LIMIT_ITEMS)));
    house
        .ask(&name(0), Verb::Update, &desired(json!({"n": null})))
        .unwrap();
    house.ask("", Verb::Update, &desired(json!({}))).unwrap();
    let (first, more) = house.names(None, 60);
    assert!(more && first.len() == 60 && first.is_sorted());
    let (rest, more) = house.names(first.last().map(String::as_str), 60);
    assert!(!more && first.len() + rest.len() == NAMED_LIMIT_ITEMS);
    // However many come and go, the versions of so many that are gone are remembered.
    for n in 0..250 {
        house.ask(&name(n), Verb::Delete, &Value::Null).ok();
        house
            .ask(&name(1000 + n), Verb::Update, &desired(json!({})))
            .unwrap();
        house
            .ask(&name(1000 + n), Verb::Delete, &Value::Null)
            .unwrap();
    }
    let table = house.room().store.table(TABLE).unwrap();
    let rows = table.scan("shadow/lamp/", None, 1000).unwrap();
    assert!(rows.len() <= 2 * NAMED_LIMIT_ITEMS + 1, "{}", rows.len());
    assert_eq!(house.names(None, 100), (Vec::new(), false));

    let long = desired(json!({"a": "x".repeat(9_000)}));
    assert_eq!(house.ask("", Verb::Update, &long), Err(Rejection::TooLarge));
    let longest = vec![b' '; REQUEST_MAX_BYTES + 1];
    let turned_away = house.send(Source::Topic, &place("lamp", ""), Verb::Get, longest);
    let reply = turned_away.recv_timeout(PATIENCE).unwrap();
    assert_eq!(reply.answer, Err(Rejection::TooLarge));
    assert_eq!(
        reply.direct.unwrap().topic,
        "$aws/things/lamp/shadow/get/rejected"
    );
    assert_eq!(
        house.ask("", Verb::Get, &Value::Null).unwrap()["version"],
        1
    );
}

#[test]
fn a_shadow_goes_with_its_thing() {
    let mut house = House::new();
    assert_eq!(
        house.ask_of("nobody", "", Verb::Update, &desired(json!({}))),
        Err(Rejection::NoThing)
    );
    assert_eq!(
        house.ask_of("no thing", "", Verb::Get, &Value::Null),
        Err(Rejection::NoThing)
    );
    make(&house.room().fleet, "lamp-2");
    for thing in ["lamp", "lamp-2"] {
        for name in ["", "a", "b"] {
            house
                .ask_of(thing, name, Verb::Update, &desired(json!({"of": thing})))
                .unwrap();
        }
    }
    let lamp = "lamp".parse().unwrap();
    house.room().fleet.delete_thing(&lamp, None).unwrap();
    // Also where the server ended before they were forgotten: a thing of the same name has none of it.
    house.restart();
    make(&house.room().fleet, "lamp");
    assert_eq!(house.ask("", Verb::Get, &Value::Null), Err(missing("lamp")));
    assert_eq!(house.names(None, 10), (Vec::new(), false));
    assert_eq!(
        house.ask("a", Verb::Update, &desired(json!({}))).unwrap()["version"],
        1
    );
    house.room().fleet.delete_thing(&lamp, None).unwrap();
    house.room().shadows.forget_thing("lamp").unwrap();
    let table = house.room().store.table(TABLE).unwrap();
    assert_eq!(table.scan("shadow/lamp/", None, 10).unwrap(), []);
    assert_eq!(table.get("names/lamp").unwrap(), None);
    assert_eq!(
        house
            .ask_of("lamp-2", "b", Verb::Get, &Value::Null)
            .unwrap()["version"],
        1
    );
}

/// Whatever comes at once is answered in order, each once, and no change is lost.
#[test]
fn many_at_once_share_a_flush_and_none_is_lost() {
    let house = House::new();
    let mut answers = Vec::new();
    for n in 0..500_u64 {
        let payload = json!({"state": {"reported": {format!("k{}", n % 50): n}}}).to_string();
        let (reply, answer) = channel();
        house.room().shadows.ask(ShadowRequest {
            who: format!("who-{}", n % 50),
            place: place("lamp", "s"),
            verb: Verb::Update,
            payload: payload.into_bytes(),
            source: Source::Https,
            reply: Box::new(move |answer| drop(reply.send(answer))),
        });
        answers.push(answer);
    }
    for (n, answer) in answers.into_iter().enumerate() {
        let reply = answer.recv_timeout(PATIENCE).unwrap();
        let answer: Value = serde_json::from_slice(&reply.answer.unwrap()).unwrap();
        assert_eq!(answer["version"], n + 1);
    }
    let state = house.ask("s", Verb::Get, &Value::Null).unwrap()["state"]["reported"].clone();
    assert_eq!(state.as_object().unwrap().len(), 50);
    assert_eq!(state["k49"], 499);
}
