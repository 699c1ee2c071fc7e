//! What clients receive: asked for, allowed, in time, as often as is due, in order.

use super::*;

impl Model {
    /// Judges a PUBLISH and notes it.
    pub(crate) fn received(&mut self, peer: usize, delivery: &Delivery<'_>) -> Verdict {
        self.deliveries += 1;
        let rules = &self.principals[self.peers[peer].principal];
        if !delivery.late && !rules.at(delivery.written).may_receive(delivery.topic) {
            return Err(format!(
                "{} was delivered after receiving it was forbidden",
                delivery.topic
            ));
        }
        if delivery.payload.is_empty() {
            return Ok(());
        }
        let number = number_of(delivery.payload).filter(|number| *number < self.messages.len());
        let Some(number) = number else {
            return Err("a message nobody published was delivered".to_owned());
        };
        self.check_content(number, delivery)?;
        self.check_origin(number, delivery)?;
        if delivery.again {
            return Ok(());
        }
        let retained = self.check_reason(peer, number, delivery)?;
        self.check_count(peer, number, delivery)?;
        if !retained {
            self.check_order(peer, number, delivery)?;
        }
        Ok(())
    }

    fn check_content(&self, number: usize, delivery: &Delivery<'_>) -> Verdict {
        let message = &self.messages[number];
        if message.topic != delivery.topic || message.payload != delivery.payload {
            return Err(format!(
                "message {number} of {} came as {} with another payload or topic",
                message.topic, delivery.topic
            ));
        }
        if !delivery.v5 {
            return Ok(());
        }
        if message.user != delivery.user {
            return Err(format!("message {number} lost its user properties"));
        }
        let grown = self.set_back_ms.div_ceil(1000) as u32;
        match (message.expiry_s, delivery.expiry_s) {
            (None, None) => {}
            (Some(was), Some(is)) if is <= was + grown && (is > 0 || delivery.dup) => {}
            (was, is) => {
                return Err(format!(
                    "message {number} was published with expiry {was:?} and delivered with {is:?}"
                ));
            }
        }
        Ok(())
    }

    fn check_origin(&self, number: usize, delivery: &Delivery<'_>) -> Verdict {
        let message = &self.messages[number];
        if message.refused {
            return Err(format!("message {number} was refused and is delivered"));
        }
        let publisher = &self.principals[message.principal];
        // One that was held, of QoS 2, is judged again when it is released.
        let denied =
            publisher.always_since(message.sent, |rules| !rules.may_publish(&message.topic));
        if denied && !message.is_will {
            return Err(format!(
                "message {number} may not be published and is delivered"
            ));
        }
        if message.is_will {
            if message.due_ms == NEVER || message.cancelled < delivery.written {
                return Err(format!(
                    "will {number} was delivered although its client is there, or said goodbye"
                ));
            }
            if delivery.written_ms < message.due_ms {
                return Err(format!(
                    "will {number} was delivered {} ms before its time",
                    message.due_ms - delivery.written_ms
                ));
            }
        }
        if let (Some(expiry_s), false, false) = (message.expiry_s, delivery.dup, delivery.late)
            && message.arrived_ms != NEVER
        {
            // Its arrival may have been counted before the clock was set back.
            let end = message.arrived_ms + u64::from(expiry_s) * 1000 + self.set_back_ms;
            if delivery.written_ms >= end {
                return Err(format!(
                    "message {number} was delivered {} ms after it had expired",
                    delivery.written_ms - end
                ));
            }
        }
        Ok(())
    }

