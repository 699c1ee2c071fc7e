//! Textual encoding (RFC 7468).

use data_encoding::BASE64;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use zeroize::Zeroizing;

use crate::error::CaError;

/// Octets that make one line of 64 characters.
const LINE_BYTES: usize = 48;

/// The PEM text of one object. The buffer is sized beforehand, so that no copy of a secret is
/// left behind by growth.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let lines = der.len().div_ceil(LINE_BYTES);
    let mut text = Zeroizing::new(String::with_capacity(lines * 65 + 2 * label.len() + 40));
    text.push_str("-----BEGIN ");
    text.push_str(label);
    text.push_str("-----\n");
    for line in der.chunks(LINE_BYTES) {
        BASE64.encode_append(line, &mut text);
        text.push('\n');
    }
    text.push_str("-----END ");
    text.push_str(label);
    text.push_str("-----\n");
    text
}

/// The PEM text of a certificate.
#[must_use]
pub fn certificate(der: &[u8]) -> String {
    encode("CERTIFICATE", der).as_str().to_owned()
}

/// The first certificate of a PEM text; `None` where there is none.
#[must_use]
pub fn certificate_der(text: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(text.as_bytes()).ok()
}

/// The octets of a revocation list that is given as PEM or DER.
///
/// # Errors
/// [`CaError::Invalid`] for PEM that is not whole.
pub(crate) fn crl_der(given: &[u8]) -> Result<Vec<u8>, CaError> {
    if !given.starts_with(b"-----") {
        return Ok(given.to_vec());
    }
    CertificateRevocationListDer::from_pem_slice(given)
        .map(|list| list.as_ref().to_vec())
        .map_err(|_| CaError::invalid("revocation list", "(as given)", "it is not whole PEM"))
}

/// The PEM text of a revocation list that is given as PEM or DER; whether it is one shows when it is read.
///
/// # Errors
/// [`CaError::Invalid`] for PEM that is not whole.
pub fn crl(given: &[u8]) -> Result<String, CaError> {
    Ok(encode("X509 CRL", &crl_der(given)?).as_str().to_owned())
}
