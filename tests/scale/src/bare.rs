//! What a broker is measured against: tokio-rustls with client verification and nothing else. It accepts, asks for a
//! certificate of its own authority, answers whatever comes first with a CONNACK, and reads until the peer goes.

use crate::house;
use anyhow::Context as _;
use fleet::{DeviceKey, Enrolment};
use std::{collections::BTreeMap, io::Write as _, path::Path, sync::Arc, time::SystemTime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        CipherSuite, RootCertStore, ServerConfig, crypto::aws_lc_rs, server::WebPkiClientVerifier,
    },
};

/// MQTT 3.1.1: no session was there, all is well.
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

/// Serves until it is killed. The first line printed names the port, and a device's files below `data`.
pub(crate) fn serve(data: &Path) -> anyhow::Result<serde_json::Value> {
    let config = config(data)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let said = serde_json::json!({ "port": listener.local_addr()?.port() });
        let mut out = std::io::stdout();
        writeln!(out, "{said}")?;
        out.flush()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        loop {
            let (tcp, _) = listener.accept().await?;
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // A peer that goes in the middle is no concern of anybody's.
                let _ = answer(acceptor, tcp).await;
            });
        }
    })
}

async fn answer(acceptor: TlsAcceptor, tcp: TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut stream = acceptor.accept(tcp).await?;
    let mut bytes = [0; 4096];
    if stream.read(&mut bytes).await? > 0 {
        stream.write_all(&CONNACK).await?;
        stream.flush().await?;
        while stream.read(&mut bytes).await? > 0 {}
    }
    stream.shutdown().await
}

/// Certificates as the server makes them, judged by rustls alone.
fn config(data: &Path) -> anyhow::Result<ServerConfig> {
    let (store, fleet) = house::open(data)?;
    let now = SystemTime::now();
    let authority = fleet.authority();
    let identity = authority.server_identity(&data.join("tls"), &["localhost".to_owned()], now)?;
    let device = fleet.enrol(
        &Enrolment {
            thing: "load".parse()?,
            policies: Vec::new(),
            groups: Vec::new(),
            attributes: BTreeMap::new(),
            key: DeviceKey::Generate,
        },
        now,
    )?;
    let key = device.key.context("a key was made")?;
    std::fs::write(data.join("root.crt"), authority.root_pem())?;
    std::fs::write(data.join("load.crt"), &device.issued.chain_pem)?;
    store::files::write_private(&data.join("load.key"), key.to_pem().as_bytes())?;
    let mut roots = RootCertStore::empty();
    for anchor in authority.anchors() {
        roots.add(anchor)?;
    }
    store.close();
    let mut provider = aws_lc_rs::default_provider();
    // The order that the broker has, so that both do the same arithmetic.
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.private_key())?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    Ok(config)
}
