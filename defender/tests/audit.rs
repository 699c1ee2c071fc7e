//! The audit over a registry of its own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test code: a wrong index is a wrong test, and says where"
)]

use ca::{Authority, AuthorityConfig, CrlShards, RevocationReason, Terms};
use defender::audit::{Audited, CHECKS, Outcome, Severity};
use fleet::{CertificateStatus, DeviceKey, Enrolment, Fleet, RevocationFaces, ThingName};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};
use store::{Expect, Store, Write};

struct House {
    _dir: tempfile::TempDir,
    store: Store,
    fleet: Fleet,
    faces: RevocationFaces,
}

fn house() -> House {
    house_of(policy::UnresolvedDeny::Open)
}

fn house_of(unresolved_deny: policy::UnresolvedDeny) -> House {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemTime::now();
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let authority = Authority::open_or_create(&dir.path().join("ca"), config, now).unwrap();
    let authority = authority.with_terms(Terms {
        crl_shards: CrlShards::new(4).unwrap(),
        ..Terms::default()
    });
    let store = Store::open(&dir.path().join("store")).unwrap();
    let realm = policy::Realm {
        unresolved_deny,
        ..policy::Realm::live("000000000000")
    };
    let fleet = Fleet::open(&store, Arc::new(authority), realm, now).unwrap();
    let faces = RevocationFaces::open(&fleet).unwrap();
    House {
        _dir: dir,
        store,
        fleet,
        faces,
    }
}

impl House {
    fn enrol(&self, name: &str) -> fleet::Enrolled {
        let enrolment = Enrolment {
            thing: name.parse().unwrap(),
            policies: Vec::new(),
            groups: Vec::new(),
            attributes: BTreeMap::new(),
            key: DeviceKey::Generate,
        };
        self.fleet.enrol(&enrolment, SystemTime::now()).unwrap()
    }

    fn audit(&self, now: SystemTime) -> Outcome {
        self.run("revocation", now)
    }

    fn run(&self, name: &str, now: SystemTime) -> Outcome {
        let check = CHECKS.iter().find(|check| check.name == name);
        let audited = Audited {
            revocation: &self.faces,
            now,
        };
        check.unwrap().run(&audited).unwrap()
    }

    /// Changes a row behind the registry's back.
    fn tamper(&self, write: Write) {
        let table = self.store.table("registry").unwrap();
        let key = write.key().replace('/', ":");
        let revision = table.batch(&[write]).unwrap();
        // An operation returns when it, and so all before it, has been felt.
        let barrier = thing(&format!("{revision}-{}", &key[..20]));
        let made = self
            .fleet
            .create_thing(&barrier, BTreeMap::new(), None, SystemTime::now());
        made.unwrap();
    }
}

fn thing(name: &str) -> ThingName {
    name.parse().unwrap()
}

#[test]
fn a_registry_that_lived_a_life_has_no_finding() {
    let house = house();
    let now = SystemTime::now();
    for number in 0..70 {
        house.enrol(&format!("lamp-{number}"));
    }
    let reasons = RevocationReason::ALL.iter();
    let for_ever = reasons.filter(|reason| **reason != RevocationReason::CertificateHold);
    for (number, reason) in for_ever.enumerate() {
        let name = thing(&format!("lamp-{number}"));
        house.fleet.revoke_device(&name, *reason, now).unwrap();
    }
    house.fleet.decommission(&thing("lamp-0"), now).unwrap();
    house.fleet.decommission(&thing("lamp-60"), now).unwrap();
    house
        .fleet
        .replace(&thing("lamp-50"), DeviceKey::Generate, now)
        .unwrap();
    let inactive = house
        .fleet
        .principals(&thing("lamp-51"), None, 1)
        .unwrap()
        .items;
    house
        .fleet
        .set_certificate_status(
            &inactive[0],
            CertificateStatus::Inactive,
            RevocationReason::Unspecified,
            now,
        )
        .unwrap();
    let outcome = house.audit(now);
    assert_eq!(outcome.findings, []);
    // 69 certificates stand in the registry, and 10 revocations and what is held on two lists each.
    assert_eq!(outcome.examined, 69 + 22);
    // Long after, when all have expired.
    let later = now + Duration::from_secs(366 * 86_400);
    assert_eq!(house.audit(later).findings, []);
}

