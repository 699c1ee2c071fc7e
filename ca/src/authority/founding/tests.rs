use super::*;
use crate::CaError;
use crate::authority::Authority;
use crate::authority::plan::{ISSUING_VALIDITY, ROOT_VALIDITY};
use crate::authority::tests::{config, now};
use std::os::unix::fs::MetadataExt;

fn open_or_create(dir: &Path) -> Result<Authority, CaError> {
    Authority::open_or_create(dir, config(), now())
}

#[test]
fn founded_once_and_the_same_ever_after() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("data/ca");
    let first = open_or_create(&dir).unwrap();
    let again = open_or_create(&dir).unwrap();
    assert_eq!(first.root_der(), again.root_der());
    assert_eq!(first.issuing_der(), again.issuing_der());
    let life = |der: &[u8]| {
        let facts = CertificateFacts::read(der).unwrap();
        facts.not_after.duration_since(facts.not_before).unwrap()
    };
    assert_eq!(life(&first.root_der()), ROOT_VALIDITY);
    assert_eq!(life(&first.issuing_der()), ISSUING_VALIDITY);
}

#[test]
fn what_is_not_finished_is_not_there() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("ca");
    let found = |done: Result<u8, CaError>| {
        let (plan, keyring) = (Plan::usual("Test").unwrap(), Keyring::default());
        Authority::found(
            &dir,
            plan,
            "http://ca.example",
            keyring,
            now(),
            |authority| {
                assert!(authority.has_root_key().unwrap());
                assert!(!dir.exists());
                done
            },
        )
        .map(|(done, unflushed)| {
            assert!(unflushed.is_none());
            done
        })
    };
    found(Err(CaError::Cryptography("finish"))).unwrap_err();
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 0);
    assert_eq!(found(Ok(7)).unwrap(), 7);
    open_or_create(&dir).unwrap();
    let again = found(Ok(7));
    assert!(matches!(again, Err(CaError::AlreadyFounded { .. })));
}

/// Whatever ends the process, no file of what is being founded holds a key that is to be elsewhere.
#[test]
fn a_roots_key_that_leaves_is_never_in_a_file() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("ca");
    let plan = Plan {
        root_leaves: true,
        ..Plan::usual("Test").unwrap()
    };
    let passphrase = crate::Passphrase::new(b"a long passphrase").unwrap();
    let (url, keyring) = ("http://ca.example", Keyring::default());
    let (sealed, _) = Authority::found(&dir, plan, url, keyring, now(), |authority| {
        let beside = fs::read_dir(base.path()).unwrap().next().unwrap().unwrap();
        assert!(!beside.path().join(ROOT_KEY).exists());
        assert!(beside.path().join(ISSUING_KEY).exists());
        assert!(authority.has_root_key().unwrap());
        let sealed = authority.export_root_key(None, &passphrase)?;
        assert_eq!(authority.attest("Said").unwrap().1, "root");
        let kept = crate::CertificateId::of(sealed.as_bytes());
        authority.take_root_offline(&kept.to_string(), now())?;
        assert!(!authority.has_root_key().unwrap());
        Ok::<_, CaError>(sealed)
    })
    .unwrap();
    let key = SecretKey::from_pem(sealed.as_bytes(), Some(&passphrase)).unwrap();
    let authority = open_or_create(&dir).unwrap();
    assert!(!authority.has_root_key().unwrap());
    let root = PublicKey::of_certificate(&authority.root_der()).unwrap();
    assert_eq!(*key.public(), root);
    assert!(matches!(
        authority.rotate_issuing(now()),
        Err(CaError::RootOffline)
    ));
}

#[test]
fn what_is_in_its_place_is_not_taken_back() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("ca");
    let plan = Plan::usual("Test").unwrap();
    let staged = stage(&dir, plan, &Keyring::default(), now()).unwrap();
    let failing = |_: &Path| Err(CaError::Cryptography("flush"));
    let unflushed = put_and(staged, &dir, failing).unwrap();
    assert!(unflushed.is_some());
    open_or_create(&dir).unwrap();
}

#[test]
fn two_at_a_time_do_not_sweep_each_other_away() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("ca");
    let make = || {
        stage(
            &dir,
            Plan::usual("Test").unwrap(),
            &Keyring::default(),
            now(),
        )
    };
    let first = make().unwrap();
    let said = make().map(drop).unwrap_err();
    assert!(matches!(said, CaError::Founding { .. }), "{said}");
    assert!(first.path().join(ROOT_KEY).exists());
    put(first, &dir).unwrap();
    open_or_create(&dir).unwrap();
}

