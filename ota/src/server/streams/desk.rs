//! Where requests for blocks are queued and answered: threads of their own, because files are read.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use fleet::{Crowded, Excerpt, Sampler, Seat, ShareBounds, Shares};
use serde_json::Value;
use tracing::{error, warn};

use super::message::{
    Answers, Ask, Asked, Code, Described, Get, Place, REQUEST_BYTES, Refusal, place, read, refuse,
};
use super::{Ota, Stream, StreamFile};
use crate::server::records::key;
use crate::server::transaction::Transaction;
use crate::server::{Message, records};
use crate::{Error, JobId};

/// Most requests that wait; one more is refused. Each is answered by 128 KiB at most.
const REQUESTS_LIMIT_ITEMS: usize = 1024;
/// What of them may be one thing's, and how many bytes they have: topics and payloads.
const SHARES: ShareBounds = ShareBounds {
    waiting: REQUESTS_OF_THING_LIMIT_ITEMS,
    waiting_bytes: 128 * 1024,
    per_minute: 6_000,
    all_waiting: REQUESTS_LIMIT_ITEMS,
    all_waiting_bytes: 8 * 1024 * 1024,
};
/// Most requests of one thing that wait. A device has one or a few under way.
const REQUESTS_OF_THING_LIMIT_ITEMS: usize = 32;
/// Of a request that is not looked at, the payload up to this is read for the token.
const TOKEN_READ_BYTES: usize = 1024;
/// Threads that answer.
const THREADS: usize = 2;
/// Jobs of a thing that are looked at for a stream.
const JOBS_LIMIT_ITEMS: usize = 100;

/// A request of a device on one of the streams topics.
pub struct StreamRequest {
    /// The thing its certificate belongs to.
    pub thing: Option<String>,
    /// The topic it published to.
    pub topic: String,
    /// What it said.
    pub payload: Vec<u8>,
    /// The way back to that session alone; called for each block.
    pub reply: Box<dyn Fn(Message) + Send>,
}

/// The desk. Clones share it; its threads end with the last one.
#[derive(Clone)]
pub struct StreamDesk {
    inbox: SyncSender<Waiting>,
    shares: Shares,
}

/// A request with its place in the queue.
type Waiting = (StreamRequest, Seat);

impl StreamDesk {
    /// Starts the threads.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn start(ota: &Ota) -> Result<Self, Error> {
        let (send, receive) = sync_channel(REQUESTS_LIMIT_ITEMS);
        let receive = Arc::new(Mutex::new(receive));
        let failures = Arc::new(Sampler::new());
        for number in 0..THREADS {
            let (ota, receive) = (ota.clone(), Arc::clone(&receive));
            let failures = Arc::clone(&failures);
            thread::Builder::new()
                .name(format!("streams-{number}"))
                .spawn(move || run(&ota, &receive, &failures))
                .map_err(|source| Error::Io {
                    what: "starting a streams thread",
                    source,
                })?;
        }
        Ok(Self {
            inbox: send,
            shares: Shares::new(SHARES),
        })
    }

    /// Whether a request is one for the desk.
    #[must_use]
    pub fn is_for(topic: &str) -> bool {
        super::is_ours(topic)
    }

    /// Takes a request of a device; never blocks. The answers come through its `reply`.
    pub fn ask(&self, request: StreamRequest) {
        if request.payload.len() > REQUEST_BYTES {
            let words = format!("the request has more than {REQUEST_BYTES} bytes");
            return turn_away(&request, Code::InvalidRequest, words);
        }
        let bytes = request.topic.len() + request.payload.len();
        // Those that are no thing's are all refused, and have one share.
        let who = request.thing.as_deref().unwrap_or_default();
        let seat = match self.shares.take(who, bytes, Instant::now()) {
            Ok(seat) => seat,
            Err(crowded) => {
                return turn_away(&request, Code::RequestThrottled, crowded.to_string());
            }
        };
        let Err(refused) = self.inbox.try_send((request, seat)) else {
            return;
        };
        let (TrySendError::Full((request, _)) | TrySendError::Disconnected((request, _))) = refused;
        turn_away(&request, Code::RequestThrottled, Crowded::All.to_string());
    }
}

/// Answers what is not looked at; that must cost little.
fn turn_away(request: &StreamRequest, code: Code, message: String) {
    let Some(place) = place(&request.topic) else {
        return;
    };
    let token = if request.payload.len() <= TOKEN_READ_BYTES {
        read(&place, &request.payload).0
    } else {
        None
    };
    let answers = Answers {
        place: &place,
        token,
    };
    (request.reply)(answers.rejected(&Refusal { code, message }));
}

fn run(ota: &Ota, receive: &Mutex<Receiver<Waiting>>, failures: &Sampler) {
    loop {
        let next = receive
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        match next {
            Ok((request, seat)) => {
                // It waits no more, and its seat is free before its device hears the answer.
                drop(seat);
                ota.answer_stream(&request, failures);
            }
            Err(_) => return,
        }
    }
}

