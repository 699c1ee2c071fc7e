//! A device that is told everything it has subscribed to and says when: the least of MQTT 3.1.1 over TLS.

use anyhow::{Context as _, bail};
use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName},
    },
};

/// Nanoseconds since this was first asked.
pub(crate) fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let since = START.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What a device connects with.
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// What a device has been told, each moment in nanoseconds.
#[derive(Default)]
pub(crate) struct Heard {
    /// Sent and received, of each message.
    pub(crate) messages: Vec<(u64, u64)>,
    /// When the connection ended.
    pub(crate) ended: Option<u64>,
}

pub(crate) struct Session {
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let length = u8::try_from(body.len()).ok().filter(|length| *length < 128);
    let length = length.context("a packet of less than 128 bytes")?;
    Ok([&[first, length][..], body].concat())
}

impl Session {
    /// Connects, and subscribes where there is a filter.
    pub(crate) async fn open(
        at: SocketAddr,
        roots: Arc<RootCertStore>,
        identity: &Identity,
        filter: Option<&str>,
    ) -> anyhow::Result<Self> {
        let config = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(identity.chain.clone(), identity.key.clone_key())?;
        let tcp = TcpStream::connect(at).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(name, tcp)
            .await?;
        let mut session = Session {
            stream,
            buffer: Vec::new(),
        };
        let connect = [text("MQTT"), vec![4, 2, 2, 88], text(&identity.name)].concat();
        session.send(&packet(0x10, &connect)?).await?;
        let (kind, body) = session.next().await?.context("closed before CONNACK")?;
        if kind != 0x20 || body != [0, 0] {
            bail!(
                "{}: CONNECT was answered with {kind:#x} {body:?}",
                identity.name
            );
        }
        if let Some(filter) = filter {
            let subscribe = [vec![0, 1], text(filter), vec![0]].concat();
            session.send(&packet(0x82, &subscribe)?).await?;
            let (kind, body) = session.next().await?.context("closed before SUBACK")?;
            if kind != 0x90 || body != [0, 1, 0] {
                bail!(
                    "{}: SUBSCRIBE was answered with {kind:#x} {body:?}",
                    identity.name
                );
            }
        }
        Ok(session)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }

    /// A message that says when it was sent.
    pub(crate) fn message(topic: &str) -> anyhow::Result<Vec<u8>> {
        packet(
            0x30,
            &[text(topic), now_ns().to_be_bytes().to_vec()].concat(),
        )
    }

    /// Notes messages until the connection ends.
    pub(crate) async fn listen(mut self, heard: Arc<std::sync::Mutex<Heard>>) {
        loop {
            let next = self.next().await;
            let now = now_ns();
            let Ok(mut heard) = heard.lock() else { return };
            match next {
                Ok(Some((0x30, body))) => {
                    if let Some(sent) = body.last_chunk() {
                        heard.messages.push((u64::from_be_bytes(*sent), now));
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    heard.ended = Some(now);
                    return;
                }
            }
        }
    }

    async fn next(&mut self) -> anyhow::Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let [first, length, rest @ ..] = &self.buffer[..] {
                let (kind, length) = (*first, usize::from(*length));
                if let Some(body) = rest.get(..length) {
                    let body = body.to_vec();
                    self.buffer.drain(..length + 2);
                    return Ok(Some((kind, body)));
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}
