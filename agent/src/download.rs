//! Fetches an image or a delta as a stream: bounded by the size the signed manifest says, checked chunk by
//! chunk as it arrives and as a whole at the end, resumable at any byte. Memory does not depend
//! on the image's size.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ota::manifest::CHUNK_BYTES;
use ota::{Content, ImageCheck, Sha256};

use crate::backoff::{self, Backoff};
use crate::cancel::Cancel;
use crate::files::Files;
use crate::https::{Client, HttpFault};
use crate::term::Term;

/// One read from the network.
const READ_BYTES: usize = 16 * 1024;

/// Where an image or a delta is kept while it is fetched: named by its hash, so that what is left
/// of one is never taken for the beginning of another.
#[must_use]
pub(crate) fn partial(dir: &Path, hash: Sha256) -> PathBuf {
    dir.join(format!("{hash}.part"))
}

/// How patient the download is. A server that cannot be reached, or is busy, is asked again for as long as the job
/// lasts: that is nobody's fault but the server's. Answers that do not bring the image on are counted, anew after each so
/// many bytes of progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// The first wait after a failed attempt.
    pub first: Duration,
    /// The longest wait.
    pub most: Duration,
    /// How many answers in a row may bring no progress.
    pub attempts: u32,
    /// What counts as progress; less than this per connection would be a loop of handshakes.
    pub progress_bytes: u64,
}

impl Default for Patience {
    /// A minute between two attempts at most.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            most: Duration::from_secs(60),
            attempts: 16,
            progress_bytes: 64 * 1024,
        }
    }
}

impl Patience {
    /// The backoff it stands for.
    #[must_use]
    pub(crate) fn backoff(&self) -> Backoff {
        Backoff::new(self.first, self.most)
    }
}

/// Why a download ended without the image.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DownloadFault {
    /// Called off.
    #[error("called off")]
    Cancelled,
    /// The job's window has closed, or its manifest has run out.
    #[error("too late")]
    Over,
    /// The server's data cannot be this image.
    #[error("{0}")]
    Wrong(String),
    /// The disk said no.
    #[error("the device's disk: {0}")]
    Disk(#[from] io::Error),
}

impl From<ota::Error> for DownloadFault {
    fn from(error: ota::Error) -> Self {
        Self::Wrong(error.to_string())
    }
}

fn wrong(words: impl Into<String>) -> DownloadFault {
    DownloadFault::Wrong(words.into())
}

/// What has been checked so far, and how it stood at the end of the last correct chunk.
struct Checked<'m> {
    now: ImageCheck<'m>,
    good: ImageCheck<'m>,
    /// Where a chunk begins of which a part lay on the disk: its bytes may be what a power cut left.
    doubt: Option<u64>,
}

impl<'m> Checked<'m> {
    fn new(content: Content<'m>) -> Self {
        Self {
            now: ImageCheck::new(content),
            good: ImageCheck::new(content),
            doubt: None,
        }
    }

    /// Whether a wrong chunk may be the disk's fault; it is asked about once.
    fn take_doubt(&mut self) -> bool {
        self.doubt.take() == Some(self.good.verified())
    }

    /// Back to the end of the last correct chunk.
    fn go_back(&mut self) {
        self.now = self.good.clone();
    }

    fn offset(&self) -> u64 {
        self.now.taken()
    }

    /// Takes the next bytes. After an error all is as at the end of the last correct chunk.
    fn feed(&mut self, mut bytes: &[u8]) -> Result<(), ota::Error> {
        while !bytes.is_empty() {
            // Chunk by chunk, so that each correct one can be gone back to.
            let room = CHUNK_BYTES - self.now.taken() % CHUNK_BYTES;
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (next, rest) = bytes.split_at(room);
            if let Err(error) = self.now.update(next) {
                self.go_back();
                return Err(error);
            }
            if self.now.verified() == self.now.taken() {
                self.good = self.now.clone();
            }
            bytes = rest;
        }
        Ok(())
    }
}

/// Where bytes come from and how long to try.
pub(crate) struct Download<'a> {
    /// The server.
    pub client: &'a Client,
    /// The disk.
    pub files: &'a dyn Files,
    /// When to stop trying.
    pub patience: Patience,
    /// When to stop at all.
    pub cancel: &'a Cancel,
    /// How long it may go on.
    pub term: &'a Term<'a>,
}

/// What came of one request.
enum Attempt {
    /// The image is complete.
    Whole,
    /// The server could not be reached, or is busy.
    Unanswered(String),
    /// There was an answer, and more is wanted.
    Unfinished(String),
}

