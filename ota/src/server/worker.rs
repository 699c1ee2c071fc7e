//! The room's thread: answers devices many at a time, ends executions whose time is up, and lets rollouts
//! go on.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use fleet::{Crowded, Excerpt, Sampler, Seat, ShareBounds, Shares};
use tracing::{error, warn};

use super::pictures::Pictures;
use super::records::key;
use super::transaction::Transaction;
use super::{Inner, Message, Ota, device, now, seconds};
use crate::Error;
use crate::job::{ExecutionStatus, RejectedCode};

/// Most requests of devices that wait; one more is answered `RequestThrottled`.
pub const MAX_QUEUED_REQUESTS: usize = 16_384;
/// What of them may be one thing's, and how many bytes they have: topics and payloads.
const SHARES: ShareBounds = ShareBounds {
    waiting: MAX_WAITING_REQUESTS_OF_THING,
    waiting_bytes: 512 * 1024,
    per_minute: MAX_REQUESTS_OF_THING_PER_MINUTE,
    all_waiting: MAX_QUEUED_REQUESTS,
    all_waiting_bytes: 32 * 1024 * 1024,
};
/// Most requests of one thing that wait.
pub(super) const MAX_WAITING_REQUESTS_OF_THING: usize = 128;
/// Most requests of one thing in a minute.
pub(super) const MAX_REQUESTS_OF_THING_PER_MINUTE: u32 = 6_000;
/// Most requests that share one flush.
pub(super) const MAX_BATCH_REQUESTS: usize = 512;
/// Most executions ended in one go because their time is up.
const MAX_BATCH_TIMEOUTS: usize = 500;
/// Longest wait, so that a clock that was set is noticed.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A request of a device on one of its jobs topics.
pub struct DeviceRequest {
    /// The thing its certificate belongs to.
    pub thing: Option<String>,
    /// The topic it published to.
    pub topic: String,
    /// What it said.
    pub payload: Vec<u8>,
    /// The way back to that session alone; called once, when the answer is durable.
    pub reply: Box<dyn FnOnce(Message) + Send>,
}

pub(super) enum Work {
    Request(DeviceRequest, Seat),
    Wake,
}

pub(super) struct Inbox {
    work: SyncSender<Work>,
    shares: Shares,
    failures: Sampler,
}

pub(super) fn inbox() -> (Inbox, Receiver<Work>) {
    // One more than there are seats: word to wake up always fits in where a seat is free.
    let (work, receive) = sync_channel(MAX_QUEUED_REQUESTS + 1);
    let inbox = Inbox {
        work,
        shares: Shares::new(SHARES),
        failures: Sampler::new(),
    };
    (inbox, receive)
}

impl Inbox {
    /// A full inbox wakes the thread as well, so nothing is lost where this does not fit in.
    pub(super) fn wake(&self) {
        let _ = self.work.try_send(Work::Wake);
    }
}

impl Ota {
    /// Takes a request of a device; never blocks. The answer comes through its `reply`.
    pub fn ask(&self, request: DeviceRequest) {
        if let Err(refusal) = device::check_length(&request.payload) {
            return answer_at_once(request, refusal);
        }
        let inbox = &self.inner.inbox;
        let bytes = request.topic.len() + request.payload.len();
        // Those that are no thing's are all refused, and have one share.
        let who = request.thing.as_deref().unwrap_or_default();
        let seat = match inbox.shares.take(who, bytes, Instant::now()) {
            Ok(seat) => seat,
            Err(crowded) => {
                return turn_away(
                    request,
                    RejectedCode::RequestThrottled,
                    &crowded.to_string(),
                );
            }
        };
        let Err(refused) = inbox.work.try_send(Work::Request(request, seat)) else {
            return;
        };
        let (TrySendError::Full(work) | TrySendError::Disconnected(work)) = refused;
        if let Work::Request(request, _) = work {
            let words = Crowded::All.to_string();
            turn_away(request, RejectedCode::RequestThrottled, &words);
        }
    }
}

fn turn_away(request: DeviceRequest, code: RejectedCode, words: &str) {
    answer_at_once(request, device::Refusal::new(code, words));
}

fn answer_at_once(request: DeviceRequest, refusal: device::Refusal) {
    match device::turned_away(&request.topic, refusal, seconds(SystemTime::now())) {
        Ok(message) => (request.reply)(message),
        Err(error) => error!(%error, "a refusal could not be written"),
    }
}

/// Starts the thread. It holds the room only while it works, so that the room ends with its last user.
pub(super) fn start(ota: &Ota, work: Receiver<Work>) -> Result<(), Error> {
    let room = std::sync::Arc::downgrade(&ota.inner);
    thread::Builder::new()
        .name("ota".into())
        .spawn(move || run(&room, &work))
        .map(|_| ())
        .map_err(|source| Error::Io {
            what: "starting the ota thread",
            source,
        })
}

fn run(room: &Weak<Inner>, work: &Receiver<Work>) {
    let mut wait = Duration::ZERO;
    loop {
        let first = match work.recv_timeout(wait) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let Some(inner) = room.upgrade() else { return };
        let ota = Ota { inner };
        let more = std::iter::from_fn(|| work.try_recv().ok()).take(MAX_BATCH_REQUESTS);
        let requests = first.into_iter().chain(more).filter_map(|work| match work {
            // It waits no more, and its seat is free before its device hears the answer.
            Work::Request(request, seat) => {
                drop(seat);
                Some(request)
            }
            Work::Wake => None,
        });
        ota.answer_all(requests.collect());
        wait = ota.go_on().unwrap_or_else(|error| {
            error!(%error, "jobs and rollouts cannot go on; trying again");
            RETRY
        });
    }
}

