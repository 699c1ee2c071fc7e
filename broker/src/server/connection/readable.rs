//! Whether the socket may have something to read. A task that is woken for a delivery knows by this that it need not try:
//! what is asked of TLS and of the socket then is a good part of what a receiver costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};

/// What the socket wakes instead of the task: remembers that it did, and wakes the task.
struct Bell {
    rung: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// The reading side of one connection's socket, for the task that `task` wakes.
pub(super) struct Readable {
    bell: Arc<Bell>,
    waker: Waker,
}

impl Readable {
    pub(super) fn new(task: Waker) -> Self {
        let rung = AtomicBool::new(true);
        let bell = Arc::new(Bell { rung, task });
        let waker = Waker::from(Arc::clone(&bell));
        Self { bell, waker }
    }

    /// Whether the socket has called since the last [`Readable::listen`]; at first it counts as having called.
    pub(super) fn has_called(&self) -> bool {
        self.bell.rung.load(Ordering::Acquire)
    }

    /// Whom the socket is to wake, from now on: a call that comes after this is not missed.
    pub(super) fn listen(&self) -> &Waker {
        self.bell.rung.store(false, Ordering::Release);
        &self.waker
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_call_wakes_the_task_and_is_remembered_until_the_next_listening() {
        let task = Arc::new(Task::default());
        let readable = Readable::new(Waker::from(Arc::clone(&task)));
        assert!(readable.has_called(), "what came before it was made");
        let socket = readable.listen().clone();
        assert!(!readable.has_called());
        for wakes in 1..4 {
            socket.wake_by_ref();
            assert!(readable.has_called());
            assert_eq!(task.0.load(Ordering::Relaxed), wakes);
        }
        assert!(readable.listen().will_wake(&socket));
        assert!(!readable.has_called());
    }
}
