use super::*;
use crate::authority::IssuerNumber;
use crate::authority::tests::{authority, config, now, subject};
use crate::{AuthorityConfig, CertificateId, KeyPair, Passphrase, Profile, PublicKey};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(31_557_600);

fn reopened(dir: &TempDir) -> Authority {
    reopened_at(dir, now())
}

fn reopened_at(dir: &TempDir, at: SystemTime) -> Authority {
    Authority::open_or_create(&dir.path().join("ca"), config(), at).unwrap()
}

fn other(name: &str) -> (TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let config = AuthorityConfig {
        name: name.to_owned(),
        ..config()
    };
    let authority = Authority::open_or_create(&dir.path().join("ca"), config, now() + YEAR);
    (dir, authority.unwrap())
}

fn secret(dir: &TempDir, key: &str) -> SecretKey {
    let text = std::fs::read(dir.path().join("ca").join(key)).unwrap();
    SecretKey::from_pem(&text, None).unwrap()
}

fn device(authority: &Authority, at: SystemTime) -> crate::Issued {
    let key = KeyPair::generate().unwrap();
    let lamp = subject("lamp-1", &[]);
    authority
        .issue(Profile::Device, &lamp, key.public(), at)
        .unwrap()
}

fn names(certificates: &[CertificateDer<'static>]) -> Vec<(String, String)> {
    let name = |name: &x509_parser::x509::X509Name<'_>| {
        let name = name.iter_common_name().next().unwrap();
        name.as_str()
            .unwrap()
            .replace("Test ", "")
            .replace(" CA", "")
    };
    let mut names: Vec<_> = certificates
        .iter()
        .map(|der| {
            let read = facts::parse(der).unwrap();
            (name(read.subject()), name(read.issuer()))
        })
        .collect();
    names.sort();
    names
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
    expected.iter().map(pair).collect()
}

/// Whether a chain, leaf first, leads to a root by signatures and lives at a time.
fn leads(
    chain: &[CertificateDer<'static>],
    root: &CertificateDer<'static>,
    at: SystemTime,
) -> bool {
    let signed = |by: &[u8], der: &[u8]| {
        let (by, der) = (facts::parse(by).unwrap(), facts::parse(der).unwrap());
        der.issuer().as_raw() == by.subject().as_raw()
            && der.verify_signature(Some(by.public_key())).is_ok()
    };
    let good =
        |der: &CertificateDer<'_>| crate::CertificateFacts::read(der).unwrap().is_valid_at(at);
    let mut top = 0;
    while let Some(one) = chain.get(top) {
        if !good(one) {
            return false;
        }
        if signed(root, one) {
            return good(root);
        }
        match chain.get(top + 1) {
            Some(next) if signed(next, one) => top += 1,
            _ => return false,
        }
    }
    false
}

fn server(authority: &Authority, dir: &TempDir, at: SystemTime) -> Vec<CertificateDer<'static>> {
    let names = ["localhost".to_owned()];
    let identity = authority.server_identity(&dir.path().join("tls"), &names, at);
    identity.unwrap().chain()
}

