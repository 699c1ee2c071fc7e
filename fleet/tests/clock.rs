//! What outlives a clock that was ahead, and the policy that everybody needs.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ca::{Authority, AuthorityConfig, CrlShard, IssuerNumber, Serial};
use fleet::{Fleet, ListName, RevocationFaces};
use policy::{PolicyName, Realm};
use store::{Store, StoreError};

const ACCOUNT: &str = "000000000000";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A fleet that was dropped lets go of its store once its watching thread has looked up.
fn open_store(directory: &Path) -> Store {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Store::open(directory) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

fn open(directory: &Path) -> Fleet {
    let store = open_store(&directory.join("store"));
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let now = SystemTime::now();
    let authority = Authority::open_or_create(&directory.join("ca"), config, now).unwrap();
    Fleet::open(&store, Arc::new(authority), Realm::live(ACCOUNT), now).unwrap()
}

fn shard() -> ListName {
    ListName::Shard(CrlShard::new(16, 0).unwrap().by(IssuerNumber::FIRST))
}

/// Number and thisUpdate of a list.
fn list(faces: &RevocationFaces, fleet: &Fleet, at: SystemTime) -> (u64, SystemTime) {
    let der = faces.list(shard(), at).unwrap().unwrap();
    let read = fleet.authority().read_crl(&der).unwrap();
    (read.number, read.this_update)
}

/// RFC 5280 §5.2.3
#[test]
fn lists_and_answers_of_a_clock_that_was_ahead_are_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let ahead = now + 40 * DAY;
    let serial: Serial = "1102030405060708090a0b0c0d0e0f10".parse().unwrap();
    let highest = {
        let fleet = open(directory.path());
        let faces = RevocationFaces::open(&fleet).unwrap();
        let (first, _) = list(&faces, &fleet, now);
        let (later, this_update) = list(&faces, &fleet, ahead);
        assert!(later > first && this_update > now + 39 * DAY);
        let (number, this_update) = list(&faces, &fleet, now);
        assert!(number > later && this_update <= now);
        // As it was, it is kept.
        assert_eq!(list(&faces, &fleet, now + DAY / 4).0, number);

        let ask = |at| {
            let request = faces
                .ocsp_request(IssuerNumber::FIRST, std::slice::from_ref(&serial), at)
                .unwrap();
            fleet.authority().read_ocsp(&faces.ocsp(&request, at), at)
        };
        ask(ahead).unwrap();
        ask(now).unwrap();
        let staple = faces.staple(IssuerNumber::FIRST, &serial, now).unwrap();
        assert_eq!(staple.made_at, now);
        number
    };
    let fleet = open(directory.path());
    let faces = RevocationFaces::open(&fleet).unwrap();
    assert!(list(&faces, &fleet, now).0 > highest, "numbers never fall");
}

#[test]
fn the_policy_that_devices_get_where_none_is_named_stays() {
    let directory = tempfile::tempdir().unwrap();
    let default: PolicyName = "device-default".parse().unwrap();
    {
        let fleet = open(directory.path());
        let refused = fleet.delete_policy(&default).unwrap_err().to_string();
        assert!(
            refused.contains("muster policy update device-default"),
            "{refused}"
        );
        let document = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"iot:*","Resource":"*"}]}"#;
        let narrowed = fleet.create_policy_version(&default, document, true, SystemTime::now());
        narrowed.unwrap();
    }
    // What an operator made of it stays; where it is gone since an earlier release it is there again.
    let fleet = open(directory.path());
    assert_eq!(fleet.policy(&default).unwrap().default_version, 2);
    drop(fleet);
    {
        let store = open_store(&directory.path().join("store"));
        let registry = store.table("registry").unwrap();
        let key = "policy/device-default";
        registry
            .batch(&[store::Write::delete(key, store::Expect::Any)])
            .unwrap();
    }
    let fleet = open(directory.path());
    assert_eq!(fleet.policy(&default).unwrap().default_version, 1);
}
