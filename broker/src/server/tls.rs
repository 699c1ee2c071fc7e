//! TLS settings of every listener: 1.3 and 1.2, client certificates judged against our own
//! authority and those that are registered, tickets on (the registry is asked again at every handshake, resumed or full).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fleet::Fleet;
use parking_lot::RwLock;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CipherSuite, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use super::client_verifier::WithOutside;
pub use super::lobby::{Admission, LOBBY_PER_SEAT, Lobby, Seat};
use super::refusal::Named;
pub use super::refusal::explain;
pub use fleet::Sampler;

/// Sessions of TLS 1.2 clients that know no tickets; a bound on memory, not a promise to resume.
const RESUMABLE_SESSIONS_WITHOUT_TICKET: usize = 1024;

/// TLS 1.3 tickets sent per handshake. A device holds one connection, so one is enough.
const TICKETS_PER_HANDSHAKE: usize = 1;

/// Whether the client must show a certificate of our authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// The handshake fails without one: the device listeners.
    Required,
    /// One is asked for and judged if shown: HTTPS, where operators may sign requests instead.
    Optional {
        /// How long after its end a certificate is let through the handshake. What is asked under it is for whoever
        /// answers to refuse; a renewal may not be.
        grace: Duration,
    },
}

/// What is spoken inside TLS. A client that names no protocol (ALPN) is taken at any listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// MQTT: `mqtt` or AWS's `x-amzn-mqtt-ca`.
    Mqtt,
    /// HTTP/1.1, also for WebSocket.
    Http,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// An authority certificate is not a usable trust anchor.
    #[error("the authority's certificate cannot be a trust anchor: {0}")]
    Anchor(#[source] rustls::Error),
    /// The client verifier refused its anchors.
    #[error("client certificates cannot be verified: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// Certificate and key do not make an identity.
    #[error("the server's certificate and key cannot be used: {0}")]
    Identity(#[source] rustls::Error),
    /// The provider could not make a ticket key.
    #[error("no key for session tickets could be made: {0}")]
    Tickets(#[source] rustls::Error),
    /// The provider does not offer what TLS 1.2 and 1.3 need.
    #[error("the cryptography provider lacks a TLS version: {0}")]
    Provider(#[source] rustls::Error),
}

/// The server's certificate as all its listeners show it. Clones share it; another one takes its place from the next
/// handshake on, and no connection notices.
#[derive(Debug, Clone)]
pub struct ServerCertificate {
    named: Arc<Named>,
}

impl ServerCertificate {
    /// `chain` is the server's certificate followed by the issuing one, `staple` an OCSP answer about the first.
    ///
    /// # Errors
    /// [`TlsError::Identity`] when certificate and key do not fit.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        staple: Option<Vec<u8>>,
    ) -> Result<Self, TlsError> {
        let named = Arc::new(Named::new(certified(chain, key, staple)?));
        Ok(Self { named })
    }

    /// Puts another in its place.
    ///
    /// # Errors
    /// As [`Self::new`]; the one before stays.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        staple: Option<Vec<u8>>,
    ) -> Result<(), TlsError> {
        self.named.replace(certified(chain, key, staple)?);
        Ok(())
    }
}

fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    staple: Option<Vec<u8>>,
) -> Result<CertifiedKey, TlsError> {
    let mut key = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Identity)?;
    key.ocsp = staple;
    Ok(key)
}

/// What a client's certificate must lead to, as all listeners judge it. Clones share it; others take their place from
/// the next handshake on, and no connection notices.
#[derive(Debug, Clone)]
pub struct ClientAnchors {
    verifier: Arc<RwLock<Arc<dyn ClientCertVerifier>>>,
}

impl ClientAnchors {
    /// `authorities` are the certificates of root and issuing authorities (DER). All are anchors, so a device that
    /// sends only its leaf is understood.
    ///
    /// # Errors
    /// [`TlsError::Anchor`] and [`TlsError::Verifier`].
    pub fn new(authorities: &[CertificateDer<'_>]) -> Result<Self, TlsError> {
        let verifier = Arc::new(RwLock::new(verifier(authorities)?));
        Ok(Self { verifier })
    }

    /// Puts others in their place.
    ///
    /// # Errors
    /// As [`Self::new`]; those before stay.
    pub fn replace(&self, authorities: &[CertificateDer<'_>]) -> Result<(), TlsError> {
        let fresh = verifier(authorities)?;
        *self.verifier.write() = fresh;
        Ok(())
    }
}

fn verifier(authorities: &[CertificateDer<'_>]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority.clone().into_owned())
            .map_err(TlsError::Anchor)?;
    }
    let provider = Arc::new(provider());
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
}

/// One listener's way to ask for a certificate; the anchors of now judge it.
#[derive(Debug)]
struct Judged {
    anchors: ClientAnchors,
    client: ClientAuth,
}

impl Judged {
    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.anchors.verifier.read())
    }

