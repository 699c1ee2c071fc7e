//! What went wrong in a TLS handshake, in words that mend it. A client's own message seldom says more than
//! `handshake failed`; the operator, who reads the server's log, learns here which end to touch.

use std::fmt;
use std::io;
use std::sync::Arc;

use fleet::Sampler;
use fleet::authorities::NotAdmitted;
use parking_lot::RwLock;
use rustls::client::verify_server_name;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, Error, OtherError};
use rustls_pki_types::ServerName;

/// The sentence for a failed handshake; `None` where there is nothing to mend (a scanner, a lost connection).
#[must_use]
pub fn explain(error: &io::Error) -> Option<&'static str> {
    let tls = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match tls {
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "the client does not trust this server's certificate: the root it is given (mosquitto: --cafile) must be \
             ca/root.crt of this data directory"
        }
        Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnrecognisedName,
        ) => {
            "the client refused this server's certificate: the host it dials must be one of its names (start the \
             server with --name HOST), its clock must be right, and the root it is given must be ca/root.crt of this \
             data directory"
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "by the client's clock this server's certificate is not valid now: set the client's clock right, or the \
             server's"
        }
        Error::NoCertificatesPresented => {
            "the client showed no certificate: every device has its own (muster device create)"
        }
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => {
            "the client's certificate has expired by this server's clock: renew it (muster device replace), or set \
             the clock right"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => {
            "the client's certificate is not valid yet by this server's clock: set the clock right, here or where it \
             was issued"
        }
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => NotAdmitted::Stranger.as_str(),
        Error::InvalidCertificate(
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. },
        ) => {
            "the client's certificate is not for clients: only a device certificate opens this door"
        }
        Error::InvalidCertificate(CertificateError::Other(OtherError(other)))
            if let Some(why) = other.downcast_ref::<NotAdmitted>() =>
        {
            why.as_str()
        }
        Error::InvalidCertificate(_) => {
            "the client's certificate is not one that this server's authority gives to devices"
        }
        Error::NoApplicationProtocol => {
            "the client asks for a protocol (ALPN) that is not spoken at this port: MQTT and WebSocket have a port each"
        }
        _ => return None,
    })
}

/// Hands out the one certificate of now; a client that dials a name it lacks is served all the same (whether to go on is
/// for the client to say) and named in the log.
pub(crate) struct Named {
    key: RwLock<Arc<CertifiedKey>>,
    lines: Sampler,
}

impl fmt::Debug for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Named")
    }
}

impl Named {
    pub(crate) fn new(key: CertifiedKey) -> Self {
        Self {
            key: RwLock::new(Arc::new(key)),
            lines: Sampler::new(),
        }
    }

    /// From the next handshake on there is another.
    pub(crate) fn replace(&self, key: CertifiedKey) {
        *self.key.write() = Arc::new(key);
    }

    fn carries(&self, dialed: &str) -> bool {
        let key = Arc::clone(&self.key.read());
        let leaf = key.end_entity_cert().map(ParsedCertificate::try_from);
        let (Ok(Ok(leaf)), Ok(name)) = (leaf, ServerName::try_from(dialed)) else {
            return false;
        };
        verify_server_name(&leaf, &name).is_ok()
    }
}

impl ResolvesServerCert for Named {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(dialed) = hello.server_name()
            && !self.carries(dialed)
            && self.lines.take()
        {
            // A DNS name by now: rustls has parsed it, so it cannot write lines of its own here.
            tracing::warn!(
                "a client dials {dialed}, which this server's certificate does not carry: start the server with --name {dialed}"
            );
        }
        Some(Arc::clone(&self.key.read()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_newcomers_mistake_has_its_mend() {
        for (error, mend) in [
            (
                Error::AlertReceived(AlertDescription::UnknownCA),
                "--cafile",
            ),
            (
                Error::AlertReceived(AlertDescription::BadCertificate),
                "--name",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateExpired),
                "clock",
            ),
            (Error::NoCertificatesPresented, "device create"),
            (
                Error::InvalidCertificate(CertificateError::Expired),
                "clock",
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidYet),
                "clock",
            ),
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "another authority",
            ),
        ] {
            let shown = format!("{error:?}");
            let said = explain(&io::Error::new(io::ErrorKind::InvalidData, error));
            assert!(
                said.is_some_and(|said| said.contains(mend)),
                "{shown}: {said:?}"
            );
        }
    }

    #[test]
    fn what_is_nobodys_mistake_says_nothing() {
        assert_eq!(
            explain(&io::Error::from(io::ErrorKind::ConnectionReset)),
            None
        );
        assert_eq!(explain(&io::Error::other(Error::DecryptError)), None);
    }
}
