//! Rest: what must have happened when nothing disturbs any more.

use super::*;

impl World {
    /// Lets the server do all it can, then counts as certain what it has read.
    pub(super) fn rest(&mut self) -> Outcome {
        if std::mem::take(&mut self.failed) {
            // Whoever was told of a failure looks again only after a second.
            self.server().commit();
            self.server().pass(Duration::from_millis(1_100));
        }
        // What waits for one commit may ask for the next.
        let mut still = 0;
        for _ in 0..100 {
            self.server().pass(Duration::from_millis(1));
            still = if self.server().backlog() == 0 {
                still + 1
            } else {
                0
            };
            self.failed |= !self.server().commit();
            if still == 3 {
                break;
            }
        }
        self.server().pass(Duration::from_millis(1));
        self.tick();
        self.look()?;
        if self.server().backlog() > 0 {
            return Ok(());
        }
        let (step, wall_ms) = (self.model.step, self.wall_ms);
        self.settle_wills();
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            let Some(connection) = client.connection.as_mut() else {
                continue;
            };
            // A client that does not read is not read from.
            if connection.over || connection.link.waiting() > 0 || connection.may_close {
                continue;
            }
            let read = connection.link.read();
            while let Some((end, certain)) = connection.quiet.front().copied() {
                if end > read {
                    break;
                }
                connection.quiet.pop_front();
                match certain {
                    Certain::Routed(number) => {
                        let message = &mut self.model.messages[number];
                        let principal = &self.model.principals[message.principal];
                        let topic = message.topic.clone();
                        if !principal.ever_since(message.sent, |r| !r.may_publish(&topic)) {
                            message.routed = message.routed.min(step);
                            message.arrived_ms = message.arrived_ms.min(wall_ms);
                        }
                    }
                    Certain::Settled(number) => {
                        if !self.model.deletes_may_be_lost
                            && let Some(got) = self.model.peers[at].got.get_mut(&number)
                        {
                            got.settled = true;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Wills of connections that are gone for good have been published, or never will be.
    fn settle_wills(&mut self) {
        let step = self.model.step;
        let connections = self
            .clients
            .iter()
            .flat_map(|c| c.connection.iter().chain(&c.old));
        let standing: Vec<usize> = connections
            .filter_map(|connection| connection.will)
            .collect();
        for (number, message) in self.model.messages.iter_mut().enumerate() {
            if !message.is_will || standing.contains(&number) {
                continue;
            }
            let principal = &self.model.principals[message.principal];
            let may = principal.always_since(message.sent, |r| r.may_publish(&message.topic));
            if message.due_ms == NEVER {
                message.cancelled = message.cancelled.min(step);
            } else if may && !message.disturbed && !self.model.deletes_may_be_lost {
                message.routed = message.routed.min(step);
            }
        }
    }

    /// All faults end, everybody comes back and reads; then everything due must have arrived.
    pub(super) fn calm(&mut self) -> Outcome {
        self.tick();
        self.faults = Faults::default();
        self.disk.set_faults(self.faults);
        self.calm = true;
        self.say(|| "all is calm from here".to_owned());
        for principal in 0..self.plan.principals {
            let now = self.model.principals[principal].at(self.model.step);
            let mild = Rules {
                revoked: now.revoked,
                no_receive: now.no_receive,
                ..Rules::default()
            };
            if mild != now {
                self.set_rules(principal, mild)?;
            }
        }
        for at in 0..self.clients.len() {
            for old in std::mem::take(&mut self.clients[at].old) {
                old.link.hang_up();
            }
            self.clients[at].room = 1 << 20;
            if let Some(connection) = &self.clients[at].connection {
                connection.link.widen();
            }
        }
        let mut quiet = 0;
        for _ in 0..CALM_ROUNDS {
            let before = self.activity();
            for at in 0..self.clients.len() {
                self.come_back(at);
                self.carry(at, 1);
            }
            self.rest()?;
            for at in 0..self.clients.len() {
                self.read(at, usize::MAX)?;
                self.reply(at, usize::MAX);
                self.carry(at, 1);
            }
            self.rest()?;
            quiet = if self.activity() == before {
                quiet + 1
            } else {
                0
            };
            if quiet == 3 {
                // What was put off is made up for within the janitor's round.
                self.pass(5_100);
            }
            if quiet > 6 {
                return self.check_calm();
            }
        }
        Err("it does not come to rest".to_owned())
    }

    pub(super) fn activity(&self) -> (u64, u64, u64) {
        let mut sum = (self.model.deliveries, self.connections, 0);
        for connection in self
            .clients
            .iter()
            .filter_map(|client| client.connection.as_ref())
        {
            sum.2 += connection.written + connection.input_at;
        }
        sum
    }

    pub(super) fn come_back(&mut self, at: usize) {
        let rules = self.model.principals[self.clients[at].principal].at(self.model.step);
        let wall_ms = self.wall_ms;
        let over = self.clients[at]
            .connection
            .as_ref()
            .is_some_and(|c| c.over || c.goodbye.is_some());
        if over {
            self.lose(at, wall_ms);
        }
        if self.clients[at].connection.is_some() || !rules.may_connect() {
            return;
        }
        self.connect(at, false);
    }

    pub(super) fn check_calm(&mut self) -> Outcome {
        for (at, client) in self.clients.iter().enumerate() {
            let Some(connection) = &client.connection else {
                continue;
            };
            if connection.over {
                continue;
            }
            if connection.accepted.is_none() && !connection.may_close {
                return Err(format!("client {at} got no CONNACK"));
            }
            if connection.accepted.is_some()
                && (!connection.asked.is_empty() || !client.outgoing.is_empty())
            {
                return Err(format!(
                    "client {at} waits for answers: {:?} {:?}",
                    connection.asked, client.outgoing
                ));
            }
        }
        let dropped = self.server().dropped();
        if dropped > 0 {
            return Err(format!(
                "{dropped} messages were dropped, no bound was reached"
            ));
        }
        let clients = &self.clients;
        self.model.check_due(|at| {
            let connection = clients[at].connection.as_ref()?;
            Some((connection.number, connection.accepted?))
        })
    }
}