#[test]
fn keys_are_the_owners_alone() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("ca");
    open_or_create(&dir).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for (file, expected) in [
        (ROOT_KEY, 0o600),
        (ISSUING_KEY, 0o600),
        (ROOT_CERTIFICATE, 0o644),
        (ISSUING_CERTIFICATE, 0o644),
    ] {
        assert_eq!(mode(&dir.join(file)), expected, "{file}");
    }
    for open in [0o640, 0o604, 0o644] {
        fs::set_permissions(dir.join(ISSUING_KEY), fs::Permissions::from_mode(open)).unwrap();
        let error = open_or_create(&dir).unwrap_err();
        assert!(matches!(error, CaError::Exposed { .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"));
    }
}

#[test]
fn a_missing_file_is_an_error_that_names_it() {
    for file in FILES {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("ca");
        open_or_create(&dir).unwrap();
        fs::remove_file(dir.join(file)).unwrap();
        let error = open_or_create(&dir).unwrap_err().to_string();
        assert!(error.contains(file) && error.contains("backup"), "{error}");
        assert!(!dir.join(file).exists(), "{file} was made anew");
    }
}

#[test]
fn a_truncated_file_is_an_error_that_names_it() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("ca");
    open_or_create(&dir).unwrap();
    for file in FILES {
        let path = dir.join(file);
        let whole = fs::read(&path).unwrap();
        for length in [0, 1, whole.len() / 2, whole.len() - 20] {
            fs::write(&path, &whole[..length]).unwrap();
            let error = open_or_create(&dir).unwrap_err().to_string();
            assert!(error.contains(file) && error.contains("backup"), "{error}");
            assert_eq!(fs::read(&path).unwrap(), whole[..length], "left as found");
        }
        fs::write(&path, vec![b'x'; durable::MAX_FILE_BYTES as usize + 1]).unwrap();
        let error = open_or_create(&dir).unwrap_err().to_string();
        assert!(error.contains("longer than"), "{error}");
        fs::write(&path, &whole).unwrap();
        open_or_create(&dir).unwrap();
    }
}

#[test]
fn files_of_two_authorities_do_not_mix() {
    let base = tempfile::tempdir().unwrap();
    let (dir, other) = (base.path().join("ca"), base.path().join("other"));
    open_or_create(&dir).unwrap();
    open_or_create(&other).unwrap();
    for file in FILES {
        let path = dir.join(file);
        let own = fs::read(&path).unwrap();
        fs::write(&path, fs::read(other.join(file)).unwrap()).unwrap();
        let error = open_or_create(&dir).unwrap_err();
        assert!(matches!(error, CaError::Damaged { .. }), "{file}: {error}");
        fs::write(&path, own).unwrap();
    }
    // A leaf's place is not the issuer's, and a root's not the intermediate's.
    let issuing = fs::read(dir.join(ISSUING_CERTIFICATE)).unwrap();
    fs::copy(dir.join(ROOT_CERTIFICATE), dir.join(ISSUING_CERTIFICATE)).unwrap();
    assert!(open_or_create(&dir).is_err());
    fs::write(dir.join(ISSUING_CERTIFICATE), issuing).unwrap();
    open_or_create(&dir).unwrap();
}

#[test]
fn other_peoples_directories_are_left_alone() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("thesis.txt"), "x").unwrap();
    let error = open_or_create(base.path()).unwrap_err().to_string();
    assert!(error.contains("thesis.txt"), "{error}");
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1);
}

#[test]
fn an_empty_directory_becomes_the_authority_and_leftovers_go() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("ca");
    fs::create_dir(&dir).unwrap();
    let leftover = base.path().join(".ca-founding-Zz9");
    fs::create_dir(&leftover).unwrap();
    fs::write(leftover.join(ROOT_KEY), "half a k").unwrap();
    fs::create_dir(base.path().join("ca2")).unwrap();
    open_or_create(&dir).unwrap();
    assert!(!leftover.exists());
    assert!(base.path().join("ca2").exists());
    assert_eq!(fs::read_dir(base.path()).unwrap().count(), 2);
}

#[test]
fn names_of_authorities() {
    let base = tempfile::tempdir().unwrap();
    for (name, accepted) in [
        ("", false),
        (&*"x".repeat(48), true),
        (&*"x".repeat(49), false),
    ] {
        let config = crate::AuthorityConfig {
            name: name.to_owned(),
            ..config()
        };
        let dir = base.path().join(format!("ca{}", name.len()));
        let founded = Authority::open_or_create(&dir, config, now());
        assert_eq!(founded.is_ok(), accepted, "{name}");
        assert_eq!(dir.exists(), accepted, "{name}");
    }
}
