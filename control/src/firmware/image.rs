//! An image, or a delta, on its way to a device, piece by piece.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Instant, SystemTime};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use fleet::Standing;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::body::{Frame, SizeHint};
use ota::server::{Download, Kept};

use super::range::{self, Part};

/// Answers with the file, or with the range asked for.
pub(super) fn answer(
    file: File,
    kept: Kept,
    asked: &HeaderMap,
    standing: Arc<Standing>,
    download: Download,
) -> Response {
    let size = kept.size;
    let tag = format!("\"{}\"", kept.sha256);
    let part = match asked.get(header::RANGE).map(HeaderValue::to_str) {
        Some(Ok(text)) if range_holds(asked, &tag) => range::read(text, size),
        _ => Part::Whole,
    };
    let (status, start, end) = match part {
        Part::Whole => (StatusCode::OK, 0, size),
        Part::Bytes(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
        Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    let mut response = Response::new(Body::new(ImageBody {
        file: Arc::new(file),
        at: start,
        end,
        reading: None,
        standing,
        download,
    }));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    let range = match part {
        Part::Whole => None,
        Part::Bytes(start, end) => Some(format!("bytes {start}-{}/{size}", end.saturating_sub(1))),
        Part::Unsatisfiable => Some(format!("bytes */{size}")),
    };
    for (name, value) in [(header::ETAG, Some(tag)), (header::CONTENT_RANGE, range)] {
        // Digits, hex and quotes: always a header's value.
        if let Some(value) = value.and_then(|text| HeaderValue::try_from(text).ok()) {
            headers.insert(name, value);
        }
    }
    response
}

/// RFC 9110 §13.1.5: a range of another image than this one is no use.
fn range_holds(asked: &HeaderMap, tag: &str) -> bool {
    match asked.get(header::IF_RANGE) {
        None => true,
        Some(value) => value.as_bytes() == tag.as_bytes(),
    }
}

/// Reads the next piece when the one before is on its way and its turn has come, so that a device
/// that reads slowly holds one piece and no thread; and breaks off when the registry no longer
/// vouches for it.
struct ImageBody {
    file: Arc<File>,
    at: u64,
    end: u64,
    reading: Option<Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>>,
    standing: Arc<Standing>,
    download: Download,
}

impl hyper::body::Body for ImageBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        if !self.standing.now().is_active(SystemTime::now()) {
            self.at = self.end;
            return Poll::Ready(Some(Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the device's certificate is no longer active",
            ))));
        }
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None => self.next_piece(),
        };
        let Poll::Ready(outcome) = reading.as_mut().poll(context) else {
            self.reading = Some(reading);
            return Poll::Pending;
        };
        match outcome {
            Ok(bytes) => {
                self.at += bytes.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Err(error) => {
                self.at = self.end;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.at))
    }
}

impl ImageBody {
    fn next_piece(&self) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>> {
        let (file, at) = (self.file.clone(), self.at);
        let (count, wait) = self.download.book(self.end - at, Instant::now());
        Box::pin(async move {
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            tokio::task::spawn_blocking(move || piece(&file, at, count))
                .await
                .map_err(io::Error::other)?
        })
    }
}

fn piece(file: &File, at: u64, count: u64) -> io::Result<Bytes> {
    let count = usize::try_from(count).map_err(io::Error::other)?;
    let mut buffer = vec![0; count];
    file.read_exact_at(&mut buffer, at)?;
    Ok(buffer.into())
}
