//! Where connections wait that have not said who they are: so many at most, and who has been there long makes room for
//! who comes.
//!
//! Whoever can reach a port can open connections and say nothing on them. They stand in line, and a seat is for who has
//! something to say. Were those turned away who come while all seats are taken, a few hundred sockets would keep everybody
//! out. So a newcomer gets the seat of the one that has had it longest and is still [`SILENT`], or, after longer, of one
//! that has begun to speak: devices that come back all at once are slow because there are so many of them, and none of them
//! is to begin anew. While all who sit there are younger the newcomer stays in line.
//!
//! Each source has a line of its own (`lines.rs`), and their turns come one after the other. One source that has a crowd of
//! seats makes room first: for a newcomer from elsewhere at once, for its own when their time is over. It may be a fleet
//! behind one address, so nobody of it is turned away while there is room to wait; where there is none somebody of the
//! longest line goes, first who has said nothing, and where nobody has to leave a line one who has a seat goes
//! altogether, as for who waits for it. So those who have not said who they are keep nobody out, however many they are.

mod guests;
mod lines;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use self::guests::{CROWD_PART, Full, Guest, Guests, Seated, Source};
use self::lines::Lines;
use fleet::Sampler;

/// How long a connection keeps its seat without a whole word, whoever else comes.
const SILENT: Duration = Duration::from_secs(1);

/// How long it keeps it when it has begun to speak.
const SPEAKING: Duration = Duration::from_secs(5);

/// The longest that one who has something to say stands in line: no client waits as long.
const IN_LINE: Duration = Duration::from_secs(90);

/// How many may stand in line for each seat, where nothing else is said.
const IN_LINE_PER_SEAT: usize = 8;

/// Connections in such a lobby at most for each of its seats: who has it, and who stands in line.
pub const LOBBY_PER_SEAT: usize = 1 + IN_LINE_PER_SEAT;

/// See the module.
pub struct Lobby {
    /// What connections do there, for the log.
    doing: &'static str,
    seats: usize,
    /// How many may stand in line when all seats are taken.
    room: usize,
    // Held for a look, an insertion or a removal; never across an await.
    inside: Mutex<Inside>,
    /// The attendant has to look sooner.
    sooner: Notify,
    log: Sampler,
}

struct Inside {
    guests: Guests,
    lines: Lines<Call>,
    /// When a task looks whose time on a seat is over, if one does.
    attended: Option<Instant>,
}

/// One that stands in line, as who calls it sees it.
struct Call {
    peer: SocketAddr,
    seat: oneshot::Sender<Seat>,
}

/// A connection that has been accepted and stands in line for a seat. It leaves when dropped.
pub struct Admission {
    lobby: Arc<Lobby>,
    source: Source,
    number: u64,
    // Ends without a seat where another needs the room.
    seat: oneshot::Receiver<Seat>,
}

/// One connection's seat, given back when dropped.
pub struct Seat {
    lobby: Arc<Lobby>,
    number: u64,
    out: oneshot::Receiver<()>,
}

/// By which a connection says that it has begun to speak.
pub struct Voice {
    lobby: Arc<Lobby>,
    number: u64,
}

impl Lobby {
    /// With so many seats, for connections that are `doing` something.
    #[must_use]
    pub fn new(seats: usize, doing: &'static str) -> Arc<Self> {
        let room = seats.saturating_mul(IN_LINE_PER_SEAT);
        Self::with_room(seats, room, doing)
    }

    /// As [`Lobby::new`], with room for so many who stand in line while all seats are taken.
    #[must_use]
    pub fn with_room(seats: usize, room: usize, doing: &'static str) -> Arc<Self> {
        let seats = seats.max(1);
        Arc::new(Self {
            doing,
            seats,
            room: room.max(1),
            inside: Mutex::new(Inside {
                guests: Guests::new(seats),
                lines: Lines::new(),
                attended: None,
            }),
            sooner: Notify::new(),
            log: Sampler::new(),
        })
    }

    /// How many sit there or stand in line.
    pub fn taken(&self) -> usize {
        let inside = self.inside.lock();
        inside.guests.len() + inside.lines.len()
    }

    /// Takes a connection from `peer` into its line. `None` where there is no room, and nobody who has to make some: it is to
    /// be closed.
    pub fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Admission> {
        let (call, seat) = oneshot::channel();
        let source = Source::of(peer);
        let (number, gone) = {
            let mut inside = self.inside.lock();
            let mut gone = None;
            // Whoever comes stands in line first, also where seats are free: both are counted.
            if inside.guests.len() + inside.lines.len() >= self.seats.saturating_add(self.room) {
                gone = inside.lines.give_up(Some(source));
                if gone.is_none() {
                    drop(inside);
                    self.say_closed(peer);
                    return None;
                }
            }
            let call = Call { peer, seat: call };
            (inside.lines.join(source, call), gone)
        };
        if let Some(gone) = gone {
            self.say_closed(gone.peer);
        }
        Some(Admission {
            lobby: Arc::clone(self),
            source,
            number,
            seat,
        })
    }

    /// Has one closed for a newcomer from `peer` or, where that is not known, from anywhere: one of the longest line, or
    /// else one that has a seat. Whether there is one that has to go.
    pub fn make_room(self: &Arc<Self>, peer: Option<SocketAddr>) -> bool {
        let (now, source) = (Instant::now(), peer.map(Source::of));
        let mut inside = self.inside.lock();
        if let Some(gone) = inside.lines.give_up(source) {
            drop(inside);
            self.say_closed(gone.peer);
            return true;
        }
        let Some(gone) = inside.guests.give_up(source, now) else {
            return false;
        };
        drop(inside);
        self.say_gone(&gone);
        // Its seat is free.
        self.call(now);
        true
    }

