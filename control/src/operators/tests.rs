use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ca::{Authority, AuthorityConfig};
use rustls::pki_types::pem::PemObject as _;

use super::{OperatorName, Operators, Role};
use crate::ControlError;

const ENDPOINT: &str = "https://localhost:8443";

fn authority(dir: &Path) -> Authority {
    let config = AuthorityConfig {
        name: "Tests".into(),
        public_url: "http://localhost:8880".into(),
    };
    Authority::open_or_create(&dir.join("ca"), config, SystemTime::now()).unwrap()
}

fn open(dir: &Path, authority: &Authority, endpoint: &str) -> Result<Operators, ControlError> {
    Operators::open_or_create(dir, authority, endpoint.into(), SystemTime::now())
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_first_start_makes_an_admin_and_the_next_one_knows_it() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let first = open(dir.path(), &authority, ENDPOINT).unwrap();
    let home = dir.path().join("operators");
    for secret in ["admin.key", "admin.credentials", "operators.json"] {
        assert_eq!(mode(&home.join(secret)), 0o600, "{secret}");
    }
    assert!(home.join("admin.crt").exists());
    let admin = first.list().remove(0);
    assert_eq!(admin.role, Role::Admin);
    let text = std::fs::read_to_string(home.join("admin.credentials")).unwrap();
    assert!(text.contains(admin.key.access_key_id()));
    assert!(!format!("{admin:?}").contains(admin.key.secret_access_key()));

    let again = open(dir.path(), &authority, "https://other:1").unwrap();
    let same = again.by_access_key(admin.key.access_key_id()).unwrap();
    assert_eq!(same.key.secret_access_key(), admin.key.secret_access_key());
    assert_eq!(
        again.by_certificate(&admin.certificate).unwrap().name,
        admin.name
    );
    let text = std::fs::read_to_string(home.join("admin.credentials")).unwrap();
    assert!(text.contains("muster_endpoint = https://other:1\n"));

    std::fs::remove_file(home.join("admin.credentials")).unwrap();
    open(dir.path(), &authority, ENDPOINT).unwrap();
    assert!(!home.join("admin.credentials").exists());
}

#[test]
fn operators_come_and_go_and_one_admin_stays() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let operators = open(dir.path(), &authority, ENDPOINT).unwrap();
    let eve = "eve".parse().unwrap();
    let now = SystemTime::now();
    let made = operators.add(&eve, Role::Viewer, &authority, now).unwrap();
    let key = made.operator.key.access_key_id();
    assert!(operators.by_access_key(key).is_some());
    assert!(matches!(
        operators.add(&eve, Role::Admin, &authority, now),
        Err(ControlError::Exists(_))
    ));
    let reopened = open(dir.path(), &authority, ENDPOINT).unwrap();
    assert_eq!(reopened.by_access_key(key).unwrap().role, Role::Viewer);

    operators.remove(&eve).unwrap();
    assert!(operators.by_access_key(key).is_none());
    assert!(
        operators
            .by_certificate(&made.operator.certificate)
            .is_none()
    );
    assert!(matches!(
        operators.remove(&eve),
        Err(ControlError::Unknown(_))
    ));
    assert!(matches!(
        operators.remove(&"admin".parse().unwrap()),
        Err(ControlError::LastAdmin(_))
    ));
}

#[test]
fn an_operator_gets_other_keys_and_its_files_follow() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let operators = open(dir.path(), &authority, ENDPOINT).unwrap();
    let home = dir.path().join("operators");
    let admin: OperatorName = "admin".parse().unwrap();
    let eve: OperatorName = "eve".parse().unwrap();
    let now = SystemTime::now();
    operators.add(&eve, Role::Viewer, &authority, now).unwrap();
    for (name, kept) in [(&admin, true), (&eve, false)] {
        let rotated = operators.rotate(name, &authority, now).unwrap();
        let (before, after) = (&rotated.before, &rotated.made.operator);
        assert_eq!((before.role, rotated.kept), (after.role, kept));
        assert!(
            operators
                .by_access_key(before.key.access_key_id())
                .is_none()
        );
        assert!(operators.by_certificate(&before.certificate).is_none());
        for known in [&operators, &open(dir.path(), &authority, ENDPOINT).unwrap()] {
            let found = known.by_access_key(after.key.access_key_id()).unwrap();
            assert_eq!(found.key.secret_access_key(), after.key.secret_access_key());
            assert_eq!(
                known.by_certificate(&after.certificate).unwrap().name,
                *name
            );
        }
        let credentials = home.join(format!("{name}.credentials"));
        assert_eq!(credentials.exists(), kept);
        if kept {
            let text = std::fs::read_to_string(&credentials).unwrap();
            assert_eq!(text, rotated.made.credentials);
            assert_eq!(mode(&credentials), 0o600);
            assert_eq!(mode(&home.join("admin.key")), 0o600);
        }
    }
    assert!(matches!(
        operators.rotate(&"nobody".parse().unwrap(), &authority, now),
        Err(ControlError::Unknown(_))
    ));
    // Who is removed leaves no file behind that looks like a way in.
    let other = operators.add(&"ada".parse().unwrap(), Role::Admin, &authority, now);
    other.unwrap();
    operators.remove(&admin).unwrap();
    let left = std::fs::read_dir(&home).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["operators.json"]);
}

