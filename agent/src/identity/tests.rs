use std::time::Duration;

use super::*;

/// A root, and a way to write a device's identity and a server's certificate below it.
pub(crate) struct Ca {
    certificate: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "test root");
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate,
            issuer: rcgen::Issuer::new(params, key),
        }
    }

    /// Certificate and key in PEM.
    pub(crate) fn issue(
        &self,
        common_name: &str,
        names: &[&str],
        from: SystemTime,
        until: SystemTime,
    ) -> (String, rcgen::KeyPair) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, common_name);
        params.not_before = from.into();
        params.not_after = until.into();
        let key = rcgen::KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key)
    }

    /// A certificate in PEM for a key that is there.
    pub(crate) fn certify(
        &self,
        common_name: &str,
        key: &rcgen::KeyPair,
        from: SystemTime,
        until: SystemTime,
    ) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, common_name);
        params.not_before = from.into();
        params.not_after = until.into();
        params.signed_by(key, &self.issuer).unwrap().pem()
    }

    pub(crate) fn write_identity(&self, dir: &Path, thing: &str) {
        let now = SystemTime::now();
        let (from, until) = (
            now - Duration::from_secs(3600),
            now + Duration::from_secs(3600),
        );
        let (pem, key) = self.issue(thing, &[], from, until);
        fs::write(dir.join("root.crt"), self.root_pem()).unwrap();
        fs::write(dir.join(format!("{thing}.crt")), pem).unwrap();
        fs::write(dir.join(format!("{thing}.key")), key.serialize_pem()).unwrap();
    }

    pub(crate) fn root_pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn root_der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }
}

fn written() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Ca::new().write_identity(dir.path(), "lamp-1");
    dir
}

fn refusal(dir: &Path) -> String {
    Identity::open(dir).unwrap_err().to_string()
}

#[test]
fn what_device_create_wrote_is_understood() {
    let dir = written();
    let identity = Identity::open(dir.path()).unwrap();
    assert_eq!(identity.thing(), "lamp-1");
    assert!(identity.firmware_root().is_none());
    fs::write(dir.path().join("firmware-root.json"), "{}").unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    assert!(identity.firmware_root().is_some());
    assert!(!format!("{identity:?}").contains("PRIVATE"));
}

#[test]
fn each_missing_or_foreign_file_is_named_with_its_mend() {
    let dir = written();
    let other = written();
    fs::copy(
        other.path().join("lamp-1.key"),
        dir.path().join("lamp-1.key"),
    )
    .unwrap();
    let said = refusal(dir.path());
    assert!(said.contains("lamp-1.key is not the key of"), "{said}");
    assert!(said.contains("device replace"), "{said}");

    fs::write(dir.path().join("lamp-1.key"), "no key").unwrap();
    assert!(refusal(dir.path()).contains("holds no private key in PEM"));
    fs::remove_file(dir.path().join("lamp-1.key")).unwrap();
    let said = refusal(dir.path());
    assert!(
        said.contains("lamp-1.key") && said.contains("device create"),
        "{said}"
    );

    let dir = written();
    fs::remove_file(dir.path().join("root.crt")).unwrap();
    assert!(refusal(dir.path()).contains("root.crt"));

    let dir = written();
    fs::write(dir.path().join("lamp-2.crt"), "").unwrap();
    assert!(refusal(dir.path()).contains("several certificates (lamp-1.crt, lamp-2.crt)"));

    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(empty.path()).contains("no device certificate"));
    assert!(refusal(&empty.path().join("nowhere")).contains("nowhere"));
}

#[test]
fn the_time_is_not_before_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, now) = (Ca::new(), SystemTime::now());
    ca.write_identity(dir.path(), "lamp-1");
    let day = Duration::from_secs(86_400);
    let (pem, key) = ca.issue("lamp-1", &[], now + day, now + 2 * day);
    fs::write(dir.path().join("lamp-1.crt"), pem).unwrap();
    fs::write(dir.path().join("lamp-1.key"), key.serialize_pem()).unwrap();
    let identity = Identity::open(dir.path()).unwrap();
    assert!(identity.clock().now() >= identity.life().0);
}

#[test]
fn the_hybrid_group_is_negotiated() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    ca.write_identity(dir.path(), "lamp-1");
    let now = SystemTime::now();
    let identity = Identity::open(dir.path()).unwrap();
    let hour = Duration::from_secs(3600);
    let (pem, key) = ca.issue("localhost", &["localhost"], now - hour, now + hour);
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let mut server = rustls::ServerConnection::new(Arc::new(server)).unwrap();
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(identity.tls(), name).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets().unwrap();
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
}

#[test]
fn an_expired_identity_is_opened_and_due_at_once() {
    let dir = written();
    let later = SystemTime::now() + Duration::from_secs(86_400);
    let identity = Identity::open(dir.path()).unwrap();
    identity.clock().saw(later);
    let identity = identity.reopen().unwrap();
    let (from, until) = identity.life();
    assert!(renewal::due(from, until, 7) < later);
}

#[test]
fn a_renewal_may_end_sooner_and_may_not_be_of_before() {
    const DAY: Duration = Duration::from_secs(86_400);
    let (ca, now) = (Ca::new(), SystemTime::now());
    let begins = now - 100 * DAY;
    let refused = |held_until, from, until| {
        let dir = tempfile::tempdir().unwrap();
        ca.write_identity(dir.path(), "lamp-1");
        let (pem, key) = ca.issue("lamp-1", &[], begins, held_until);
        fs::write(dir.path().join("lamp-1.crt"), pem).unwrap();
        fs::write(dir.path().join("lamp-1.key"), key.serialize_pem()).unwrap();
        let identity = Identity::open(dir.path()).unwrap();
        let (pem, key) = ca.issue("lamp-1", &[], from, until);
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let key = rcgen::PublicKeyData::subject_public_key_info(&key);
        identity.accepts(&leaf, &key).err()
    };
    let in_2199 = UNIX_EPOCH + Duration::from_secs(7_258_032_000);
    // What a thief left: an end that no renewal ever reaches.
    assert_eq!(refused(in_2199, now, now + 30 * DAY), None);
    // Lives were shortened.
    assert_eq!(refused(now + 265 * DAY, now, now + 7 * DAY), None);
    // Longer, and backdated further.
    assert_eq!(refused(begins + DAY, begins - DAY, now), None);
    let never = refused(now + DAY, in_2199, now + DAY);
    assert_eq!(never, Some("it ends before it begins"));
    // By a server that lives in the past.
    let of_before = refused(now + DAY, begins - DAY, now);
    assert!(of_before.unwrap().contains("the server's clock"));
}

#[test]
fn a_certificate_that_is_no_devices_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Ca::new();
    ca.write_identity(dir.path(), "x");
    let now = SystemTime::now();
    let (pem, _) = ca.issue("a/+/b", &[], now, now + Duration::from_secs(60));
    fs::write(dir.path().join("x.crt"), pem).unwrap();
    let said = Identity::open(dir.path()).unwrap_err();
    assert!(said.to_string().contains("is not a thing's name"), "{said}");
}