impl Download<'_> {
    /// Fetches `content` at `path` into `partial`, going on from what lies there. On success the
    /// file is complete, correct and durable.
    ///
    /// # Errors
    /// [`DownloadFault`]; what was fetched and is correct stays for the next time, except when
    /// the whole turned out wrong.
    pub(crate) fn run(
        &self,
        path: &str,
        content: Content<'_>,
        partial: &Path,
    ) -> Result<(), DownloadFault> {
        let size = content.size();
        let mut file = self.files.open(partial)?;
        let mut checked = Checked::new(content);
        self.resume(&mut file, &mut checked, size)?;
        let mut backoff = self.patience.backoff();
        loop {
            self.fill(path, &mut file, &mut checked, size, &mut backoff)?;
            let good = checked.good.verified();
            let Err(error) = checked.now.clone().finish() else {
                break;
            };
            if checked.take_doubt() {
                tracing::warn!("download of {path}: {error}; fetching it from byte {good} again");
                checked.go_back();
                self.cut(&mut file, &checked)?;
                continue;
            }
            // The last chunk, or the manifest's own hash of the whole.
            let wrong_whole = good == size;
            self.files
                .truncate(&file, if wrong_whole { 0 } else { good })?;
            return Err(wrong(error.to_string()));
        }
        self.files.sync(partial)?;
        Ok(())
    }

    /// Asks until there are as many bytes as the image has.
    fn fill(
        &self,
        path: &str,
        file: &mut File,
        checked: &mut Checked<'_>,
        size: u64,
        backoff: &mut Backoff,
    ) -> Result<(), DownloadFault> {
        let mut mark = checked.offset();
        let mut fruitless = 0;
        while checked.offset() < size {
            let words = match self.attempt(path, file, checked, size) {
                Ok(Attempt::Whole) => break,
                Ok(Attempt::Unanswered(words)) => words,
                Ok(Attempt::Unfinished(words)) => {
                    fruitless += 1;
                    words
                }
                Err(fault) => {
                    // What went wrong may have left more in the file than was checked.
                    self.files.truncate(file, checked.offset())?;
                    return Err(fault);
                }
            };
            if checked.offset().saturating_sub(mark) >= self.patience.progress_bytes {
                mark = checked.offset();
                backoff.reset();
                fruitless = 0;
            }
            if fruitless > self.patience.attempts {
                return Err(wrong(format!(
                    "download stopped at byte {} of {size} and got no further in {fruitless} answers: {words}",
                    checked.offset(),
                )));
            }
            let wait = self.term.bound(backoff.next(backoff::random()));
            tracing::warn!(
                "download of {path}: {words}; going on from byte {} in {wait:?}",
                checked.offset()
            );
            if self.cancel.wait(wait) {
                return Err(DownloadFault::Cancelled);
            }
            if self.term.is_over() {
                return Err(DownloadFault::Over);
            }
        }
        Ok(())
    }

    /// Leaves in the file what was checked, to be written on from there.
    fn cut(&self, file: &mut File, checked: &Checked<'_>) -> Result<(), DownloadFault> {
        self.files.truncate(file, checked.offset())?;
        file.seek(SeekFrom::Start(checked.offset()))?;
        Ok(())
    }

    /// Reads what lies there already; anything wrong or torn is cut off.
    fn resume(
        &self,
        file: &mut File,
        checked: &mut Checked<'_>,
        size: u64,
    ) -> Result<(), DownloadFault> {
        let mut buffer = vec![0; READ_BYTES];
        while checked.offset() < size {
            let room = size - checked.offset();
            let room = usize::try_from(room).unwrap_or(usize::MAX).min(READ_BYTES);
            let read = file.read(buffer.get_mut(..room).unwrap_or_default())?;
            if read == 0
                || checked
                    .feed(buffer.get(..read).unwrap_or_default())
                    .is_err()
            {
                break;
            }
            if self.cancel.is_cancelled() {
                return Err(DownloadFault::Cancelled);
            }
        }
        // A last, shorter chunk is only known once it is whole: where it is not the signed one it
        // goes too, to come again.
        if checked.offset() == size && checked.now.clone().finish().is_err() {
            checked.go_back();
        }
        checked.doubt =
            (checked.offset() > checked.good.verified()).then(|| checked.good.verified());
        self.cut(file, checked)
    }

    /// One request.
    fn attempt(
        &self,
        path: &str,
        file: &mut File,
        checked: &mut Checked<'_>,
        size: u64,
    ) -> Result<Attempt, DownloadFault> {
        let mut answer = match self.client.image(path, checked.offset()) {
            Ok(answer) => answer,
            Err(HttpFault::Passing(words)) => return Ok(Attempt::Unanswered(words)),
            Err(fault) => return Err(wrong(fault.words())),
        };
        if let Some(total) = answer.total
            && total != size
        {
            return Err(wrong(format!(
                "size mismatch: the server's image has {total} bytes, the signed manifest says {size}"
            )));
        }
        // A server that sends from the start again: what is here already is read past.
        let mut skip = checked.offset() - answer.start.min(checked.offset());
        let mut buffer = vec![0; READ_BYTES];
        let mut pace = self.client.pace();
        let mut came = 0;
        loop {
            if let Err(words) = pace.took(came) {
                return Ok(Attempt::Unfinished(words));
            }
            if self.cancel.is_cancelled() {
                return Err(DownloadFault::Cancelled);
            }
            if self.term.is_over() {
                return Err(DownloadFault::Over);
            }
            let read = match answer.body.read(&mut buffer) {
                Ok(read) => read,
                Err(error) if checked.offset() < size => {
                    return Ok(Attempt::Unfinished(format!(
                        "truncated: {}",
                        self.client.read_words(&error)
                    )));
                }
                // All of the image is here; how the connection ends does not matter.
                Err(_) => return Ok(Attempt::Whole),
            };
            if read == 0 && checked.offset() < size {
                let words = "truncated: the server's answer ended early";
                return Ok(Attempt::Unfinished(words.into()));
            }
            if read == 0 {
                return Ok(Attempt::Whole);
            }
            came = read;
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(read);
            skip -= skipped as u64;
            let bytes = buffer.get(skipped..read).unwrap_or_default();
            if bytes.len() as u64 > size - checked.offset() {
                return Err(wrong(format!(
                    "endless data: the server sends more than the {size} bytes the signed manifest says"
                )));
            }
            self.files.append(file, bytes)?;
            if let Err(error) = checked.feed(bytes) {
                if checked.take_doubt() {
                    self.cut(file, checked)?;
                    return Ok(Attempt::Unfinished(error.to_string()));
                }
                return Err(wrong(error.to_string()));
            }
        }
    }
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