    /// The time that a certificate is judged by: of one that has ended within the grace, its last second.
    fn judged_at(&self, end_entity: &[u8], now: UnixTime) -> UnixTime {
        let ClientAuth::Optional { grace } = self.client else {
            return now;
        };
        let end = ca::CertificateFacts::read(end_entity)
            .ok()
            .and_then(|facts| facts.not_after.duration_since(SystemTime::UNIX_EPOCH).ok());
        match end {
            Some(end) if end.as_secs() < now.as_secs() => {
                let until = end.saturating_add(grace).as_secs();
                if now.as_secs() <= until {
                    UnixTime::since_unix_epoch(end)
                } else {
                    now
                }
            }
            _ => now,
        }
    }
}

impl ClientCertVerifier for Judged {
    fn client_auth_mandatory(&self) -> bool {
        self.client == ClientAuth::Required
    }

    /// None: a client has one certificate and sends that. Names of today's authorities would keep those from it that
    /// choose by name and hold a certificate of tomorrow's.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let at = self.judged_at(end_entity, now);
        self.now().verify_client_cert(end_entity, intermediates, at)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().supported_verify_schemes()
    }
}

/// Makes the TLS configuration of one listener. `outside` is the registry that is asked about certificates of other
/// authorities; without it there are none.
///
/// # Errors
/// [`TlsError`], naming which part is unusable.
pub fn server_config(
    anchors: &ClientAnchors,
    outside: Option<&Fleet>,
    certificate: &ServerCertificate,
    client: ClientAuth,
    protocol: Protocol,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider());
    let judged: Arc<dyn ClientCertVerifier> = Arc::new(Judged {
        anchors: anchors.clone(),
        client,
    });
    let verifier = match outside {
        None => judged,
        Some(fleet) => Arc::new(WithOutside {
            own: judged,
            fleet: fleet.clone(),
            provider: Arc::clone(&provider),
            // Who may come without a certificate does not come to be registered.
            newcomers: client == ClientAuth::Required,
        }),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Provider)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::clone(&certificate.named) as _);
    config.alpn_protocols = match protocol {
        Protocol::Mqtt => vec![b"mqtt".to_vec(), b"x-amzn-mqtt-ca".to_vec()],
        Protocol::Http => vec![b"http/1.1".to_vec()],
    };
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Tickets)?;
    config.session_storage = ServerSessionMemoryCache::new(RESUMABLE_SESSIONS_WITHOUT_TICKET);
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    // Commands of a device must not be replayable: no 0-RTT.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// aws-lc-rs, with the hybrid post-quantum group first (the feature `prefer-post-quantum`): a client that offers a share
/// for it gets it. And with AES-128 first, whose SHA-256 processors compute in hardware where SHA-384 costs a tenth of the
/// handshake.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        !matches!(
            suite.suite(),
            CipherSuite::TLS13_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    });
    provider
}

/// One listener's settings, by who chooses the cipher suite: the server, which knows what is cheap here, unless the
/// client puts ChaCha20 first. It has no AES in hardware then, and each byte costs it more than us.
#[derive(Clone)]
pub(crate) struct Settings {
    servers_choice: Arc<ServerConfig>,
    clients_choice: Arc<ServerConfig>,
}

