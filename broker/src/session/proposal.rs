use bytes_utils::Str;

use super::{
    Disconnect, Published, Session, Settings, Stored, Time, WIRE_PACKET_MAX_BYTES, cut_reason,
    write_within,
};
use crate::codec::{ConnAck, Connect, ReasonCode, Version, Will};
use crate::topic::ClientId;

/// A CONNECT that can be served as far as the protocol goes; what remains is whether this client may.
#[derive(Debug)]
pub struct Proposal {
    pub(super) connect: Box<Connect>,
    pub(super) client_id: ClientId,
    pub(super) settings: Settings,
    assigned: bool,
    response_information: Option<Str>,
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
        if let Err(refusal) = check(&connect, settings) {
            let text = Some(&*refusal.text);
            refuse_within(
                connect.version,
                max_bytes(&connect),
                refusal.reason,
                text,
                out,
            );
            return Err(refusal);
        }
        let assigned = connect.client_id.is_none();
        let proposal = Self {
            // [MQTT-3.1.3-6, -7] [MQTT311-3.1.3-6]
            client_id: connect.client_id.clone().unwrap_or_else(assign),
            connect: Box::new(connect),
            settings: *settings,
            assigned,
            response_information: None,
        };
        let mut connack = Vec::new();
        proposal
            .connack(true)
            .encode(proposal.version(), &mut connack);
        if connack.len() > max_bytes(&proposal.connect) {
            // [MQTT-3.1.2-24]: not even this may be sent, so the connection is closed without a word.
            return Err(Disconnect::new(
                ReasonCode::PacketTooLarge,
                format!(
                    "CONNACK has {} bytes and the client takes fewer: raise its Maximum Packet Size",
                    connack.len()
                ),
            ));
        }
        Ok(proposal)
    }

    /// What the client speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.connect.version
    }

    /// The client's identifier, assigned where it sent none.
    #[must_use]
    pub const fn client_id(&self) -> &ClientId {
        &self.client_id
    }

    /// The will, to be authorised like any publication.
    #[must_use]
    pub fn will(&self) -> Option<&Will> {
        self.connect.will.as_ref()
    }

    /// Whether a stored session is to be thrown away [MQTT-3.1.2-4].
    #[must_use]
    pub fn clean_start(&self) -> bool {
        self.connect.clean_start
    }

    /// How many seconds the session is to outlive the connection, as granted.
    #[must_use]
    pub fn expiry_s(&self) -> u32 {
        self.connect
            .session_expiry_s
            .min(self.settings.session_expiry_max_s)
    }

    /// Whether the client asked under which topic it can be answered; MQTT 5 only [MQTT-3.1.2-28].
    #[must_use]
    pub fn asks_for_response_information(&self) -> bool {
        self.version() == Version::V5 && self.connect.request_response_information
    }

    /// Tells the client the beginning of the topics it can be answered under, where it asked and
    /// takes a packet of that size.
    pub fn tell_response_information(&mut self, information: Str) {
        if !self.asks_for_response_information() {
            return;
        }
        self.response_information = Some(information);
        let mut connack = Vec::new();
        self.connack(true).encode(self.version(), &mut connack);
        if connack.len() > max_bytes(&self.connect) {
            self.response_information = None;
        }
    }

    /// Writes the CONNACK that refuses it; close after it [MQTT-3.1.4-2].
    pub fn refuse(&self, reason: ReasonCode, reason_string: Option<&str>, out: &mut Vec<u8>) {
        refuse_within(
            self.version(),
            max_bytes(&self.connect),
            reason,
            reason_string,
            out,
        );
    }

    /// Writes the CONNACK that accepts it. `resumed` is what is stored for this client, `None` if nothing is; it is
    /// dropped where the client wants a clean start.
    pub fn open<M: Published + Clone>(
        self,
        resumed: Option<Stored<M>>,
        now: Time,
        out: &mut Vec<u8>,
    ) -> Session<M> {
        // [MQTT-3.1.2-4, -5, -6, 3.1.4-4] [MQTT311-3.1.2-4, -6, 3.1.4-3]
        let resumed = resumed.filter(|_| !self.clean_start());
        // [MQTT-3.1.4-5, 3.2.2-2, -3] [MQTT311-3.1.4-4, 3.2.2-1, -2, -3]
        self.connack(resumed.is_some()).encode(self.version(), out);
        Session::open(self, resumed, now)
    }

    /// Says what this server grants and what it does not have.
    fn connack(&self, session_present: bool) -> ConnAck {
        let settings = &self.settings;
        ConnAck {
            session_expiry_s: Some(self.expiry_s())
                .filter(|granted| *granted != self.connect.session_expiry_s),
            receive_max: settings.receive_max_messages,
            qos_max: settings.qos_max(), // [MQTT-3.2.2-9]
            topic_alias_max: settings.topic_alias_max,
            packet_max_bytes: Some(settings.packet_max_bytes),
            assigned_client_id: self.assigned.then(|| self.client_id.clone()), // [MQTT-3.2.2-16]
            subscription_ids_available: !settings.aws,
            server_keep_alive_s: settings.server_keep_alive_s(&self.connect), // [MQTT-3.2.2-21]
            response_information: self.response_information.clone(),
            // No authentication method [MQTT-4.12.0-6].
            ..ConnAck::new(ReasonCode::Success, session_present)
        }
    }
}