impl Ota {
    /// Answers requests with one flush for all of them; where that fails, one by one, so that only those
    /// that fail are told so.
    fn answer_all(&self, requests: Vec<DeviceRequest>) {
        if requests.is_empty() {
            return;
        }
        let Err((error, requests)) = self.answer(requests) else {
            return;
        };
        if self.inner.inbox.failures.take() {
            warn!(%error, requests = requests.len(), "answering devices together failed");
        }
        for request in requests {
            if let Err((error, failed)) = self.answer(vec![request]) {
                for request in failed {
                    // A device that asks again and again says it once.
                    if let Some(left_out) = self.inner.inbox.failures.take_counting() {
                        error!(%error, thing = request.thing, topic = ?Excerpt(&request.topic), left_out, "a device's request failed");
                    }
                    turn_away(
                        request,
                        RejectedCode::InternalError,
                        "the server failed; try again later",
                    );
                }
            }
        }
    }

    fn answer(&self, requests: Vec<DeviceRequest>) -> Result<(), (Box<Error>, Vec<DeviceRequest>)> {
        let _turn = self.turn();
        let mut changes = self.changes(now(SystemTime::now()));
        let mut answers = Vec::with_capacity(requests.len());
        for request in &requests {
            let thing = request.thing.as_deref();
            match device::handle(&mut changes, thing, &request.topic, &request.payload) {
                Ok(answer) => answers.push(answer),
                Err(error) => return Err((Box::new(error), requests)),
            }
        }
        let mut waiting = Some(requests);
        let answer = || {
            for (request, answer) in waiting.take().into_iter().flatten().zip(answers) {
                (request.reply)(answer);
            }
        };
        self.settle(changes, answer)
            .map_err(|error| (Box::new(error), waiting.unwrap_or_default()))
    }

    fn pictures(&self) -> MutexGuard<'_, Pictures> {
        self.inner
            .pictures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what has timed out, carries rollouts on; how long nothing will happen by itself.
    fn go_on(&self) -> Result<Duration, Error> {
        let at = SystemTime::now();
        let mut wait = self.time_out(at)?;
        if self.inner.unfinished.swap(false, Ordering::AcqRel) {
            self.finish_cancelling(at)
                .inspect_err(|_| self.inner.unfinished.store(true, Ordering::Release))?;
        }
        if let Some(due) = self.go_on_with_jobs(at)? {
            wait = wait.min(Duration::from_secs(due.saturating_sub(seconds(at))));
        }
        let mut dirty = std::mem::take(
            &mut *self
                .inner
                .dirty
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        );
        let mut timers = self
            .inner
            .timers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let due = timers.iter().filter(|(_, due)| **due <= seconds(at));
        dirty.extend(due.map(|(id, _)| id.clone()));
        for id in dirty {
            if let Some(rest) = self.pictures().rest(&id) {
                wait = wait.min(rest);
                self.inner
                    .dirty
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(id);
                continue;
            }
            let began = Instant::now();
            let again = self.advance(&id, at).unwrap_or_else(|error| {
                error!(%error, rollout = %id, "a rollout cannot go on; trying again");
                Some(seconds(at) + RETRY.as_secs())
            });
            self.pictures().rounded(&id, began);
            match again {
                Some(due) => timers.insert(id, due),
                None => timers.remove(&id),
            };
        }
        for due in timers.values() {
            wait = wait.min(Duration::from_secs(due.saturating_sub(seconds(at))));
        }
        Ok(wait)
    }

    /// Ends the executions whose deadline has passed; how long until the next one's.
    fn time_out(&self, at: SystemTime) -> Result<Duration, Error> {
        loop {
            let due = Transaction::new(&self.inner.table).keys(key::DUE, MAX_BATCH_TIMEOUTS)?;
            let next = due
                .first()
                .and_then(|first| key::of_due(first))
                .map(|(deadline, _, _)| deadline);
            match next {
                None => return Ok(MAX_WAIT),
                Some(deadline) if deadline > seconds(at) => {
                    return Ok(MAX_WAIT.min(Duration::from_secs(deadline - seconds(at))));
                }
                Some(_) => {}
            }
            self.change(at, |changes| {
                for (deadline, job, thing) in due.iter().filter_map(|key| key::of_due(key)) {
                    if deadline > changes.now.seconds {
                        break;
                    }
                    match changes.execution(&job, thing)? {
                        Some(execution)
                            if execution.deadline() == Some(deadline)
                                && execution.is_shut(changes.now.seconds) =>
                        {
                            changes.shut(&execution)?;
                        }
                        Some(execution) if execution.deadline() == Some(deadline) => {
                            let of_rollout =
                                changes.job(&job)?.is_some_and(|job| job.install.is_some());
                            changes.update(&execution, |execution| {
                                execution.status = ExecutionStatus::TimedOut;
                                // What a device said of itself stays.
                                if of_rollout {
                                    let said = execution.details.get_or_insert_default();
                                    let why = || overdue(execution.started_at, deadline);
                                    said.entry("reason".to_owned()).or_insert_with(why);
                                }
                            })?;
                        }
                        // An index that points nowhere would be found first for ever.
                        _ => changes
                            .rows
                            .delete(format!("{}{deadline:016}/{job}/{thing}", key::DUE)),
                    }
                }
                Ok(())
            })?;
        }
    }
}

/// Why a device of a rollout is given up, in words.
fn overdue(started_at: Option<u64>, deadline: u64) -> String {
    match started_at.and_then(|started| deadline.checked_sub(started)) {
        Some(seconds) => format!(
            "no word that it was done within {} minutes of its beginning",
            seconds.div_ceil(60)
        ),
        None => "no word that it was done in time".to_owned(),
    }
}
