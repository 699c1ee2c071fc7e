//! Receives a body that is too large to be held, and hands it to an operation as a reader.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::body::Body;
use bytes::{Buf, Bytes};
use data_encoding::HEXLOWER;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::Upload;
use crate::peer::Peer;
use crate::record;
use crate::rooms::Rooms;

/// Largest upload.
pub(crate) const MAX_UPLOAD_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Uploads under way at once: each holds a thread.
pub(crate) const MAX_UPLOADS: usize = 4;
/// Chunks read from the network and not yet taken by the operation.
const MAX_CHUNKS_WAITING: usize = 8;
/// Longest silence within a body.
const IDLE_DEADLINE: Duration = Duration::from_secs(30);

/// A piece of the body, or its proper end.
enum Piece {
    Data(Bytes),
    End,
}

pub(crate) async fn receive(
    rooms: Arc<Rooms>,
    peer: Peer,
    call: Call,
    run: Upload,
    announced: Option<String>,
    body: &mut Body,
) -> Result<Answer, ApiError> {
    let slots = rooms.uploads.clone();
    let Ok(_slot) = slots.try_acquire() else {
        return Err(ApiError::unavailable(
            "Four uploads are under way already; try again when one is done.",
        ));
    };
    let (sender, pieces) = mpsc::channel(MAX_CHUNKS_WAITING);
    let mut reader = BodyReader {
        pieces,
        chunk: Bytes::new(),
        hash: digest::Context::new(&digest::SHA256),
        announced,
        bytes: 0,
        ended: false,
    };
    let work = tokio::task::spawn_blocking(move || {
        record::recorded(&rooms, &call, &peer, |rooms| run(rooms, &call, &mut reader))
    });
    let ((), answer) = tokio::join!(pump(body, sender), work);
    answer.map_err(|error| ApiError::internal(&error))?
}

/// Moves the body to the reader until its end, its limit, or the reader's loss of interest. Only
/// a proper end is told as one.
async fn pump(body: &mut Body, sender: mpsc::Sender<Piece>) {
    while let Ok(frame) = tokio::time::timeout(IDLE_DEADLINE, body.frame()).await {
        let piece = match frame {
            None => Piece::End,
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(_trailers) => continue,
            },
            Some(Err(_)) => return,
        };
        let ended = matches!(piece, Piece::End);
        if sender.send(piece).await.is_err() || ended {
            return;
        }
    }
}

/// The body, for a thread that may block. It ends only where the whole body came and was the one
/// announced; in every other case it fails.
struct BodyReader {
    pieces: mpsc::Receiver<Piece>,
    chunk: Bytes,
    hash: digest::Context,
    /// Lower-case hex SHA-256 of the whole, where the request was signed.
    announced: Option<String>,
    bytes: u64,
    ended: bool,
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(data)) => self.take(data)?,
                Some(Piece::End) => self.end()?,
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the upload broke off",
                    ));
                }
            }
        }
        let take = buffer.len().min(self.chunk.len());
        self.chunk
            .split_to(take)
            .copy_to_slice(buffer.split_at_mut(take).0);
        Ok(take)
    }
}

impl BodyReader {
    fn take(&mut self, data: Bytes) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(data.len() as u64);
        if self.bytes > MAX_UPLOAD_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("an upload has at most {MAX_UPLOAD_BYTES} bytes"),
            ));
        }
        self.hash.update(&data);
        self.chunk = data;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        self.ended = true;
        let Some(announced) = &self.announced else {
            return Ok(());
        };
        let hash = HEXLOWER.encode(self.hash.clone().finish().as_ref());
        if hash == *announced {
            return Ok(());
        }
        self.ended = false;
        self.pieces.close();
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the upload is not the one that was signed (x-amz-content-sha256)",
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use aws_lc_rs::digest;
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use super::{BodyReader, MAX_UPLOAD_BYTES, Piece};
    use crate::auth::body_hash;

    fn reader(pieces: Vec<Piece>, announced: Option<String>) -> BodyReader {
        let (sender, receiver) = mpsc::channel(16);
        for piece in pieces {
            sender.try_send(piece).ok().unwrap();
        }
        BodyReader {
            pieces: receiver,
            chunk: Bytes::new(),
            hash: digest::Context::new(&digest::SHA256),
            announced,
            bytes: 0,
            ended: false,
        }
    }

    fn data(text: &'static str) -> Piece {
        Piece::Data(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_whole_body_that_was_announced_is_read() {
        let pieces = vec![data("firm"), data(""), data("ware"), Piece::End];
        let mut text = String::new();
        reader(pieces, Some(body_hash(b"firmware")))
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "firmware");
    }

    #[test]
    fn another_body_or_half_of_it_never_ends_well() {
        let mut sink = Vec::new();
        let mut other = reader(
            vec![data("firmwarf"), Piece::End],
            Some(body_hash(b"firmware")),
        );
        assert!(other.read_to_end(&mut sink).is_err());
        assert!(other.read_to_end(&mut sink).is_err(), "nor the second time");
        assert!(
            reader(vec![data("firm")], None)
                .read_to_end(&mut sink)
                .is_err()
        );
    }

    #[test]
    fn an_upload_past_its_bound_is_refused() {
        let mut at = reader(vec![data("x"), Piece::End], None);
        at.bytes = MAX_UPLOAD_BYTES - 1;
        assert!(at.read_to_end(&mut Vec::new()).is_ok());
        let mut past = reader(vec![data("x"), Piece::End], None);
        past.bytes = MAX_UPLOAD_BYTES;
        assert!(past.read_to_end(&mut Vec::new()).is_err());
    }
}