#[test]
fn a_row_that_was_lost_or_slipped_in_is_found() {
    let house = house();
    let now = SystemTime::now();
    let (gone, kept) = (house.enrol("gone"), house.enrol("kept"));
    house
        .fleet
        .revoke_device(&thing("gone"), RevocationReason::KeyCompromise, now)
        .unwrap();
    assert_eq!(house.audit(now).findings, []);

    let serial = &gone.issued.serial;
    let place = format!("crl/{:02x}/{serial}", serial.last_octet());
    let table = house.store.table("registry").unwrap();
    let row = table.get(&place).unwrap().unwrap();
    house.tamper(Write::delete(place.clone(), Expect::Any));
    let found = house.audit(now).findings;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].severity, Severity::Critical);
    assert!(found[0].resource.contains(&gone.certificate.id.to_string()));
    assert!(found[0].reason.contains("leaves it out"), "{found:?}");

    house.tamper(Write::Put {
        key: place,
        value: row.value,
        expect: Expect::Any,
    });
    assert_eq!(house.audit(now).findings, []);
    house.tamper(Write::delete(
        format!("revoked/{}", gone.certificate.id),
        Expect::Any,
    ));
    let found = house.audit(now).findings;
    assert!(
        found
            .iter()
            .any(|one| one.reason.contains("crl/0.crl leaves it out")),
        "{found:?}"
    );
    house.tamper(Write::delete(
        format!("serial/{}", kept.issued.serial),
        Expect::Any,
    ));
    let found = house.audit(now).findings;
    assert!(
        found
            .iter()
            .any(|one| one.reason.contains("does not know it")),
        "{found:?}"
    );
}

#[test]
fn denies_that_fail_open_are_found_in_what_decides() {
    let deny = |rest: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}},{{"Effect":"Deny","Action":"iot:Publish",{rest}}}]}}"#
        )
    };
    let variable =
        deny(r#""Resource":"arn:aws:iot:*:*:topic/${iot:Connection.Thing.Attributes[site]}/*""#);
    let key = deny(r#""Resource":"*","Condition":{"StringEquals":{"iot:DomainName":"old"}}"#);
    let sound = deny(r#""Resource":"arn:aws:iot:*:*:topic/secret/*""#);
    let now = SystemTime::now();
    for (unresolved, expected) in [
        (policy::UnresolvedDeny::Open, vec!["by-key", "by-variable"]),
        // The variable denies there.
        (policy::UnresolvedDeny::Closed, vec!["by-key"]),
    ] {
        let house = house_of(unresolved);
        for (name, text) in [
            ("by-variable", &variable),
            ("by-key", &key),
            ("sound", &sound),
        ] {
            let name = name.parse().unwrap();
            house.fleet.create_policy(&name, text, now).unwrap();
        }
        let outcome = house.run("deny-fails-open", now);
        let found: Vec<_> = outcome
            .findings
            .iter()
            .map(|one| one.resource.clone())
            .collect();
        let expected = expected
            .iter()
            .map(|name| format!("policy {name} version 1 statement 2"));
        assert_eq!(found, expected.collect::<Vec<_>>());
        // With device-default.
        assert_eq!(outcome.examined, 4);
        for one in &outcome.findings {
            assert_eq!(one.severity, Severity::Medium);
            assert!(
                one.mend.starts_with("set ") || one.mend.starts_with("add "),
                "{one:?}"
            );
        }
        // What decides no more is no finding.
        for name in ["by-variable", "by-key"] {
            let name = name.parse().unwrap();
            house.fleet.update_policy(&name, &sound, now).unwrap();
        }
        assert_eq!(house.run("deny-fails-open", now).findings, []);
    }
}

#[test]
fn policies_that_match_nothing_are_found() {
    let house = house_of(policy::UnresolvedDeny::Open);
    let now = SystemTime::now();
    let publish = |resource: &str| {
        format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"iot:Publish","Resource":"{resource}"}}]}}"#
        )
    };
    for (name, resource) in [
        ("elsewhere", "arn:aws:iot:us-east-1:123456789012:*"),
        ("filter", "arn:aws:iot:*:*:topicfilter/a"),
        ("own", "arn:aws:iot:eu-west-1:000000000000:topic/a"),
        ("any", "*"),
    ] {
        let name = name.parse().unwrap();
        let document = publish(resource);
        house.fleet.create_policy(&name, &document, now).unwrap();
    }
    let outcome = house.run("policy-matches-nothing", now);
    let found = |policy: &str| {
        let mut all = outcome.findings.iter();
        all.find(|one| one.resource.contains(policy))
    };
    let elsewhere = found("elsewhere").unwrap();
    assert!(elsewhere.reason.contains("000000000000"), "{elsewhere:?}");
    assert!(found("filter").is_some());
    // What the server makes itself is sound, as are the others.
    assert_eq!(outcome.examined, 5);
    let sound = ["own", "any", "device-default"];
    assert!(
        sound.iter().all(|name| found(name).is_none()),
        "{outcome:?}"
    );
}
