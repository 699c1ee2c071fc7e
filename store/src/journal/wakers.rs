//! Tasks that wait for the disk: each once, whatever number of records it waits for, so the number
//! of entries is bounded by that of live tasks.

use std::collections::HashMap;
use std::task::Waker;

use parking_lot::Mutex;

use super::Lsn;

/// What makes two wakers wake the same task; an entry keeps its waker, and so the address, alive.
type Identity = (usize, usize);

#[derive(Default)]
pub(super) struct Wakers {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    tasks: HashMap<Identity, Entry>,
    /// Numbers the registrations.
    next: u64,
}

struct Entry {
    lsn: Lsn,
    number: u64,
    waker: Waker,
}

impl Wakers {
    /// Registers `waker` for `lsn` unless `durable`, asked under the lock, has reached it; then
    /// wakes it at once. A task that is registered already keeps the earlier of its positions.
    pub(super) fn register(&self, lsn: Lsn, waker: &Waker, durable: impl FnOnce() -> Lsn) {
        let mut waiting = self.waiting.lock();
        if durable() >= lsn {
            drop(waiting);
            waker.wake_by_ref();
            return;
        }
        let identity = (
            waker.data() as usize,
            std::ptr::from_ref(waker.vtable()) as usize,
        );
        let number = waiting.next;
        waiting.next += 1;
        let entry = waiting.tasks.entry(identity).or_insert_with(|| Entry {
            lsn,
            number,
            waker: waker.clone(),
        });
        entry.lsn = entry.lsn.min(lsn);
    }

    /// Wakes those that wait for `durable` or less: the earliest position first, of equal ones the
    /// earliest registration.
    pub(super) fn wake(&self, durable: Lsn) {
        let mut waiting = self.waiting.lock();
        let due = waiting.tasks.extract_if(|_, entry| entry.lsn <= durable);
        let mut due: Vec<Entry> = due.map(|(_, entry)| entry).collect();
        // Not under the lock: a woken task may register again at once.
        drop(waiting);
        due.sort_unstable_by_key(|entry| (entry.lsn, entry.number));
        for entry in due {
            entry.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_once_at_the_earliest_of_its_positions() {
        let (wakers, count) = (Wakers::default(), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&count));
        for lsn in [7, 5, 9] {
            wakers.register(Lsn(lsn), &waker, || Lsn(4));
        }
        assert_eq!(wakers.waiting.lock().tasks.len(), 1);
        wakers.wake(Lsn(4));
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
        wakers.wake(Lsn(5));
        wakers.wake(Lsn(9));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        wakers.register(Lsn(9), &waker, || Lsn(9));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert_eq!(wakers.waiting.lock().tasks.len(), 0);
    }
}
