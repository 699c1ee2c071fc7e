//! The closed loop's bound: how many messages of a publisher may be on their way.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::Semaphore;

/// A publisher that waits for so long has lost what it waits for.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// One place per message and publisher; a message's place is free again once every receiver has it.
pub(crate) struct InFlight {
    places: Vec<Semaphore>,
    bound: usize,
    /// Of the one publisher whose messages have several receivers: how many have each, from the oldest on its way.
    copies: RefCell<Copies>,
    receivers: u32,
    stalls: Cell<u64>,
}

#[derive(Default)]
struct Copies {
    oldest: u32,
    had: VecDeque<u32>,
}

impl InFlight {
    pub(crate) fn new(publishers: u32, receivers: u32, bound: u32) -> Self {
        let bound = bound as usize;
        Self {
            places: (0..publishers).map(|_| Semaphore::new(bound)).collect(),
            bound,
            copies: RefCell::default(),
            receivers,
            stalls: Cell::new(0),
        }
    }

    /// Waits for a place for the publisher's next message.
    pub(crate) async fn take(&self, publisher: u32) {
        let Some(places) = self.places.get(publisher as usize) else {
            return;
        };
        match tokio::time::timeout(LOST_AFTER, places.acquire()).await {
            Ok(Ok(place)) => place.forget(),
            Ok(Err(_)) | Err(_) => {
                self.stalls.set(self.stalls.get() + 1);
                *self.copies.borrow_mut() = Copies::default();
                places.add_permits(self.bound.saturating_sub(1));
            }
        }
    }

    /// A receiver has a message.
    pub(crate) fn heard(&self, publisher: u32, sequence: u32) {
        let Some(places) = self.places.get(publisher as usize) else {
            return;
        };
        if self.receivers == 1
            || self
                .copies
                .borrow_mut()
                .had_by_all(sequence, self.receivers)
        {
            places.add_permits(1);
        }
    }

    /// How often a publisher found all its messages lost.
    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.get()
    }
}

impl Copies {
    /// Counts a copy; whether it was the last one owed.
    fn had_by_all(&mut self, sequence: u32, receivers: u32) -> bool {
        if self.had.is_empty() {
            self.oldest = sequence;
        }
        let Some(at) = sequence.checked_sub(self.oldest) else {
            return false;
        };
        let at = at as usize;
        while self.had.len() <= at {
            self.had.push_back(0);
        }
        let Some(had) = self.had.get_mut(at) else {
            return false;
        };
        *had += 1;
        let all = *had == receivers;
        while self.had.front().is_some_and(|had| *had >= receivers) {
            self.had.pop_front();
            self.oldest += 1;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_free_once_every_receiver_has_the_message() {
        let in_flight = InFlight::new(1, 2, 2);
        in_flight.take(0).await;
        in_flight.take(0).await;
        let free = || in_flight.places[0].available_permits();
        assert_eq!(free(), 0);
        in_flight.heard(0, 0);
        in_flight.heard(0, 1);
        assert_eq!(free(), 0);
        in_flight.heard(0, 1);
        assert_eq!(free(), 1);
        in_flight.heard(0, 0);
        assert_eq!(free(), 2);
        assert!(in_flight.copies.borrow().had.is_empty());
    }

    #[test]
    fn copies_in_any_order_are_counted_once_each() {
        let mut copies = Copies::default();
        let mut done = Vec::new();
        for sequence in [3, 4, 3, 5, 5, 5, 4, 4, 3] {
            if copies.had_by_all(sequence, 3) {
                done.push(sequence);
            }
        }
        assert_eq!(done, [5, 4, 3]);
        assert!(copies.had.is_empty());
    }
}
