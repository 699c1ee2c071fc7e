//! The room on a temporary store, with the real registry beneath it.

mod device;
mod firmware;
mod images;
mod job_windows;
mod jobs;
mod rollouts;
mod streams;
mod uploads;

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use ::ca::{Authority, AuthorityConfig};
use ::fleet::{GroupName, ThingName};
use ::policy::Realm;
use serde_json::{Value, json};

use super::*;
use crate::manifest::tests::manifest_of;
use crate::rollout::RolloutState;
use crate::{FirmwareName, FirmwareVersion, Manifest, ReleaseKey, Root, RootSpec, package};

/// Longest wait for something that happens on another thread; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what comes true without a change of a row may go unseen.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A server's directory, which outlives its restarts.
struct House {
    directory: tempfile::TempDir,
    room: Option<Room>,
}

struct Room {
    store: Store,
    fleet: Fleet,
    ota: Ota,
    published: Receiver<Message>,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut house = Self {
            directory,
            room: None,
        };
        house.restart();
        house
    }

    /// With the things `lamp-0` … in the group `lamps`.
    fn with_lamps(count: usize) -> Self {
        let house = Self::new();
        let fleet = &house.room().fleet;
        let group: GroupName = "lamps".parse().unwrap();
        let now = SystemTime::now();
        fleet
            .create_group(&group, None, &Default::default(), "g1".into(), now)
            .unwrap();
        for index in 0..count {
            let thing: ThingName = format!("lamp-{index}").parse().unwrap();
            fleet
                .create_thing(&thing, Default::default(), None, now)
                .unwrap();
            fleet.add_to_group(&group, &thing).unwrap();
        }
        house
    }

    fn room(&self) -> &Room {
        self.room.as_ref().unwrap()
    }

    fn ota(&self) -> &Ota {
        &self.room().ota
    }

    /// Ends the room as a crash would leave it: nothing is told, what is durable is there.
    fn restart(&mut self) {
        if let Some(room) = self.room.take() {
            room.store.stop_watches();
            drop(room);
        }
        let dir = self.directory.path();
        let deadline = Instant::now() + PATIENCE;
        // The room's thread may be in its last round; it lets the directory go when it ends.
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
        let now = SystemTime::now();
        let authority = Authority::open_or_create(&dir.join("ca"), config, now).unwrap();
        let fleet = Fleet::open(
            &store,
            Arc::new(authority),
            Realm::live("000000000000"),
            now,
        )
        .unwrap();
        let (tell, published) = channel();
        let publish: Publish = Arc::new(move |message| drop(tell.send(message)));
        let ota = Ota::open(&store, fleet.clone(), publish, dir).unwrap();
        self.room = Some(Room {
            store,
            fleet,
            ota,
            published,
        });
    }

    /// What the device of `thing` is answered: the topic's ending and the message.
    fn ask(&self, thing: &str, rest: &str, payload: &Value) -> (String, Value) {
        let topic = format!("$aws/things/{thing}/jobs/{rest}");
        self.ask_raw(Some(thing), &topic, payload.to_string().as_bytes())
    }

    fn ask_raw(&self, thing: Option<&str>, topic: &str, payload: &[u8]) -> (String, Value) {
        let (tell, answer) = channel();
        self.ota().ask(DeviceRequest {
            thing: thing.map(str::to_owned),
            topic: topic.to_owned(),
            payload: payload.to_vec(),
            reply: Box::new(move |message| drop(tell.send(message))),
        });
        let message = answer.recv_timeout(PATIENCE).unwrap();
        let ending = message
            .topic
            .strip_prefix(topic)
            .unwrap()
            .trim_start_matches('/')
            .to_owned();
        (ending, serde_json::from_slice(&message.payload).unwrap())
    }

    fn accepted(&self, thing: &str, rest: &str, payload: &Value) -> Value {
        let (ending, value) = self.ask(thing, rest, payload);
        assert_eq!(ending, "accepted", "{value}");
        value
    }

    fn rejected(&self, thing: &str, rest: &str, payload: &Value) -> Value {
        let (ending, value) = self.ask(thing, rest, payload);
        assert_eq!(ending, "rejected", "{value}");
        value
    }

    /// The next notification to `thing` on `jobs/<rest>`; others before it are passed over.
    fn notified(&self, thing: &str, rest: &str) -> Value {
        let topic = format!("$aws/things/{thing}/jobs/{rest}");
        loop {
            let message = self.room().published.recv_timeout(PATIENCE).unwrap();
            if message.topic == topic {
                return serde_json::from_slice(&message.payload).unwrap();
            }
        }
    }

    /// Waits until `what` is there, looking again after every change of the table, and now and then.
    fn eventually<T>(&self, mut what: impl FnMut(&Ota) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let store = &self.room().store;
        let mut watch = store.table("ota").unwrap().watch(store.revision());
        loop {
            if let Some(found) = what(self.ota()) {
                return found;
            }
            let now = Instant::now();
            assert!(now < deadline, "waited {PATIENCE:?} in vain");
            watch.next_before(now + LOOK_AGAIN);
        }
    }
}

/// A release team and packages signed by it.
struct Team {
    keys: Vec<ReleaseKey>,
}

impl Team {
    fn of(count: usize) -> Self {
        Self {
            keys: (0..count)
                .map(|_| ReleaseKey::generate().unwrap())
                .collect(),
        }
    }

    fn root(&self, threshold: u32, days: u64) -> Vec<u8> {
        let spec = RootSpec {
            release_keys: self.keys.iter().map(ReleaseKey::public).collect(),
            threshold,
            online: None,
            expires: SystemTime::now() + Duration::from_secs(days * 86_400),
            previous: None,
        };
        spec.sign(&self.keys).unwrap().bytes
    }

    fn manifest(version: &str, image: &[u8]) -> Manifest {
        let mut manifest = manifest_of(image);
        manifest.version = version.parse().unwrap();
        manifest.expires = SystemTime::now() + Duration::from_secs(90 * 86_400);
        manifest
    }

    fn package_with(&self, version: &str, more: impl FnOnce(&mut Manifest)) -> Vec<u8> {
        let mut manifest = Self::manifest(version, version.as_bytes());
        more(&mut manifest);
        packed(&manifest.sign(&self.keys).unwrap(), version.as_bytes())
    }

    fn package(&self, version: &str, image: &[u8]) -> Vec<u8> {
        packed(
            &Self::manifest(version, image).sign(&self.keys).unwrap(),
            image,
        )
    }
}

fn packed(manifest: &[u8], image: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    package::write(&mut bytes, manifest, image, image.len() as u64).unwrap();
    bytes
}

fn lamp() -> FirmwareName {
    "lamp".parse().unwrap()
}

fn version(text: &str) -> FirmwareVersion {
    text.parse().unwrap()
}
