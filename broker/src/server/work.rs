//! How much a connection may do before the others of its core have their turn. Bytes do not say it: a publish of fifty
//! bytes may look through a tree, a subscription of forty bytes may be answered by ten thousand messages.
//!
//! A unit is about what it costs to look at one node of a tree: some fifty nanoseconds.

/// Looked at: a node of a tree, a subscription that matches.
pub(crate) const LOOK: usize = 1;

/// Put into a mailbox, or the next member of a shared subscription chosen for it.
pub(crate) const COPY: usize = 4;

/// A packet that was taken, a message that was sent.
pub(crate) const PACKET: usize = 8;

/// Asked of the policy and noted.
pub(crate) const DECISION: usize = 16;

/// Asked of the registry, which may have to read.
pub(crate) const REGISTRY: usize = 300;

/// A subscription judged, kept and put into the tree, or taken out of both.
pub(crate) const SUBSCRIPTION: usize = 64;

/// A refusal explained.
pub(crate) const EXPLANATION: usize = 128;

/// What is left of a share of work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    left: usize,
}

impl Work {
    pub(crate) const fn of(units: usize) -> Self {
        Self { left: units }
    }

    /// For those who hold up nobody.
    pub(crate) const fn unbounded() -> Self {
        Self::of(usize::MAX)
    }

    /// Counts what has been done; the last step of a share may go beyond it.
    pub(crate) const fn spend(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
    }

    pub(crate) const fn is_spent(&self) -> bool {
        self.left == 0
    }

    #[cfg(test)]
    pub(crate) const fn left(&self) -> usize {
        self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_ends_with_the_step_that_reaches_its_end() {
        let mut work = Work::of(10);
        work.spend(9);
        assert!(!work.is_spent());
        work.spend(100);
        assert!(work.is_spent());
        assert_eq!(work.left(), 0);
        let mut work = Work::unbounded();
        work.spend(usize::MAX - 1);
        assert!(!work.is_spent());
    }
}
