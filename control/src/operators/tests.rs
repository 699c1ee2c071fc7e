use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ca::{Authority, AuthorityConfig};
use rustls::pki_types::pem::PemObject as _;

use super::{Operator, OperatorName, Operators, Role};
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
    let made = operators
        .add(&eve, Role::Viewer, &authority, now, unnoted)
        .unwrap();
    let key = made.operator.key.access_key_id();
    assert!(operators.by_access_key(key).is_some());
    assert!(matches!(
        operators.add(&eve, Role::Admin, &authority, now, unnoted),
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
    operators
        .add(&eve, Role::Viewer, &authority, now, unnoted)
        .unwrap();
    for (name, kept) in [(&admin, true), (&eve, false)] {
        let rotated = operators.rotate(name, &authority, now, unnoted).unwrap();
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
        operators.rotate(&"nobody".parse().unwrap(), &authority, now, unnoted),
        Err(ControlError::Unknown(_))
    ));
    // Who is removed leaves no file behind that looks like a way in.
    let other = operators.add(
        &"ada".parse().unwrap(),
        Role::Admin,
        &authority,
        now,
        unnoted,
    );
    other.unwrap();
    operators.remove(&admin).unwrap();
    let left = std::fs::read_dir(&home).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["operators.json"]);
}

fn unnoted(_: &Operator) -> Result<(), ControlError> {
    Ok(())
}

/// Every file of the directory, by name.
fn files(home: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let entries = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap());
    let files = entries.filter(|entry| entry.path().is_file());
    files
        .map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn keys_that_cannot_be_written_leave_the_old_ones_good() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let operators = open(dir.path(), &authority, ENDPOINT).unwrap();
    let home = dir.path().join("operators");
    let admin: OperatorName = "admin".parse().unwrap();
    let now = SystemTime::now();
    let key = operators.list()[0].key.access_key_id().to_owned();
    let before = files(&home);
    let is_as_before = |operators: &Operators| {
        assert!(operators.by_access_key(&key).is_some());
        assert_eq!(operators.list().len(), 1);
        assert_eq!(files(&home), before);
    };
    // Elsewhere.
    let fails = |_: &Operator| Err(ControlError::Random);
    let refused = operators.rotate(&admin, &authority, now, fails);
    assert!(matches!(refused, Err(ControlError::Random)));
    let eve = "eve".parse().unwrap();
    let refused = operators.add(&eve, Role::Viewer, &authority, now, fails);
    assert!(matches!(refused, Err(ControlError::Random)));
    is_as_before(&operators);
    // Its files, the last of them.
    let in_the_way = home.join("admin.credentials.next");
    std::fs::create_dir_all(in_the_way.join("full")).unwrap();
    let refused = operators.rotate(&admin, &authority, now, unnoted);
    assert!(matches!(refused, Err(ControlError::Store(_))));
    is_as_before(&operators);
    std::fs::remove_dir_all(&in_the_way).unwrap();
    // The registry.
    let registry = home.join("operators.json");
    let text = std::fs::read(&registry).unwrap();
    std::fs::remove_file(&registry).unwrap();
    std::fs::create_dir_all(registry.join("full")).unwrap();
    let refused = operators.rotate(&admin, &authority, now, unnoted);
    assert!(matches!(refused, Err(ControlError::Store(_))));
    std::fs::remove_dir_all(&registry).unwrap();
    std::fs::write(&registry, text).unwrap();
    is_as_before(&operators);
    is_as_before(&open(dir.path(), &authority, ENDPOINT).unwrap());
}

#[test]
fn a_rotation_that_was_cut_short_is_finished_or_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let authority = authority(dir.path());
    let operators = open(dir.path(), &authority, ENDPOINT).unwrap();
    let home = dir.path().join("operators");
    let before = files(&home);
    let admin: OperatorName = "admin".parse().unwrap();
    let rotated = operators.rotate(&admin, &authority, SystemTime::now(), unnoted);
    assert!(rotated.unwrap().kept);
    let after = files(&home);
    let names = |files: &BTreeMap<OsString, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    let cut_short = |registry: &BTreeMap<OsString, Vec<u8>>, put: &[&str]| {
        for (name, old) in &before {
            let (old, new) = (old.as_slice(), after[name].as_slice());
            let name = name.to_str().unwrap();
            match name {
                "operators.json" => {
                    std::fs::write(home.join(name), &registry[OsStr::new(name)]).unwrap()
                }
                _ if put.contains(&name) => std::fs::write(home.join(name), new).unwrap(),
                _ => {
                    std::fs::write(home.join(name), old).unwrap();
                    std::fs::write(home.join(format!("{name}.next")), new).unwrap();
                }
            }
        }
        open(dir.path(), &authority, ENDPOINT).unwrap();
        files(&home)
    };
    // The registry has the new ones: none, one or two files were put in their place.
    for put in [&[][..], &["admin.key"], &["admin.key", "admin.crt"]] {
        assert!(cut_short(&after, put) == after, "{put:?}");
    }
    // It has not: nothing was put yet.
    assert!(cut_short(&before, &[]) == before);
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
    operators
        .add(&name, Role::Viewer, &authority, now, unnoted)
        .unwrap();
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
