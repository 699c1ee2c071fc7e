//! The workflow against repositories in memory, honest and not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::ReleaseKey;
use crate::digest::sha256;
use crate::signed::{Document, write_time};

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// Files by name, shared between the repository and the test that edits it; or those a client trusts.
#[derive(Clone, Default)]
struct Files(Rc<RefCell<BTreeMap<String, Vec<u8>>>>);

impl Files {
    fn get(&self, file: &str) -> Option<Vec<u8>> {
        self.0.borrow().get(file).cloned()
    }

    fn put(&self, file: &str, bytes: Vec<u8>) {
        self.0.borrow_mut().insert(file.to_owned(), bytes);
    }

    fn version(&self, role: &str) -> u64 {
        self.get(&file_name(role))
            .map_or(0, |bytes| signed(&bytes)["version"].as_u64().unwrap())
    }
}

fn signed(bytes: &[u8]) -> Value {
    let document: Value = serde_json::from_slice(bytes).unwrap();
    document["signed"].clone()
}

impl Repository for Files {
    fn metadata(&mut self, file: &str, bound: u64) -> Result<Option<Vec<u8>>, TufError> {
        let found = self.get(file);
        if found
            .as_ref()
            .is_some_and(|bytes| bytes.len() as u64 > bound)
        {
            return Err(TufError::TooLarge {
                what: file.into(),
                bound,
            });
        }
        Ok(found)
    }
}

/// A datastore whose power goes at the n-th change.
struct Disk {
    files: Files,
    left: usize,
}

impl Disk {
    fn change(&mut self) -> Result<(), TufError> {
        self.left = self.left.checked_sub(1).ok_or_else(|| TufError::Store {
            why: "the power went".into(),
        })?;
        Ok(())
    }
}

impl Datastore for Disk {
    fn load(&mut self, file: &str, _: u64) -> Result<Option<Vec<u8>>, TufError> {
        Ok(self.files.get(file))
    }
    fn keep(&mut self, file: &str, bytes: &[u8]) -> Result<(), TufError> {
        self.change()?;
        self.files.put(file, bytes.to_vec());
        Ok(())
    }
    fn forget(&mut self, file: &str) -> Result<(), TufError> {
        self.change()?;
        self.files.0.borrow_mut().remove(file);
        Ok(())
    }
}

/// The offline half: keys, and what is signed next.
struct Team {
    keys: BTreeMap<&'static str, ReleaseKey>,
    versions: BTreeMap<&'static str, u64>,
    files: Files,
    /// Every document ever signed.
    history: Vec<(String, Vec<u8>)>,
}

impl Team {
    fn new() -> Self {
        let keys = ["root", "timestamp", "snapshot", "targets", "lamps"]
            .map(|role| (role, ReleaseKey::generate().unwrap()));
        let mut team = Self {
            keys: keys.into(),
            versions: BTreeMap::new(),
            files: Files::default(),
            history: Vec::new(),
        };
        team.root();
        team.release();
        team
    }

    fn next(&mut self, role: &'static str) -> u64 {
        let version = self.versions.entry(role).or_default();
        *version += 1;
        *version
    }

    fn sign(&mut self, role: &'static str, file: &str, body: Value) {
        let mut document = Document::new(body);
        document.sign([&self.keys[role]]).unwrap();
        let bytes = document.to_bytes().unwrap();
        self.files.put(file, bytes.clone());
        self.history.push((file.to_owned(), bytes));
    }

    fn body(kind: &str, version: u64, more: Value) -> Value {
        let mut body = json!({"_type": kind, "spec_version": "1.0.31", "version": version,
            "expires": write_time(now() + 30 * DAY).unwrap()});
        let more = more.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(more);
        body
    }

    fn root(&mut self) {
        let version = self.next("root");
        let id = |role| self.keys[role].public().id().unwrap().to_string();
        let keys: BTreeMap<_, _> = self
            .keys
            .values()
            .map(|key| {
                (
                    key.public().id().unwrap().to_string(),
                    key.public().to_tuf(),
                )
            })
            .collect();
        let roles: BTreeMap<_, _> = ["root", "timestamp", "snapshot", "targets"]
            .map(|role| (role, json!({"keyids": [id(role)], "threshold": 1})))
            .into();
        let more = json!({"consistent_snapshot": true, "keys": keys, "roles": roles});
        self.sign(
            "root",
            &format!("{version}.root.json"),
            Self::body("root", version, more),
        );
    }

