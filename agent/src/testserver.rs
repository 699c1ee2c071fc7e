//! A small HTTPS server for tests: each answer as wrong as told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use crate::identity::tests::Ca;

/// Between two bytes of an answer that drips.
const DRIP: Duration = Duration::from_millis(5);

/// What to answer.
#[derive(Clone)]
pub(crate) struct Answer {
    head: String,
    body: Vec<u8>,
    cut_after: Option<usize>,
    stall: bool,
    endless: bool,
    drips: bool,
}

impl Answer {
    fn new(head: String, body: Vec<u8>) -> Self {
        Self {
            head,
            body,
            cut_after: None,
            stall: false,
            endless: false,
            drips: false,
        }
    }

    /// A right answer to a request for `image` from byte `from` on.
    pub(crate) fn range(image: &[u8], from: u64) -> Self {
        let from = from as usize;
        let size = image.len();
        if from == 0 {
            return Self::document(image);
        }
        if from >= size {
            let head = format!("416 Range\r\nContent-Range: bytes */{size}\r\nContent-Length: 0");
            return Self::new(head, Vec::new());
        }
        let head = format!(
            "206 Partial Content\r\nContent-Range: bytes {from}-{}/{size}\r\nContent-Length: {}",
            size - 1,
            size - from
        );
        Self::new(head, image[from..].to_vec())
    }

    pub(crate) fn document(bytes: &[u8]) -> Self {
        Self::new(
            format!("200 OK\r\nContent-Length: {}", bytes.len()),
            bytes.to_vec(),
        )
    }

    /// The image, and then more, for ever.
    pub(crate) fn endless(image: &[u8]) -> Self {
        let mut answer = Self::new("200 OK\r\nConnection: close".into(), image.to_vec());
        answer.endless = true;
        answer
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::new(format!("{status} Status\r\nContent-Length: 0"), Vec::new())
    }

    /// The connection breaks after so many bytes of the body.
    pub(crate) fn cut_after(mut self, bytes: usize) -> Self {
        self.cut_after = Some(bytes);
        self
    }

    /// Nothing more comes after so many bytes, and the connection stays.
    pub(crate) fn stall_after(mut self, bytes: usize) -> Self {
        self.stall = bytes < self.body.len();
        self.cut_after(bytes)
    }

    /// A byte now and again.
    pub(crate) fn dripping(mut self) -> Self {
        self.drips = true;
        self
    }
}

type Handler = Arc<dyn Fn(&str, u64) -> Answer + Send + Sync>;

pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<u64>>>,
    stop: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(ca: &Ca, handler: Handler) -> Self {
        let now = SystemTime::now();
        let hour = Duration::from_secs(3600);
        let (pem, key) = ca.issue("server", &["localhost"], now - hour, now + hour);
        let mut roots = RootCertStore::empty();
        roots.add(ca.root_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()
                .unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (config, handler) = (Arc::clone(&config), Arc::clone(&handler));
                let seen = Arc::clone(&seen);
                // Each connection on its own, so that a stalled one holds nobody.
                std::thread::spawn(move || {
                    let _ = stream.and_then(|stream| serve(config, &handler, &seen, stream));
                });
            }
        });
        Self {
            port,
            requests,
            stop,
        }
    }

    /// The offsets asked for, in order.
    pub(crate) fn requests(&self) -> Vec<u64> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(
    config: Arc<ServerConfig>,
    handler: &Handler,
    seen: &Mutex<Vec<u64>>,
    stream: TcpStream,
) -> std::io::Result<()> {
    // Head and body are written one after the other: neither waits for the other to be acknowledged.
    stream.set_nodelay(true)?;
    let connection = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut reader = BufReader::new(StreamOwned::new(connection, stream));
    loop {
        let (mut path, mut from) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("get ") {
                path = rest.split(' ').next().unwrap_or_default().to_string();
            } else if let Some(range) = line.strip_prefix("range: bytes=") {
                from = range.trim_end_matches('-').parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        seen.lock().unwrap().push(from);
        let answer = handler(&path, from);
        let stream = reader.get_mut();
        let body = &answer.body[..answer
            .cut_after
            .unwrap_or(usize::MAX)
            .min(answer.body.len())];
        write!(stream, "HTTP/1.1 {}\r\n\r\n", answer.head)?;
        if answer.drips {
            for byte in body.chunks(1) {
                stream.write_all(byte)?;
                stream.flush()?;
                std::thread::sleep(DRIP);
            }
        }
        stream.write_all(body)?;
        if answer.endless {
            loop {
                stream.write_all(&[7; 4096])?;
            }
        }
        stream.flush()?;
        if answer.stall {
            // Until the client gives up.
            let mut line = String::new();
            let _ = reader.read_line(&mut line);
            return Ok(());
        }
        if body.len() < answer.body.len() {
            stream.conn.send_close_notify();
            return stream.flush();
        }
    }
}
