//! MQTT inside WebSocket (RFC 6455, MQTT 5 §6): an adaptor that reads and writes bytes, so that
//! the very same connection code runs over it.

mod frames;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::coop::unconstrained;
use tokio::time::Sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use self::frames::Frames;

/// Held by an idle connection, so small.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Bytes of frames encoded and not yet taken by the peer.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// Payload of one frame sent; a longer packet spans frames [MQTT-6.0.0-2] [MQTT311-6.0.0-2].
const FRAME_BYTES: usize = 64 * 1024;

/// Headers and padding that a frame may carry beside the largest MQTT packet.
const FRAME_SLACK_BYTES: usize = 1024;

/// Does the HTTP upgrade. Any path is taken; the subprotocol must be `mqtt` [MQTT-6.0.0-3]
/// [MQTT311-6.0.0-3]. A message of more than `packet_bytes`, or of more than `packet_time`, ends the stream.
///
/// # Errors
/// When the request is not a WebSocket upgrade or offers another subprotocol only.
pub(crate) async fn accept<S>(
    stream: S,
    packet_bytes: usize,
    packet_time: Duration,
) -> Result<WebSocket<S>, Box<Error>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = READ_BUFFER_BYTES;
    config.write_buffer_size = 0;
    config.max_write_buffer_size = WRITE_BUFFER_BYTES;
    config.max_message_size = Some(packet_bytes.saturating_add(FRAME_SLACK_BYTES));
    config.max_frame_size = config.max_message_size;
    let stream = Watched {
        inner: stream,
        frames: None,
    };
    let upgraded =
        tokio_tungstenite::accept_hdr_async_with_config(stream, choose_mqtt, Some(config));
    let mut inner = upgraded.await.map_err(Box::new)?;
    // The library takes nothing that comes with the request.
    inner.get_mut().frames = Some(Frames::new());
    Ok(WebSocket {
        inner,
        unread: Bytes::new(),
        refused: false,
        packet_time,
        unfinished: None,
    })
}

#[expect(
    clippy::result_large_err,
    reason = "the signature is the library's callback"
)]
fn choose_mqtt(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    let offered = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim().eq_ignore_ascii_case("mqtt"));
    if !offered {
        let mut refusal = ErrorResponse::new(Some(
            "the WebSocket subprotocol must be mqtt (Sec-WebSocket-Protocol: mqtt)\n".to_owned(),
        ));
        *refusal.status_mut() = StatusCode::BAD_REQUEST;
        return Err(refusal);
    }
    response.headers_mut().insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        // [MQTT-6.0.0-4] [MQTT311-6.0.0-4]
        HeaderValue::from_static("mqtt"),
    );
    Ok(response)
}

/// A message that was not ended in time.
#[derive(Debug, thiserror::Error)]
#[error("a WebSocket message was begun and not ended in time")]
pub(crate) struct Endless;

/// What the library reads from, with the frames seen that pass once it is upgraded.
struct Watched<S> {
    inner: S,
    frames: Option<Frames>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        if let Some(frames) = &mut this.frames {
            frames.pass(buf.filled().get(before..).unwrap_or_default());
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

/// A byte stream over binary WebSocket messages.
pub(crate) struct WebSocket<S> {
    inner: WebSocketStream<Watched<S>>,
    unread: Bytes,
    refused: bool,
    packet_time: Duration,
    /// While a message has begun and not ended: the number of those before it, and when its time is up.
    unfinished: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// There is nothing to read now. Ready when a message was begun and has not ended in its time; MQTT's own timer knows of
    /// it only what was taken from the library.
    fn poll_endless(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let frames = self.inner.get_ref().frames.as_ref();
        let Some(frames) = frames.filter(|frames| frames.holds_part()) else {
            self.unfinished = None;
            return Poll::Pending;
        };
        let before = frames.messages();
        let unfinished = self.unfinished.take().filter(|(known, _)| *known == before);
        let (_, sleep) = self.unfinished.insert(
            unfinished.unwrap_or_else(|| (before, Box::pin(tokio::time::sleep(self.packet_time)))),
        );
        // Pending means that this task will be woken, whatever is left of its budget.
        ready!(std::pin::pin!(unconstrained(sleep.as_mut())).poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, Endless))
    }

    /// [MQTT-6.0.0-1] [MQTT311-6.0.0-1]: a data frame that is not binary closes the connection, with code 1003.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if !self.refused {
            self.refused = true;
            let close = Message::Close(Some(CloseFrame {
                code: CloseCode::Unsupported,
                reason: "MQTT needs binary frames".into(),
            }));
            if Pin::new(&mut self.inner).start_send(close).is_err() {
                return Poll::Ready(not_binary());
            }
        }
        let _ = ready!(Pin::new(&mut self.inner).poll_flush(cx));
        Poll::Ready(not_binary())
    }
}

fn not_binary() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "a WebSocket data frame was not binary",
    )
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused {
            return this.poll_refuse(cx).map(Err);
        }
        while this.unread.is_empty() {
            let Poll::Ready(next) = Pin::new(&mut this.inner).poll_next(cx) else {
                return this.poll_endless(cx).map(Err);
            };
            match next {
                Some(Ok(Message::Binary(bytes))) => this.unread = bytes,
                Some(Ok(Message::Text(_))) => return this.poll_refuse(cx).map(Err),
                // Pings are answered by the library; a close frame ends the stream.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(
                    Ok(Message::Close(_)) | Err(Error::ConnectionClosed | Error::AlreadyClosed),
                )
                | None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
        let n = this.unread.len().min(buf.remaining());
        buf.put_slice(&this.unread.split_to(n));
        if !this.unread.has_remaining() {
            this.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut self.get_mut().inner;
        let frame = buf.get(..FRAME_BYTES).unwrap_or(buf);
        ready!(Pin::new(&mut *inner).poll_ready(cx)).map_err(into_io)?;
        Pin::new(inner)
            .start_send(Message::Binary(Bytes::copy_from_slice(frame)))
            .map_err(into_io)?;
        Poll::Ready(Ok(frame.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner)
            .poll_flush(cx)
            .map_err(into_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.get_mut().inner).poll_close(cx)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(into_io(error))),
        }
    }
}
