//! What clients must have received, once all is calm.

use super::*;

impl Model {
    /// `connection` tells the open connection of a peer, and since when it is open.
    pub(crate) fn check_due(&self, connection: impl Fn(usize) -> Option<(u64, Step)>) -> Verdict {
        for (number, message) in self.messages.iter().enumerate() {
            if message.routed == NEVER
                || message.refused
                || message.expiry_s.is_some()
                || message.payload.is_empty()
            {
                continue;
            }
            self.check_arrived(number, message, &connection)?;
            self.check_shared(number, message)?;
        }
        for owed in &self.owed_retained {
            let message = &self.messages[owed.message];
            let peer = &self.peers[owed.peer];
            let still = peer.subscriptions.iter().any(|s| {
                s.filter == owed.filter
                    && s.span.possible_from == owed.since
                    && s.span.certain_from != NEVER
                    && s.span.certain_to == NEVER
            });
            let open = connection(owed.peer).map(|(number, _)| number);
            let publisher = &self.principals[message.principal];
            // What replaced it, or took it away, before it was looked for.
            let later = self.messages[owed.message + 1..]
                .iter()
                .any(|other| other.retain && other.topic == message.topic);
            if !still
                || later
                || peer.picky
                || owed.connection.is_some_and(|needed| open != Some(needed))
                || publisher.ever_since(message.sent, |rules| rules.revoked)
                || !self.may_always_receive(owed.peer, message)
            {
                continue;
            }
            let got = peer.got.get(&owed.message);
            if got.is_none_or(|got| got.last < owed.since) {
                return Err(format!(
                    "client {} subscribed to {} and did not get the retained message {}",
                    owed.peer, owed.filter, owed.message
                ));
            }
        }
        Ok(())
    }

    pub(super) fn may_always_receive(&self, at: usize, message: &Message) -> bool {
        let principal = &self.principals[self.peers[at].principal];
        principal.always_since(message.sent, |rules| rules.may_receive(&message.topic))
    }

    fn check_arrived(
        &self,
        number: usize,
        message: &Message,
        connection: &impl Fn(usize) -> Option<(u64, Step)>,
    ) -> Verdict {
        for (at, peer) in self.peers.iter().enumerate() {
            let due = peer.subscriptions.iter().filter(|s| {
                s.share().is_none()
                    && s.matches(&message.topic)
                    && !(s.no_local && message.publisher == at)
                    && s.span.covers(message.sent, NEVER)
            });
            let Some(qos) = due.map(|s| s.qos.min(message.qos)).max() else {
                continue;
            };
            // QoS 0 lives as long as the connection.
            let kept = qos > 0 || connection(at).is_some_and(|(_, since)| since < message.sent);
            if !kept || peer.picky || !self.may_always_receive(at, message) {
                continue;
            }
            if !peer.got.contains_key(&number) {
                return Err(format!(
                    "message {number} ({} of QoS {}, sent at step {}, acknowledged at step {}) \
                     never reached client {at}",
                    message.topic, message.qos, message.sent, message.routed
                ));
            }
        }
        Ok(())
    }

    fn check_shared(&self, number: usize, message: &Message) -> Verdict {
        let mut groups: BTreeMap<&str, (bool, bool)> = BTreeMap::new();
        for (at, peer) in self.peers.iter().enumerate() {
            for s in &peer.subscriptions {
                if s.share().is_none() || !s.matches(&message.topic) {
                    continue;
                }
                let (sure, has) = groups.entry(&s.filter).or_insert((true, false));
                // Every one who may be a member must be one for good, so that whoever is chosen
                // keeps it; others were never members at all.
                let never = s.span.possible_to < message.sent;
                *sure &= never
                    || (s.span.covers(message.sent, NEVER)
                        && s.qos.min(message.qos) > 0
                        && !peer.picky
                        && peer.unsettled < message.sent
                        && self.may_always_receive(at, message));
                *has |= !never;
            }
        }
        for (filter, (sure, has)) in groups {
            let arrived = self.peers.iter().any(|peer| {
                peer.got.contains_key(&number)
                    && peer.subscriptions.iter().any(|s| s.filter == filter)
            });
            if sure && has && !arrived {
                return Err(format!(
                    "message {number}, acknowledged at step {}, reached no member of {filter}",
                    message.routed
                ));
            }
        }
        Ok(())
    }
}
