//! Sessions that have ended and that a crash would bring back, because their deletion is not on the disk yet. Who
//! connects under such a key is told that there is no session only once that is true for good.

use hashbrown::HashMap;
use parking_lot::Mutex;
use store::Lsn;

use super::sessions::SessionKey;

/// The end of one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    /// The session's.
    pub(crate) number: u64,
    /// Where its deletion is in the journal; `None` while the journal has not taken it.
    pub(crate) deleted: Option<Lsn>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Endings {
    // Held for a look-up or an insertion; never across an await.
    pending: Mutex<Pending>,
}

#[derive(Default)]
struct Pending {
    endings: HashMap<SessionKey, Ending>,
    /// How many there may be until those that are durable are swept out.
    sweep_at: usize,
}

/// Fewer are not worth a sweep.
const SWEEP_FROM: usize = 64;

impl Endings {
    /// Notes the end of a session, before it can be claimed anew. `durable` is how far the journal is.
    pub(crate) fn note(&self, key: &SessionKey, ending: Ending, durable: Lsn) {
        let pending = &mut *self.pending.lock();
        pending.endings.insert(key.clone(), ending);
        if pending.endings.len() >= pending.sweep_at.max(SWEEP_FROM) {
            let open = |ending: &Ending| ending.deleted.is_none_or(|deleted| deleted > durable);
            pending.endings.retain(|_, ending| open(ending));
            pending.sweep_at = pending.endings.len() * 2;
        }
    }

    /// The end that whoever claims `key` has to wait for.
    pub(crate) fn of(&self, key: &SessionKey) -> Option<Ending> {
        self.pending.lock().endings.get(key).copied()
    }

    /// Forgets an end that is durable.
    pub(crate) fn settle(&self, key: &SessionKey, ending: Ending) {
        let pending = &mut *self.pending.lock();
        if pending.endings.get(key) == Some(&ending) {
            pending.endings.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::sessions::Owner;

    fn key(client: &str) -> SessionKey {
        SessionKey {
            owner: Owner::Thing("lamp-1".parse().unwrap()),
            client_id: client.parse().unwrap(),
        }
    }

    #[test]
    fn what_is_durable_is_swept_and_what_is_not_stays() {
        let endings = Endings::default();
        for number in 0..10_000_u64 {
            let deleted = (number % 100 != 7).then_some(Lsn(number));
            let ending = Ending { number, deleted };
            endings.note(&key(&format!("c{number}")), ending, Lsn(number));
        }
        assert!(endings.pending.lock().endings.len() < 300);
        for number in (7..10_000).step_by(100) {
            let kept = endings.of(&key(&format!("c{number}")));
            assert_eq!(kept.map(|kept| kept.number), Some(number));
        }
    }

    #[test]
    fn an_end_that_was_waited_for_takes_no_later_one_with_it() {
        let endings = Endings::default();
        let ending = |number| Ending {
            number,
            deleted: Some(Lsn(number)),
        };
        endings.note(&key("c"), ending(1), Lsn(0));
        endings.note(&key("c"), ending(2), Lsn(0));
        endings.settle(&key("c"), ending(1));
        assert_eq!(endings.of(&key("c")), Some(ending(2)));
        endings.settle(&key("c"), ending(2));
        assert_eq!(endings.of(&key("c")), None);
    }
}