/// What is refused whoever asks.
fn check(connect: &Connect, settings: &Settings) -> Result<(), Disconnect> {
    if connect.authentication.is_some() {
        // [MQTT-4.12.0-1, -4]
        return Err(Disconnect::new(
            ReasonCode::BadAuthenticationMethod,
            "enhanced authentication is not served: the client certificate is the login",
        ));
    }
    if connect
        .will
        .as_ref()
        .is_some_and(|will| will.qos > settings.qos_max())
    {
        // [MQTT-3.2.2-12]
        return Err(Disconnect::new(
            ReasonCode::QosNotSupported,
            "QoS 2 is not served here: give the will QoS 0 or 1",
        ));
    }
    if let Some(will) = &connect.will
        && !settings.takes_topic(will.topic.as_str())
    {
        return Err(Disconnect::new(
            ReasonCode::TopicNameInvalid,
            settings.topic_bounds(),
        ));
    }
    if connect.version == Version::V311 && connect.client_id.is_none() && !connect.clean_start {
        // [MQTT311-3.1.3-7, -8]
        return Err(Disconnect::new(
            ReasonCode::ClientIdentifierNotValid,
            "a client without an identifier has no session to resume: set Clean Session or an identifier",
        ));
    }
    Ok(())
}

fn max_bytes(connect: &Connect) -> usize {
    connect
        .packet_max_bytes
        .map_or(WIRE_PACKET_MAX_BYTES, |max| max.get() as usize)
}

/// Writes the CONNACK for a CONNECT that could not be decoded, or nothing where the client would understand none.
pub fn refuse(
    version: Option<Version>,
    reason: ReasonCode,
    reason_string: Option<&str>,
    out: &mut Vec<u8>,
) {
    if let Some(version) = version {
        refuse_within(version, WIRE_PACKET_MAX_BYTES, reason, reason_string, out);
    }
}

fn refuse_within(
    version: Version,
    max_bytes: usize,
    reason: ReasonCode,
    reason_string: Option<&str>,
    out: &mut Vec<u8>,
) {
    // [MQTT-3.2.2-8]
    let reason = if ConnAck::allows(reason) && reason.is_error() {
        reason
    } else {
        ReasonCode::Unspecified
    };
    let mut connack = ConnAck::new(reason, false); // [MQTT-3.2.2-6] [MQTT311-3.2.2-4]
    connack.reason_string = reason_string.map(cut_reason);
    write_within(max_bytes, out, |out, with_string| {
        if !with_string {
            connack.reason_string = None;
        }
        connack.encode(version, out);
    });
}
