use super::*;
use crate::authority::founding::ISSUING_KEY;
use crate::authority::tests::{authority, config, now, subject};
use crate::{CertificateFacts, KeyKind, KeyPair, Passphrase, Profile};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(86_400);

fn reopened(dir: &tempfile::TempDir) -> Authority {
    Authority::open_or_create(&dir.path().join("ca"), config(), now()).unwrap()
}

fn device(authority: &Authority) -> crate::Issued {
    let key = KeyPair::generate().unwrap();
    let lamp = subject("lamp-1", &[]);
    authority
        .issue(Profile::Device, &lamp, key.public(), now() + DAY)
        .unwrap()
}

fn signed_by_root(authority: &Authority, name: &str, key: &PublicKey) -> CertificateDer<'static> {
    let root_key = authority.root_key().unwrap();
    let made = Made {
        common_name: name.to_owned(),
        key: key.kind(),
        validity: ISSUING_VALIDITY,
    };
    let root = authority.root_der();
    sign_issuing(
        (&root, root_key.as_ref()),
        &made,
        &Permitted::default(),
        None,
        key,
        now(),
    )
    .unwrap()
}

fn taken_offline(authority: &Authority) -> String {
    let passphrase = Passphrase::new(b"a long passphrase").unwrap();
    let text = authority.export_root_key(None, &passphrase).unwrap();
    let digest = crate::CertificateId::of(text.as_bytes()).to_string();
    authority.take_root_offline(&digest, now()).unwrap();
    text
}

#[test]
fn the_next_one_signs_and_the_former_is_still_spoken_for() {
    let (dir, authority) = authority();
    let old = device(&authority);
    let told = std::sync::Arc::new(AtomicUsize::new(0));
    let heard = std::sync::Arc::clone(&told);
    authority.tell_anchors(move |anchors| heard.store(anchors.len(), Ordering::SeqCst));
    assert_eq!(told.load(Ordering::SeqCst), 2);

    let number = authority.rotate_issuing(now() + DAY).unwrap();
    assert_eq!(number.to_string(), "2");
    assert_eq!(told.load(Ordering::SeqCst), 3);
    let new = device(&authority);
    assert_eq!((old.issuer, new.issuer), (IssuerNumber::FIRST, number));
    let later = Authority::open_or_create(&dir.path().join("ca"), config(), now() + DAY);
    for authority in [&authority, &later.unwrap()] {
        assert_eq!(authority.issuers(), [IssuerNumber::FIRST, number]);
        for issued in [&old, &new] {
            assert_eq!(authority.issuer_of(&issued.der), Some(issued.issuer));
            let named = authority.issuer_named_by_pem(&issued.pem);
            assert_eq!(named, Some(issued.issuer));
            let list = authority
                .crl(issued.issuer, 1, &[], now() + DAY, now() + 2 * DAY)
                .unwrap();
            assert_eq!(authority.read_crl(&list).unwrap().issuer, issued.issuer);
            let responder = authority
                .ocsp_responder(issued.issuer, now() + DAY)
                .unwrap();
            let asked = responder
                .request(std::slice::from_ref(&issued.serial))
                .unwrap();
            let answer = responder
                .answer(&asked, now() + DAY, now() + 2 * DAY, |_| {
                    Some(crate::CertificateState::Good)
                })
                .unwrap();
            authority.read_ocsp(&answer, now() + DAY).unwrap();
            let other = authority
                .issuers()
                .into_iter()
                .find(|one| *one != issued.issuer)
                .unwrap();
            let other = authority.ocsp_responder(other, now() + DAY).unwrap();
            assert!(!other.is_asked(&asked));
        }
        assert_eq!(authority.certificates(now() + DAY).len(), 3);
        assert_eq!(
            authority.certificates(now() + DAY)[1],
            authority.issuing_der()
        );
    }
    let facts = CertificateFacts::read(&authority.issuing_der()).unwrap();
    assert_eq!(facts.subject_common_names, ["Test Issuing CA 2"]);
    assert!(new.chain_pem.ends_with(&authority.issuing_pem()));
}

#[test]
fn one_that_has_ended_gets_a_successor_and_one_that_has_not_does_not() {
    let (_dir, authority) = authority();
    let ends = CertificateFacts::read(&authority.issuing_der())
        .unwrap()
        .not_after;
    assert!(!authority.issuing_is_over(ends));
    assert!(authority.issuing_is_over(ends + DAY));
    authority.rotate_issuing(ends + DAY).unwrap();
    let facts = CertificateFacts::read(&authority.issuing_der()).unwrap();
    assert!(facts.is_valid_at(ends + DAY));
    assert!(!authority.issuing_is_over(ends + DAY));
    assert!(authority.issuing_is_over(facts.not_after + DAY));
    // One that has ended is not gone behind.
    assert_eq!(authority.signing().to_string(), "2");
}

