//! The journal's record of one session: everything but its subscriptions, will and queue, which are
//! records of their own.

use ca::CertificateId;
use serde::{Deserialize, Serialize};

use crate::codec::PacketId;
use crate::session::{Token, UNNUMBERED_FROM};

/// Version of the record; a newer one is refused, not guessed at.
const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    version: u32,
    /// The thing that owns the session, where there is one.
    pub(crate) thing: Option<String>,
    /// The certificate it was last used with.
    pub(crate) certificate: CertificateId,
    /// Its subject's common name, which policies may ask for.
    pub(crate) common_name: Option<String>,
    pub(crate) client_id: String,
    /// Seconds it outlives its connection; `u32::MAX` for ever.
    pub(crate) expiry_s: u32,
    /// When it expires, in milliseconds since the epoch; `None` while connected and for ever.
    pub(crate) expires_at_ms: Option<u64>,
    /// When its will is to be published; `None` while connected or without one.
    pub(crate) will_at_ms: Option<u64>,
    /// Whether a connection held it when this was written.
    pub(crate) connected: bool,
    pub(crate) next_packet_id: PacketId,
    /// The first token that nothing was queued under when this was written: what was given up half-way must not lend
    /// its packet identifier to another message, which the client would take for the one it has.
    #[serde(default)]
    pub(crate) next_token: Token,
    /// The tokens of what was sent and not acknowledged when the connection ended, in the order of sending.
    pub(crate) in_flight: Vec<Token>,
}

/// Why a session record cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("it is not the JSON this version writes: {0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "it has version {0}; this program knows {VERSION}: start the newer program that wrote it"
    )]
    Version(u32),
}

impl SessionRecord {
    /// A session that nothing was sent to yet.
    pub(crate) fn new(
        thing: Option<String>,
        certificate: CertificateId,
        client_id: String,
        expiry_s: u32,
    ) -> Self {
        Self {
            version: VERSION,
            thing,
            certificate,
            common_name: None,
            client_id,
            expiry_s,
            expires_at_ms: None,
            will_at_ms: None,
            connected: true,
            next_packet_id: UNNUMBERED_FROM,
            next_token: 0,
            in_flight: Vec::new(),
        }
    }
}

pub(crate) fn encode(record: &SessionRecord) -> Vec<u8> {
    // Plain strings and numbers: serialising them to memory has no way to fail, and an empty value
    // would be refused when read.
    serde_json::to_vec(record).unwrap_or_default()
}

pub(crate) fn decode(value: &[u8]) -> Result<SessionRecord, RecordError> {
    let record: SessionRecord = serde_json::from_slice(value)?;
    if record.version != VERSION {
        return Err(RecordError::Version(record.version));
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_newer_one_is_refused() {
        let mut record = SessionRecord::new(
            Some("lamp-1".to_owned()),
            "ab".repeat(32).parse().unwrap(),
            "lamp-1".to_owned(),
            60,
        );
        record.in_flight.push(7);
        assert_eq!(decode(&encode(&record)).unwrap(), record);
        // One of before there was a next token.
        let mut older: serde_json::Value = serde_json::from_slice(&encode(&record)).unwrap();
        older.as_object_mut().unwrap().remove("next_token");
        assert_eq!(decode(older.to_string().as_bytes()).unwrap(), record);
        record.version += 1;
        assert!(matches!(
            decode(&encode(&record)),
            Err(RecordError::Version(2))
        ));
    }
}
