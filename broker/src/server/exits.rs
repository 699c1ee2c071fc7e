//! Order at the exits: of the connections of a core that end at the same moment a few at a time go out, and the others of
//! the core have their turn in between.
//!
//! A revoked authority, a detached policy or a lost network ends thousands of connections with one blow. Each costs its core
//! a DISCONNECT, an end of TLS and the settling of its session, and together they would hold up for tens of milliseconds
//! whoever has nothing to do with them. That a connection has to wait here is nothing that its peer could use: it is no
//! longer polled, so nothing more is read from it and nothing more is delivered to it.
//!
//! One per core, for the connections of its thread; on a thread without an attendant ([`attend`]) nobody waits.

use std::cell::RefCell;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore};

/// Connections that end before the others of their core have their turn: some tenths of a millisecond of work.
const AT_ONCE: usize = 4;

thread_local! {
    static EXITS: RefCell<Option<Arc<Exits>>> = const { RefCell::new(None) };
}

struct Exits {
    /// Of this round, handed out in the order in which they were asked for.
    turns: Semaphore,
    /// One was taken.
    taken: Notify,
}

/// Waits until it is the turn of a connection that ends.
pub(crate) async fn turn() {
    let Some(exits) = EXITS.with_borrow(Clone::clone) else {
        return;
    };
    // It is never closed, and if it were there would be nothing to wait for.
    if let Ok(turn) = exits.turns.acquire().await {
        turn.forget();
    }
    exits.taken.notify_one();
}

/// Gives the connections of this thread their turns; runs until the task is dropped.
pub(crate) async fn attend() {
    let exits = Arc::new(Exits {
        turns: Semaphore::new(AT_ONCE),
        taken: Notify::new(),
    });
    EXITS.with_borrow_mut(|own| *own = Some(Arc::clone(&exits)));
    loop {
        exits.taken.notified().await;
        // The runtime looks for what has come from the sockets before it goes on here, and whoever is ready goes first.
        tokio::task::yield_now().await;
        let left = exits.turns.available_permits();
        exits.turns.add_permits(AT_ONCE.saturating_sub(left));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;
    use tokio::runtime::Builder;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    /// How many went out at most between two turns of somebody who stays, if `count` want to at once.
    fn longest_wait(count: usize, attended: bool) -> usize {
        let runtime = Builder::new_current_thread().build().unwrap();
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let attendant = attended.then(|| spawn_local(attend()));
            yield_now().await;
            let gone = Rc::new(Cell::new(0));
            for _ in 0..count {
                let gone = Rc::clone(&gone);
                spawn_local(async move {
                    turn().await;
                    gone.set(gone.get() + 1);
                });
            }
            let (mut before, mut longest) = (0, 0);
            while before < count {
                yield_now().await;
                longest = longest.max(gone.get() - before);
                before = gone.get();
            }
            if let Some(attendant) = attendant {
                attendant.abort();
            }
            EXITS.take();
            longest
        })
    }

    #[test]
    fn who_stays_has_a_turn_after_each_few_that_go() {
        assert!(longest_wait(1_000, true) <= AT_ONCE);
    }

    #[test]
    fn nobody_waits_where_nobody_attends() {
        assert!(longest_wait(1_000, false) > AT_ONCE);
    }

    #[test]
    fn a_round_that_was_not_used_up_is_not_added_to_the_next() {
        let runtime = Builder::new_current_thread().build().unwrap();
        let local = LocalSet::new();
        local.block_on(&runtime, async {
            let attendant = spawn_local(attend());
            yield_now().await;
            for _ in 0..10 * AT_ONCE {
                turn().await;
                yield_now().await;
                yield_now().await;
            }
            let exits = EXITS.with_borrow(Clone::clone).unwrap();
            assert_eq!(exits.turns.available_permits(), AT_ONCE);
            attendant.abort();
            EXITS.take();
        });
    }
}
