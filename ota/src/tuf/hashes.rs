//! Length and hashes of a file as metadata states them.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Algorithm, Context, SHA256, SHA384, SHA512};
use data_encoding::HEXLOWER;

use super::TufError;

/// Hashes by algorithm, in hex, as metadata has them.
pub(super) type Hashes = BTreeMap<String, String>;

fn algorithm(name: &str) -> Option<&'static Algorithm> {
    match name {
        "sha256" => Some(&SHA256),
        "sha384" => Some(&SHA384),
        "sha512" => Some(&SHA512),
        _ => None,
    }
}

/// Judges bytes as they come against what was signed for them.
pub(super) struct Check {
    what: String,
    length: Option<u64>,
    seen: u64,
    hashes: Vec<(String, Context, String)>,
}

impl Check {
    /// Algorithms unknown here are passed over, but one at least must be known: what cannot be checked is
    /// not believed.
    pub(super) fn new(
        what: String,
        length: Option<u64>,
        hashes: Option<&Hashes>,
    ) -> Result<Self, TufError> {
        let known: Vec<_> = hashes
            .into_iter()
            .flatten()
            .filter_map(|(name, digest)| {
                let context = Context::new(algorithm(name)?);
                Some((name.clone(), context, digest.to_ascii_lowercase()))
            })
            .collect();
        if hashes.is_some() && known.is_empty() {
            return Err(TufError::Content {
                what,
                why: "none of its hashes is SHA-256, SHA-384 or SHA-512".into(),
            });
        }
        Ok(Self {
            what,
            length,
            seen: 0,
            hashes: known,
        })
    }

    pub(super) fn update(&mut self, bytes: &[u8]) -> Result<(), TufError> {
        self.seen = self.seen.saturating_add(bytes.len() as u64);
        if let Some(length) = self.length.filter(|length| self.seen > *length) {
            return Err(self.fault(format!("it is longer than {length} bytes")));
        }
        for (_, context, _) in &mut self.hashes {
            context.update(bytes);
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<(), TufError> {
        if let Some(length) = self.length.filter(|length| self.seen != *length) {
            let seen = self.seen;
            return Err(self.fault(format!("it has {seen} bytes, not {length}")));
        }
        for (name, context, wanted) in std::mem::take(&mut self.hashes) {
            let got = HEXLOWER.encode(context.finish().as_ref());
            if got != wanted {
                return Err(self.fault(format!("its {name} is {got}, not {wanted}")));
            }
        }
        Ok(())
    }

    fn fault(&self, why: String) -> TufError {
        TufError::Content {
            what: self.what.clone(),
            why,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-4's examples.
    const ABC_256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const ABC_512: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    fn judge(bytes: &[u8], length: Option<u64>, hashes: &[(&str, &str)]) -> Result<(), TufError> {
        let hashes: Hashes = hashes
            .iter()
            .map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned()))
            .collect();
        let mut check = Check::new("file".into(), length, Some(&hashes))?;
        for byte in bytes {
            check.update(&[*byte])?;
        }
        check.finish()
    }

    #[test]
    fn every_known_hash_and_the_length_must_fit() {
        judge(b"abc", Some(3), &[("sha256", ABC_256)]).unwrap();
        judge(b"abc", None, &[("sha512", ABC_512), ("sha256", ABC_256)]).unwrap();
        judge(b"abc", None, &[("sha256", &ABC_256.to_uppercase())]).unwrap();
        judge(b"abc", Some(3), &[("sha256", ABC_256), ("blake9", "00")]).unwrap();
        for (length, hashes) in [
            (Some(2), [("sha256", ABC_256)].as_slice()),
            (Some(4), &[("sha256", ABC_256)]),
            (Some(3), &[("sha256", ABC_512)]),
            (Some(3), &[("sha256", "")]),
            (Some(3), &[("sha256", ABC_256), ("sha512", ABC_256)]),
            (Some(3), &[("blake9", ABC_256)]),
            (Some(3), &[]),
        ] {
            assert!(
                judge(b"abc", length, hashes).is_err(),
                "{length:?} {hashes:?}"
            );
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_its_end() {
        let mut check = Check::new("file".into(), Some(2), None).unwrap();
        check.update(b"ab").unwrap();
        assert!(check.update(b"c").is_err());
    }
}
