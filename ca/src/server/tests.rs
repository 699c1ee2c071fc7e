use super::*;
use crate::authority::tests::{authority, now};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn kept_while_it_serves_and_made_anew_when_not() {
    let (base, authority) = authority();
    let dir = base.path().join("tls");
    let local = names(&["localhost", "127.0.0.1"]);
    let get = |names: &[String], now| authority.server_identity(&dir, names, now).unwrap();
    let first = get(&local, now());
    let mode = std::fs::metadata(dir.join(FILE)).unwrap().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(first.chain().len(), 2);
    assert!(!format!("{first:?}").contains("pkcs8"));

    let id = first.facts.id;
    assert_eq!(get(&local, now()).facts.id, id);
    assert_eq!(get(&names(&["127.0.0.1", "LOCALHOST"]), now()).facts.id, id);
    let life = first.facts.not_after.duration_since(first.facts.not_before);
    let third = first.facts.not_after - life.unwrap() / 3;
    assert_eq!(
        get(&local, third - std::time::Duration::from_secs(1))
            .facts
            .id,
        id
    );
    let renewed = get(&local, third);
    assert_ne!(renewed.facts.id, id);
    assert_eq!(get(&local, third).facts.id, renewed.facts.id);

    let wider = get(&names(&["localhost", "127.0.0.1", "mqtt.example"]), third);
    assert_ne!(wider.facts.id, renewed.facts.id);
    assert_eq!(wider.facts.names.len(), 3);
    let narrower = get(&names(&["localhost"]), third);
    assert_eq!(narrower.facts.names.len(), 1);
}

#[test]
fn broken_exposed_or_foreign_identities_are_not_used() {
    let (base, authority) = authority();
    let (other_base, other) = crate::authority::tests::authority();
    let dir = base.path().join("tls");
    let local = names(&["localhost"]);
    let get = || {
        authority
            .server_identity(&dir, &local, now())
            .unwrap()
            .facts
            .id
    };
    let path = dir.join(FILE);
    let first = get();
    let whole = std::fs::read(&path).unwrap();

    std::fs::write(&path, &whole[..whole.len() / 4]).unwrap();
    let second = get();
    assert_ne!(second, first);

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let third = get();
    assert_ne!(third, second);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);

    let foreign = other
        .server_identity(other_base.path(), &local, now())
        .unwrap();
    std::fs::copy(other_base.path().join(FILE), &path).unwrap();
    let fourth = get();
    assert!(fourth != third && fourth != foreign.facts.id);
}

#[test]
fn bad_names_change_nothing() {
    let (base, authority) = authority();
    let dir = base.path().join("tls");
    assert!(
        authority
            .server_identity(&dir, &names(&["a b"]), now())
            .is_err()
    );
    assert!(!dir.exists());
}
