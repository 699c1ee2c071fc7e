//! What is newest, as the server's online key says it: TUF snapshot and timestamp metadata (TUF 1.0 §4.4,
//! §4.6) over documents that others have signed offline. Nothing here can make an image acceptable.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use crate::signed::{Document, write_time};
use crate::trust::SPEC_VERSION;
use crate::{Error, ReleaseKey};

#[derive(Serialize)]
struct NewestWire<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    spec_version: &'static str,
    version: u64,
    expires: String,
    meta: BTreeMap<&'a str, FileWire>,
}

#[derive(Serialize)]
struct FileWire {
    version: u64,
}

/// Which version of each targets document is the newest, by file name.
pub(crate) fn snapshot(
    files: &BTreeMap<String, u64>,
    version: u64,
    expires: SystemTime,
    key: &ReleaseKey,
) -> Result<String, Error> {
    let files = files
        .iter()
        .map(|(file, version)| (file.as_str(), *version));
    signed("snapshot", files, version, expires, key)
}

/// Which snapshot is the newest.
pub(crate) fn timestamp(
    snapshot: u64,
    version: u64,
    expires: SystemTime,
    key: &ReleaseKey,
) -> Result<String, Error> {
    signed(
        "timestamp",
        std::iter::once(("snapshot.json", snapshot)),
        version,
        expires,
        key,
    )
}

fn signed<'a>(
    kind: &'static str,
    files: impl Iterator<Item = (&'a str, u64)>,
    version: u64,
    expires: SystemTime,
    key: &ReleaseKey,
) -> Result<String, Error> {
    let unreadable = |why: String| Error::Canonical { why };
    let wire = NewestWire {
        kind,
        spec_version: SPEC_VERSION,
        version,
        expires: write_time(expires)?,
        meta: files
            .map(|(file, version)| (file, FileWire { version }))
            .collect(),
    };
    let value = serde_json::to_value(&wire).map_err(|error| unreadable(error.to_string()))?;
    let mut document = Document::new(value);
    document.sign([key])?;
    String::from_utf8(document.to_bytes()?).map_err(|error| unreadable(error.to_string()))
}
