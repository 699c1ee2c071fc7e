//! Ids that AWS gives and the registry does not keep: made from what never changes.

use data_encoding::HEXLOWER;
use fleet::Thing;

use crate::api_error::ApiError;

/// A thing's id, as the registry derives it.
pub(super) fn thing_id(thing: &Thing) -> String {
    thing.id()
}

/// A new random id, in the shape of a UUID of version 4.
pub(super) fn new_id() -> Result<String, ApiError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| ApiError::internal(&"the system gives no random numbers"))?;
    let hash = HEXLOWER.encode(&bytes);
    Ok(dashed(&hash, '4'))
}

/// 32 hex digits as a UUID of that version, and of the variant of RFC 9562.
fn dashed(hex: &str, version: char) -> String {
    let digits = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{version}{}-8{}-{}",
        digits(0, 8),
        digits(8, 12),
        digits(13, 16),
        digits(17, 20),
        digits(20, 32)
    )
}

#[cfg(test)]
mod tests {
    use super::{dashed, new_id};

    #[test]
    fn ids_look_like_uuids_and_differ() {
        assert_eq!(
            dashed("0123456789abcdef0123456789abcdef", '4'),
            "01234567-89ab-4def-8123-456789abcdef"
        );
        assert_ne!(new_id().unwrap(), new_id().unwrap());
    }
}
