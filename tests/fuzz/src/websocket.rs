use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use broker::bench::websocket as accept;
use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const UPGRADE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
const PACKET_BYTES: usize = 4096;
/// What a frame may carry beside the largest packet.
const SLACK_BYTES: usize = 1024;

/// Out of frames come the bytes of their binary messages and nothing else, in whatever pieces the frames arrive.
///
/// The first byte: bit 0 whether the bytes are frames behind a good upgrade or the whole stream, the others the length
/// of the pieces.
pub fn websocket(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else {
        return;
    };
    let piece = usize::from(first >> 1) + 1;
    if first & 1 == 1 {
        let (said, _) = read(b"", bytes, piece);
        if let Some(said) = said {
            assert!(said.len() <= bytes.len());
        }
        return;
    }
    let (whole, answer) = read(UPGRADE, bytes, usize::MAX);
    let whole = whole.expect("the upgrade is good");
    assert!(answer.starts_with(b"HTTP/1.1 101 "));
    let (pieces, _) = read(UPGRADE, bytes, piece);
    assert_eq!(pieces.as_deref(), Some(&whole[..]), "in pieces of {piece}");
    let expected = payloads(bytes);
    assert!(expected.starts_with(&whole), "more than was sent");
}

/// What the adaptor gives, `None` where it refuses the upgrade; and what it answered on the wire. The upgrade comes at
/// once (in many small pieces the library takes it for an attack), `stream` behind it (RFC 6455 §4.1) in pieces.
fn read(upgrade: &[u8], stream: &[u8], piece: usize) -> (Option<Vec<u8>>, Vec<u8>) {
    let mut answer = Vec::new();
    let wire = Wire {
        upgrade,
        stream,
        piece,
        answer: &mut answer,
    };
    let read = async {
        let mut socket = accept(wire, PACKET_BYTES).await?;
        let mut said = Vec::new();
        let mut chunk = [0; 1000];
        // An error ends it as an end does: what was said before counts.
        while let Ok(n @ 1..) = socket.read(&mut chunk).await {
            said.extend_from_slice(&chunk[..n]);
        }
        Some(said)
    };
    let said = read.now_or_never().expect("the wire never waits");
    (said, answer)
}

/// The payloads of all whole binary messages, read without minding what else is wrong.
fn payloads(mut bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    let mut message: Option<Vec<u8>> = None;
    while let [first, second, rest @ ..] = bytes {
        let (length, rest) = match second & 0x7F {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => break,
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => break,
            },
            short => (u64::from(short), rest),
        };
        let (mask, rest) = match rest.split_first_chunk::<4>() {
            Some((mask, rest)) if second & 0x80 != 0 => (*mask, rest),
            _ => break,
        };
        let Some(payload) = usize::try_from(length)
            .ok()
            .and_then(|length| rest.get(..length))
        else {
            break;
        };
        bytes = &rest[payload.len()..];
        let unmasked = payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask);
        match first & 0x0F {
            2 => message = Some(unmasked.collect()),
            0 => match &mut message {
                Some(message) => message.extend(unmasked),
                None => break,
            },
            1 => break,
            _ => continue,
        }
        if first & 0x80 != 0
            && let Some(message) = message.take()
        {
            if message.len() > PACKET_BYTES + SLACK_BYTES {
                break;
            }
            all.extend(message);
        }
    }
    all
}

/// A socket that gives pieces and takes everything, at once.
struct Wire<'a> {
    upgrade: &'a [u8],
    stream: &'a [u8],
    piece: usize,
    answer: &'a mut Vec<u8>,
}

impl AsyncRead for Wire<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (part, most) = if self.upgrade.is_empty() {
            let piece = self.piece;
            (&mut self.stream, piece)
        } else {
            (&mut self.upgrade, usize::MAX)
        };
        let (now, rest) = part.split_at(most.min(buf.remaining()).min(part.len()));
        buf.put_slice(now);
        *part = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire<'_> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.answer.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
