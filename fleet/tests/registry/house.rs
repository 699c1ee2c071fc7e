//! A registry in a directory of its own.

use ca::{
    Authority, AuthorityConfig, CertificateId, CertificateState, IssuerNumber, RevocationReason,
    Serial,
};
use fleet::{
    DeviceKey, Enrolled, Enrolment, Fleet, GroupChange, GroupName, ListName, RevocationFaces,
    ThingName,
};
use policy::{Action, Decision, Grant, PolicyName, Realm};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
    time::{Duration, Instant, SystemTime},
};
use store::{Store, StoreError};

pub const ACCOUNT: &str = "000000000000";

pub struct House {
    pub directory: tempfile::TempDir,
    pub fleet: Fleet,
}

/// A fleet that was dropped lets go of its store once its watching thread has looked up.
pub fn open_store(directory: &Path) -> Store {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Store::open(directory) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

pub fn open(directory: &tempfile::TempDir) -> Fleet {
    open_in(directory, &open_store(&directory.path().join("store")))
}

pub fn open_in(directory: &tempfile::TempDir, store: &Store) -> Fleet {
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let now = SystemTime::now();
    let authority = Authority::open_or_create(&directory.path().join("ca"), config, now).unwrap();
    Fleet::open(store, Arc::new(authority), Realm::live(ACCOUNT), now).unwrap()
}

pub fn house() -> House {
    let directory = tempfile::tempdir().unwrap();
    let fleet = open(&directory);
    House { directory, fleet }
}

pub fn thing(name: &str) -> ThingName {
    name.parse().unwrap()
}

pub fn named(name: &str) -> PolicyName {
    name.parse().unwrap()
}

pub fn enrolment(name: &str) -> Enrolment<'static> {
    Enrolment {
        thing: thing(name),
        policies: vec![named("device-default")],
        groups: Vec::new(),
        attributes: BTreeMap::new(),
        key: DeviceKey::Generate,
    }
}

impl House {
    pub fn enrol(&self, name: &str) -> Enrolled {
        self.fleet
            .enrol(&enrolment(name), SystemTime::now())
            .unwrap()
    }

    /// What the list that a certificate names says of it, and OCSP; they agree.
    pub fn told(&self, serial: &Serial, now: SystemTime) -> Option<RevocationReason> {
        let faces = RevocationFaces::open(&self.fleet).unwrap();
        let authority = self.fleet.authority();
        let shard = authority.terms().crl_shards.of(serial);
        let list = faces.list(ListName::Shard(shard), now).unwrap().unwrap();
        let list = authority.read_crl(&list).unwrap();
        let mut entries = list.entries.iter();
        let listed = entries.find(|entry| entry.serial == *serial);
        let request = faces.ocsp_request(IssuerNumber::FIRST, std::slice::from_ref(serial), now);
        let answer = faces.ocsp(&request.unwrap(), now);
        let answered = authority.read_ocsp(&answer, now).unwrap();
        match &answered[0].1 {
            CertificateState::Good => assert_eq!(listed, None),
            CertificateState::Revoked(entry) => assert_eq!(listed, Some(entry)),
            CertificateState::Unknown => panic!("OCSP does not know it"),
        }
        listed.map(|entry| entry.reason)
    }

    pub fn group(&self, name: &str) -> GroupName {
        let group: GroupName = name.parse().unwrap();
        self.fleet
            .create_group(
                &group,
                None,
                &GroupChange::default(),
                "id".into(),
                SystemTime::now(),
            )
            .unwrap();
        group
    }

    pub fn decide(&self, id: &CertificateId, client: &str, action: Action, on: &str) -> Decision {
        let now = self.fleet.standing(id).unwrap().now();
        Grant::new(
            Arc::clone(self.fleet.realm()),
            Arc::clone(&now.policies),
            now.context(client, SystemTime::now()),
        )
        .decide(action, on)
    }
}

pub fn allow_all() -> String {
    r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:*","Resource":"*"}]}"#
        .to_owned()
}

pub struct Count(pub AtomicUsize);
impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