    fn say_closed(&self, peer: SocketAddr) {
        if self.log.take() {
            tracing::warn!(%peer, seats = self.seats,
                "a connection was closed: too many from its address wait for the places for {}", self.doing);
        }
    }

    /// A seat that can be had now.
    #[cfg(any(test, feature = "simulate"))]
    pub(crate) fn try_seat(self: &Arc<Self>, peer: SocketAddr, now: Instant) -> Option<Seat> {
        let seated = {
            let mut inside = self.inside.lock();
            let goes = inside.guests.room_for(Source::of(peer), now).ok()?;
            inside.guests.sit(peer, goes, now)
        };
        Some(self.seated(seated))
    }

    fn seated(self: &Arc<Self>, seated: Seated) -> Seat {
        let Seated { number, out, gone } = seated;
        if let Some(gone) = gone {
            self.say_gone(&gone);
        }
        Seat {
            lobby: Arc::clone(self),
            number,
            out,
        }
    }

    fn say_gone(&self, gone: &Guest) {
        if self.log.take() {
            tracing::warn!(peer = %gone.peer, seats = self.seats,
                "a connection was closed to make room: all places for {} are taken", self.doing);
        }
    }

    /// Calls all who can have a seat now. When the next can; `None` where nobody is ready.
    fn call(self: &Arc<Self>, now: Instant) -> Option<Instant> {
        loop {
            let (call, seated) = match self.inside.lock().next(now) {
                Ok(called) => called,
                Err(until) => return until,
            };
            // One that left in this very moment gives the seat back.
            drop(call.seat.send(self.seated(seated)));
        }
    }

    /// Has who is next called at that moment.
    fn attend(self: &Arc<Self>, until: Instant) {
        let attended = {
            let mut inside = self.inside.lock();
            let sooner = inside.attended.is_none_or(|attended| until < attended);
            let before = inside.attended;
            inside.attended = before.filter(|_| !sooner).or(Some(until));
            if !sooner {
                return;
            }
            before.is_some()
        };
        if attended {
            return self.sooner.notify_one();
        }
        let lobby = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(until) = lobby.next_look() {
                // Either way it is looked.
                drop(timeout_at(until, lobby.sooner.notified()).await);
                let next = lobby.call(Instant::now());
                lobby.looks_next(next);
            }
        });
    }

    fn next_look(&self) -> Option<Instant> {
        self.inside.lock().attended
    }

    fn looks_next(&self, next: Option<Instant>) {
        let mut inside = self.inside.lock();
        // Who became ready since has seen that it is attended.
        let ready = inside.lines.turns().next().is_some();
        inside.attended = next.or_else(|| ready.then(Instant::now));
    }
}

impl Inside {
    /// Whoever can have a seat now, with it; or when the first can, if anybody is ready.
    fn next(&mut self, now: Instant) -> Result<(Call, Seated), Option<Instant>> {
        let mut first: Option<Instant> = None;
        // A crowd waits for its own, and there are fewer crowds than that: one of these is none, if any is.
        let mut turns = self.lines.turns();
        let sources: [Option<Source>; CROWD_PART] = std::array::from_fn(|_| turns.next());
        drop(turns);
        for source in sources.into_iter().flatten() {
            match self.guests.room_for(source, now) {
                Ok(goes) => {
                    if let Some(call) = self.lines.call(source) {
                        let seated = self.guests.sit(call.peer, goes, now);
                        return Ok((call, seated));
                    }
                }
                Err(Full(until)) => first = Some(first.map_or(until, |first| first.min(until))),
            }
        }
        Err(first)
    }
}

impl Admission {
    /// Its seat, once the peer `has_spoken`, by `until`; `None` where it has not, or had to make room for another.
    pub async fn seat(
        mut self,
        has_spoken: impl Future<Output = ()>,
        until: Instant,
    ) -> Option<Seat> {
        tokio::select! {
            biased;
            // It is not called yet: it has to go.
            seat = &mut self.seat => return seat.ok(),
            spoken = timeout_at(until, has_spoken) => spoken.ok()?,
        }
        let now = Instant::now();
        self.lobby
            .inside
            .lock()
            .lines
            .is_ready(self.source, self.number);
        if let Some(next) = self.lobby.call(now) {
            self.lobby.attend(next);
        }
        timeout_at(now + IN_LINE, &mut self.seat).await.ok()?.ok()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.lobby
            .inside
            .lock()
            .lines
            .leave(self.source, self.number);
    }
}

impl Seat {
    /// For whoever hears the connection.
    #[must_use]
    pub fn voice(&self) -> Voice {
        Voice {
            lobby: Arc::clone(&self.lobby),
            number: self.number,
        }
    }

    /// Whether it `stays` although it is told to go: what it does now is not to be broken off. It makes room on a seat
    /// nevertheless, but none for a connection.
    pub(crate) fn stays(&self, stays: bool) {
        self.lobby.inside.lock().guests.stays(self.number, stays);
    }

    /// Completes once the seat had to be given up; not to be asked again then.
    pub(crate) async fn lost(&mut self) {
        // It ends with its sender: nothing is ever sent.
        let _ = (&mut self.out).await;
    }

    /// What `work` comes to; `None` once the seat had to be given up.
    pub async fn while_seated<F: Future>(&mut self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            () = self.lost() => None,
            done = work => Some(done),
        }
    }
}

impl Voice {
    /// It has begun to speak.
    pub fn speaks(self) {
        self.lobby.inside.lock().guests.speaks(self.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let left = self.lobby.inside.lock().guests.remove(self.number);
        if left.is_some() {
            self.lobby.call(Instant::now());
        }
    }
}