#[test]
fn a_successor_takes_over_while_both_are_trusted_and_the_former_ends() {
    let (dir, authority) = authority();
    let (first, old) = (authority.root_der(), device(&authority, now()));
    let at = now() + 13 * YEAR;
    authority.rotate_issuing(at).unwrap();
    assert!(leads(&server(&authority, &dir, at), &first, at));
    let told = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&told);
    authority.tell_anchors(move |anchors| heard.store(anchors.len(), Ordering::SeqCst));

    let number = authority.succeed_root(None, at).unwrap();
    assert_eq!(number.to_string(), "2");
    assert_eq!(told.load(Ordering::SeqCst), 5);
    let second = authority.root_der();
    assert!(second != first);
    let end = |der: &[u8]| crate::CertificateFacts::read(der).unwrap().not_after;
    assert!(end(&second) > end(&first) + 12 * YEAR);
    for authority in [&authority, &reopened(&dir)] {
        assert_eq!(authority.trusted_roots(), [first.clone(), second.clone()]);
        let file = std::fs::read_to_string(dir.path().join("ca/root.crt")).unwrap();
        assert_eq!(file, authority.trust_pem());
        assert_eq!(file.matches("BEGIN CERTIFICATE").count(), 2);
        // OldWithOld, NewWithNew, NewWithOld, OldWithNew and what is issuing still.
        let shown = names(&authority.certificates(at));
        let expected = [
            ("Issuing 2", "Root"),
            ("Issuing 3", "Root 2"),
            ("Root", "Root"),
            ("Root", "Root 2"),
            ("Root 2", "Root"),
            ("Root 2", "Root 2"),
        ];
        assert_eq!(shown, pairs(&expected));
        // The server's certificate is another at once, and who trusts either root follows it.
        let chain = server(authority, &dir, at);
        assert!(leads(&chain, &first, at) && leads(&chain, &second, at));
        assert_eq!(authority.issuer_of(&old.der), Some(old.issuer));
        let new = device(authority, at);
        assert_eq!(authority.root_of(new.issuer), Some(number));
        assert!(new.not_after > at + 300 * DAY);
        let key = PublicKey::of_certificate(&second).unwrap();
        let lamp = subject("lamp-2", &[]);
        assert!(matches!(
            authority.issue(Profile::Device, &lamp, &key, at),
            Err(CaError::AuthorityKey { which: "root" })
        ));
    }
    let refused = |result: Result<(), CaError>| result.unwrap_err().to_string();
    assert!(refused(authority.retire_root(number, true, at)).contains("newest"));
    let said = refused(authority.retire_root(RootNumber::FIRST, false, at));
    assert!(said.contains("--before-its-end"), "{said}");
    let none = RootNumber::new(9).unwrap();
    assert!(refused(authority.retire_root(none, true, at)).contains("no root of that number"));

    // At its end: what is shown leads to the next alone, and nobody is told of what has ended.
    let late = end(&first) + DAY;
    authority.rotate_issuing(at + 4 * YEAR).unwrap();
    let authority = reopened(&dir);
    authority.rotate_issuing(late - 30 * DAY).unwrap();
    let chain = server(&authority, &dir, late);
    assert!(leads(&chain, &second, late) && !leads(&chain, &first, late));
    assert_eq!(chain.len(), 2);
    assert!(
        names(&authority.certificates(late))
            .iter()
            .all(|(_, by)| by == "Root 2")
    );
    assert!(dir.path().join("ca/root.key").exists());
    authority
        .retire_root(RootNumber::FIRST, false, late)
        .unwrap();
    assert!(refused(authority.retire_root(RootNumber::FIRST, false, late)).contains("already"));
    for authority in [&authority, &reopened(&dir)] {
        assert_eq!(authority.trusted_roots(), std::slice::from_ref(&second));
        assert!(!authority.anchors().contains(&first));
        assert!(authority.every_authority().contains(&first));
        assert!(!dir.path().join("ca/root.key").exists());
        let file = std::fs::read_to_string(dir.path().join("ca/root.crt")).unwrap();
        assert_eq!(file, crate::pem::certificate(&second));
        // It is still spoken for.
        let list = authority.crl(old.issuer, 1, &[], late, late + DAY);
        assert!(list.is_ok());
        device(authority, late);
    }
}

