//! MQTT connections over mutual TLS.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4::{
    self, Connect, ConnectReturnCode, Packet, Subscribe, SubscribeFilter, SubscribeReasonCode,
};
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Target;
use crate::certificates;
use crate::error::BenchError;
use crate::template::{self, Values};

/// The largest packet that is read.
const PACKET_MAX_BYTES: usize = 64 << 20;
const READ_BYTES: usize = 16 << 10;
/// How long a broker may take for an answer, or to take what is written.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The broker, and everything needed to connect to it.
#[derive(Debug)]
pub(crate) struct Dial {
    address: SocketAddr,
    server: ServerName<'static>,
    /// One per certificate, with the certificate's name.
    configs: Vec<(String, Arc<ClientConfig>)>,
    client_id: String,
}

/// Who a connection is. It may be opened again and again.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) client_id: String,
    address: SocketAddr,
    server: ServerName<'static>,
    config: Arc<ClientConfig>,
}

/// What CONNECT says beside the client identifier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Hello {
    pub(crate) clean: bool,
    pub(crate) keep_alive_s: u16,
}

impl Hello {
    /// A clean session that the load is sure to keep alive.
    pub(crate) const CLEAN: Self = Self {
        clean: true,
        keep_alive_s: 600,
    };
}

impl Dial {
    /// Reads what `connections` connections need.
    ///
    /// # Errors
    /// When a file cannot be read or used, or nothing answers.
    pub(crate) fn new(target: &Target, connections: u32) -> Result<Self, BenchError> {
        let mut roots = rustls::RootCertStore::empty();
        for root in certificates::chain(&target.root)? {
            roots.add(root).map_err(|error| BenchError::File {
                path: target.root.clone(),
                cause: error.to_string(),
            })?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let certificates =
            certificates::read(&target.certificate, target.key.as_deref(), connections)?;
        let configs = certificates.into_iter().map(|certificate| {
            let refused = |error: rustls::Error| BenchError::File {
                path: target.certificate.clone(),
                cause: format!("{}: {error}", certificate.name),
            };
            let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(refused)?
                .with_root_certificates(Arc::clone(&roots))
                .with_client_auth_cert(certificate.chain, certificate.key)
                .map_err(refused)?;
            // Every handshake is a full one, but where it is asked for.
            config.resumption = Resumption::disabled();
            Ok((certificate.name, Arc::new(config)))
        });
        let configs = configs.collect::<Result<Vec<_>, BenchError>>()?;
        let (host, _) = host_and_port(&target.broker)?;
        let name = target.name.as_deref().unwrap_or(host);
        let server = ServerName::try_from(name.to_owned()).map_err(|_| BenchError::Flag {
            flag: "--name",
            value: name.to_owned(),
            mend: "it is neither a host's name nor an address".into(),
        })?;
        Ok(Self {
            address: find(&target.broker)?,
            server,
            configs,
            client_id: target.client_id.clone(),
        })
    }

    /// The seat of connection `number` among all, which is the `in_role`th of its role.
    ///
    /// # Errors
    /// [`BenchError::Flag`] for a client identifier with an unknown placeholder.
    pub(crate) fn seat(&self, number: u32, role: &str, in_role: u32) -> Result<Seat, BenchError> {
        let at = number as usize % self.configs.len().max(1);
        let Some((name, config)) = self.configs.get(at) else {
            return Err(self.refused("there is no certificate"));
        };
        let values = Values {
            number: &in_role.to_string(),
            role,
            name,
        };
        Ok(Seat {
            client_id: template::fill("--client-id", &self.client_id, values)?,
            address: self.address,
            server: self.server.clone(),
            config: Arc::clone(config),
        })
    }

    /// Seats of the roles, so many of each, numbered through.
    ///
    /// # Errors
    /// As [`Dial::seat`], and where two would have one client identifier: the second would end the first.
    pub(crate) fn seats<const N: usize>(
        &self,
        roles: [(&str, u32); N],
    ) -> Result<[Vec<Seat>; N], BenchError> {
        let mut number = 0;
        let mut known = HashSet::new();
        let mut all = [const { Vec::new() }; N];
        for ((role, count), seats) in roles.into_iter().zip(&mut all) {
            for in_role in 0..count {
                let seat = self.seat(number, role, in_role)?;
                if !known.insert(seat.client_id.clone()) {
                    return Err(self.refused(&format!(
                        "two connections would be {:?}: tell them apart with %r and %i, or with %n and a certificate for each",
                        seat.client_id
                    )));
                }
                seats.push(seat);
                number += 1;
            }
        }
        Ok(all)
    }

    fn refused(&self, mend: &str) -> BenchError {
        BenchError::Flag {
            flag: "--client-id",
            value: self.client_id.clone(),
            mend: mend.into(),
        }
    }
}

impl Seat {
    /// This seat with a memory for session tickets of its own.
    pub(crate) fn resuming(mut self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(8);
        self.config = Arc::new(config);
        self
    }

