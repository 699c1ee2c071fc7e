//! The versioned envelope around every typed value: one format byte, the type's version (u16, big
//! endian), then JSON. A later release reads earlier versions; an earlier one says what it met.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StoreError;

/// The envelope's own format: JSON behind a version.
const FORMAT_JSON: u8 = 1;

/// A type that is kept in a table. `impl Stored for Thing {}` is enough until the shape changes in
/// a way serde's defaults cannot bridge; then raise `VERSION` and say how to read the older ones.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version written by this release.
    const VERSION: u16 = 1;

    /// Makes a value of an earlier version (1 to `VERSION - 1`) into one of this release.
    ///
    /// # Errors
    /// A reason, where the old value cannot be understood.
    fn upgrade(version: u16, old: serde_json::Value) -> Result<Self, String> {
        let _ = old;
        Err(format!(
            "there is no way from version {version} to {}",
            Self::VERSION
        ))
    }
}

pub(crate) fn encode<T: Stored>(key: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![FORMAT_JSON];
    bytes.extend_from_slice(&T::VERSION.to_be_bytes());
    serde_json::to_writer(&mut bytes, value).map_err(|source| StoreError::Encode {
        key: key.to_owned(),
        source,
    })?;
    Ok(bytes)
}

pub(crate) fn decode<T: Stored>(key: &str, bytes: &[u8]) -> Result<T, StoreError> {
    let unreadable = |reason: String| StoreError::Decode {
        key: key.to_owned(),
        reason,
    };
    let newer = |found: u32, known: u32| StoreError::Newer {
        what: format!("the row {key:?}"),
        found,
        known,
    };
    let Some((&[format, high, low], json)) = bytes.split_first_chunk::<3>() else {
        return Err(unreadable(format!(
            "{} bytes are too few for an envelope",
            bytes.len()
        )));
    };
    match format {
        FORMAT_JSON => {}
        0 => return Err(unreadable("it has no envelope".to_owned())),
        found => return Err(newer(u32::from(found), u32::from(FORMAT_JSON))),
    }
    let version = u16::from_be_bytes([high, low]);
    if version > T::VERSION {
        return Err(newer(u32::from(version), u32::from(T::VERSION)));
    }
    if version == T::VERSION {
        return serde_json::from_slice(json).map_err(|e| unreadable(e.to_string()));
    }
    let old = serde_json::from_slice(json).map_err(|e| unreadable(e.to_string()))?;
    T::upgrade(version, old).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct First {
        name: String,
    }
    impl Stored for First {}

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Second {
        names: Vec<String>,
    }
    impl Stored for Second {
        const VERSION: u16 = 2;
        fn upgrade(version: u16, old: serde_json::Value) -> Result<Self, String> {
            let First { name } = serde_json::from_value(old).map_err(|e| e.to_string())?;
            assert_eq!(version, 1);
            Ok(Second { names: vec![name] })
        }
    }

    #[test]
    fn a_later_release_reads_an_earlier_value() {
        let bytes = encode("k", &First { name: "a".into() }).unwrap();
        assert_eq!(
            decode::<First>("k", &bytes).unwrap(),
            First { name: "a".into() }
        );
        assert_eq!(
            decode::<Second>("k", &bytes).unwrap(),
            Second {
                names: vec!["a".into()]
            }
        );
    }

    #[test]
    fn an_earlier_release_names_what_it_cannot_read() {
        let bytes = encode("thing/a", &Second { names: vec![] }).unwrap();
        let error = decode::<First>("thing/a", &bytes).unwrap_err();
        assert!(matches!(
            error,
            StoreError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ));
        assert!(error.to_string().contains("thing/a"), "{error}");
        let mut other = bytes;
        other[0] = 9;
        assert!(matches!(
            decode::<Second>("k", &other),
            Err(StoreError::Newer { found: 9, .. })
        ));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        for bytes in [
            &[][..],
            &[1],
            &[1, 0],
            &[1, 0, 1],
            &[1, 0, 1, b'{'],
            &[0, 0, 0, 0],
        ] {
            assert!(matches!(
                decode::<First>("k", bytes),
                Err(StoreError::Decode { .. })
            ));
        }
        assert!(matches!(
            decode::<First>("k", &[1, 0, 0, b'1']),
            Err(StoreError::Decode { .. })
        ));
    }
}
