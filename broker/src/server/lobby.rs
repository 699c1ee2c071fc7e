//! Where connections wait that have not said who they are: so many at most, and who has been there long makes room for
//! who comes.
//!
//! Whoever can reach a port can open connections and say nothing on them. Were those who come turned away while all seats
//! are taken, a few hundred sockets would keep everybody out. So a newcomer gets the seat of the one that has had it
//! longest and is still [`SILENT`], or, after longer, of one that has begun to speak: devices that come back all at once
//! are slow because there are so many of them, and none of them is to begin anew. While all who sit there are younger the
//! newcomer waits.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::sampler::Sampler;

/// How long a connection keeps its seat without a word, whoever else comes.
const SILENT: Duration = Duration::from_secs(1);

/// How long it keeps it when it has begun to speak.
const SPEAKING: Duration = Duration::from_secs(5);

/// See the module.
pub struct Lobby {
    /// What connections do there, for the log.
    doing: &'static str,
    seats: usize,
    // Held for a look, an insertion or a removal; never across an await.
    guests: Mutex<Guests>,
    left: Notify,
    lines: Sampler,
}

#[derive(Default)]
struct Guests {
    next: u64,
    /// By when they came.
    silent: BTreeMap<u64, Guest>,
    speaking: BTreeMap<u64, Guest>,
}

impl Guests {
    fn len(&self) -> usize {
        self.silent.len() + self.speaking.len()
    }

    fn remove(&mut self, number: u64) -> Option<Guest> {
        let silent = self.silent.remove(&number);
        silent.or_else(|| self.speaking.remove(&number))
    }

    /// Makes one give up its seat, or says when one will.
    fn make_room(&mut self, now: Instant) -> Result<Option<Guest>, Instant> {
        let of = |guests: &BTreeMap<u64, Guest>, patience| {
            let first = guests.first_key_value();
            first.map(|(number, guest)| (guest.since + patience, *number))
        };
        let first = [of(&self.silent, SILENT), of(&self.speaking, SPEAKING)];
        match first.into_iter().flatten().min() {
            Some((until, _)) if now < until => Err(until),
            Some((_, number)) => Ok(self.remove(number)),
            None => Ok(None),
        }
    }
}

struct Guest {
    since: Instant,
    peer: SocketAddr,
    _out: oneshot::Sender<()>,
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
        Arc::new(Self {
            doing,
            seats: seats.max(1),
            guests: Mutex::default(),
            left: Notify::new(),
            lines: Sampler::new(),
        })
    }

    /// How many sit there.
    pub fn taken(&self) -> usize {
        self.guests.lock().len()
    }

    /// A seat for a connection from `peer`, after [`SPEAKING`] at the latest.
    pub async fn seat(self: &Arc<Self>, peer: SocketAddr) -> Seat {
        loop {
            let mut left = pin!(self.left.notified());
            // Before the look: who leaves in between is heard.
            left.as_mut().enable();
            match self.try_seat(peer, Instant::now()) {
                Ok(seat) => return seat,
                // Either way it is looked again.
                Err(until) => drop(timeout_at(until, left).await),
            }
        }
    }

    /// A seat, or when to ask again.
    ///
    /// # Errors
    /// When the one that has its seat longest will have to give it up.
    pub(crate) fn try_seat(
        self: &Arc<Self>,
        peer: SocketAddr,
        now: Instant,
    ) -> Result<Seat, Instant> {
        let guests = &mut *self.guests.lock();
        if guests.len() >= self.seats
            && let Some(gone) = guests.make_room(now)?
            && self.lines.take()
        {
            tracing::warn!(peer = %gone.peer, seats = self.seats,
                "a connection was closed to make room: all places for {} are taken", self.doing);
        }
        let number = guests.next;
        guests.next += 1;
        let (sender, out) = oneshot::channel();
        let guest = Guest {
            since: now,
            peer,
            _out: sender,
        };
        guests.silent.insert(number, guest);
        Ok(Seat {
            lobby: Arc::clone(self),
            number,
            out,
        })
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
        let guests = &mut *self.lobby.guests.lock();
        if let Some(guest) = guests.silent.remove(&self.number) {
            guests.speaking.insert(self.number, guest);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.lobby.guests.lock().remove(self.number).is_some() {
            self.lobby.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 9))
    }

    #[tokio::test]
    async fn who_comes_gets_the_seat_of_who_had_it_longest_and_only_after_a_while() {
        let (lobby, began) = (Lobby::new(2, "testing"), Instant::now());
        let half = began + SILENT / 2;
        let mut first = lobby.try_seat(peer(), began).unwrap();
        let mut second = lobby.try_seat(peer(), half).unwrap();
        assert_eq!(lobby.try_seat(peer(), half).err(), Some(began + SILENT));
        let third = lobby.try_seat(peer(), began + SILENT).unwrap();
        assert_eq!(first.while_seated(std::future::pending::<()>()).await, None);
        assert_eq!(second.while_seated(async { 7 }).await, Some(7));
        assert_eq!(lobby.taken(), 2);
        drop((first, second, third));
        assert_eq!(lobby.taken(), 0);
    }

    #[tokio::test]
    async fn who_has_begun_to_speak_keeps_its_seat_for_longer() {
        let (lobby, began) = (Lobby::new(2, "testing"), Instant::now());
        let mut speaking = lobby.try_seat(peer(), began).unwrap();
        speaking.voice().speaks();
        let mut silent = lobby.try_seat(peer(), began).unwrap();
        let second = began + SILENT;
        let third = lobby.try_seat(peer(), second).unwrap();
        assert_eq!(
            silent.while_seated(std::future::pending::<()>()).await,
            None
        );
        third.voice().speaks();
        let late = began + SPEAKING;
        assert_eq!(lobby.try_seat(peer(), second + SILENT).err(), Some(late));
        let fourth = lobby.try_seat(peer(), late).unwrap();
        assert_eq!(
            speaking.while_seated(std::future::pending::<()>()).await,
            None
        );
        // Too late to matter.
        speaking.voice().speaks();
        assert_eq!(lobby.taken(), 2);
        drop((third, fourth));
        assert_eq!(lobby.taken(), 0);
    }

    #[tokio::test]
    async fn a_seat_that_comes_free_is_had_by_who_waits_long_before_the_others_time_is_over() {
        let lobby = Lobby::new(1, "testing");
        // Of the distant future: it would keep its seat for good.
        let later = Instant::now() + Duration::from_secs(3600);
        let first = lobby.try_seat(peer(), later).unwrap();
        let waiting = {
            let lobby = Arc::clone(&lobby);
            tokio::spawn(async move { drop(lobby.seat(peer()).await) })
        };
        tokio::task::yield_now().await;
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn however_many_come_and_say_nothing_somebody_else_gets_in() {
        let (lobby, mut now) = (Lobby::new(8, "testing"), Instant::now());
        let mut held = Vec::new();
        for _ in 0..100 {
            now += SILENT / 8;
            held.push(lobby.try_seat(peer(), now).unwrap());
        }
        assert_eq!(lobby.taken(), 8);
        let mut honest = lobby.try_seat(peer(), now + SILENT / 8).unwrap();
        assert_eq!(honest.while_seated(async { 1 }).await, Some(1));
    }
}