#[test]
fn with_the_former_key_elsewhere_it_is_signed_there() {
    let (dir, authority) = authority();
    let former = secret(&dir, "root.key");
    let passphrase = Passphrase::new(b"a long passphrase").unwrap();
    let kept = authority.export_root_key(None, &passphrase).unwrap();
    let digest = CertificateId::of(kept.as_bytes()).to_string();
    authority.take_root_offline(&digest, now()).unwrap();
    assert!(matches!(
        authority.succeed_root(None, now()),
        Err(CaError::RootOffline)
    ));

    let request = authority.root_request(now() + DAY).unwrap();
    let again = reopened(&dir).root_request(now() + DAY).unwrap();
    assert_eq!(request, again, "its key is the same until it is answered");
    let (elsewhere, stranger) = other("Stranger");
    let wrong = [
        cross_sign(
            &stranger.root_pem(),
            secret(&elsewhere, "root.key"),
            &request,
            now() + YEAR,
        )
        .unwrap(),
        cross_sign(
            &authority.root_pem(),
            secret(&dir_of(&kept), "root.key"),
            &stranger.root_pem(),
            now() + YEAR,
        )
        .unwrap(),
        request.clone(),
        "no pem".to_owned(),
    ];
    for cross in &wrong {
        let error = authority
            .succeed_root(Some(cross), now() + DAY)
            .unwrap_err();
        assert!(matches!(error, CaError::Invalid { .. }), "{error}");
        assert_eq!(authority.trusted_roots().len(), 1);
        assert_eq!(authority.issuers().len(), 1);
    }
    let cross = cross_sign(&authority.root_pem(), former, &request, now() + DAY).unwrap();
    authority.succeed_root(Some(&cross), now() + DAY).unwrap();
    for authority in [&authority, &reopened(&dir)] {
        assert_eq!(authority.root_pem(), request);
        assert!(authority.has_root_key().unwrap());
        let keys: Vec<_> = authority
            .roots()
            .unwrap()
            .iter()
            .map(|root| root.has_key)
            .collect();
        assert_eq!(keys, [false, true]);
        device(authority, now() + DAY);
    }
    assert!(!dir.path().join("ca/root-request").exists());
    // The next request is for another, and the newest key goes offline as the first did.
    let next = authority.root_request(now() + 2 * DAY).unwrap();
    assert_ne!(next, request);
    let kept = authority.export_root_key(None, &passphrase).unwrap();
    let digest = CertificateId::of(kept.as_bytes()).to_string();
    authority.take_root_offline(&digest, now()).unwrap();
    assert!(!dir.path().join("ca/root-2/root.key").exists());
    assert!(matches!(
        reopened(&dir).rotate_issuing(now()),
        Err(CaError::RootOffline)
    ));
}

/// A directory with a key that was kept under the test's passphrase, in the clear.
fn dir_of(kept: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let passphrase = Passphrase::new(b"a long passphrase").unwrap();
    let key = SecretKey::from_pem(kept.as_bytes(), Some(&passphrase)).unwrap();
    std::fs::create_dir(dir.path().join("ca")).unwrap();
    std::fs::write(dir.path().join("ca/root.key"), key.to_pem().as_bytes()).unwrap();
    dir
}

