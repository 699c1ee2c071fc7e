//! Access keys and the files that carry them to an operator.

use std::fmt::Write as _;

use aws_credential_types::Credentials;
use data_encoding::{BASE32_NOPAD, BASE64};

use crate::ControlError;

const KEY_ID_RANDOM_BYTES: usize = 10;
const SECRET_RANDOM_BYTES: usize = 30;

/// A new access key, in AWS's own shapes: `AKIA` and 16 characters, and a secret of 40.
pub(super) fn new_access_key() -> Result<Credentials, ControlError> {
    let mut id = [0; KEY_ID_RANDOM_BYTES];
    let mut secret = [0; SECRET_RANDOM_BYTES];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| ControlError::Random)?;
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| ControlError::Random)?;
    Ok(access_key(
        format!("AKIA{}", BASE32_NOPAD.encode(&id)),
        BASE64.encode(&secret),
    ))
}

/// An access key as kept in memory: wiped when dropped, its secret not shown by `Debug`.
pub(super) fn access_key(id: String, secret: String) -> Credentials {
    Credentials::new(id, secret, None, None, "muster")
}

/// An AWS shared-credentials file. AWS tools ignore the last two lines, with which the operator's
/// command line finds the server and trusts it.
pub(super) fn credentials_file(key: &Credentials, endpoint: &str, root_der: &[u8]) -> String {
    let mut text = String::from("[default]\n");
    for (name, value) in [
        ("aws_access_key_id", key.access_key_id()),
        ("aws_secret_access_key", key.secret_access_key()),
        ("muster_endpoint", endpoint),
        ("muster_root", &BASE64.encode(root_der)),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} = {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{access_key, credentials_file, new_access_key};

    #[test]
    fn keys_have_the_shape_aws_tools_expect_and_differ() {
        let (one, two) = (new_access_key().unwrap(), new_access_key().unwrap());
        assert_eq!(one.access_key_id().len(), 20);
        assert_eq!(one.secret_access_key().len(), 40);
        assert_ne!(one.access_key_id(), two.access_key_id());
        assert_ne!(one.secret_access_key(), two.secret_access_key());
        assert!(!format!("{one:?}").contains(one.secret_access_key()));
    }

    #[test]
    fn the_file_is_what_both_kinds_of_tools_read() {
        let key = access_key("AKIAX".into(), "s/+".into());
        assert_eq!(
            credentials_file(&key, "https://localhost:8443", &[1, 2, 3]),
            "[default]\naws_access_key_id = AKIAX\naws_secret_access_key = s/+\n\
             muster_endpoint = https://localhost:8443\nmuster_root = AQID\n"
        );
    }
}