/// Made while the clock stood five years ahead, it is of no use for five years; the one before it is.
#[test]
fn one_whose_life_has_not_begun_waits() {
    let (dir, authority) = authority();
    let first = CertificateFacts::read(&authority.issuing_der()).unwrap();
    let ahead = first.not_after + DAY;
    let second = authority.rotate_issuing(ahead).unwrap();
    let issuer_at = |authority: &Authority, at| {
        let key = KeyPair::generate().unwrap();
        let lamp = subject("lamp-1", &[]);
        let issued = authority.issue(Profile::Device, &lamp, key.public(), at);
        issued.map(|issued| issued.issuer)
    };
    // The clock is set right while the server runs, or before it starts again.
    for authority in [&authority, &reopened(&dir)] {
        assert_eq!(issuer_at(authority, now()).unwrap(), IssuerNumber::FIRST);
        assert_eq!(authority.signing(), IssuerNumber::FIRST);
        let waiting = authority.waiting(now()).map(|(number, _)| number);
        assert_eq!(waiting, Some(second));
        assert!(!authority.issuing_is_over(now()));
        assert_eq!(
            authority
                .server_identity(&dir.path().join("tls"), &["localhost".to_owned()], now())
                .unwrap()
                .issuer(),
            IssuerNumber::FIRST
        );
        // The time has come.
        assert_eq!(issuer_at(authority, ahead).unwrap(), second);
        assert_eq!(authority.waiting(ahead), None);
    }
    // Between the two nothing is good, and a third is made.
    let mut authority = reopened(&dir);
    let between = first.not_after + Duration::from_secs(60);
    assert!(authority.issuing_is_over(between));
    assert!(issuer_at(&authority, between).is_err());
    let third = authority.rotate_issuing(between).unwrap();
    assert_eq!(third, second.next());
    authority = reopened(&dir);
    assert_eq!(issuer_at(&authority, between).unwrap(), third);
    assert_eq!(issuer_at(&authority, ahead).unwrap(), third);
    assert_eq!(issuer_at(&authority, now()).unwrap(), IssuerNumber::FIRST);
}

#[test]
fn without_the_roots_key_the_next_one_is_signed_where_it_is() {
    let (dir, authority) = authority();
    let sealed = taken_offline(&authority);
    assert!(!authority.has_root_key().unwrap());
    assert!(!dir.path().join("ca/root.key").exists());
    assert!(matches!(
        authority.rotate_issuing(now()),
        Err(CaError::RootOffline)
    ));
    let authority = reopened(&dir);
    device(&authority);

    let passphrase = Passphrase::new(b"a long passphrase").unwrap();
    let brought = || SecretKey::from_pem(sealed.as_bytes(), Some(&passphrase)).unwrap();
    let request = authority.issuing_request().unwrap();
    assert_eq!(
        Csr::parse(request.as_bytes()).unwrap().public_key(),
        Csr::parse(reopened(&dir).issuing_request().unwrap().as_bytes())
            .unwrap()
            .public_key(),
        "the key waits"
    );
    let foreign = SecretKey::generate(KeyKind::P256).unwrap();
    let root = authority.root_pem();
    let refused = sign_issuing_request(&root, foreign, &request, &[], None, now());
    assert!(refused.unwrap_err().to_string().contains("root.crt"));
    let signed = sign_issuing_request(&root, brought(), &request, &[], None, now()).unwrap();
    let number = authority.adopt_issuing(&signed, None, now()).unwrap();
    assert!(!dir.path().join("ca/issuing-request.key").exists());
    assert_eq!(device(&authority).issuer, number);
    assert_eq!(device(&reopened(&dir)).issuer, number);
    let again = authority.adopt_issuing(&signed, None, now()).unwrap_err();
    assert!(
        again.to_string().contains("nothing was requested"),
        "{again}"
    );
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let (dir, authority) = authority();
    let (_other_dir, other) = crate::authority::tests::authority();
    let sign = |name: &str, key: &SecretKey| {
        pem::certificate(&signed_by_root(&authority, name, key.public()))
    };
    let fresh = || SecretKey::generate(KeyKind::P384).unwrap();
    let read = |path: &str| {
        let text = std::fs::read(dir.path().join("ca").join(path)).unwrap();
        SecretKey::from_pem(&text, None).unwrap()
    };
    let key = fresh();
    let cases: Vec<(&str, String, SecretKey)> = vec![
        ("private key beside", sign("Next", &key), fresh()),
        (
            "has had before",
            authority.issuing_pem(),
            read("issuing.key"),
        ),
        (
            "has had before",
            sign("Next", &read("root.key")),
            read("root.key"),
        ),
        ("subject", sign("Test Issuing CA", &key), key),
        ("lead to", other.issuing_pem(), fresh()),
        ("not an authority's", device(&authority).pem, fresh()),
        ("PEM", "no certificate".to_owned(), fresh()),
    ];
    for (reason, pem, key) in cases {
        let said = authority.adopt_issuing(&pem, Some(key), now()).unwrap_err();
        assert!(said.to_string().contains(reason), "{reason}: {said}");
        assert_eq!(authority.issuers(), [IssuerNumber::FIRST]);
    }
    let key = fresh();
    let good = sign("Next", &key);
    let late = now() + 6 * 366 * DAY;
    let said = authority.adopt_issuing(&good, Some(key), late).unwrap_err();
    assert!(matches!(said, CaError::OutsideIssuer { .. }), "{said}");
    assert_eq!(reopened(&dir).issuers(), [IssuerNumber::FIRST]);
}

