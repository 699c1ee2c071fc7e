//! A broker's peer without a socket: bytes one way, bytes the other way, and the packets a test needs.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, UNIX_EPOCH};

use ca::CertificateId;
use fleet::simulated::Standings;
use fleet::{CertificateStatus, FleetError, Standing, StandingNow};
use parking_lot::Mutex;
use policy::{NamedPolicy, Policy, Realm};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const ACCOUNT: &str = "000000000000";
pub const EVERYTHING: &str =
    r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iot:*","Resource":"*"}}"#;

pub struct Registry {
    standings: Standings,
    realm: Arc<Realm>,
}

impl Registry {
    /// The thing `lamp-1` has this certificate and may do everything.
    pub fn with(certificate: &CertificateId) -> Self {
        let registry = Self {
            standings: Standings::default(),
            realm: Arc::new(Realm::live(ACCOUNT)),
        };
        registry.may(certificate, EVERYTHING);
        registry
    }

    /// The thing may do what this policy says, from now on.
    pub fn may(&self, certificate: &CertificateId, document: &str) {
        self.standings.set(
            certificate,
            StandingNow {
                status: Some(CertificateStatus::Active),
                thing: Some("lamp-1".parse().unwrap()),
                policies: Arc::from([NamedPolicy {
                    name: "policy".parse().unwrap(),
                    policy: Arc::new(Policy::parse(document).unwrap()),
                }]),
                not_before: UNIX_EPOCH,
                not_after: UNIX_EPOCH + Duration::from_secs(4_000_000_000),
                ..Standings::unknown()
            },
        );
    }
}

impl broker::Registry for Registry {
    fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, FleetError> {
        Ok(self.standings.get(id))
    }

    fn realm(&self) -> &Arc<Realm> {
        &self.realm
    }
}

#[derive(Default)]
pub struct Pipe {
    up: Vec<u8>,
    taken: usize,
    pub down: Vec<u8>,
    reader: Option<Waker>,
}

/// The client's end, and the broker's.
#[derive(Clone, Default)]
pub struct Link(pub Arc<Mutex<Pipe>>);

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut pipe = self.0.lock();
        let count = into.remaining().min(pipe.up.len() - pipe.taken);
        if count == 0 {
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        into.put_slice(&pipe.up[pipe.taken..pipe.taken + count]);
        pipe.taken += count;
        if pipe.taken == pipe.up.len() {
            pipe.up.clear();
            pipe.taken = 0;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().down.extend_from_slice(from);
        Poll::Ready(Ok(from.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Link {
    pub fn say(&self, bytes: &[u8]) {
        let mut pipe = self.0.lock();
        pipe.up.extend_from_slice(bytes);
        if let Some(reader) = pipe.reader.take() {
            reader.wake();
        }
    }
}

/// Turns of the runtime after which something must have come.
const TURNS_MAX: usize = 1_000_000;

/// Lets the broker's tasks have their turns until it is done.
pub async fn turns_until(mut done: impl FnMut() -> bool) {
    for _ in 0..TURNS_MAX {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("what was waited for did not come");
}

pub fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// No properties.
pub fn properties(version: u8) -> &'static [u8] {
    if version == 5 { &[0] } else { &[] }
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        bytes.push((length % 128) as u8 | more);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    bytes.extend(body);
    bytes
}
