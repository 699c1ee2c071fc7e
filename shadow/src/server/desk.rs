//! Where requests are queued and answered: by one thread, as many at a time as wait, so that they share one flush; told
//! when they are durable, and not before.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Instant, SystemTime};

use fleet::{Crowded, Excerpt, Fleet, FleetError, Sampler, Seat, ShareBounds, Shares, ThingName};
use store::{Expect, Store, Table, Write};

use super::kept::Kept;
use super::records::{ShadowRow, key_of, names_key, shadow_key, shadows_prefix};
use super::{Message, NamedShadows, Publish, ShadowError, TABLE};
use crate::answer::{self, Versioned};
use crate::request::{REQUEST_MAX_BYTES, Rejection, Update, read_question, read_update, token};
use crate::topic::{Place, Verb};

/// Most requests that wait; one more is refused.
const REQUESTS_LIMIT_ITEMS: usize = 4_096;
/// What of them may be one's own, and how many bytes they have.
const SHARES: ShareBounds = ShareBounds {
    waiting: 32,
    waiting_bytes: 128 * 1024,
    per_minute: 6_000,
    all_waiting: REQUESTS_LIMIT_ITEMS,
    all_waiting_bytes: 16 * 1024 * 1024,
};
/// Most requests that share one flush.
const BATCH_ITEMS: usize = 256;
/// Rows read at once where a thing's are forgotten.
const PAGE_ITEMS: usize = 500;

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// On its topic: it is answered on topics too.
    Topic,
    /// Over HTTPS: it is answered there, and what changed is told on topics.
    Https,
}

/// What a request is answered with.
#[derive(Debug, PartialEq, Eq)]
pub struct ShadowReply {
    /// The answer, as JSON.
    pub answer: Result<Vec<u8>, Rejection>,
    /// To be sent to that session alone, where the request is not looked at at all and nobody else is told.
    pub direct: Option<Message>,
}

/// A request.
pub struct ShadowRequest {
    /// Whose share of the queue it takes.
    pub who: String,
    /// Which shadow.
    pub place: Place,
    /// What is asked.
    pub verb: Verb,
    /// What was said.
    pub payload: Vec<u8>,
    /// Where.
    pub source: Source,
    /// The way back; called once, when the answer is durable.
    pub reply: Box<dyn FnOnce(ShadowReply) + Send>,
}

/// The shadows of all things. Clones share them; the thread ends with the last one.
#[derive(Clone)]
pub struct Shadows {
    inbox: SyncSender<Waiting>,
    shares: Shares,
    inner: Arc<Inner>,
}

/// A request with its place in the queue.
type Waiting = (ShadowRequest, Seat);

struct Inner {
    table: Table,
    fleet: Fleet,
    publish: Publish,
    /// Held by whoever changes rows, from the look at the registry to the commit.
    writing: Mutex<()>,
    failures: Sampler,
}

/// What comes of a request, once it is durable.
struct Outcome {
    answer: Result<Vec<u8>, Rejection>,
    messages: Vec<Message>,
}

/// Refused, or failed for reasons of our own.
enum Stop {
    Refused(Rejection),
    Failed(ShadowError),
}

impl From<ShadowError> for Stop {
    fn from(error: ShadowError) -> Self {
        Self::Failed(error)
    }
}

fn refuse<T>(rejection: Rejection) -> Result<T, Stop> {
    Err(Stop::Refused(rejection))
}

fn seconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

impl Shadows {
    /// Opens the table and starts the thread; `publish` is how topics hear.
    ///
    /// # Errors
    /// [`ShadowError`].
    pub fn open(store: &Store, fleet: Fleet, publish: Publish) -> Result<Self, ShadowError> {
        let inner = Arc::new(Inner {
            table: store.table(TABLE)?,
            fleet,
            publish,
            writing: Mutex::default(),
            failures: Sampler::new(),
        });
        let (inbox, receive) = sync_channel(REQUESTS_LIMIT_ITEMS);
        let own = Arc::clone(&inner);
        thread::Builder::new()
            .name("shadows".into())
            .spawn(move || own.run(&receive))
            .map_err(ShadowError::Thread)?;
        Ok(Self {
            inbox,
            shares: Shares::new(SHARES),
            inner,
        })
    }

    /// Takes a request; never blocks. Whether whoever asks may is judged already.
    pub fn ask(&self, request: ShadowRequest) {
        if request.payload.len() > REQUEST_MAX_BYTES {
            return turn_away(request, Rejection::TooLarge);
        }
        let bytes = request.place.thing.len() + request.payload.len();
        let seat = match self.shares.take(&request.who, bytes, Instant::now()) {
            Ok(seat) => seat,
            Err(crowded) => return turn_away(request, Rejection::Throttled(crowded.to_string())),
        };
        let Err(refused) = self.inbox.try_send((request, seat)) else {
            return;
        };
        let (TrySendError::Full((request, _)) | TrySendError::Disconnected((request, _))) = refused;
        turn_away(request, Rejection::Throttled(Crowded::All.to_string()));
    }

