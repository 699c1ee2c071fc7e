//! Power cuts at each file operation of an enrolment, and what is refused before a server is asked.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;
use crate::Identity;
use crate::files::Disk;
use crate::identity::tests::Ca;
use crate::powercut::{Left, LossyDisk, plant, tree};
use rcgen::PublicKeyData as _;
use rustls::pki_types::pem::PemObject as _;

const HOUR: Duration = Duration::from_secs(3600);

/// A server's side: it gives certificates, and takes each token for one thing, once.
struct Authority {
    ca: Ca,
    /// The certificate whose token was taken.
    registered: std::cell::RefCell<Option<Vec<u8>>>,
}

impl Authority {
    fn new() -> Self {
        Self {
            ca: Ca::new(),
            registered: std::cell::RefCell::default(),
        }
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.ca.root_der()]
    }

    fn chain(&self, name: &str, key: &rcgen::KeyPair) -> Vec<CertificateDer<'static>> {
        let now = SystemTime::now();
        let pem = self.ca.certify(name, key, now - HOUR, now + HOUR);
        vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()]
    }

    /// What a device does that is let in by claim, up to where its power goes.
    fn claim(&self, dir: &Path, files: &dyn Files) -> Result<String, EnrolError> {
        let mut place = match Place::take(dir, files)? {
            Taken::Whole(thing) => return Ok(thing),
            Taken::Open(place) => place,
        };
        if place.waiting().is_none() {
            let key = place.key()?;
            place.given(&self.chain("Muster IoT Certificate", &key), "token")?;
        }
        let waiting = place.waiting().unwrap();
        let mut registered = self.registered.borrow_mut();
        let certificate = waiting.chain.into_bytes();
        let first = registered.get_or_insert_with(|| certificate.clone());
        assert_eq!(*first, certificate, "two devices of one");
        place.registered("lamp-1", &self.roots(), Some(serde_json::json!({"a": "b"})))?;
        place.finish()
    }

    /// The same by password, which the server takes any number of times.
    fn password(&self, dir: &Path, files: &dyn Files) -> Result<String, EnrolError> {
        let mut place = match Place::take(dir, files)? {
            Taken::Whole(thing) => return Ok(thing),
            Taken::Open(place) => place,
        };
        let key = place.key()?;
        // A key that was shown stays.
        let mut shown = self.registered.borrow_mut();
        let info = key.subject_public_key_info();
        assert_eq!(*shown.get_or_insert_with(|| info.clone()), info);
        place.enrolled(None, &self.chain("lamp-1", &key), "lamp-1", &self.roots())?;
        place.finish()
    }
}

/// What an agent would take for an identity there.
fn has_identity(dir: &Path) -> bool {
    dir.exists() && !crate::identity::names_with(dir, ".crt").unwrap().is_empty()
}

#[test]
fn a_power_cut_at_any_step_leaves_no_identity_or_a_whole_one() {
    type Enrol = fn(&Authority, &Path, &dyn Files) -> Result<String, EnrolError>;
    let ways: [Enrol; 2] = [Authority::claim, Authority::password];
    let mut cuts = 0;
    for enrol in ways {
        for left in Left::EACH {
            for cut_at in 0.. {
                let root = tempfile::tempdir().unwrap();
                let dir = root.path().join("made/identity");
                let authority = Authority::new();
                let disk = LossyDisk::new(root.path(), cut_at);
                let done = enrol(&authority, &dir, &disk);
                let whole = !disk.is_off();
                assert_eq!(done.is_ok(), whole, "{done:?}");
                disk.crash(left);
                if whole || has_identity(&dir) {
                    assert_eq!(Identity::open(&dir).unwrap().thing(), "lamp-1");
                }
                if whole {
                    assert!(cut_at > 15, "{cut_at} operations are fewer than there are");
                    break;
                }
                cuts += 1;
                // The power goes once more, a little later, and comes to stay.
                let again = LossyDisk::new(root.path(), cut_at % 7);
                let _ = enrol(&authority, &dir, &again);
                again.crash(left);
                if has_identity(&dir) {
                    Identity::open(&dir).unwrap();
                }
                match enrol(&authority, &dir, &Disk) {
                    Ok(thing) => assert_eq!(thing, "lamp-1"),
                    Err(EnrolError::Enrolled { .. }) => {}
                    Err(other) => panic!("{left:?} at {cut_at}: {other}"),
                }
                assert_eq!(Identity::open(&dir).unwrap().thing(), "lamp-1");
                let names: Vec<_> = tree(&dir).into_keys().collect();
                let odd = |path: &&std::path::PathBuf| {
                    path.extension().is_some_and(|ending| ending == "json")
                        && !path.ends_with("configuration.json")
                };
                assert_eq!(names.iter().find(odd), None, "{names:?}");
            }
        }
    }
    assert!(cuts > 200, "{cuts}");
}

