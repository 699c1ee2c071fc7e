//! Whose retained messages there are, how many and how heavy: so that one thing cannot take the room of all, and what a
//! certificate that is no longer good left behind is found without looking at what all did.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;

use ca::CertificateId;
use hashbrown::HashMap;

use crate::server::message::{Message, Origin};
use crate::server::sessions::Owner;

/// So many messages of so many bytes, as [`Message::weight_bytes`] counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Volume {
    /// With a message of this weight, in place of one of that weight where there is one.
    pub(super) fn with(self, weight: usize, replaced: Option<usize>) -> Self {
        Self {
            messages: self.messages + usize::from(replaced.is_none()),
            bytes: self.bytes.saturating_sub(replaced.unwrap_or(0)) + weight,
        }
    }

    fn without(self, weight: usize) -> Self {
        Self {
            messages: self.messages.saturating_sub(1),
            bytes: self.bytes.saturating_sub(weight),
        }
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            messages: self.messages.saturating_add(other.messages),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    /// Whether this bound lets `was` become `is`: what does not grow may be, also where it is beyond the bound, which may
    /// have been higher once.
    pub(super) fn admits(self, was: Self, is: Self) -> bool {
        (is.messages <= self.messages || is.messages <= was.messages)
            && (is.bytes <= self.bytes || is.bytes <= was.bytes)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Ledger {
    all: Volume,
    by_owner: HashMap<Owner, Volume>,
    by_device: HashMap<CertificateId, Left>,
}

/// What a certificate left.
struct Left {
    /// On whose account it is: the thing's, so that a renewed certificate does not begin anew.
    owner: Owner,
    volume: Volume,
    messages: BTreeSet<ByTopic>,
}

impl Ledger {
    /// Everything there is.
    pub(super) fn all(&self) -> Volume {
        self.all
    }

    /// What an owner has, under all certificates.
    pub(super) fn of(&self, owner: &Owner) -> Volume {
        self.by_owner.get(owner).copied().unwrap_or_default()
    }

    /// As [`Ledger::of`], with what a certificate left that has come to this owner since.
    pub(super) fn had(&self, owner: &Owner, origin: Origin) -> Volume {
        let left = match origin {
            Origin::Device(id) => self.by_device.get(&id),
            Origin::Service => None,
        };
        let elsewhere = left.filter(|left| left.owner != *owner);
        let own = self.of(owner);
        elsewhere.map_or(own, |left| own.and(left.volume))
    }

    /// On whose account a message is.
    pub(super) fn owner(&self, origin: Origin) -> Option<&Owner> {
        let Origin::Device(id) = origin else {
            return None;
        };
        self.by_device.get(&id).map(|left| &left.owner)
    }

    /// Whether what is kept under a topic is this device's.
    pub(super) fn has(&self, device: &CertificateId, topic: &str) -> bool {
        let left = self.by_device.get(device);
        left.is_some_and(|left| left.messages.contains(topic))
    }

    /// The topics of what a device left.
    pub(super) fn topics_of(&self, device: &CertificateId) -> Vec<String> {
        let left = self.by_device.get(device).map(|left| &left.messages);
        let topics = left.into_iter().flatten();
        topics.map(|kept| kept.0.topic().to_owned()).collect()
    }

    /// Puts what a certificate left on the account of the one it belongs to now.
    fn settle_owner(&mut self, origin: Origin, owner: &Owner) {
        let Origin::Device(id) = origin else {
            return;
        };
        if let Some(left) = self.by_device.get_mut(&id)
            && left.owner != *owner
        {
            let former = std::mem::replace(&mut left.owner, owner.clone());
            let volume = left.volume;
            let rest = self.of(&former);
            let rest = Volume {
                messages: rest.messages.saturating_sub(volume.messages),
                bytes: rest.bytes.saturating_sub(volume.bytes),
            };
            self.set(former, rest);
            let grown = self.of(owner).and(volume);
            self.set(owner.clone(), grown);
        }
    }

    /// Enters a message whose topic has no other. Without an owner a device has its own account.
    pub(super) fn link(&mut self, message: Message, owner: Option<&Owner>) {
        let weight = message.weight_bytes();
        self.all = self.all.with(weight, None);
        let Origin::Device(id) = message.origin() else {
            return;
        };
        let alone = Owner::Certificate(id);
        let owner = owner.unwrap_or(&alone);
        self.settle_owner(message.origin(), owner);
        let left = self.by_device.entry(id).or_insert_with(|| Left {
            owner: owner.clone(),
            volume: Volume::default(),
            messages: BTreeSet::new(),
        });
        left.volume = left.volume.with(weight, None);
        left.messages.insert(ByTopic(message));
        match self.by_owner.get_mut(owner) {
            Some(volume) => *volume = volume.with(weight, None),
            None => self.set(owner.clone(), Volume::default().with(weight, None)),
        }
    }

    /// Strikes out a message that was entered.
    pub(super) fn unlink(&mut self, message: &Message) {
        let weight = message.weight_bytes();
        self.all = self.all.without(weight);
        let Origin::Device(id) = message.origin() else {
            return;
        };
        let Some(left) = self.by_device.get_mut(&id) else {
            return;
        };
        left.messages.remove(message.topic());
        left.volume = left.volume.without(weight);
        if let Some(volume) = self.by_owner.get_mut(&left.owner) {
            *volume = volume.without(weight);
            if *volume == Volume::default() {
                self.by_owner.remove(&left.owner);
            }
        }
        if left.messages.is_empty() {
            self.by_device.remove(&id);
        }
    }

    fn set(&mut self, owner: Owner, volume: Volume) {
        if volume == Volume::default() {
            self.by_owner.remove(&owner);
        } else {
            self.by_owner.insert(owner, volume);
        }
    }

    /// Whether no account is open.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_device.is_empty() && self.by_owner.is_empty() && self.all == Volume::default()
    }
}

/// A message in the order of topics.
struct ByTopic(Message);

impl Borrow<str> for ByTopic {
    fn borrow(&self) -> &str {
        self.0.topic()
    }
}

impl Ord for ByTopic {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.topic().cmp(other.0.topic())
    }
}

impl PartialOrd for ByTopic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByTopic {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByTopic {}
