//! A hook that does not answer in time is not asked for a while: whoever comes meanwhile hears at once that he is refused,
//! instead of waiting for what will not come either.

use super::HookCaller;
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long one is left alone that missed its deadline.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// Hooks remembered; past it those that may be asked again are forgotten.
const REMEMBERED_ITEMS: usize = 1_024;

/// Asks hooks through another caller.
pub(crate) struct Breaker {
    caller: Arc<dyn HookCaller>,
    silent: Mutex<HashMap<String, Instant>>,
}

impl Breaker {
    pub(crate) fn around(caller: Arc<dyn HookCaller>) -> Self {
        Breaker {
            caller,
            silent: Mutex::default(),
        }
    }

    fn until(&self, url: &str, now: Instant) -> Option<Duration> {
        let silent = self.silent.lock();
        let left = silent.get(url)?.checked_duration_since(now)?;
        (!left.is_zero()).then_some(left)
    }
}

impl HookCaller for Breaker {
    fn call(
        &self,
        url: &str,
        roots: Option<&str>,
        body: &Value,
        deadline: Duration,
    ) -> Result<Value, String> {
        let began = Instant::now();
        if let Some(left) = self.until(url, began) {
            return Err(format!(
                "it did not answer in time a moment ago, and is asked again in {} s",
                left.as_secs() + 1
            ));
        }
        let answer = self.caller.call(url, roots, body, deadline);
        let now = Instant::now();
        let mut silent = self.silent.lock();
        // Callers stop a little before the moment.
        let late = deadline - deadline / 10;
        if answer.is_err() && now.duration_since(began) >= late {
            if silent.len() >= REMEMBERED_ITEMS {
                silent.retain(|_, until| *until > now);
            }
            silent.insert(url.to_owned(), now + LEFT_ALONE);
        } else {
            silent.remove(url);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    struct Silent(AtomicUsize);

    impl HookCaller for Silent {
        fn call(
            &self,
            url: &str,
            _: Option<&str>,
            _: &Value,
            deadline: Duration,
        ) -> Result<Value, String> {
            self.0.fetch_add(1, Ordering::SeqCst);
            match url {
                "silent" => {
                    std::thread::sleep(deadline);
                    Err("timed out".into())
                }
                "away" => Err("refused".into()),
                _ => Ok(Value::Null),
            }
        }
    }

    #[test]
    fn who_missed_a_deadline_is_not_asked_for_a_while_and_nobody_else_suffers() {
        let caller = Arc::new(Silent(AtomicUsize::new(0)));
        let breaker = Breaker::around(caller.clone());
        let ask = |url| breaker.call(url, None, &Value::Null, Duration::from_millis(5));
        let asked = || caller.0.load(Ordering::SeqCst);
        assert_eq!(ask("silent").unwrap_err(), "timed out");
        for _ in 0..10 {
            assert!(
                ask("silent")
                    .unwrap_err()
                    .contains("did not answer in time")
            );
        }
        assert_eq!(asked(), 1);
        // One that is away says so at once each time.
        for _ in 0..3 {
            assert_eq!(ask("away").unwrap_err(), "refused");
            ask("good").unwrap();
        }
        assert_eq!(asked(), 7);
        // After a while it is asked again.
        breaker
            .silent
            .lock()
            .insert("silent".into(), Instant::now());
        assert_eq!(ask("silent").unwrap_err(), "timed out");
        assert_eq!(asked(), 8);
    }
}