#[test]
fn a_certificate_of_before_its_thing_had_a_name_is_its_files() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("identity");
    Authority::new().claim(&dir, &Disk).unwrap();
    assert_eq!(Identity::open(&dir).unwrap().thing(), "lamp-1");
    // No name of a file makes a device of another one's certificate.
    for ending in ["crt", "key"] {
        let file = |name: &str| dir.join(format!("{name}.{ending}"));
        fs::rename(file("lamp-1"), file("not a name")).unwrap();
    }
    let said = Identity::open(&dir).unwrap_err().to_string();
    assert!(said.contains("is not a thing's name"), "{said}");
}

#[test]
fn an_identity_that_was_renewed_since_is_not_written_over() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("identity");
    let authority = Authority::new();
    // Cut short when all is there, and the file that says how far it had come is not gone.
    let (mut kept, mut cut_at) = (None, 0);
    while kept.is_none() {
        plant(root.path(), &crate::powercut::Tree::new());
        authority.registered.replace(None);
        let disk = LossyDisk::new(root.path(), cut_at);
        let _ = authority.password(&dir, &disk);
        disk.crash(Left::All);
        kept = (has_identity(&dir) && dir.join("enrolling.json").exists()).then_some(());
        cut_at += 1;
    }
    fs::write(dir.join("lamp-1.crt"), "renewed").unwrap();
    assert_eq!(authority.password(&dir, &Disk).unwrap(), "lamp-1");
    assert_eq!(fs::read(dir.join("lamp-1.crt")).unwrap(), b"renewed");
    assert!(!dir.join("enrolling.json").exists());
}

#[test]
fn what_cannot_be_understood_is_begun_anew() {
    let root = tempfile::tempdir().unwrap();
    for torn in ["", "{", "{\"format\":2,\"key\":\"\",\"given\":null}"] {
        fs::write(root.path().join("enrolling.json"), torn).unwrap();
        let Taken::Open(mut place) = Place::take(root.path(), &Disk).unwrap() else {
            panic!("there is nothing whole");
        };
        assert!(place.waiting().is_none());
        place.key().unwrap();
    }
}

#[test]
fn an_answer_that_is_not_for_this_device_is_refused() {
    let authority = Authority::new();
    let (key, other) = (
        rcgen::KeyPair::generate().unwrap(),
        rcgen::KeyPair::generate().unwrap(),
    );
    let info = key.subject_public_key_info();
    let chain = authority.chain("lamp-1", &key);
    let judge = |leaf: &CertificateDer<'static>, name, roots: &[_]| {
        chain_of(leaf, (&info, name), &[], roots).map_err(|error| error.to_string())
    };
    let roots = authority.roots();
    assert_eq!(judge(&chain[0], Some("lamp-1"), &roots).unwrap(), chain);
    assert_eq!(judge(&chain[0], None, &roots).unwrap(), chain);
    let said = |result: Result<Vec<_>, String>| result.unwrap_err();
    assert!(said(judge(&chain[0], Some("lamp-2"), &roots)).contains("its name is another"));
    let foreign = authority.chain("lamp-1", &other);
    assert!(said(judge(&foreign[0], Some("lamp-1"), &roots)).contains("its key is another"));
    let strangers = Authority::new().roots();
    assert!(said(judge(&chain[0], None, &strangers)).contains("a root that this device trusts"));
    let garbage = CertificateDer::from(vec![0x30, 0]);
    assert!(said(judge(&garbage, None, &roots)).contains("cannot be read"));
}

#[test]
fn what_a_server_that_is_busy_says_is_waited_for_as_long_as_it_asks() {
    let answered = |status, after| CertificateFault::Answered {
        status,
        retry_after: after,
        words: "later".into(),
    };
    let minute = Duration::from_secs(60);
    for status in [202, 408, 429, 500, 503] {
        let Some(Fault::Passing(words, least)) = passing(&answered(status, Some(minute))) else {
            panic!("{status} passes");
        };
        assert!(words.contains("later") && least == minute, "{words}");
    }
    for status in [301, 400, 401, 403, 404, 410] {
        assert!(passing(&answered(status, None)).is_none(), "{status}");
    }
}

#[test]
fn a_fingerprint_is_read_as_it_is_printed() {
    let plain: Fingerprint = "ab".repeat(32).parse().unwrap();
    let printed = vec!["AB"; 32].join(":");
    assert_eq!(printed.parse::<Fingerprint>().unwrap(), plain);
    assert_eq!(plain.to_string(), "AB".repeat(32));
    for bad in [
        "",
        "ab",
        &"ab".repeat(33),
        &"xy".repeat(32),
        &"a".repeat(63),
    ] {
        let said = bad.parse::<Fingerprint>().unwrap_err();
        assert!(said.contains("openssl x509"), "{said}");
    }
}