    /// The names of a thing's shadows behind `after`, at most `limit`. Blocks.
    ///
    /// # Errors
    /// [`FleetError`] where there is no such thing; [`ShadowError::Store`].
    pub fn named(
        &self,
        thing: &ThingName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<NamedShadows, ShadowError> {
        let id = self.inner.fleet.thing(thing)?.id();
        let mut kept = Kept::new(&self.inner.table);
        let row = kept.names(&names_key(thing.as_str()), &id)?;
        let behind = |name: &String| after.is_none_or(|after| name.as_str() > after);
        let mut names: Vec<String> = row.names.into_iter().filter(behind).collect();
        let more = names.len() > limit;
        names.truncate(limit);
        Ok(NamedShadows { names, more })
    }

    /// Forgets all shadows of a thing that was deleted. Blocks.
    ///
    /// # Errors
    /// [`ShadowError::Store`].
    pub fn forget_thing(&self, thing: &str) -> Result<(), ShadowError> {
        // Whoever writes after this sees that there is no thing.
        let _writing = self.inner.lock();
        let table = &self.inner.table;
        loop {
            let rows = table.scan(&shadows_prefix(thing), None, PAGE_ITEMS)?;
            let keys = rows.iter().map(|(key, _)| key.clone());
            let keys = keys.chain([names_key(thing)]);
            let writes: Vec<Write> = keys.map(|key| Write::delete(key, Expect::Any)).collect();
            table.batch(&writes)?;
            if rows.len() < PAGE_ITEMS {
                return Ok(());
            }
        }
    }
}

/// Answers what is not looked at; that must cost little, and wait for nothing.
fn turn_away(request: ShadowRequest, rejection: Rejection) {
    let direct = (request.source == Source::Topic).then(|| {
        let token = token(&request.payload);
        let at = seconds(SystemTime::now());
        let end = format!("{}/rejected", request.verb.as_str());
        Message {
            topic: request.place.topic(&end),
            payload: answer::rejected(&rejection, at, token.as_deref()),
        }
    });
    (request.reply)(ShadowReply {
        answer: Err(rejection),
        direct,
    });
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, receive: &Receiver<Waiting>) {
        while let Ok(first) = receive.recv() {
            let mut batch = vec![first];
            while batch.len() < BATCH_ITEMS {
                match receive.try_recv() {
                    Ok(next) => batch.push(next),
                    Err(_) => break,
                }
            }
            // They wait no more, and their seats are free before they hear the answers.
            let requests = batch.into_iter().map(|(request, _seat)| request).collect();
            self.answer(requests);
        }
    }

    fn answer(&self, requests: Vec<ShadowRequest>) {
        let at = seconds(SystemTime::now());
        let outcomes = self.outcomes(&requests, at);
        for (request, outcome) in requests.into_iter().zip(outcomes) {
            for message in outcome.messages {
                (self.publish)(message);
            }
            (request.reply)(ShadowReply {
                answer: outcome.answer,
                direct: None,
            });
        }
    }

    /// What comes of requests, one after the other, durable all together.
    fn outcomes(&self, requests: &[ShadowRequest], at: u64) -> Vec<Outcome> {
        let _writing = self.lock();
        let mut kept = Kept::new(&self.table);
        let outcomes = requests.iter().map(|request| {
            let (token, done) = self.outcome(&mut kept, request, at);
            done.unwrap_or_else(|stop| self.rejected(request, token.as_deref(), stop, at))
        });
        let outcomes: Vec<Outcome> = outcomes.collect();
        match kept.commit() {
            Ok(()) => outcomes,
            Err(error) => {
                self.note(&error);
                let failed = |request: &ShadowRequest| {
                    let token = token(&request.payload);
                    let internal = Stop::Refused(Rejection::Internal);
                    self.rejected(request, token.as_deref(), internal, at)
                };
                requests.iter().map(failed).collect()
            }
        }
    }

    fn note(&self, error: &ShadowError) {
        if let Some(left_out) = self.failures.take_counting() {
            tracing::error!(%error, left_out, "a shadow could not be read or kept");
        }
    }

    fn rejected(
        &self,
        request: &ShadowRequest,
        token: Option<&str>,
        stop: Stop,
        at: u64,
    ) -> Outcome {
        let rejection = match stop {
            Stop::Refused(rejection) => rejection,
            Stop::Failed(error) => {
                self.note(&error);
                Rejection::Internal
            }
        };
        if rejection == Rejection::Internal {
            tracing::debug!(thing = ?Excerpt(&request.place.thing), "a request of a shadow failed");
        }
        let told = (request.source == Source::Topic).then(|| Message {
            topic: request
                .place
                .topic(&format!("{}/rejected", request.verb.as_str())),
            payload: answer::rejected(&rejection, at, token),
        });
        Outcome {
            answer: Err(rejection),
            messages: told.into_iter().collect(),
        }
    }

