//! Connections whose sessions are settled, and that say their last words. A peer that does not close has them wait for it
//! for a second or two, and no bound on its sessions counts them any more; so where there is no room for who comes, the one
//! that has been at it for longest is cut short.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// See the module.
#[derive(Default)]
pub(crate) struct Farewells {
    // Held for one insertion or one removal; never across an await.
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    next: u64,
    /// By when they began; who drops one cuts it short.
    all: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Takes a farewell out, however it ends.
struct Leaving<'f> {
    farewells: &'f Farewells,
    number: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.farewells.under_way.lock().all.remove(&self.number);
    }
}

impl Farewells {
    /// What the last `words` come to; `None` where they were cut short.
    pub(crate) async fn say<F: Future>(&self, words: F) -> Option<F::Output> {
        let (cut, is_cut) = oneshot::channel();
        let number = {
            let mut under_way = self.under_way.lock();
            let number = under_way.next;
            under_way.next += 1;
            under_way.all.insert(number, cut);
            number
        };
        let _leaving = Leaving {
            farewells: self,
            number,
        };
        tokio::select! {
            biased;
            // First: most are said at once, and are worth that much.
            said = words => Some(said),
            // It ends with its sender: nothing is ever sent.
            _ = is_cut => None,
        }
    }

    /// Has the one that began first closed; whether there is one.
    pub(crate) fn cut_short(&self) -> bool {
        self.under_way.lock().all.pop_first().is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn who_began_first_is_cut_short_and_who_is_done_is_forgotten() {
        let farewells = Arc::new(Farewells::default());
        assert!(!farewells.cut_short());
        assert_eq!(farewells.say(async { 7 }).await, Some(7));
        assert!(!farewells.cut_short(), "it is over");
        let mut waiting = [(); 2].map(|()| {
            let farewells = Arc::clone(&farewells);
            tokio::spawn(async move { farewells.say(pending::<()>()).await })
        });
        tokio::task::yield_now().await;
        assert!(farewells.cut_short());
        assert_eq!((&mut waiting[0]).await.unwrap(), None);
        assert!(!waiting[1].is_finished());
        waiting[1].abort();
        assert!((&mut waiting[1]).await.unwrap_err().is_cancelled());
        assert!(!farewells.cut_short(), "its task is gone");
    }

    #[tokio::test]
    async fn what_can_be_said_at_once_is_said_though_there_is_no_room() {
        let farewells = Arc::new(Farewells::default());
        let cutting = Arc::clone(&farewells);
        let said = farewells.say(async move { cutting.cut_short() });
        assert_eq!(said.await, Some(true));
    }
}