#[test]
fn a_chain_and_a_key_of_another_kind_are_taken() {
    let (dir, authority) = authority();
    let key = SecretKey::generate(KeyKind::P384).unwrap();
    let der = signed_by_root(&authority, "Next", key.public());
    let with_root = format!("{}{}", pem::certificate(&der), authority.root_pem());
    let number = authority
        .adopt_issuing(&with_root, Some(key), now())
        .unwrap();
    for authority in [&authority, &reopened(&dir)] {
        let issued = device(authority);
        assert_eq!(issued.issuer, number);
        let list = authority.crl(number, 1, &[], now(), now() + DAY).unwrap();
        assert_eq!(authority.read_crl(&list).unwrap().issuer, number);
        assert_eq!(
            issued.chain_pem.matches("BEGIN").count(),
            2,
            "no root in it"
        );
    }
}

#[test]
fn the_roots_key_goes_only_when_it_is_kept_elsewhere() {
    let (dir, authority) = authority();
    let key = dir.path().join("ca/root.key");
    let refused = authority.take_root_offline("0000", now()).unwrap_err();
    assert!(refused.to_string().contains("take it out again"));
    let passphrase = Passphrase::new(b"a long passphrase").unwrap();
    let first = authority.export_root_key(None, &passphrase).unwrap();
    authority.export_root_key(None, &passphrase).unwrap();
    let digest = crate::CertificateId::of(first.as_bytes()).to_string();
    assert!(
        authority.take_root_offline(&digest, now()).is_err(),
        "not the last"
    );
    assert!(key.exists() && authority.has_root_key().unwrap());
    taken_offline(&authority);
    assert!(matches!(
        authority.export_root_key(None, &passphrase),
        Err(CaError::RootOffline)
    ));
    // As a crash before the removal leaves it.
    std::fs::write(&key, "left behind").unwrap();
    reopened(&dir);
    assert!(!key.exists());
}

#[test]
fn a_rotation_that_was_cut_short_leaves_no_trace() {
    let (dir, authority) = authority();
    authority.rotate_issuing(now()).unwrap();
    let request = authority.issuing_request().unwrap();
    let staging = dir.path().join("ca/.issuing-3-abc");
    std::fs::create_dir(&staging).unwrap();
    std::fs::write(staging.join(ISSUING_KEY), "half a k").unwrap();
    let again = reopened(&dir);
    assert!(!staging.exists());
    assert_eq!(again.issuers().len(), 2);
    // A crash between the rename and the removal of the request's key.
    let root_key = again.root_key().unwrap().secret().unwrap().to_pem();
    let root_key = SecretKey::from_pem(root_key.as_bytes(), None).unwrap();
    let signed =
        sign_issuing_request(&again.root_pem(), root_key, &request, &[], None, now()).unwrap();
    let requested = dir.path().join("ca/issuing-request.key");
    let key = std::fs::read(&requested).unwrap();
    again.adopt_issuing(&signed, None, now()).unwrap();
    std::fs::write(&requested, key).unwrap();
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&requested, private).unwrap();
    assert_eq!(reopened(&dir).issuers().len(), 3);
    assert!(!requested.exists());
}