    /// Finds what the message is delivered for; true where it is a retained message's copy for a
    /// new subscription.
    fn check_reason(
        &self,
        at: usize,
        number: usize,
        delivery: &Delivery<'_>,
    ) -> Result<bool, String> {
        let message = &self.messages[number];
        let peer = &self.peers[at];
        let matching = || {
            peer.subscriptions
                .iter()
                .filter(|subscription| subscription.matches(&message.topic))
        };
        let (from, mut to) = (message.sent, message.routed);
        if message.is_will && self.crashed_since(from) > 0 {
            // A crash may forget that a will was published, and it is published again.
            to = NEVER;
        }
        let live: Vec<&Subscription> = matching()
            .filter(|s| s.share().is_none() && s.span.may_meet(from, to))
            .filter(|s| !(s.no_local && message.publisher == at))
            .collect();
        let mut ids = delivery.ids.clone();
        ids.sort_unstable();
        let certain = to != NEVER && live.iter().all(|s| s.span.covers(from, to));
        let highest = live.iter().map(|s| s.qos).max();
        if let Some(highest) = highest {
            let mut all: Vec<u32> = live.iter().filter_map(|s| s.id).collect();
            all.sort_unstable();
            let as_published = live.iter().any(|s| s.retain_as_published);
            let fits = if certain {
                delivery.qos == highest.min(message.qos)
                    && (ids == all || !delivery.v5)
                    && delivery.retain == (message.retain && as_published)
            } else {
                let mut rest = all.clone();
                let known = |id: &u32| {
                    let found = rest.iter().position(|other| other == id);
                    found.map(|found| rest.swap_remove(found)).is_some()
                };
                delivery.qos <= highest.min(message.qos)
                    && (!delivery.v5 || ids.iter().all(known))
                    && (!delivery.retain || (message.retain && as_published))
            };
            if fits {
                return Ok(false);
            }
        }
        let shared = matching().any(|s| {
            s.share().is_some()
                && s.span.may_meet(from, NEVER)
                && delivery.qos == s.qos.min(message.qos)
                && (!delivery.v5 || ids.iter().copied().eq(s.id))
                && delivery.retain == (message.retain && s.retain_as_published)
        });
        if shared {
            return Ok(false);
        }
        let retained = delivery.retain
            && message.retain
            && matching().any(|s| {
                s.share().is_none()
                    && s.retain_handling != 2
                    && delivery.qos == s.qos.min(message.qos)
                    && (!delivery.v5 || ids.iter().copied().eq(s.id))
                    && !self.superseded(number, s.span.possible_from)
                    && self.publisher_good_since(number, s.span.possible_from)
                    && s.span.may_meet(s.span.possible_from, delivery.written)
            });
        if retained {
            return Ok(true);
        }
        let subscriptions: Vec<_> = matching().collect();
        Err(format!(
            "message {number} ({message:?}) is delivered with QoS {}, retain {}, dup {}, for {:?}, \
             written at {} and nothing asks for that; matching subscriptions: {subscriptions:?}",
            delivery.qos, delivery.retain, delivery.dup, delivery.ids, delivery.written
        ))
    }

    /// Whether another retained message had certainly taken its place.
    fn superseded(&self, number: usize, by: Step) -> bool {
        let message = &self.messages[number];
        self.messages.iter().any(|other| {
            other.retain
                && !other.is_will
                && !other.refused
                && other.topic == message.topic
                && message.routed != NEVER
                && other.sent > message.routed
                && other.routed < by
                && !self.deletes_may_be_lost
        })
    }

    fn publisher_good_since(&self, number: usize, step: Step) -> bool {
        let publisher = &self.principals[self.messages[number].principal];
        publisher.ever_since(step, |rules| !rules.revoked)
    }