#[test]
fn one_that_was_made_elsewhere_is_taken_with_its_issuing_certificate() {
    let (dir, authority) = authority();
    let (next_dir, next) = other("Next");
    let successor = |issuing: &str, key: Option<&str>| Successor {
        certificate: next.root_pem(),
        of_former: None,
        issuing: issuing.to_owned(),
        issuing_key: key.map(|key| secret(&next_dir, key)),
        list: None,
    };
    let at = now() + YEAR + DAY;
    let issuing = next.issuing_pem();
    // An issuing certificate of another root, without a key, or with another's.
    let (_third_dir, third) = other("Third");
    for bad in [
        successor(&third.issuing_pem(), Some("issuing.key")),
        successor(&issuing, None),
        successor(&issuing, Some("root.key")),
        Successor {
            certificate: next.issuing_pem(),
            ..successor(&issuing, Some("issuing.key"))
        },
        Successor {
            certificate: authority.root_pem(),
            ..successor(&issuing, Some("issuing.key"))
        },
        Successor {
            of_former: Some(next.root_pem()),
            ..successor(&issuing, Some("issuing.key"))
        },
    ] {
        let error = authority.adopt_root(bad, None, at).unwrap_err();
        assert!(matches!(error, CaError::Invalid { .. }), "{error}");
        assert_eq!(reopened(&dir).trusted_roots().len(), 1);
        assert_eq!(reopened(&dir).issuers().len(), 1);
    }
    authority
        .adopt_root(successor(&issuing, Some("issuing.key")), None, at)
        .unwrap();
    for authority in [&authority, &reopened_at(&dir, at)] {
        assert_eq!(authority.root_der(), next.root_der());
        assert_eq!(authority.issuing_der(), next.issuing_der());
        assert!(!authority.has_root_key().unwrap());
        let chain = server(authority, &dir, at);
        assert!(leads(&chain, &next.root_der(), at));
        assert!(leads(&chain, &authority.trusted_roots()[0], at));
    }
    // One that ends before the present root follows nobody.
    let (before_dir, before) = authority_with_short_root();
    let short = Successor {
        certificate: before.root_pem(),
        of_former: None,
        issuing: before.issuing_pem(),
        issuing_key: Some(secret(&before_dir, "issuing.key")),
        list: None,
    };
    let (_dir, long) = crate::authority::tests::authority();
    let said = long.adopt_root(short, None, now()).unwrap_err().to_string();
    assert!(said.contains("ends before"), "{said}");
}

fn authority_with_short_root() -> (TempDir, Authority) {
    use crate::{IssuingPlan, Keyring, Plan, RootPlan};
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str| Made {
        common_name: name.to_owned(),
        key: KeyKind::P256,
        validity: 30 * DAY,
    };
    let plan = Plan {
        root: RootPlan::Made(made("Short Root")),
        issuing: IssuingPlan::Made {
            certificate: made("Short Issuing"),
            permitted_dns: Vec::new(),
            permitted_ip: Vec::new(),
        },
        root_leaves: false,
        public_url: None,
    };
    let place = dir.path().join("ca");
    let (url, keyring) = ("http://ca.example", Keyring::default());
    Authority::found(&place, plan, url, keyring, now(), |_| Ok::<_, CaError>(())).unwrap();
    let authority = Authority::open_or_create(&place, config(), now());
    (dir, authority.unwrap())
}

#[test]
fn three_in_a_row_and_what_is_compromised_goes_before_its_end() {
    let (dir, authority) = authority_with_short_root();
    let first = authority.root_der();
    authority.succeed_root(None, now() + DAY).unwrap();
    let at = now() + 2 * DAY;
    let (next_dir, next) = other("Next");
    let third = Successor {
        certificate: next.root_pem(),
        of_former: None,
        issuing: next.issuing_pem(),
        issuing_key: Some(secret(&next_dir, "issuing.key")),
        list: None,
    };
    // It is not good yet.
    assert!(matches!(
        authority.adopt_root(third, None, at),
        Err(CaError::OutsideIssuer { .. })
    ));
    let third = authority.succeed_root(None, at + DAY).unwrap();
    assert_eq!(third.to_string(), "3");
    let chain = server(&authority, &dir, at + 2 * DAY);
    assert_eq!(chain.len(), 4);
    for root in authority.trusted_roots() {
        assert!(leads(&chain, &root, at + 2 * DAY));
    }
    let second = RootNumber::new(2).unwrap();
    let said = authority
        .retire_root(second, true, at)
        .unwrap_err()
        .to_string();
    assert!(said.contains("retire that first"), "{said}");
    let at = at + DAY;
    authority.retire_root(RootNumber::FIRST, true, at).unwrap();
    authority.retire_root(second, true, at).unwrap();
    let chain = server(&authority, &dir, at + DAY);
    assert_eq!(chain.len(), 2);
    assert!(!authority.anchors().contains(&first));
    assert!(authority.issuing_der_of(IssuerNumber::FIRST).is_some());
    // Before its end the anchor of its issuing certificate goes with it.
    let below = authority.issuing_der_of(IssuerNumber::FIRST).unwrap();
    assert!(!authority.anchors().contains(&below));
}

