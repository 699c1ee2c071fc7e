//! Retained messages: one per topic, found by filter without looking at all of them.

mod leap;
mod ledger;
#[cfg(test)]
mod tests;
mod walk;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;

use ca::CertificateId;
use parking_lot::RwLock;
use store::{Behind, Lsn};

use self::ledger::Ledger;
pub(crate) use self::ledger::Volume;
pub(crate) use self::walk::{SEEK, Walk};
use super::message::{Message, Origin};
use super::sessions::Owner;
use super::work::Work;
use crate::session::{Published, Time};
use crate::topic::TopicFilter;

/// The work of a look whether there is anything at all.
pub(crate) const GLANCE: usize = 2 * SEEK;

/// The index; the journal keeps them too.
pub(crate) struct Retained {
    // Held for one look-up, or for one change here and in the journal, so that the two agree on which of two came last;
    // never across an await.
    inner: RwLock<Inner>,
    bound: Volume,
}

#[derive(Default)]
struct Inner {
    /// In the order of topics. A message costs one place here however many levels its topic has.
    kept: BTreeSet<Kept>,
    ledger: Ledger,
    /// Of the last message that was put in.
    newest: u64,
}

/// A message, and how many had been put in when it was.
struct Kept {
    message: Message,
    number: u64,
    /// When that was; the epoch where an earlier release has kept it, which did not write it down.
    since: Time,
}

/// On whose account a message is retained.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Claim<'a> {
    /// A service inside the server: within the bound of all.
    Service,
    /// A device's owner, and as much as that one may have.
    Owner(&'a Owner, Volume),
}

/// A message cannot be retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Full {
    #[error("the server holds as many retained messages as it may")]
    Server,
    #[error(
        "this device has as many retained messages as it may: an empty payload deletes one, and one can be replaced by one that is no longer"
    )]
    Owner,
    #[error("the message is longer than what can be kept")]
    TooLarge,
}

/// Why a message was not retained. What was under its topic before is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RetainError {
    /// For good.
    #[error(transparent)]
    Full(#[from] Full),
    /// For now.
    #[error(transparent)]
    Behind(Behind),
}

impl From<Behind> for RetainError {
    fn from(behind: Behind) -> Self {
        match behind {
            Behind::TooLarge { .. } => Self::Full(Full::TooLarge),
            Behind::Full { .. } => Self::Behind(behind),
        }
    }
}

impl Retained {
    /// `bound` is that of all together.
    pub(crate) fn new(bound: Volume) -> Self {
        Self {
            inner: RwLock::default(),
            bound,
        }
    }

    /// Keeps a message that came at `since` under its topic, in place of the one before [MQTT-3.3.1-5]
    /// [MQTT311-3.3.1-5, -7], if `keep` writes it down.
    ///
    /// # Errors
    /// [`RetainError`].
    pub(crate) fn insert(
        &self,
        message: &Message,
        since: Time,
        claim: Claim<'_>,
        keep: impl FnOnce() -> Result<Lsn, Behind>,
    ) -> Result<Lsn, RetainError> {
        let mut inner = self.inner.write();
        inner.room(message, claim, self.bound)?;
        let kept = keep()?;
        let owner = match claim {
            Claim::Service => None,
            Claim::Owner(owner, _) => Some(owner),
        };
        inner.put(message.clone(), since, owner);
        Ok(kept)
    }

    /// Whether [`Retained::insert`] would find room now.
    ///
    /// # Errors
    /// [`Full`].
    pub(crate) fn room(&self, message: &Message, claim: Claim<'_>) -> Result<(), Full> {
        self.inner.read().room(message, claim, self.bound)
    }

    /// Takes back what an earlier run kept. There is no bound here: all of it was acknowledged, and a lower bound than then
    /// is for what comes now.
    pub(crate) fn restore(&self, message: Message, since: Time, owner: Option<&Owner>) {
        self.inner.write().put(message, since, owner);
    }

    /// Removes what is kept under a topic [MQTT-3.3.1-6], and with `forget` what is written down; when that is safe.
    pub(crate) fn remove(&self, topic: &str, forget: impl FnOnce() -> Option<Lsn>) -> Option<Lsn> {
        let mut inner = self.inner.write();
        inner.take(topic);
        forget()
    }

