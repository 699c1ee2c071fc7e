//! Where connections wait that have not said who they are: so many at most, and who has been there long makes room for
//! who comes.
//!
//! Whoever can reach a port can open connections and say nothing on them. Were those who come turned away while all seats
//! are taken, a few hundred sockets would keep everybody out. So a newcomer gets the seat of the one that has had it
//! longest and is still [`SILENT`], or, after longer, of one that has begun to speak: devices that come back all at once
//! are slow because there are so many of them, and none of them is to begin anew. While all who sit there are younger the
//! newcomer waits.
//!
//! One source that has a crowd of seats makes room first: for a newcomer from elsewhere at once, for its own when their
//! time is over. It may be a fleet behind one address, so its newcomers are not turned away either: they stand in a line
//! of their own, where nobody else waits behind them, and are closed only where that is full.

mod guests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use self::guests::{Full, Guests, Seated};
use fleet::Sampler;

/// How long a connection keeps its seat without a word, whoever else comes.
const SILENT: Duration = Duration::from_secs(1);

/// How long it keeps it when it has begun to speak.
const SPEAKING: Duration = Duration::from_secs(5);

/// How many may stand in line for each seat.
const IN_LINE_PER_SEAT: usize = 8;

/// Connections in a lobby at most for each of its seats: who has it, and who stands in line.
pub const LOBBY_PER_SEAT: usize = 1 + IN_LINE_PER_SEAT;

/// See the module.
pub struct Lobby {
    /// What connections do there, for the log.
    doing: &'static str,
    seats: usize,
    // Held for a look, an insertion or a removal; never across an await.
    guests: Mutex<Guests>,
    left: Notify,
    in_line: AtomicUsize,
    /// Had by who is first in line; the others are woken by nothing else.
    turn: tokio::sync::Mutex<()>,
    lines: Sampler,
}

/// A connection that has been accepted: it has a seat, or stands in line for one.
pub struct Admission(Waiting);

enum Waiting {
    Seated(Seat),
    InLine(InLine),
}

/// A stand in line, given back when dropped.
struct InLine {
    lobby: Arc<Lobby>,
    peer: SocketAddr,
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
        let seats = seats.max(1);
        Arc::new(Self {
            doing,
            seats,
            guests: Mutex::new(Guests::new(seats)),
            left: Notify::new(),
            in_line: AtomicUsize::new(0),
            turn: tokio::sync::Mutex::new(()),
            lines: Sampler::new(),
        })
    }

    /// How many sit there or stand in line.
    pub fn taken(&self) -> usize {
        self.guests.lock().len() + self.in_line.load(Ordering::Acquire)
    }

    /// Lets a connection from `peer` in, after [`SPEAKING`] at the latest, and at once where it has to wait for others of
    /// its own source only. `None` where too many of them do: it is to be closed.
    pub async fn admit(self: &Arc<Self>, peer: SocketAddr) -> Option<Admission> {
        loop {
            let mut left = pin!(self.left.notified());
            // Before the look: who leaves in between is heard.
            left.as_mut().enable();
            match self.try_enter(peer, Instant::now()) {
                Ok(seat) => return Some(Admission(Waiting::Seated(seat))),
                Err(Full::OfItsOwn(_)) => return self.stand_in_line(peer),
                // Either way it is looked again.
                Err(Full::Until(until)) => drop(timeout_at(until, left).await),
            }
        }
    }

    /// A seat for a connection from `peer`.
    pub async fn seat(self: &Arc<Self>, peer: SocketAddr) -> Seat {
        loop {
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            match self.try_enter(peer, Instant::now()) {
                Ok(seat) => return seat,
                Err(Full::Until(until) | Full::OfItsOwn(until)) => {
                    drop(timeout_at(until, left).await);
                }
            }
        }
    }

    /// A seat that can be had now.
    #[cfg(any(test, feature = "simulate"))]
    pub(crate) fn try_seat(self: &Arc<Self>, peer: SocketAddr, now: Instant) -> Option<Seat> {
        self.try_enter(peer, now).ok()
    }

    fn try_enter(self: &Arc<Self>, peer: SocketAddr, now: Instant) -> Result<Seat, Full> {
        let Seated { number, out, gone } = self.guests.lock().enter(peer, now)?;
        if let Some(gone) = gone
            && self.lines.take()
        {
            tracing::warn!(peer = %gone.peer, seats = self.seats,
                "a connection was closed to make room: all places for {} are taken", self.doing);
        }
        Ok(Seat {
            lobby: Arc::clone(self),
            number,
            out,
        })
    }

    fn stand_in_line(self: &Arc<Self>, peer: SocketAddr) -> Option<Admission> {
        let before = self.in_line.fetch_add(1, Ordering::AcqRel);
        // Counted already: it gives the stand back where there is none.
        let stand = InLine {
            lobby: Arc::clone(self),
            peer,
        };
        if before < self.seats.saturating_mul(IN_LINE_PER_SEAT) {
            return Some(Admission(Waiting::InLine(stand)));
        }
        if self.lines.take() {
            tracing::warn!(%peer, seats = self.seats,
                "a connection was closed: too many from its address wait among the places for {}", self.doing);
        }
        None
    }
}

impl Admission {
    /// Its seat; `None` where it stood in line until then in vain.
    pub async fn seat(self, until: Instant) -> Option<Seat> {
        match self.0 {
            Waiting::Seated(seat) => Some(seat),
            Waiting::InLine(stand) => timeout_at(until, stand.seat()).await.ok(),
        }
    }
}

impl InLine {
    async fn seat(self) -> Seat {
        let _turn = self.lobby.turn.lock().await;
        self.lobby.seat(self.peer).await
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        self.lobby.in_line.fetch_sub(1, Ordering::AcqRel);
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

    /// What `work` comes to; `None` once the seat had to be given up.
    pub async fn while_seated<F: Future>(&mut self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            // It ends with its sender: nothing is ever sent.
            _ = &mut self.out => None,
            done = work => Some(done),
        }
    }
}

impl Voice {
    /// It has begun to speak.
    pub fn speaks(self) {
        self.lobby.guests.lock().speaks(self.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.lobby.guests.lock().remove(self.number).is_some() {
            self.lobby.left.notify_one();
        }
    }
}
