use super::*;
use crate::custody::Custody;
use crate::facts::CertificateFacts;
use crate::{Csr, KeyPair, MAX_COMMON_NAME_CHARS};
use proptest::prelude::*;
use std::time::UNIX_EPOCH;

/// 2026-11-24 00:00:00 UTC.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_478_400)
}
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn config() -> AuthorityConfig {
    AuthorityConfig {
        name: "Test".to_owned(),
        public_url: "http://ca.example:8880/".to_owned(),
    }
}

pub(crate) fn authority() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::open_or_create(&dir.path().join("ca"), config(), now()).unwrap();
    (dir, authority)
}

pub(crate) fn subject(common_name: &str, names: &[&str]) -> Subject {
    Subject {
        common_name: common_name.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
    }
}

#[test]
fn each_profile_is_itself_and_no_other() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().unwrap();
    for (profile, subject) in [
        (Profile::Device, subject("lamp-1", &[])),
        (Profile::Server, subject("broker", &["localhost", "::1"])),
        (Profile::Operator, subject("lamp-1", &[])),
        (Profile::OcspResponder, subject("OCSP responder", &[])),
    ] {
        let issued = authority
            .issue(profile, &subject, key.public(), now())
            .unwrap();
        let facts = CertificateFacts::read(&issued.der).unwrap();
        assert_eq!(facts.profile(), Some(profile));
        assert_eq!(facts.id, issued.id);
        assert_eq!(facts.serial, issued.serial);
        assert_eq!(facts.subject_common_names, [subject.common_name]);
        assert_eq!(facts.not_before, now() - BACKDATED);
        assert_eq!(facts.not_after, now() + profile.rules().validity);
        assert!(!facts.is_ca);
        assert!(authority.signed(&issued.der));
    }
    for authority_certificate in [authority.root_der(), authority.issuing_der()] {
        let facts = CertificateFacts::read(&authority_certificate).unwrap();
        assert_eq!(facts.profile(), None);
        assert!(facts.is_ca);
    }
}

#[test]
fn a_name_cannot_make_a_device_an_operator() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().unwrap();
    for name in [
        OPERATOR,
        "ada, O=Muster operators",
        "ada+O=Muster operators",
        "/O=Muster operators",
    ] {
        let device = subject(name, &[]);
        let issued = authority
            .issue(Profile::Device, &device, key.public(), now())
            .unwrap();
        let facts = CertificateFacts::read(&issued.der).unwrap();
        assert_eq!(facts.profile(), Some(Profile::Device), "{name}");
        assert!(facts.subject_organizations.is_empty());
    }
}
const OPERATOR: &str = crate::OPERATOR_ORGANIZATION;

#[test]
fn nothing_outlives_its_issuer() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let end = CertificateFacts::read(&authority.issuing_der())
        .unwrap()
        .not_after;
    let device = subject("lamp-1", &[]);
    let issue = |at| authority.issue(Profile::Device, &device, key.public(), at);
    assert_eq!(issue(end - DAY).unwrap().not_after, end);
    assert_eq!(issue(end - 400 * DAY).unwrap().not_after, end - 35 * DAY);
    let begin = CertificateFacts::read(&authority.issuing_der())
        .unwrap()
        .not_before;
    assert_eq!(issue(begin).unwrap().not_before, begin);
    for wrong in [begin - DAY, end + DAY, UNIX_EPOCH - DAY] {
        let error = issue(wrong).unwrap_err();
        assert!(matches!(error, CaError::OutsideIssuer { .. }), "{error}");
        assert!(error.to_string().contains("set the clock right"));
    }
}

#[test]
fn lives_of_any_length_are_issued() {
    let (_dir, mut authority) = authority();
    let key = KeyPair::generate().unwrap();
    for seconds in (30..=130).chain([299, 301, 599, 600, 601, 86_399]) {
        authority = authority.with_terms(Terms {
            device_validity: Duration::from_secs(seconds),
            ..Terms::default()
        });
        let device = subject("lamp-1", &[]);
        let issued = authority
            .issue(Profile::Device, &device, key.public(), now())
            .unwrap_or_else(|error| panic!("{seconds} s: {error}"));
        assert_eq!(issued.not_after, now() + Duration::from_secs(seconds));
        let backdated = Duration::from_secs((seconds / 10).min(60));
        assert_eq!(issued.not_before, now() - backdated, "{seconds} s");
    }
}

#[test]
fn the_authority_certifies_no_key_of_its_own() {
    let (dir, authority) = authority();
    for file in ["root.key", "issuing.key"] {
        let text = std::fs::read_to_string(dir.path().join("ca").join(file)).unwrap();
        let key = rcgen::KeyPair::from_pem(&text).unwrap();
        let request = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        let csr = Csr::parse(request.der()).unwrap();
        let refused = authority.issue(Profile::Device, &subject("x", &[]), csr.public_key(), now());
        assert!(matches!(refused, Err(CaError::AuthorityKey { .. })));
    }
}