#[test]
fn a_registry_that_is_not_understood_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    open(dir.path(), &authority, ENDPOINT).unwrap();
    let path = dir.path().join("operators/operators.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for bad in [
        String::new(),
        "{".into(),
        good.replace("\"version\": 1", "\"version\": 2"),
        good.replace("\"admin\"\n", "\"viewer\"\n"),
        good.replace("\"role\": \"admin\"", "\"role\": \"viewer\""),
        good.replace("\"role\"", "\"rule\""),
    ] {
        if bad == good {
            continue;
        }
        std::fs::write(&path, &bad).unwrap();
        let refusal = open(dir.path(), &authority, ENDPOINT).err().unwrap();
        assert!(matches!(refusal, ControlError::Registry { .. }), "{bad}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
}

#[test]
fn a_certificate_renews_itself_in_the_last_third_of_its_life_where_its_key_is() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let operators = open(dir.path(), &authority, "https://localhost:1").unwrap();
    let name: OperatorName = "ada".parse().unwrap();
    let now = SystemTime::now();
    operators.add(&name, Role::Viewer, &authority, now).unwrap();
    let days = |count: u64| now + Duration::from_secs(count * 86_400);
    assert!(operators.renew(&authority, days(200)).unwrap().is_empty());
    let file = dir.path().join("operators/admin.crt");
    let before = std::fs::read_to_string(&file).unwrap();
    let renewed = operators.renew(&authority, days(300)).unwrap();
    // Ada has her key elsewhere: hers is for her to ask for.
    let names: Vec<_> = renewed.iter().map(|one| one.name.to_string()).collect();
    assert_eq!(names, ["admin"]);
    let after = std::fs::read_to_string(&file).unwrap();
    assert_ne!(before, after);
    let admin = &renewed[0];
    assert!(admin.not_after().unwrap() > days(600) && !admin.is_due(days(300)));
    let facts = ca::CertificateFacts::read(
        &rustls::pki_types::CertificateDer::from_pem_slice(after.as_bytes()).unwrap(),
    );
    assert_eq!(facts.unwrap().id, admin.certificate);
    for operators in [
        &operators,
        &open(dir.path(), &authority, "https://localhost:1").unwrap(),
    ] {
        let known = operators.by_certificate(&admin.certificate).unwrap();
        assert_eq!(known.name.to_string(), "admin");
        assert!(operators.renew(&authority, days(301)).unwrap().is_empty());
    }
    // What cannot be used is left, and stops nobody.
    std::fs::write(dir.path().join("operators/admin.key"), "no key").unwrap();
    assert!(operators.renew(&authority, days(630)).unwrap().is_empty());
}

#[test]
fn near_the_end_of_its_issuer_a_certificate_is_not_renewed_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let operators = open(dir.path(), &authority, "https://localhost:1").unwrap();
    let end = ca::CertificateFacts::read(&authority.issuing_der()).unwrap();
    let before_end = |days: u64| end.not_after - Duration::from_secs(days * 86_400);
    let renewed = operators.renew(&authority, before_end(60)).unwrap();
    assert_eq!(renewed.len(), 1);
    assert!(renewed[0].is_due(before_end(60)));
    assert!(
        operators
            .renew(&authority, before_end(60))
            .unwrap()
            .is_empty()
    );
    assert!(
        operators
            .renew(&authority, before_end(1))
            .unwrap()
            .is_empty()
    );
}
