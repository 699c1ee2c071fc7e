//! A flag that a working thread looks at between steps and can wait on.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Shared by the one who works and the one who may call it off.
#[derive(Clone, Debug, Default)]
pub struct Cancel {
    // A mutex, not an atomic: `wait` must not miss a call made just before it.
    inner: Arc<(Mutex<bool>, Condvar)>,
}

impl Cancel {
    /// Calls the work off. Final.
    pub fn cancel(&self) {
        *self.inner.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.inner.1.notify_all();
    }

    /// Whether the work was called off.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits so long, or until called off; returns whether it was.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        let flag = self.inner.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (flag, _) = self
            .inner
            .1
            .wait_timeout_while(flag, time, |cancelled| !*cancelled)
            .unwrap_or_else(PoisonError::into_inner);
        *flag
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_the_wait_and_lasts() {
        let cancel = Cancel::default();
        assert!(!cancel.wait(Duration::from_millis(1)));
        let other = cancel.clone();
        let waiting = std::thread::spawn(move || other.wait(Duration::from_secs(60)));
        cancel.cancel();
        assert!(waiting.join().unwrap());
        assert!(cancel.is_cancelled());
    }
}
