//! A client that does exactly what a test tells it, packet by packet, over mutual TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::sync::Arc;

use broker::codec::{
    self, ConnAck, Connect, Delivery, Disconnect, Packet, PacketId, PubAck, Publish, Qos,
    ReasonCode, RetainHandling, SubAck, Subscribe, SubscriptionOptions, Unsubscribe, Version, Will,
};
use bytes::{Bytes, BytesMut};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::house::{Device, House, PATIENCE};

pub struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: BytesMut,
    version: Version,
    next_id: u16,
}

/// TLS as a device does it.
pub fn tls(house: &House, device: Option<&Device>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(house.fleet.authority().root_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match device {
        Some(device) => config
            .with_client_auth_cert(device.chain.clone(), device.key.clone_key())
            .unwrap(),
        None => config.with_no_client_auth(),
    })
}

pub fn dial(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let name = "localhost".try_into().unwrap();
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), socket)
}

/// A CONNECT that starts clean and ends with its connection.
pub fn hello(device: &Device, version: Version) -> Connect {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        client_id: Some(device.name.parse().unwrap()),
        will: None,
        user_name: None,
        password: None,
        session_expiry_s: 0,
        receive_max: NonZeroU16::MAX,
        packet_max_bytes: None,
        topic_alias_max: 0,
        request_response_information: false,
        request_problem_information: true,
        authentication: None,
        user: Vec::new(),
    }
}

/// A CONNECT of a session that is kept.
pub fn lasting(device: &Device, version: Version) -> Connect {
    Connect {
        clean_start: false,
        session_expiry_s: match version {
            Version::V5 => 3600,
            Version::V311 => codec::SESSION_NEVER_EXPIRES,
        },
        ..hello(device, version)
    }
}

pub fn will(topic: &str, payload: &str) -> Will {
    Will {
        topic: topic.parse().unwrap(),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: Qos::AtLeastOnce,
        retain: false,
        delay_s: 0,
        expiry_s: None,
        properties: None,
    }
}

impl Client {
    /// Connects and expects to be let in.
    pub fn open(house: &House, device: &Device, version: Version) -> Self {
        Self::connect(house, device, hello(device, version))
            .unwrap()
            .0
    }

    /// Connects; whether the session was there, or why not. `None` is a closed connection.
    pub fn connect(
        house: &House,
        device: &Device,
        connect: Connect,
    ) -> Result<(Self, bool), Option<ReasonCode>> {
        Self::connect_over(house.mqtt, tls(house, Some(device)), connect)
    }

    pub fn connect_over(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        connect: Connect,
    ) -> Result<(Self, bool), Option<ReasonCode>> {
        let mut client = Self {
            stream: dial(address, config),
            buffer: BytesMut::new(),
            version: connect.version,
            next_id: 0,
        };
        let mut out = Vec::new();
        connect.encode(&mut out);
        if client.try_write(&out).is_err() {
            return Err(None);
        }
        match client.receive() {
            Some(Packet::ConnAck(ack)) if ack.reason == ReasonCode::Success => {
                Ok((client, ack.session_present))
            }
            Some(Packet::ConnAck(ack)) => Err(Some(ack.reason)),
            None => Err(None),
            Some(other) => panic!("{other:?} instead of a CONNACK"),
        }
    }

    /// A connection that has said nothing yet.
    pub fn dial(house: &House, device: &Device, version: Version) -> Self {
        Self {
            stream: dial(house.mqtt, tls(house, Some(device))),
            buffer: BytesMut::new(),
            version,
            next_id: 0,
        }
    }

    /// Connects and expects to be let in; what the CONNACK says.
    pub fn open_with(house: &House, device: &Device, connect: &Connect) -> (Self, ConnAck) {
        let mut client = Self::dial(house, device, connect.version);
        client.say(&Packet::Connect(Box::new(connect.clone())));
        match client.receive() {
            Some(Packet::ConnAck(ack)) if ack.reason == ReasonCode::Success => (client, *ack),
            other => panic!("{other:?} instead of a CONNACK"),
        }
    }

    /// Sends a packet.
    pub fn say(&mut self, packet: &Packet) {
        let mut out = Vec::new();
        packet.encode(self.version, &mut out);
        self.write(&out);
    }

    fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).unwrap();
    }

    /// The next packet; `None` when the server has closed.
    pub fn receive(&mut self) -> Option<Packet> {
        let limits = codec::Limits {
            packet_max_bytes: u32::MAX,
            user_properties_max: 100,
            filters_max: 100,
        };
        loop {
            if let Some(packet) = codec::decode(&mut self.buffer, self.version, &limits).unwrap() {
                return Some(packet);
            }
            let mut chunk = [0_u8; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    panic!("nothing came from the server")
                }
                Err(_) => return None,
            }
        }
    }

    fn packet_id(&mut self) -> PacketId {
        self.next_id += 1;
        PacketId::new(self.next_id).unwrap()
    }

    pub fn send(&mut self, publish: &Publish) {
        let mut out = Vec::new();
        publish.encode(self.version, &mut out);
        self.write(&out);
    }

    /// Publishes at QoS 0 or 1 without waiting.
    pub fn put(&mut self, topic: &str, payload: &str, qos: Qos, retain: bool) {
        let delivery = match qos {
            Qos::AtMostOnce => Delivery::AtMostOnce,
            _ => Delivery::AtLeastOnce {
                packet_id: self.packet_id(),
                dup: false,
            },
        };
        self.send(&Publish {
            delivery,
            retain,
            topic: Some(topic.parse().unwrap()),
            topic_alias: None,
            expiry_s: None,
            subscription_ids: Vec::new(),
            properties: None,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        });
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub fn publish(&mut self, topic: &str, payload: &str) -> PubAck {
        self.put(topic, payload, Qos::AtLeastOnce, false);
        self.expect_ack()
    }

    /// As [`Client::publish`], retained.
    pub fn retain(&mut self, topic: &str, payload: &str) -> PubAck {
        self.put(topic, payload, Qos::AtLeastOnce, true);
        self.expect_ack()
    }

    pub fn expect_ack(&mut self) -> PubAck {
        match self.receive() {
            Some(Packet::PubAck(ack)) => ack,
            other => panic!("{other:?} instead of a PUBACK"),
        }
    }

    pub fn subscribe(&mut self, filter: &str) -> SubAck {
        self.subscribe_with(filter, Qos::AtLeastOnce)
    }

    pub fn subscribe_with(&mut self, filter: &str, qos: Qos) -> SubAck {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            id: None,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        let packet_id = self.packet_id();
        let mut out = Vec::new();
        Subscribe {
            packet_id,
            filters: vec![(filter.parse().unwrap(), options)],
            subscription_id: None,
            user: Vec::new(),
        }
        .encode(self.version, &mut out);
        self.write(&out);
        match self.receive() {
            Some(Packet::SubAck(ack)) => ack,
            other => panic!("{other:?} instead of a SUBACK"),
        }
    }

    pub fn unsubscribe(&mut self, filter: &str) {
        let packet_id = self.packet_id();
        let mut out = Vec::new();
        Unsubscribe {
            packet_id,
            filters: vec![filter.parse().unwrap()],
            user: Vec::new(),
        }
        .encode(self.version, &mut out);
        self.write(&out);
        match self.receive() {
            Some(Packet::UnsubAck(_)) => {}
            other => panic!("{other:?} instead of an UNSUBACK"),
        }
    }

    /// The next message, acknowledged.
    pub fn message(&mut self) -> (String, String) {
        let publish = self.unacknowledged();
        self.acknowledge(&publish);
        (
            publish.topic.unwrap().to_string(),
            String::from_utf8(publish.payload.to_vec()).unwrap(),
        )
    }

    /// The next message, not acknowledged.
    pub fn unacknowledged(&mut self) -> Publish {
        match self.receive() {
            Some(Packet::Publish(publish)) => publish,
            other => panic!("{other:?} instead of a PUBLISH"),
        }
    }

    pub fn acknowledge(&mut self, publish: &Publish) {
        if let Some(packet_id) = publish.delivery.packet_id() {
            let mut out = Vec::new();
            PubAck(codec::Acknowledgement {
                packet_id,
                reason: ReasonCode::Success,
                reason_string: None,
                user: Vec::new(),
            })
            .encode(self.version, &mut out);
            self.write(&out);
        }
    }

    /// Waits until the server has handled everything sent so far, and expects it had nothing else
    /// to say.
    pub fn settle(&mut self) {
        self.write(&[0xC0, 0]);
        match self.receive() {
            Some(Packet::PingResp) => {}
            other => panic!("{other:?} instead of a PINGRESP"),
        }
    }

    /// Says goodbye and waits for the server to close.
    pub fn leave(mut self) {
        let mut out = Vec::new();
        Disconnect::new(ReasonCode::Success).encode(self.version, &mut out);
        self.write(&out);
        assert!(self.receive().is_none());
    }

    /// The DISCONNECT the server ends with, `None` where it just closes.
    pub fn end(&mut self) -> Option<Disconnect> {
        loop {
            match self.receive() {
                Some(Packet::Disconnect(disconnect)) => return Some(disconnect),
                Some(_) => {}
                None => return None,
            }
        }
    }
}
