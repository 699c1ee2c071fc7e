//! What a failed TLS connection means, in words that mend it.

use std::io;

use rustls::{AlertDescription, CertificateError};

/// The rustls error inside an I/O error, if that is what it carries.
#[must_use]
pub(crate) fn inside(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Puts an I/O error from dialling `host` in words.
#[must_use]
pub(crate) fn explain_io(error: &io::Error, host: &str, port: u16) -> String {
    if let Some(tls) = inside(error) {
        return explain(tls, host);
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            format!("nothing listens at {host}:{port} (is the server up, is the port right?)")
        }
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => {
            format!("{host}:{port} closed the connection ({error})")
        }
        _ => format!("{host}:{port}: {error}"),
    }
}

/// Puts a TLS error in words.
#[must_use]
pub(crate) fn explain(error: &rustls::Error, host: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(fault) => explain_certificate(fault, host),
        rustls::Error::AlertReceived(alert) => explain_alert(*alert),
        other => format!("TLS with {host} failed: {other}"),
    }
}

fn explain_certificate(fault: &CertificateError, host: &str) -> String {
    match fault {
        CertificateError::NotValidForName => format!(
            "the server's certificate does not name {host}: give --server a name it has, or start the server with --name {host}"
        ),
        CertificateError::NotValidForNameContext { presented, .. } => format!(
            "the server's certificate does not name {host} (it names {}): give --server one of those, or start the server with --name {host}",
            presented.join(", ")
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => format!(
            "the certificate of {host} has expired by this device's clock: set the clock, or renew the server's certificate"
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => format!(
            "the certificate of {host} is not valid yet by this device's clock: set the clock"
        ),
        CertificateError::UnknownIssuer => format!(
            "the certificate of {host} was not issued under a root in this identity's root.crt: is --server the server that made this device?"
        ),
        other => format!("the certificate of {host} is not acceptable: {other:?}"),
    }
}

fn explain_alert(alert: AlertDescription) -> String {
    let what = match alert {
        AlertDescription::CertificateRevoked => "this device's certificate was revoked",
        AlertDescription::CertificateExpired => {
            "this device's certificate has expired by the server's clock"
        }
        AlertDescription::UnknownCA => {
            "this device's certificate was issued by another server's authority"
        }
        AlertDescription::AccessDenied
        | AlertDescription::CertificateUnknown
        | AlertDescription::BadCertificate => {
            "the server does not take this device's certificate (not registered, not active, or revoked)"
        }
        other => return format!("the server ended the TLS handshake ({other:?})"),
    };
    format!(
        "{what}: an operator can look with `muster device show` and mend it with `muster device replace`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentences_name_the_mend() {
        let wrong_name = rustls::Error::InvalidCertificate(CertificateError::NotValidForName);
        let said = explain_io(&io::Error::other(wrong_name), "lamp.example", 8883);
        assert!(said.contains("--name lamp.example"), "{said}");
        let early = rustls::Error::InvalidCertificate(CertificateError::NotValidYet);
        assert!(explain(&early, "h").contains("clock"));
        let revoked = rustls::Error::AlertReceived(AlertDescription::CertificateRevoked);
        assert!(explain(&revoked, "h").contains("revoked"));
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert!(explain_io(&refused, "h", 1).contains("nothing listens at h:1"));
    }
}
