//! TLS settings of every listener: 1.3 and 1.2, client certificates judged against our own
//! authority and those that are registered, tickets on (the registry is asked again at every handshake, resumed or full).

use std::sync::Arc;

use fleet::Fleet;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::client_verifier::WithOutside;
use super::refusal::Named;
pub use super::refusal::explain;
pub use super::sampler::Sampler;

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
    Optional,
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

/// Makes the TLS configuration of one listener.
///
/// `authorities` are the certificates of root and issuing authority (DER). Both are anchors, so a
/// device that sends only its leaf is understood. `outside` is the registry that is asked about
/// certificates of other authorities; without it there are none.
///
/// # Errors
/// [`TlsError`], naming which part is unusable.
pub fn server_config(
    authorities: &[CertificateDer<'_>],
    outside: Option<&Fleet>,
    certificate: &ServerCertificate,
    client: ClientAuth,
    protocol: Protocol,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider());
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots
            .add(authority.clone().into_owned())
            .map_err(TlsError::Anchor)?;
    }
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let verifier = match client {
        ClientAuth::Required => verifier,
        ClientAuth::Optional => verifier.allow_unauthenticated(),
    }
    .build()?;
    let verifier = match outside {
        None => verifier,
        Some(fleet) => Arc::new(WithOutside {
            own: verifier,
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

/// aws-lc-rs with the hybrid post-quantum group first: a client that offers a share for it gets it.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    let hybrid = rustls::NamedGroup::X25519MLKEM768;
    provider
        .kx_groups
        .sort_by_key(|group| group.name() != hybrid);
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A handshake in memory with a client that prefers the hybrid group, as OpenSSL 3.5 does, or knows one group only.
    fn negotiated(groups: Option<rustls::NamedGroup>) -> rustls::NamedGroup {
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
        let anchors = [
            authority.root_der().clone(),
            authority.issuing_der().clone(),
        ];
        let server = server_config(
            &anchors,
            None,
            &certificate,
            ClientAuth::Optional,
            Protocol::Http,
        );
        let mut offered = provider();
        if let Some(only) = groups {
            offered.kx_groups.retain(|group| group.name() == only);
        }
        let mut roots = RootCertStore::empty();
        roots.add(authority.root_der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(Arc::new(offered))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = rustls::ServerConnection::new(server.unwrap()).unwrap();
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
        client.negotiated_key_exchange_group().unwrap().name()
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