    /// New targets, one of them a delegated role's, and what makes them current.
    fn release(&mut self) {
        let lamps = self.next("lamps");
        let content = format!("lamps {lamps}");
        let file = json!({"length": content.len(), "hashes": {"sha256": sha256(content.as_bytes()).to_string()}});
        let more = json!({"targets": {"lamps/v": file}});
        self.sign(
            "lamps",
            &format!("{lamps}.lamps.json"),
            Self::body("targets", lamps, more),
        );

        let targets = self.next("targets");
        let public = self.keys["lamps"].public();
        let id = public.id().unwrap().to_string();
        let delegations = json!({"keys": {&id: public.to_tuf()}, "roles": [
            {"name": "lamps", "keyids": [id], "threshold": 1, "terminating": true, "paths": ["lamps/*"]}]});
        let more = json!({"targets": {}, "delegations": delegations});
        self.sign(
            "targets",
            &format!("{targets}.targets.json"),
            Self::body("targets", targets, more),
        );

        let snapshot = self.next("snapshot");
        let more = json!({"meta": {"targets.json": {"version": targets}, "lamps.json": {"version": lamps}}});
        self.sign(
            "snapshot",
            &format!("{snapshot}.snapshot.json"),
            Self::body("snapshot", snapshot, more),
        );

        let timestamp = self.next("timestamp");
        let more = json!({"meta": {"snapshot.json": {"version": snapshot}}});
        self.sign(
            "timestamp",
            "timestamp.json",
            Self::body("timestamp", timestamp, more),
        );
    }

    fn trusting(&self) -> Files {
        let trusted = Files::default();
        trusted.put("root.json", self.history[0].1.clone());
        trusted
    }
}

fn cycle(remote: &Files, trusted: &Files, left: usize) -> Result<Target, TufError> {
    let disk = Disk {
        files: trusted.clone(),
        left,
    };
    let mut client = Client::open(remote.clone(), disk, now())?;
    client.refresh()?;
    client.target("lamps/v")
}

const ROLES: [&str; 5] = ["root", "timestamp", "snapshot", "targets", "lamps"];

fn versions(trusted: &Files) -> [u64; 5] {
    ROLES.map(|role| trusted.version(role))
}

#[test]
fn a_target_is_found_and_judged() {
    let team = Team::new();
    let trusted = team.trusting();
    let target = cycle(&team.files, &trusted, usize::MAX).unwrap();
    assert_eq!(versions(&trusted), [1; 5]);
    let hash = sha256(b"lamps 1").to_string();
    assert_eq!(target.remote_path(), format!("lamps/{hash}.v"));
    let mut check = target.check().unwrap();
    check.update(b"lamps").unwrap();
    check.update(b" 1").unwrap();
    check.finish().unwrap();
    let mut check = target.check().unwrap();
    check.update(b"lamps 2").unwrap();
    assert!(matches!(check.finish(), Err(TufError::Content { .. })));
}

#[test]
fn a_power_cut_anywhere_leaves_what_the_next_cycle_takes_up() {
    for rotate in [false, true] {
        let mut team = Team::new();
        let trusted = team.trusting();
        cycle(&team.files, &trusted, usize::MAX).unwrap();
        if rotate {
            let key = ReleaseKey::generate().unwrap();
            team.keys.insert("snapshot", key);
        }
        team.root();
        team.release();
        let before = trusted.0.borrow().clone();
        let mut cuts = 0;
        loop {
            *trusted.0.borrow_mut() = before.clone();
            let whole = cycle(&team.files, &trusted, cuts).is_ok();
            cycle(&team.files, &trusted, usize::MAX).unwrap();
            assert_eq!(versions(&trusted), [2; 5], "cut {cuts}");
            if whole {
                break;
            }
            cuts += 1;
        }
        // Root, timestamp, snapshot, targets and the delegated role; two more are forgotten on rotation.
        assert_eq!(cuts, if rotate { 7 } else { 5 });
    }
}

#[test]
fn a_delegated_role_is_judged_by_its_delegator_alone() {
    let mut team = Team::new();
    let trusted = team.trusting();
    // The top-level targets key is none of the delegated role's.
    let stranger = ReleaseKey::generate().unwrap();
    let body = signed(&team.files.get("1.lamps.json").unwrap());
    let own = team.keys.insert("lamps", stranger).unwrap();
    team.sign("lamps", "1.lamps.json", body.clone());
    assert!(matches!(
        cycle(&team.files, &trusted, usize::MAX),
        Err(TufError::Threshold {
            have: 0,
            need: 1,
            ..
        })
    ));
    assert_eq!(versions(&trusted), [1, 1, 1, 1, 0]);
    team.keys.insert("lamps", own);
    team.sign("lamps", "1.lamps.json", body);
    cycle(&team.files, &trusted, usize::MAX).unwrap();
}