    /// Another client identifier on the same seat.
    pub(crate) fn named(mut self, client_id: String) -> Self {
        self.client_id = client_id;
        self
    }

    /// Connects and waits for CONNACK.
    ///
    /// # Errors
    /// When the broker is not there or refuses.
    pub(crate) async fn open(&self, hello: Hello) -> Result<Connection, BenchError> {
        let lost = |what| {
            move |cause| BenchError::Lost {
                client_id: self.client_id.clone(),
                what,
                cause,
            }
        };
        let tcp = patiently(TcpStream::connect(self.address))
            .await
            .map_err(lost("connect"))?;
        tcp.set_nodelay(true).map_err(lost("connect"))?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = patiently(connector.connect(self.server.clone(), tcp))
            .await
            .map_err(|cause| BenchError::Handshake {
                client_id: self.client_id.clone(),
                cause,
            })?;
        let mut connection = Connection {
            client_id: self.client_id.clone(),
            stream,
            read: BytesMut::new(),
        };
        let mut connect = Connect::new(self.client_id.as_str());
        connect.keep_alive = hello.keep_alive_s;
        connect.clean_session = hello.clean;
        let mut out = BytesMut::new();
        connect
            .write(&mut out)
            .map_err(|cause| connection.malformed(cause))?;
        connection.send(&out, "send CONNECT").await?;
        match connection.packet("wait for CONNACK").await? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok(connection),
            Packet::ConnAck(ack) => Err(connection.refused("CONNECT", &format!("{:?}", ack.code))),
            other => Err(connection.refused("CONNECT", &format!("{other:?}"))),
        }
    }
}

/// An open connection.
pub(crate) struct Connection {
    pub(crate) client_id: String,
    stream: TlsStream<TcpStream>,
    read: BytesMut,
}

impl Connection {
    /// Whether the handshake resumed an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Writes and flushes.
    pub(crate) async fn send(
        &mut self,
        bytes: &[u8],
        what: &'static str,
    ) -> Result<(), BenchError> {
        let sent = send(&mut self.stream, bytes).await;
        sent.map_err(|cause| self.lost(what, cause))
    }

    /// The next packet; waits a limited time for it.
    pub(crate) async fn packet(&mut self, what: &'static str) -> Result<Packet, BenchError> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(packet);
            }
            let filled = patiently(fill(&mut self.stream, &mut self.read)).await;
            filled.map_err(|cause| self.lost(what, cause))?;
        }
    }

    /// Waits for bytes, for as long as it takes.
    pub(crate) async fn fill(&mut self) -> Result<(), BenchError> {
        let filled = fill(&mut self.stream, &mut self.read).await;
        filled.map_err(|cause| self.lost("read", cause))
    }

    /// The next packet that is there whole.
    pub(crate) fn buffered(&mut self) -> Result<Option<Packet>, BenchError> {
        next(&mut self.read).map_err(|cause| self.malformed(cause))
    }

    /// Gives the read buffer back.
    pub(crate) fn shrink(&mut self) {
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
    }

    /// Subscribes to all of the filters and waits for the answer.
    pub(crate) async fn subscribe(
        &mut self,
        filters: Vec<String>,
        qos: QoS,
    ) -> Result<(), BenchError> {
        let what = match filters.as_slice() {
            [one] => format!("SUBSCRIBE to {one}"),
            many => format!("SUBSCRIBE to {} filters", many.len()),
        };
        let filters = filters
            .into_iter()
            .map(|path| SubscribeFilter { path, qos });
        let mut subscribe = Subscribe::new_many(filters);
        subscribe.pkid = 1;
        let mut out = BytesMut::new();
        subscribe
            .write(&mut out)
            .map_err(|cause| self.malformed(cause))?;
        self.send(&out, "send SUBSCRIBE").await?;
        match self.packet("wait for SUBACK").await? {
            Packet::SubAck(ack)
                if ack
                    .return_codes
                    .iter()
                    .all(|code| matches!(code, SubscribeReasonCode::Success(_))) =>
            {
                Ok(())
            }
            Packet::SubAck(_) => Err(self.refused(&what, "the failure code of SUBACK")),
            other => Err(self.refused(&what, &format!("{other:?}"))),
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(mut self) -> Result<(), BenchError> {
        let mut out = BytesMut::new();
        v4::Disconnect
            .write(&mut out)
            .map_err(|cause| self.malformed(cause))?;
        self.send(&out, "send DISCONNECT").await?;
        // The broker may have closed already.
        let _ = self.stream.shutdown().await;
        Ok(())
    }

    /// The reading half, and the writing half.
    pub(crate) fn split(
        self,
    ) -> (
        Incoming<tokio::io::ReadHalf<TlsStream<TcpStream>>>,
        tokio::io::WriteHalf<TlsStream<TcpStream>>,
    ) {
        let (stream, writer) = tokio::io::split(self.stream);
        let incoming = Incoming {
            client_id: self.client_id,
            stream,
            read: self.read,
        };
        (incoming, writer)
    }

    pub(crate) fn lost(&self, what: &'static str, cause: io::Error) -> BenchError {
        BenchError::Lost {
            client_id: self.client_id.clone(),
            what,
            cause,
        }
    }

    fn refused(&self, what: &str, answer: &str) -> BenchError {
        BenchError::Refused {
            client_id: self.client_id.clone(),
            what: what.into(),
            answer: answer.into(),
        }
    }

    pub(crate) fn malformed(&self, cause: mqttbytes::Error) -> BenchError {
        BenchError::Malformed {
            client_id: self.client_id.clone(),
            cause,
        }
    }
}

/// The reading half of a connection.
pub(crate) struct Incoming<S> {
    client_id: String,
    stream: S,
    read: BytesMut,
}

impl<S: tokio::io::AsyncRead + Unpin> Incoming<S> {
    /// The next packet, however long it takes.
    pub(crate) async fn packet(&mut self) -> Result<Packet, BenchError> {
        loop {
            match next(&mut self.read) {
                Ok(Some(packet)) => return Ok(packet),
                Ok(None) => {}
                Err(cause) => return Err(self.malformed(cause)),
            }
            let filled = fill(&mut self.stream, &mut self.read).await;
            filled.map_err(|cause| BenchError::Lost {
                client_id: self.client_id.clone(),
                what: "read",
                cause,
            })?;
        }
    }

    pub(crate) fn malformed(&self, cause: mqttbytes::Error) -> BenchError {
        BenchError::Malformed {
            client_id: self.client_id.clone(),
            cause,
        }
    }
}

/// Writes and flushes; a broker that takes nothing is not waited for for ever.
pub(crate) async fn send(
    stream: &mut (impl tokio::io::AsyncWrite + Unpin),
    bytes: &[u8],
) -> io::Result<()> {
    patiently(async {
        stream.write_all(bytes).await?;
        stream.flush().await
    })
    .await
}

async fn fill(
    stream: &mut (impl tokio::io::AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<()> {
    buffer.reserve(READ_BYTES);
    match stream.read_buf(buffer).await? {
        0 => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the broker closed it",
        )),
        _ => Ok(()),
    }
}

async fn patiently<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| {
        let text = format!("nothing came of it for {} s", PATIENCE.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    })
}