    fn check_count(&mut self, at: usize, number: usize, delivery: &Delivery<'_>) -> Verdict {
        let step = self.step;
        let message = &self.messages[number];
        let crashes = self.crashed_since(message.sent);
        let peer = &self.peers[at];
        let matching = || {
            let subscriptions = peer.subscriptions.iter();
            subscriptions
                .filter(|s| s.matches(&message.topic) && s.span.possible_to >= message.sent)
        };
        let asked = matching().filter(|s| s.share().is_none() && s.retain_handling != 2);
        // What is still owed at the end of a run is told from the beginning in the next one.
        let of_retained = if message.retain {
            asked.count() as u32 * (1 + crashes)
        } else {
            0
        };
        let plain = u32::from(matching().any(|s| s.share().is_none()));
        let groups: Vec<&str> = matching()
            .filter(|s| s.share().is_some())
            .map(|s| s.filter.as_str())
            .collect();
        let mut distinct = groups.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let copies = plain + distinct.len() as u32;
        let sendings = if message.qos == 2 {
            1
        } else {
            message.transmissions
        };
        let allowed = copies * sendings + of_retained;
        let got = peer.got.get(&number).cloned().unwrap_or_default();
        let total = got.all + 1;
        // Each restart of the server may send again what QoS 1 left open, without DUP where the
        // server could not know.
        let fresh_allowed = match message.qos {
            0 if !message.is_will => allowed,
            _ => allowed * (1 + crashes),
        };
        let fresh = got.fresh + u32::from(!delivery.dup);
        if fresh > fresh_allowed && delivery.qos < 2 {
            return Err(format!(
                "message {number} is delivered {fresh} times as new, {fresh_allowed} are due"
            ));
        }
        let exactly = got.exactly + u32::from(delivery.qos == 2);
        if delivery.qos == 2 && exactly > allowed {
            return Err(format!(
                "message {number} of QoS 2 is delivered {exactly} times, {allowed} are due"
            ));
        }
        if got.settled && allowed == 1 && message.transmissions == 1 {
            return Err(format!(
                "message {number} is delivered again although its acknowledgement was safe"
            ));
        }
        for filter in distinct {
            if plain == 0 && copies == 1 && !delivery.dup && got.all == 0 {
                let filter = filter.to_owned();
                let members_left = self.peers.iter().any(|peer| {
                    peer.unsettled >= message.sent
                        && peer.subscriptions.iter().any(|s| s.filter == filter)
                });
                let count = self.shared.entry((filter.clone(), number)).or_default();
                *count += 1;
                if *count > sendings && !members_left && crashes == 0 {
                    return Err(format!(
                        "message {number} is delivered to {count} members of {filter}"
                    ));
                }
            }
        }
        let got = self.peers[at].got.entry(number).or_default();
        got.fresh = fresh;
        got.all = total;
        got.last = step;
        got.exactly = exactly;
        Ok(())
    }

    /// Messages of one publisher, topic and QoS come in their order, the first time each.
    fn check_order(&mut self, at: usize, number: usize, delivery: &Delivery<'_>) -> Verdict {
        let message = &self.messages[number];
        let topic = &message.topic;
        let matching = || {
            let subscriptions = self.peers[at].subscriptions.iter();
            subscriptions.filter(|s| s.matches(topic) && !(s.no_local && message.publisher == at))
        };
        // One that was sent before it was subscribed to may come when it is sent again.
        let mixed = matching().any(|s| s.share().is_some())
            || !matching().any(|s| {
                s.span.covers(message.sent, NEVER) && s.qos.min(message.qos) >= delivery.qos
            });
        let got = &self.peers[at].got;
        let first = got.get(&number).is_some_and(|got| got.all == 1);
        // Of QoS 0 the first may have been lost, and the message sent again for others.
        let again = delivery.qos == 0 && message.transmissions > 1;
        // Refused, kept back or expired once, it may be let through when it is sent again.
        let publisher = &self.principals[message.principal];
        let refused = publisher.ever_since(message.sent, |rules| !rules.may_publish(topic));
        let kept_back = !self.may_always_receive(at, message) || message.expiry_s.is_some();
        if mixed || !first || again || refused || kept_back || delivery.retain || message.is_will {
            return Ok(());
        }
        let key = (
            message.publisher,
            message.life,
            topic.clone(),
            message.qos,
            delivery.qos,
        );
        match self.peers[at].order.insert(key, number) {
            Some(before) if before > number => Err(format!(
                "message {number} came after message {before} of the same publisher, topic and QoS"
            )),
            _ => Ok(()),
        }
    }
}