#[test]
fn device_certificates_say_where_to_look() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let device = subject(&"x".repeat(MAX_COMMON_NAME_CHARS), &[]);
    let issued = authority
        .issue(Profile::Device, &device, key.public(), now())
        .unwrap();
    let holds = |text: String| {
        issued
            .der
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    let pointers = authority.pointers(issued.issuer, &issued.serial);
    let index = issued.serial.last_octet() % 16;
    let base = "http://ca.example:8880";
    assert_eq!(pointers.crl, format!("{base}/crl/16/{index}.crl"));
    assert_eq!(pointers.ocsp, format!("{base}/ocsp"));
    assert_eq!(pointers.issuer, format!("{base}/issuing.crt"));
    for url in [pointers.crl, pointers.ocsp, pointers.issuer] {
        assert!(holds(url));
    }
}

#[test]
fn public_urls() {
    for good in ["http://a", "http://[::1]:8880/", "https://ca.example/pki"] {
        assert!(!check_public_url(good).unwrap().ends_with('/'));
    }
    let long = format!("http://{}", "x".repeat(MAX_PUBLIC_URL_CHARS - 7));
    check_public_url(&long).unwrap();
    for bad in [
        "",
        "ca.example",
        "ftp://a",
        "http://",
        "http:///",
        "http://a b",
        "http://ü",
        "http://a?b",
        "http://a#b",
        &format!("{long}x"),
    ] {
        assert!(check_public_url(bad).is_err(), "{bad}");
    }
}

/// A custodian that is away, as a hardware token can be.
struct Away(PublicKey);

impl Custody for Away {
    fn public_key(&self) -> &PublicKey {
        &self.0
    }

    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, crate::custody::CustodyError> {
        let reason = "token removed".to_owned();
        Err(crate::custody::CustodyError { reason })
    }
}

/// Gives the issuing key to another custodian.
fn entrust(authority: &Authority, custody: Box<dyn Custody>) {
    let roots = authority.state.load().roots.clone();
    let chain = vec![authority.issuing_der()];
    let issuer = Issuer::new(IssuerNumber::FIRST, chain, &roots, custody).unwrap();
    let state = State::new(roots, vec![Arc::new(issuer)], now()).unwrap();
    authority.state.store(Arc::new(state));
}

/// A custodian with another key than its certificate says.
struct Other(rcgen::KeyPair, PublicKey);

impl Custody for Other {
    fn public_key(&self) -> &PublicKey {
        &self.1
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, crate::custody::CustodyError> {
        Ok(rcgen::SigningKey::sign(&self.0, message).unwrap())
    }
}

#[test]
fn a_custodian_that_fails_is_heard_and_one_that_lies_is_caught() {
    let (_dir, authority) = authority();
    let key = KeyPair::generate().unwrap();
    let own = authority.state.load().current.public_key().clone();
    entrust(&authority, Box::new(Away(own.clone())));
    let failed = authority.issue(Profile::Device, &subject("x", &[]), key.public(), now());
    assert!(failed.unwrap_err().to_string().contains("token removed"));
    assert!(matches!(
        authority.crl(IssuerNumber::FIRST, 1, &[], now(), now() + DAY),
        Err(CaError::Custody(_))
    ));

    let other = rcgen::KeyPair::generate().unwrap();
    entrust(&authority, Box::new(Other(other, own)));
    let caught = authority.issue(Profile::Device, &subject("x", &[]), key.public(), now());
    assert!(matches!(caught, Err(CaError::Lint { .. })));
    assert!(matches!(
        authority.crl(IssuerNumber::FIRST, 1, &[], now(), now() + DAY),
        Err(CaError::Lint { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No panic, and nothing that was changed in what is signed passes for signed.
    #[test]
    fn mutated_certificates_are_read_quietly(
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static SAMPLE: std::sync::LazyLock<(Authority, Vec<u8>)> = std::sync::LazyLock::new(|| {
            let (_dir, authority) = authority();
            let key = KeyPair::generate().unwrap();
            let server = subject("broker", &["localhost", "10.0.0.1"]);
            let issued = authority.issue(Profile::Server, &server, key.public(), now()).unwrap();
            (authority, issued.der)
        });
        let (authority, original) = &*SAMPLE;
        let mut der = original.clone();
        let at = at.index(der.len());
        der[at] ^= flip;
        if let Some(cut) = cut {
            der.truncate(cut.index(der.len()));
        }
        let read = CertificateFacts::read(&der);
        let _ = read.as_ref().map(CertificateFacts::profile);
        if authority.signed(&der) {
            // Only the envelope around what is signed can be written in other ways: it says the
            // same then, under an id that the registry does not know.
            let (mut facts, meant) = (read.unwrap(), CertificateFacts::read(original).unwrap());
            prop_assert_ne!(facts.id, meant.id);
            facts.id = meant.id;
            prop_assert_eq!(facts, meant);
        }
    }
}