#[test]
fn what_a_crash_leaves_is_whole() {
    let (dir, authority) = authority();
    authority.root_request(now()).unwrap();
    let ca = dir.path().join("ca");
    std::fs::create_dir(ca.join(".root-half")).unwrap();
    std::fs::write(ca.join(".root-half/root.key"), "half").unwrap();
    authority.succeed_root(None, now() + DAY).unwrap();
    drop(authority);
    // Between the two renames: a root without an issuing certificate below it.
    std::fs::rename(ca.join("issuing-2"), dir.path().join("away")).unwrap();
    std::fs::write(
        ca.join("root.crt"),
        std::fs::read(ca.join("root-1.crt")).unwrap(),
    )
    .unwrap();
    let authority = reopened(&dir);
    assert!(!ca.join(".root-half").exists());
    assert_eq!(authority.trusted_roots().len(), 2);
    assert_eq!(authority.root_of_issuing(), Some(RootNumber::FIRST));
    let shown = server(&authority, &dir, now() + DAY);
    let [former, newest] = [0, 1].map(|at| authority.trusted_roots()[at].clone());
    assert!(leads(&shown, &former, now() + DAY) && !leads(&shown, &newest, now() + DAY));
    assert_eq!(authority.root_der_of_issuing(), former);
    let text = std::fs::read_to_string(ca.join("root.crt")).unwrap();
    assert_eq!(text, authority.trust_pem());
    authority.rotate_issuing(now() + DAY).unwrap();
    assert_eq!(authority.root_of_issuing(), RootNumber::new(2));
    assert_eq!(authority.root_der_of_issuing(), newest);
    // A cross-certificate that is of something else stops the start, and says so.
    std::fs::copy(ca.join("root-1.crt"), ca.join("root-2/by-former.crt")).unwrap();
    let said = Authority::open_or_create(&ca, config(), now())
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(said.contains("by-former.crt"), "{said}");
}

/// Every kind of key that a root may have signs a cross-certificate that reads back.
#[test]
fn roots_of_every_kind_follow_one_another() {
    for (old, new) in [
        (KeyKind::P256, KeyKind::P384),
        (KeyKind::P384, KeyKind::Ed25519),
        (KeyKind::Ed25519, KeyKind::P256),
    ] {
        let root = |name: &str, kind| {
            let key = SecretKey::generate(kind).unwrap();
            let pem = key.to_pem();
            let key = FileKey::from(key);
            let made = Made {
                common_name: name.to_owned(),
                key: kind,
                validity: ROOT_VALIDITY,
            };
            let der = make_root(&made, &key, now()).unwrap();
            let again = SecretKey::from_pem(pem.as_bytes(), None).unwrap();
            (pem::certificate(&der), again)
        };
        let ((former, former_key), (next, _)) = (root("Former", old), root("Next", new));
        let cross = cross_sign(&former, former_key, &next, now() + DAY).unwrap();
        let der = one_certificate(&cross).unwrap();
        let read = facts::parse(&der).unwrap();
        let root = |pem: &str| {
            Root::new(
                RootNumber::FIRST,
                one_certificate(pem).unwrap(),
                Path::new(""),
            )
            .unwrap()
        };
        cross::check(&der, &root(&next), &root(&former)).unwrap();
        assert!(cross::check(&der, &root(&former), &root(&next)).is_err());
        assert_eq!(read.validity().not_after.timestamp(), {
            let former = root(&former);
            times::seconds(former.facts.not_after).unwrap()
        });
        let strange = SecretKey::generate(new).unwrap();
        assert!(cross_sign(&next, strange, &former, now() + DAY).is_err());
    }
}