    fn outcome(
        &self,
        kept: &mut Kept<'_>,
        request: &ShadowRequest,
        at: u64,
    ) -> (Option<String>, Result<Outcome, Stop>) {
        match request.verb {
            Verb::Get => {
                let (token, asked) = read_question(&request.payload);
                let done = asked.map_err(Stop::Refused);
                let done = done.and_then(|_| self.get(kept, request, token.as_deref(), at));
                (token, done)
            }
            Verb::Update => {
                let (token, asked) = read_update(&request.payload);
                let done = asked.map_err(Stop::Refused);
                let done = done
                    .and_then(|update| self.update(kept, request, &update, token.as_deref(), at));
                (token, done)
            }
            Verb::Delete => {
                let (token, asked) = read_question(&request.payload);
                let done = asked.map_err(Stop::Refused);
                let done = done
                    .and_then(|version| self.delete(kept, request, version, token.as_deref(), at));
                (token, done)
            }
        }
    }

    /// The id of the thing that a request is about.
    fn thing(&self, place: &Place) -> Result<String, Stop> {
        let Ok(name) = place.thing.parse::<ThingName>() else {
            return refuse(Rejection::NoThing);
        };
        match self.fleet.thing(&name) {
            Ok(thing) => Ok(thing.id()),
            Err(FleetError::NotFound { .. }) => refuse(Rejection::NoThing),
            Err(error) => Err(Stop::Failed(error.into())),
        }
    }

    fn get(
        &self,
        kept: &mut Kept<'_>,
        request: &ShadowRequest,
        token: Option<&str>,
        at: u64,
    ) -> Result<Outcome, Stop> {
        let place = &request.place;
        let id = self.thing(place)?;
        let row = kept.shadow(&shadow_key(place), &id)?;
        let Some((version, document)) = row.and_then(|row| Some((row.version, row.document?)))
        else {
            return refuse(Rejection::NoShadow(place.to_string()));
        };
        let shadow = Versioned {
            document: &document,
            version,
        };
        let payload = answer::got(shadow, at, token);
        let told = (request.source == Source::Topic).then(|| Message {
            topic: place.topic("get/accepted"),
            payload: payload.clone(),
        });
        Ok(Outcome {
            answer: Ok(payload),
            messages: told.into_iter().collect(),
        })
    }

    fn update(
        &self,
        kept: &mut Kept<'_>,
        request: &ShadowRequest,
        update: &Update,
        token: Option<&str>,
        at: u64,
    ) -> Result<Outcome, Stop> {
        let place = &request.place;
        let id = self.thing(place)?;
        let key = shadow_key(place);
        let row = kept.shadow(&key, &id)?;
        let (current, document) = row.map_or((0, None), |row| (row.version, row.document));
        if update.version.is_some_and(|version| version != current) {
            return refuse(Rejection::Conflict);
        }
        let after = document.clone().unwrap_or_default().after(update, at);
        if !after.fits() {
            return refuse(Rejection::TooLarge);
        }
        if let Some(name) = place.name.as_ref().filter(|_| document.is_none()) {
            let names = names_key(&place.thing);
            let mut row = kept.names(&names, &id)?;
            if !row.add(name) {
                return refuse(Rejection::Named(row.names.len()));
            }
            kept.put_names(names, row);
        }
        let version = current.saturating_add(1);
        let payload = answer::updated(update, version, at, token);
        let shadow = |document, version| Versioned { document, version };
        let previous = document.as_ref().map(|before| shadow(before, current));
        let now = shadow(&after, version);
        let message = |end: &str, payload| Message {
            topic: place.topic(end),
            payload,
        };
        let mut messages = vec![message("update/accepted", payload.clone())];
        let documents = answer::documents(previous, now, at, token);
        messages.push(message("update/documents", documents));
        if let Some(delta) = answer::delta(now, at, token) {
            messages.push(message("update/delta", delta));
        }
        kept.put_shadow(
            key,
            ShadowRow {
                thing: id,
                version,
                document: Some(after),
            },
        );
        Ok(Outcome {
            answer: Ok(payload),
            messages,
        })
    }

    fn delete(
        &self,
        kept: &mut Kept<'_>,
        request: &ShadowRequest,
        version: Option<u64>,
        token: Option<&str>,
        at: u64,
    ) -> Result<Outcome, Stop> {
        let place = &request.place;
        let id = self.thing(place)?;
        let key = shadow_key(place);
        let row = kept.shadow(&key, &id)?;
        let Some(row) = row.filter(|row| row.document.is_some()) else {
            return refuse(Rejection::NoShadow(place.to_string()));
        };
        if version.is_some_and(|version| version != row.version) {
            return refuse(Rejection::Conflict);
        }
        if let Some(name) = &place.name {
            let names = names_key(&place.thing);
            let mut of_thing = kept.names(&names, &id)?;
            if let Some(forgotten) = of_thing.remove(name) {
                kept.forget_shadow(key_of(&place.thing, &forgotten));
            }
            kept.put_names(names, of_thing);
        }
        let payload = answer::deleted(row.version, at, token);
        // Its version goes on where it is made anew.
        kept.put_shadow(
            key,
            ShadowRow {
                document: None,
                ..row
            },
        );
        let topic = place.topic("delete/accepted");
        let message = Message {
            topic,
            payload: payload.clone(),
        };
        Ok(Outcome {
            answer: Ok(payload),
            messages: vec![message],
        })
    }
}