    /// As [`Retained::remove`], if what is kept is still a device's.
    pub(crate) fn remove_of(
        &self,
        device: &CertificateId,
        topic: &str,
        forget: impl FnOnce() -> Option<Lsn>,
    ) {
        let mut inner = self.inner.write();
        if inner.ledger.has(device, topic) {
            inner.take(topic);
            forget();
        }
    }

    /// Whether a message that was found here is still what is kept under its topic.
    pub(crate) fn keeps(&self, message: &Message) -> bool {
        self.while_kept(message, || ()).is_some()
    }

    /// Does something with a message that was found here, if it still is what is kept under its topic. What takes its place
    /// does so before or after.
    pub(crate) fn while_kept<T>(&self, message: &Message, then: impl FnOnce() -> T) -> Option<T> {
        let inner = self.inner.read();
        let kept = inner.kept.get(message.topic())?;
        kept.message.is_same(message).then(then)
    }

    /// Whether a look that costs little cannot tell that nothing is kept which the filter matches.
    pub(crate) fn may_match(&self, filter: &TopicFilter, now: Time) -> bool {
        let mut walk = Walk::new(filter.clone(), u64::MAX);
        let found = self.portion(&mut walk, now, &mut Work::of(GLANCE));
        !found.is_empty() || !walk.is_done()
    }

    /// The last message that was put in: what comes later comes to whoever has subscribed by now.
    pub(crate) fn newest(&self) -> u64 {
        self.inner.read().newest
    }

    /// What is kept under a topic and is not expired, and since when.
    pub(crate) fn get(&self, topic: &str, now: Time) -> Option<(Message, Time)> {
        let inner = self.inner.read();
        let kept = inner.kept.get(topic)?;
        let live = !kept.message.publication().is_expired(now);
        live.then(|| (kept.message.clone(), kept.since))
    }

    /// The next messages behind a topic in the order of topics, at most `most`, expired ones among them.
    pub(crate) fn behind(&self, topic: Option<&str>, most: usize) -> Vec<(Message, Time)> {
        let from = topic.map_or(Bound::Unbounded, Bound::Excluded);
        let inner = self.inner.read();
        let kept = inner.kept.range::<str, _>((from, Bound::Unbounded));
        let kept = kept.take(most);
        kept.map(|kept| (kept.message.clone(), kept.since))
            .collect()
    }

    /// On whose account is what a certificate left.
    pub(crate) fn owner_of(&self, device: &CertificateId) -> Option<Owner> {
        let inner = self.inner.read();
        inner.ledger.owner(Origin::Device(*device)).cloned()
    }

    /// The topics of what a device left.
    pub(crate) fn topics_of(&self, device: &CertificateId) -> Vec<String> {
        self.inner.read().ledger.topics_of(device)
    }
}

impl Inner {
    fn room(&self, message: &Message, claim: Claim<'_>, bound: Volume) -> Result<(), Full> {
        let weight = message.weight_bytes();
        let before = self.kept.get(message.topic());
        let before = before.map(|kept| &kept.message);
        let replaced = before.map(Message::weight_bytes);
        let all = self.ledger.all();
        if !bound.admits(all, all.with(weight, replaced)) {
            return Err(Full::Server);
        }
        let Claim::Owner(owner, bound) = claim else {
            return Ok(());
        };
        let own = before.filter(|before| {
            before.origin() == message.origin() || self.ledger.owner(before.origin()) == Some(owner)
        });
        let had = self.ledger.had(owner, message.origin());
        if !bound.admits(had, had.with(weight, own.map(Message::weight_bytes))) {
            return Err(Full::Owner);
        }
        Ok(())
    }

    fn put(&mut self, message: Message, since: Time, owner: Option<&Owner>) {
        self.newest += 1;
        let kept = Kept {
            message: message.clone(),
            number: self.newest,
            since,
        };
        if let Some(before) = self.kept.replace(kept) {
            self.ledger.unlink(&before.message);
        }
        self.ledger.link(message, owner);
    }

    fn take(&mut self, topic: &str) {
        if let Some(removed) = self.kept.take(topic) {
            self.ledger.unlink(&removed.message);
        }
    }
}

impl Kept {
    fn topic(&self) -> &str {
        self.message.topic()
    }
}

impl Borrow<str> for Kept {
    fn borrow(&self) -> &str {
        self.topic()
    }
}

impl Ord for Kept {
    fn cmp(&self, other: &Self) -> Ordering {
        self.topic().cmp(other.topic())
    }
}

impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Kept {}
