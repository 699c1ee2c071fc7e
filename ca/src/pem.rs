//! Textual encoding (RFC 7468).

use data_encoding::BASE64;
use zeroize::Zeroizing;

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
