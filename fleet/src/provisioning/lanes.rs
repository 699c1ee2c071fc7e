//! Work that waits for somebody else: a template's hook may take its time, and only who comes by that template is to wait
//! for it. Each template has a lane of its own, with a few threads that are there while there is work, and a bound on what
//! waits in it.

use super::TemplateName;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// Threads of one lane.
const THREADS_PER_LANE: usize = 4;
/// Most that waits in one lane beside what is being done.
const WAITING_PER_LANE_ITEMS: usize = 1_024;
/// Lanes that have work at a time.
const LANES_LIMIT_ITEMS: usize = 64;

/// Whether it is somebody's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Now,
    /// Nor will it be: there is no room in the lane.
    NoRoom,
}

/// What is to be done.
type Work = Box<dyn FnOnce(Turn) + Send>;

/// The lanes. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Lanes {
    busy: Arc<Mutex<HashMap<TemplateName, Lane>>>,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Work>,
    threads: usize,
}

impl Lanes {
    /// Has something done on the template's lane, or told at once that there is no room. Does not block.
    pub(crate) fn put(&self, template: &TemplateName, work: impl FnOnce(Turn) + Send + 'static) {
        if let Err(work) = self.take(template, Box::new(work)) {
            work(Turn::NoRoom);
        }
    }

    fn take(&self, template: &TemplateName, work: Work) -> Result<(), Work> {
        let mut busy = self.busy.lock();
        if !busy.contains_key(template) && busy.len() >= LANES_LIMIT_ITEMS {
            return Err(work);
        }
        let lane = busy.entry(template.clone()).or_default();
        if lane.waiting.len() >= WAITING_PER_LANE_ITEMS {
            return Err(work);
        }
        if lane.threads < THREADS_PER_LANE {
            let (lanes, name) = (self.clone(), template.clone());
            let started = std::thread::Builder::new()
                .name("provisioning-hook".into())
                .spawn(move || lanes.work(&name));
            match started {
                Ok(_) => lane.threads += 1,
                // Those that are there do it.
                Err(_) if lane.threads > 0 => {}
                Err(error) => {
                    tracing::error!(%error, "a thread for a provisioning hook could not be started");
                    busy.remove(template);
                    return Err(work);
                }
            }
        }
        lane.waiting.push_back(work);
        Ok(())
    }

    fn work(&self, template: &TemplateName) {
        loop {
            let next = {
                let mut busy = self.busy.lock();
                let Some(lane) = busy.get_mut(template) else {
                    return;
                };
                match lane.waiting.pop_front() {
                    Some(work) => work,
                    None => {
                        lane.threads -= 1;
                        if lane.threads == 0 {
                            busy.remove(template);
                        }
                        return;
                    }
                }
            };
            next(Turn::Now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::mpsc::channel, time::Duration};

    /// Longest wait for another thread; reached only by a test that fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn template(name: &str) -> TemplateName {
        name.parse().unwrap()
    }

    fn turn_of(lanes: &Lanes, name: &str) -> Turn {
        let (tell, told) = channel();
        lanes.put(&template(name), move |turn| tell.send(turn).unwrap());
        told.recv_timeout(PATIENCE).unwrap()
    }

    #[test]
    fn a_lane_that_stands_still_holds_up_no_other_and_is_bounded() {
        let lanes = Lanes::default();
        let (tell, told) = channel();
        let mut held = Vec::new();
        // All threads of one lane wait, and as many more as may.
        for _ in 0..THREADS_PER_LANE {
            let (release, released) = channel::<()>();
            let tell = tell.clone();
            lanes.put(&template("silent"), move |_| {
                tell.send("begun").unwrap();
                let _ = released.recv();
            });
            held.push(release);
        }
        for _ in 0..THREADS_PER_LANE {
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "begun");
        }
        for _ in 0..WAITING_PER_LANE_ITEMS {
            let tell = tell.clone();
            lanes.put(&template("silent"), move |turn| {
                assert_eq!(turn, Turn::Now);
                tell.send("silent").unwrap();
            });
        }
        assert_eq!(turn_of(&lanes, "silent"), Turn::NoRoom);
        assert_eq!(turn_of(&lanes, "other"), Turn::Now);
        let other = tell.clone();
        lanes.put(&template("other"), move |_| other.send("other").unwrap());
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "other");
        drop(held);
        for _ in 0..WAITING_PER_LANE_ITEMS {
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), "silent");
        }
        // Nobody waits for nothing.
        while !lanes.busy.lock().is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn lanes_are_bounded_too() {
        let lanes = Lanes::default();
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for number in 0..LANES_LIMIT_ITEMS {
            let released = Arc::clone(&released);
            lanes.put(&template(&format!("t{number}")), move |_| {
                let _ = released.lock().recv();
            });
        }
        assert_eq!(turn_of(&lanes, "more"), Turn::NoRoom);
        drop(release);
    }
}
