use super::{Disconnect, Publication, Session, Settings, Stored, Time};
use crate::codec::{Connect, ReasonCode, Version, Will};
use crate::topic::ClientId;

/// A CONNECT that can be served as far as the protocol goes; what remains is whether this client may.
#[derive(Debug)]
pub struct Proposal {
    connect: Box<Connect>,
    client_id: ClientId,
}

impl Proposal {
    /// Checks a CONNECT against what is served. `assign` makes the identifier of a client that sent none (§3.1.3.1).
    ///
    /// # Errors
    /// The refusal; its CONNACK is already written to `out`.
    pub fn new(
        connect: Connect,
        settings: &Settings,
        assign: impl FnOnce() -> ClientId,
        out: &mut Vec<u8>,
    ) -> Result<Self, Disconnect> {
        todo!()
    }

    /// What the client speaks.
    pub fn version(&self) -> Version {
        self.connect.version
    }

    /// The client's identifier, assigned where it sent none.
    pub fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The will, to be authorised like any publication.
    pub fn will(&self) -> Option<&Will> {
        self.connect.will.as_ref()
    }

    /// Whether a stored session is to be thrown away [MQTT-3.1.2-4].
    pub fn clean_start(&self) -> bool {
        self.connect.clean_start
    }

    /// How many seconds the session is to outlive the connection, as granted.
    pub fn expiry_s(&self) -> u32 {
        todo!()
    }

    /// Writes the CONNACK that refuses it; close after it [MQTT-3.1.4-6].
    pub fn refuse(&self, reason: ReasonCode, reason_string: Option<&str>, out: &mut Vec<u8>) {
        todo!()
    }

    /// Writes the CONNACK that accepts it. `resumed` is what is stored for this client, `None` if nothing is; it is
    /// dropped where the client wants a clean start.
    pub fn open<M: AsRef<Publication> + Clone>(
        self,
        resumed: Option<Stored<M>>,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Session<M> {
        todo!()
    }
}

/// Writes the CONNACK for a CONNECT that could not be decoded, or nothing where the client would understand none.
pub fn refuse(
    version: Option<Version>,
    reason: ReasonCode,
    reason_string: Option<&str>,
    out: &mut Vec<u8>,
) {
    todo!()
}
