//! The other end of a connection, as its handshake showed it.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use ca::{CertificateFacts, CertificateId, Profile};
use policy::TlsVersion;
use tokio::sync::Notify;

/// Who is at the other end.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Its address, for the log.
    pub(crate) address: SocketAddr,
    /// The client certificate, which the handshake has checked against this server's roots.
    pub(crate) certificate: Option<PeerCertificate>,
    /// What the handshake agreed on; `None` without one.
    pub(crate) tls_version: Option<TlsVersion>,
    /// The server name it was asked for.
    pub(crate) domain_name: Option<Arc<str>>,
    /// Whether it has shown otherwise who it is.
    pub(crate) proof: Proof,
}

impl Peer {
    /// What a handshake showed of its other end.
    pub(crate) fn after(
        connection: &rustls::ServerConnection,
        address: SocketAddr,
        certificate: Option<PeerCertificate>,
    ) -> Self {
        Self {
            tls_version: match connection.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_2) => Some(TlsVersion::V1_2),
                Some(rustls::ProtocolVersion::TLSv1_3) => Some(TlsVersion::V1_3),
                _ => None,
            },
            domain_name: connection.server_name().map(Into::into),
            ..Self::without_tls(address, certificate)
        }
    }

    /// Of a connection in the clear.
    pub(crate) fn without_tls(address: SocketAddr, certificate: Option<PeerCertificate>) -> Self {
        Self {
            address,
            certificate,
            tls_version: None,
            domain_name: None,
            proof: Proof::default(),
        }
    }
}

/// Told when a peer without a certificate has proven to be an operator, by a request with a signature.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proof(Arc<(OnceLock<CertificateId>, Notify)>);

impl Proof {
    /// It is the operator with this certificate.
    pub(crate) fn give(&self, operator: CertificateId) {
        if self.0.0.set(operator).is_ok() {
            self.0.1.notify_one();
        }
    }

    /// Which operator it is, once that is known.
    pub(crate) async fn given(&self) -> CertificateId {
        loop {
            match self.0.0.get() {
                Some(operator) => return *operator,
                None => self.0.1.notified().await,
            }
        }
    }
}

/// What of a client certificate is asked again in every request: a connection may outlive it.
#[derive(Debug, Clone)]
pub(crate) struct PeerCertificate {
    pub(crate) id: CertificateId,
    /// What it was issued as; a device's is no operator's, whatever it is called.
    pub(crate) profile: Option<Profile>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl PeerCertificate {
    /// Reads the facts of a certificate that the handshake accepted.
    pub(crate) fn read(der: &[u8]) -> Option<Self> {
        let facts = CertificateFacts::read(der).ok()?;
        Some(Self {
            id: facts.id,
            profile: facts.profile(),
            not_before: facts.not_before,
            not_after: facts.not_after,
        })
    }

    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}