#[test]
fn file_names_stay_in_their_directory() {
    for (role, file) in [
        ("root", "root.json"),
        ("../root", "..%2Froot.json"),
        ("a b/ü", "a%20b%2F%C3%BC.json"),
        ("..", "...json"),
        ("%2F", "%252F.json"),
    ] {
        assert_eq!(file_name(role), file);
    }
}

/// What a thief of the repository can serve under a name: any document ever signed, or none.
fn thefts() -> impl Strategy<Value = Vec<Vec<(prop::sample::Index, prop::sample::Index, bool)>>> {
    let theft = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        any::<bool>(),
    );
    prop::collection::vec(prop::collection::vec(theft, 0..6), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_mix_of_signed_documents_takes_a_version_back(rounds in thefts()) {
        let mut team = Team::new();
        let trusted = team.trusting();
        for _ in 0..2 {
            team.release();
        }
        team.root();
        team.release();
        let names: Vec<String> = team.history.iter().map(|(name, _)| name.clone()).collect();
        let authentic: Vec<Value> = team.history.iter().map(|(_, bytes)| signed(bytes)).collect();
        for round in rounds {
            let remote = Files::default();
            *remote.0.borrow_mut() = team.files.0.borrow().clone();
            for (name, document, gone) in round {
                let name = name.get(&names);
                if gone {
                    remote.0.borrow_mut().remove(name);
                } else {
                    remote.put(name, document.get(&team.history).1.clone());
                }
            }
            let before = versions(&trusted);
            let _ = cycle(&remote, &trusted, usize::MAX);
            let after = versions(&trusted);
            prop_assert!(before.iter().zip(after).all(|(before, after)| *before <= after), "{before:?} {after:?}");
            for bytes in trusted.0.borrow().values() {
                prop_assert!(authentic.contains(&signed(bytes)));
            }
        }
        // And the honest repository is believed again.
        prop_assert!(cycle(&team.files, &trusted, usize::MAX).is_ok());
        prop_assert_eq!(versions(&trusted), [2, 4, 4, 4, 4]);
    }

    #[test]
    fn no_changed_byte_changes_what_is_trusted(
        file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let team = Team::new();
        let trusted = team.trusting();
        let (name, mut bytes) = file.get(&team.history).clone();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] = byte;
        }
        let remote = Files::default();
        *remote.0.borrow_mut() = team.files.0.borrow().clone();
        remote.put(&name, bytes.clone());
        let _ = cycle(&remote, &trusted, usize::MAX);
        let authentic: Vec<Value> = team.history.iter().map(|(_, bytes)| signed(bytes)).collect();
        for kept in trusted.0.borrow().values() {
            prop_assert!(authentic.contains(&signed(kept)));
        }
        let _ = verify_root(&bytes);
    }

    #[test]
    fn no_bytes_make_trouble(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[\\[\\]{}\":,a-z0-9]{0,80}") {
        prop_assert!(verify_root(&bytes).is_err());
        prop_assert!(verify_root(text.as_bytes()).is_err());
    }

    #[test]
    fn no_field_of_another_kind_makes_trouble(
        file in any::<prop::sample::Index>(), field in any::<prop::sample::Index>(), what in 0_usize..9,
    ) {
        let mut team = Team::new();
        let (name, bytes) = file.get(&team.history).clone();
        let role = ROLES.into_iter().find(|role| name.contains(role)).unwrap();
        let mut body = signed(&bytes);
        let mut fields: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
        fields.push("new".into());
        body[field.get(&fields)] = [
            json!(null), json!(true), json!(-1), json!(0), json!(u64::MAX), json!("x"), json!([]), json!({}),
            json!({"a": {"b": [1, {"c": null}]}}),
        ][what].clone();
        team.sign(role, &name, body.clone());
        let trusted = team.trusting();
        let _ = cycle(&team.files, &trusted, usize::MAX);
        prop_assert_eq!(versions(&trusted)[0], 1);
        let _ = verify_root(&team.files.get(&name).unwrap());
    }
}