/// Takes the next whole packet off the buffer.
fn next(buffer: &mut BytesMut) -> Result<Option<Packet>, mqttbytes::Error> {
    match v4::read(buffer, PACKET_MAX_BYTES) {
        Ok(packet) => Ok(Some(packet)),
        Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn host_and_port(broker: &str) -> Result<(&str, u16), BenchError> {
    let parts = broker.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let parts = parts.map(|(host, port)| {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        (bare.unwrap_or(host), port)
    });
    let no_address = |host: &str| host.contains(':') && host.parse::<IpAddr>().is_err();
    match parts {
        Some((host, port)) if !host.is_empty() && !no_address(host) => Ok((host, port)),
        _ => Err(BenchError::Flag {
            flag: "--broker",
            value: broker.to_owned(),
            mend: "write it as HOST:PORT, as in localhost:8883 or [::1]:8883".into(),
        }),
    }
}

/// The first of the broker's addresses that answers.
fn find(broker: &str) -> Result<SocketAddr, BenchError> {
    let unreachable = |cause| BenchError::Unreachable {
        broker: broker.to_owned(),
        cause,
    };
    let addresses = host_and_port(broker)?
        .to_socket_addrs()
        .map_err(unreachable)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match std::net::TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => return Ok(address),
            Err(error) => last = error,
        }
    }
    Err(unreachable(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_off_the_buffer_whole_or_not_at_all() {
        let mut bytes = BytesMut::new();
        let publish = v4::Publish::new("a/b", QoS::AtMostOnce, vec![7; 300]);
        publish.write(&mut bytes).unwrap();
        v4::PingResp.write(&mut bytes).unwrap();
        let tail = bytes.split_off(100);
        assert_eq!(next(&mut bytes).unwrap(), None);
        bytes.unsplit(tail);
        assert_eq!(next(&mut bytes).unwrap(), Some(Packet::Publish(publish)));
        assert_eq!(next(&mut bytes).unwrap(), Some(Packet::PingResp));
        assert!(bytes.is_empty());
    }

    #[test]
    fn a_broker_is_a_host_and_a_port() {
        for (text, host, port) in [
            ("localhost:8883", "localhost", 8883),
            ("[::1]:1", "::1", 1),
            ("10.0.0.7:65535", "10.0.0.7", 65535),
        ] {
            assert_eq!(host_and_port(text).unwrap(), (host, port));
        }
        for text in [
            "localhost",
            ":8883",
            "a:b",
            "a:65536",
            "mqtts://a:8883",
            "[::1]",
            "",
        ] {
            let error = host_and_port(text).unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{error}");
        }
    }
}
