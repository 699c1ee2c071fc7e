//! Handshakes, one step at a time: between two of them whoever is connected has its turn.
//!
//! A step of a handshake is a signature or two, as much work as dozens of messages. A fleet that comes back makes hundreds
//! of them ready at once, and a message would wait for all of them. So each core takes one, then looks for what has come
//! for its connections and does that, and then takes the next; where nothing has come there is no pause.
//!
//! One queue per core; on a thread that never called [`give`] steps do not wait for each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

thread_local! {
    static CORE: Core = const { Core::new() };
}

struct Core {
    giving: Cell<bool>,
    /// Whether a step has been taken since the last look for others' work.
    taken: Cell<bool>,
    waiting: RefCell<VecDeque<Waker>>,
    /// The number of the first that waits, and so how many have been called.
    called: Cell<u64>,
    attendant: RefCell<Option<Waker>>,
}

impl Core {
    const fn new() -> Self {
        Self {
            giving: Cell::new(false),
            taken: Cell::new(false),
            waiting: RefCell::new(VecDeque::new()),
            called: Cell::new(0),
            attendant: RefCell::new(None),
        }
    }

    /// Whether this is the turn of who has that number, or has none yet. Who has not is given one, and woken at its turn.
    fn may_go(&self, number: &mut Option<u64>, waker: &Waker) -> bool {
        if !self.giving.get() {
            return true;
        }
        let mut waiting = self.waiting.borrow_mut();
        let called = self.called.get();
        if number.is_some_and(|number| number >= called) {
            // Woken by something else.
            return false;
        }
        let is_called = number.take().is_some();
        if !self.taken.get() && (is_called || waiting.is_empty()) {
            self.taken.set(true);
        } else {
            *number = Some(called + waiting.len() as u64);
            waiting.push_back(waker.clone());
        }
        drop(waiting);
        if let Some(attendant) = self.attendant.take() {
            attendant.wake();
        }
        number.is_none()
    }

    /// Ready once a step has been taken or somebody waits for one.
    fn is_busy(&self, cx: &Context<'_>) -> Poll<()> {
        if self.taken.get() || !self.waiting.borrow().is_empty() {
            return Poll::Ready(());
        }
        self.attendant.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Calls the next.
    fn call(&self) {
        self.taken.set(false);
        let next = self.waiting.borrow_mut().pop_front();
        if let Some(waker) = next {
            self.called.set(self.called.get() + 1);
            waker.wake();
        }
    }
}

/// Gives the handshakes of this thread their turns; runs until the task is dropped.
pub(crate) async fn give() {
    CORE.with(|core| core.giving.set(true));
    loop {
        poll_fn(|cx| CORE.with(|core| core.is_busy(cx))).await;
        // Comes back after whatever is ready, and after a look at the sockets.
        tokio::task::yield_now().await;
        CORE.with(Core::call);
    }
}

/// What it takes one step of, each time it is woken, when its turn has come.
pub(crate) struct InTurn<F> {
    work: Pin<Box<F>>,
    number: Option<u64>,
}

impl<F: Future> InTurn<F> {
    pub(crate) fn new(work: F) -> Self {
        Self {
            work: Box::pin(work),
            number: None,
        }
    }
}

impl<F: Future> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        match CORE.with(|core| core.may_go(&mut this.number, cx.waker())) {
            true => this.work.as_mut().poll(cx),
            false => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn core() -> Core {
        let core = Core::new();
        core.giving.set(true);
        core
    }

    #[test]
    fn one_goes_between_two_looks_and_the_others_in_their_order() {
        let core = core();
        let mut numbers = [None; 3];
        let may_go = |number: &mut Option<u64>| core.may_go(number, Waker::noop());
        assert!(may_go(&mut numbers[0]));
        assert!(!may_go(&mut numbers[1]) && !may_go(&mut numbers[2]));
        // Woken by its socket meanwhile, it still has its one place.
        assert!(!may_go(&mut numbers[1]));
        assert_eq!(core.waiting.borrow().len(), 2);
        core.call();
        let mut newcomer = None;
        assert!(!may_go(&mut newcomer), "behind those who wait");
        assert!(!may_go(&mut numbers[2]));
        assert!(may_go(&mut numbers[1]));
        // One that is called and gone holds nobody up.
        core.call();
        core.call();
        assert!(may_go(&mut newcomer));
        assert!(core.waiting.borrow().is_empty());
    }

    #[test]
    fn a_thread_that_gives_no_turns_holds_nothing_back() {
        let core = Core::new();
        for _ in 0..3 {
            assert!(core.may_go(&mut None, Waker::noop()));
        }
    }

    #[tokio::test]
    async fn others_have_their_turn_between_any_two_steps() {
        let log = Rc::new(RefCell::new(Vec::new()));
        let set = tokio::task::LocalSet::new();
        set.spawn_local(give());
        set.run_until(async {
            tokio::task::yield_now().await;
            let steps = (0..20).map(|_| {
                let log = Rc::clone(&log);
                tokio::task::spawn_local(InTurn::new(async move { log.borrow_mut().push('s') }))
            });
            let steps: Vec<_> = steps.collect();
            let other = tokio::task::spawn_local({
                let log = Rc::clone(&log);
                async move {
                    for _ in 0..20 {
                        tokio::task::yield_now().await;
                        log.borrow_mut().push('o');
                    }
                }
            });
            for task in steps {
                task.await.unwrap();
            }
            other.await.unwrap();
        })
        .await;
        let log: String = log.borrow().iter().collect();
        assert!(!log.contains("ss"), "{log}");
        CORE.with(|core| core.giving.set(false));
    }
}
