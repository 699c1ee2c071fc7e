//! MQTT connections over mutual TLS.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4::{self, Connect, ConnectReturnCode, Packet, Subscribe};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The largest packet that is read.
const PACKET_MAX_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 16 << 10;
const KEEP_ALIVE_S: u16 = 600;

/// Where to connect, and as whom.
pub(crate) struct Dial {
    connector: TlsConnector,
    port: u16,
    name: ServerName<'static>,
}

impl Dial {
    /// # Errors
    /// When a file cannot be read or used.
    pub(crate) fn new(
        port: u16,
        name: &str,
        root: &Path,
        certificate: &Path,
        key: &Path,
    ) -> anyhow::Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for root in read(root)? {
            roots.add(root)?;
        }
        let key =
            PrivateKeyDer::from_pem_file(key).with_context(|| format!("read {}", key.display()))?;
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(read(certificate)?, key)?;
        // Every handshake is a full one.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            port,
            name: ServerName::try_from(name.to_owned())?,
        })
    }

    /// Connects as `client_id` with a clean session.
    ///
    /// # Errors
    /// When the broker is not there or refuses.
    pub(crate) async fn open(&self, client_id: &str) -> anyhow::Result<Connection> {
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        tcp.set_nodelay(true)?;
        let stream = self.connector.connect(self.name.clone(), tcp).await?;
        let mut connection = Connection {
            stream,
            read: BytesMut::new(),
        };
        let mut connect = Connect::new(client_id);
        connect.keep_alive = KEEP_ALIVE_S;
        let mut out = BytesMut::new();
        connect.write(&mut out).map_err(mqtt)?;
        connection.send(&out).await?;
        match connection.packet().await? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => Ok(connection),
            other => bail!("{client_id} is refused: {other:?}"),
        }
    }
}

/// An open connection.
pub(crate) struct Connection {
    pub(crate) stream: TlsStream<TcpStream>,
    pub(crate) read: BytesMut,
}

impl Connection {
    /// Writes and flushes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next packet.
    pub(crate) async fn packet(&mut self) -> anyhow::Result<Packet> {
        loop {
            if let Some(packet) = next(&mut self.read)? {
                return Ok(packet);
            }
            self.read.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.read).await? == 0 {
                bail!("the broker closed the connection");
            }
        }
    }

    /// Subscribes and waits for the answer.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) -> anyhow::Result<()> {
        let mut subscribe = Subscribe::new(filter, qos);
        subscribe.pkid = 1;
        let mut out = BytesMut::new();
        subscribe.write(&mut out).map_err(mqtt)?;
        self.send(&out).await?;
        match self.packet().await? {
            Packet::SubAck(ack)
                if ack
                    .return_codes
                    .iter()
                    .all(|code| matches!(code, mqttbytes::v4::SubscribeReasonCode::Success(_))) =>
            {
                Ok(())
            }
            other => bail!("subscribe to {filter} is refused: {other:?}"),
        }
    }

    /// Says goodbye.
    pub(crate) async fn close(mut self) -> anyhow::Result<()> {
        let mut out = BytesMut::new();
        v4::Disconnect.write(&mut out).map_err(mqtt)?;
        self.send(&out).await?;
        // The broker may have closed already.
        let _ = self.stream.shutdown().await;
        Ok(())
    }
}

/// Takes the next whole packet off the buffer.
pub(crate) fn next(buffer: &mut BytesMut) -> anyhow::Result<Option<Packet>> {
    match v4::read(buffer, PACKET_MAX_BYTES) {
        Ok(packet) => Ok(Some(packet)),
        Err(mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
        Err(error) => Err(mqtt(error)),
    }
}

pub(crate) fn mqtt(error: mqttbytes::Error) -> anyhow::Error {
    anyhow::anyhow!("MQTT: {error:?}")
}

fn read(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("read {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_come_off_the_buffer_whole_or_not_at_all() {
        let mut bytes = BytesMut::new();
        let mut publish = v4::Publish::new("a/b", QoS::AtMostOnce, vec![7; 300]);
        publish.write(&mut bytes).unwrap();
        v4::PingResp.write(&mut bytes).unwrap();
        let tail = bytes.split_off(100);
        assert_eq!(next(&mut bytes).unwrap(), None);
        bytes.unsplit(tail);
        publish.payload = vec![7; 300].into();
        assert_eq!(next(&mut bytes).unwrap(), Some(Packet::Publish(publish)));
        assert_eq!(next(&mut bytes).unwrap(), Some(Packet::PingResp));
        assert!(bytes.is_empty());
    }
}