/// Refused, or failed for reasons of our own.
enum Stop {
    Refused(Refusal),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Ota {
    fn answer_stream(&self, request: &StreamRequest, failures: &Sampler) {
        let Some(place) = place(&request.topic) else {
            return;
        };
        let (token, asked) = read(&place, &request.payload);
        let answers = Answers {
            place: &place,
            token,
        };
        let thing = request.thing.as_deref();
        let done = asked
            .map_err(Stop::Refused)
            .and_then(|asked| self.stream_answers(&answers, &place, thing, &asked, &request.reply));
        let refusal = match done {
            Ok(()) => return,
            Err(Stop::Refused(refusal)) => refusal,
            Err(Stop::Failed(cause)) => {
                if let Some(left_out) = failures.take_counting() {
                    error!(error = %cause, stream = ?Excerpt(place.stream), left_out, "a stream could not be read");
                }
                Refusal {
                    code: Code::InternalError,
                    message: "the server failed; try again later".into(),
                }
            }
        };
        (request.reply)(answers.rejected(&refusal));
    }

    fn stream_answers(
        &self,
        answers: &Answers<'_>,
        place: &Place<'_>,
        thing: Option<&str>,
        asked: &Asked,
        reply: &dyn Fn(Message),
    ) -> Result<(), Stop> {
        // Whatever the policy says: the thing is the certificate's, not the topic's.
        let Some(thing) = thing.filter(|thing| *thing == place.thing) else {
            return Ok(refuse(
                Code::Unauthorized,
                "this certificate is not that thing's",
            )?);
        };
        let unknown = || Refusal {
            code: Code::ResourceNotFound,
            message: "there is no such stream".into(),
        };
        let stream = match self.stream(place.stream) {
            Ok(stream) => stream,
            Err(Error::NotFound { .. }) => return Err(unknown().into()),
            Err(error) => return Err(error.into()),
        };
        let has_job = self.has_job_for_stream(thing, &stream.id)?;
        let get = match &asked.what {
            Ask::Describe => return self.describe(answers, thing, &stream, has_job, reply),
            Ask::Get(get) => get,
        };
        if get.version.is_some_and(|version| version != stream.version) {
            let words = format!("the stream has version {} by now", stream.version);
            return Ok(refuse(Code::VersionMismatch, words)?);
        }
        let Some(file) = stream.files.iter().find(|file| file.file_id == get.file) else {
            return Ok(refuse(
                Code::ResourceNotFound,
                format!("the stream has no file {}", get.file),
            )?);
        };
        if !has_job && !self.may_stream(thing, file)? {
            return Ok(refuse(
                Code::Unauthorized,
                "this thing has no job for that file",
            )?);
        }
        self.send_blocks(answers, get, file, reply)
    }

    fn describe(
        &self,
        answers: &Answers<'_>,
        thing: &str,
        stream: &Stream,
        has_job: bool,
        reply: &dyn Fn(Message),
    ) -> Result<(), Stop> {
        let mut files = Vec::new();
        for file in &stream.files {
            if has_job || self.may_stream(thing, file)? {
                files.push(Described {
                    file: file.file_id,
                    size: self.open_source(&file.source()?)?.1.size,
                });
            }
        }
        if files.is_empty() {
            return Ok(refuse(
                Code::Unauthorized,
                "this thing has no job for that stream",
            )?);
        }
        reply(answers.description(stream.version, stream.description.as_deref(), &files));
        Ok(())
    }

    fn send_blocks(
        &self,
        answers: &Answers<'_>,
        get: &Get,
        file: &StreamFile,
        reply: &dyn Fn(Message),
    ) -> Result<(), Stop> {
        let (mut image, kept) = self.open_source(&file.source()?)?;
        let io = |source| Error::Io {
            what: "reading an image",
            source,
        };
        for block in get.blocks(kept.size)? {
            let start = block * get.block;
            let length = get.block.min(kept.size.saturating_sub(start));
            let mut bytes = Vec::new();
            image.seek(SeekFrom::Start(start)).map_err(io)?;
            (&mut image)
                .take(length)
                .read_to_end(&mut bytes)
                .map_err(io)?;
            if bytes.len() as u64 != length {
                warn!(
                    file = file.s3_location.key,
                    "the kept image is shorter than it was"
                );
                return Ok(refuse(
                    Code::InternalError,
                    "the server's file is not whole",
                )?);
            }
            reply(answers.data(get, block, bytes));
            // Beside each other the threads send at most half of what may leave; the rest is for HTTPS.
            let rests = 2 * u32::try_from(THREADS).unwrap_or(u32::MAX);
            let takes = self.shaper().charge(length, Instant::now());
            thread::sleep(takes.saturating_mul(rests));
        }
        Ok(())
    }

    fn may_stream(&self, thing: &str, file: &StreamFile) -> Result<bool, Error> {
        let source = file.source()?;
        self.may_fetch(thing, &source.name, &source.version, SystemTime::now())
    }

    /// Whether the thing has a job before it whose document names the stream.
    fn has_job_for_stream(&self, thing: &str, stream: &str) -> Result<bool, Error> {
        let rows = Transaction::new(&self.inner.table);
        let mut keys = rows.keys(&key::pending_of(thing, None), JOBS_LIMIT_ITEMS)?;
        keys.extend(rows.keys(&key::pending_in_namespaces(thing), JOBS_LIMIT_ITEMS)?);
        let jobs: Vec<JobId> = keys
            .iter()
            .filter_map(|key| Some(key::of_pending(key)?.1))
            .collect();
        for id in jobs {
            let Some(row) = self.inner.table.get_as::<records::Job>(&key::job(&id))? else {
                continue;
            };
            let document = serde_json::from_str::<Value>(&row.value.document);
            if document.is_ok_and(|document| names(&document, stream)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a text anywhere in a job document is the stream's id. JSON is read 128 levels deep at most.
fn names(document: &Value, stream: &str) -> bool {
    match document {
        Value::String(text) => text == stream,
        Value::Array(items) => items.iter().any(|item| names(item, stream)),
        Value::Object(fields) => fields.values().any(|field| names(field, stream)),
        _ => false,
    }
}