impl Settings {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let choosing = |ignore_client_order| {
            let mut config = config.clone();
            config.ignore_client_order = ignore_client_order;
            Arc::new(config)
        };
        Self {
            servers_choice: choosing(true),
            clients_choice: choosing(false),
        }
    }

    pub(crate) fn of(&self, hello: &ClientHello<'_>) -> &Arc<ServerConfig> {
        // Browsers and others put reserved values in front that mean nothing (RFC 8701).
        let known = |suite: &&CipherSuite| !matches!(suite, CipherSuite::Unknown(_));
        match hello.cipher_suites().iter().find(known) {
            Some(
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
            ) => &self.clients_choice,
            _ => &self.servers_choice,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handshake in memory with a client that prefers the hybrid group, as OpenSSL 3.5 does, or knows one group only.
    fn negotiated(groups: Option<rustls::NamedGroup>) -> rustls::NamedGroup {
        let mut offered = provider();
        if let Some(only) = groups {
            offered.kx_groups.retain(|group| group.name() == only);
        }
        let client = shaken(offered);
        client.negotiated_key_exchange_group().unwrap().name()
    }

    /// The suite that a client gets which would have `first` most of all.
    fn chosen(first: CipherSuite) -> CipherSuite {
        let mut offered = aws_lc_rs::default_provider();
        offered
            .cipher_suites
            .sort_by_key(|suite| suite.suite() != first);
        let client = shaken(offered);
        client.negotiated_cipher_suite().unwrap().suite()
    }

    /// A client after its handshake with a server of ours.
    fn shaken(offered: CryptoProvider) -> rustls::ClientConnection {
        let dir = tempfile::tempdir().unwrap();
        let now = std::time::SystemTime::now();
        let config = ca::AuthorityConfig {
            name: "test".into(),
            public_url: "http://localhost:8880".into(),
        };
        let authority = ca::Authority::open_or_create(&dir.path().join("ca"), config, now).unwrap();
        let names = ["localhost".to_owned()];
        let home = dir.path().join("tls");
        let identity = authority.server_identity(&home, &names, now).unwrap();
        let certificate =
            ServerCertificate::new(identity.chain(), identity.private_key(), None).unwrap();
        let anchors = ClientAnchors::new(&authority.anchors()).unwrap();
        let optional = ClientAuth::Optional {
            grace: Duration::ZERO,
        };
        let server = server_config(&anchors, None, &certificate, optional, Protocol::Http);
        let settings = Settings::new(&server.unwrap());
        let mut roots = RootCertStore::empty();
        roots.add(authority.root_der()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(offered))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
        let mut acceptor = rustls::server::Acceptor::default();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        acceptor.read_tls(&mut hello.as_slice()).unwrap();
        let accepted = acceptor.accept().ok().flatten().unwrap();
        let settings = Arc::clone(settings.of(&accepted.client_hello()));
        let mut server = accepted.into_connection(settings).ok().unwrap();
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
        client
    }

    #[test]
    fn the_server_chooses_the_suite_unless_the_client_has_no_aes() {
        use CipherSuite::{
            TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
        };
        assert_eq!(chosen(TLS13_AES_256_GCM_SHA384), TLS13_AES_128_GCM_SHA256);
        let poor = chosen(TLS13_CHACHA20_POLY1305_SHA256);
        assert_eq!(poor, TLS13_CHACHA20_POLY1305_SHA256);
    }

    #[test]
    fn an_expired_certificate_passes_within_its_grace_and_only_where_one_is_optional() {
        let dir = tempfile::tempdir().unwrap();
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_478_400);
        let config = ca::AuthorityConfig {
            name: "test".into(),
            public_url: "http://localhost:8880".into(),
        };
        let open = |name: &str| {
            ca::Authority::open_or_create(&dir.path().join(name), config.clone(), begin).unwrap()
        };
        let (authority, other) = (open("ca"), open("other"));
        let issue = |authority: &ca::Authority| {
            let key = ca::KeyPair::generate().unwrap();
            let subject = ca::Subject {
                common_name: "lamp-1".into(),
                names: Vec::new(),
            };
            let issued = authority.issue(ca::Profile::Device, &subject, key.public(), begin);
            issued.unwrap()
        };
        let (issued, foreign) = (issue(&authority), issue(&other));
        let anchors = ClientAnchors::new(&authority.anchors()).unwrap();
        let grace = Duration::from_secs(86_400);
        let passes = |client, certificate: &ca::Issued, late: i64| {
            let end = certificate.not_after.duration_since(SystemTime::UNIX_EPOCH);
            let at = end.unwrap().as_secs().saturating_add_signed(late);
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
            let anchors = anchors.clone();
            let judged = Judged { anchors, client };
            let leaf = certificate.certificate();
            judged.verify_client_cert(&leaf, &[], at).is_ok()
        };
        let optional = ClientAuth::Optional { grace };
        let strict = ClientAuth::Optional {
            grace: Duration::ZERO,
        };
        for (client, late, expected) in [
            (optional, -1, true),
            (optional, 1, true),
            (optional, 86_400, true),
            (optional, 86_401, false),
            (strict, -1, true),
            (strict, 1, false),
            (ClientAuth::Required, -1, true),
            (ClientAuth::Required, 1, false),
        ] {
            assert_eq!(passes(client, &issued, late), expected, "{client:?} {late}");
            assert!(!passes(client, &foreign, late), "{client:?} {late}");
        }
    }

    #[test]
    fn the_hybrid_group_is_negotiated_and_a_client_without_it_is_served() {
        use rustls::NamedGroup;
        assert_eq!(negotiated(None), NamedGroup::X25519MLKEM768);
        let classical = Some(NamedGroup::X25519);
        assert_eq!(negotiated(classical), NamedGroup::X25519);
    }

    #[test]
    fn the_hybrid_group_comes_first_and_the_classical_ones_stay() {
        let groups = provider().kx_groups;
        assert_eq!(
            groups.first().map(|group| group.name()),
            Some(rustls::NamedGroup::X25519MLKEM768)
        );
        assert!(
            groups
                .iter()
                .any(|group| group.name() == rustls::NamedGroup::X25519)
        );
    }
}
