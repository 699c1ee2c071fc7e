//! What the network carries and loses, and when the server may close.

use super::*;

impl World {
    /// Bytes of a client arrive at the server: all, or some.
    pub(super) fn carry(&mut self, at: usize, share: u8) {
        let wall_ms = self.wall_ms;
        let Some(connection) = &mut self.clients[at].connection else {
            return;
        };
        let waiting = connection.up.len();
        if waiting == 0 {
            return;
        }
        let count = if share == 0 {
            self.rng.usize(1..=waiting)
        } else {
            waiting
        };
        connection.link.deliver(connection.up.drain(..count));
        if connection.up.is_empty() {
            connection.heard_ms = wall_ms;
        }
    }

    /// Bytes of a connection its client has given up arrive late.
    pub(super) fn carry_old(&mut self, at: usize) {
        let which = self.rng.usize(..8);
        let client = &mut self.clients[at];
        if client
            .old
            .get(which)
            .is_some_and(|old| old.accepted.is_none())
            && let Some(connection) = &mut client.connection
        {
            // A CONNECT that comes late takes the session over from the newer one.
            connection.may_close = true;
            connection.polite = false;
        }
        if let Some(old) = self.clients[at].old.get_mut(which) {
            let count = self.rng.usize(..=old.up.len());
            old.link.deliver(old.up.drain(..count));
        }
    }

    /// The connection breaks: what is under way is lost.
    pub(super) fn lose(&mut self, at: usize, lost_ms: u64) {
        let client = &mut self.clients[at];
        let Some(connection) = client.connection.take() else {
            return;
        };
        // The server may have been before it.
        let lost_ms = connection.ended_ms.map_or(lost_ms, |ms| ms.min(lost_ms));
        connection.link.hang_up();
        client.kept.lose(lost_ms);
        client.kept.noticed_ms = None;
        let ends = client.kept.expiry_s == 0;
        self.say(|| format!("client {at} loses its connection"));
        self.will_open(at, &connection, lost_ms);
        if ends {
            self.clients[at].kept.certain = false;
            self.model.session_in_doubt(at);
        }
        self.clients[at].old.push(connection);
    }

    /// From now on the will of a connection may be published, unless the client said goodbye.
    pub(super) fn will_open(&mut self, at: usize, connection: &Connection, lost_ms: u64) {
        let Some(will) = connection.will else { return };
        // An earlier CONNECT may reach the server after this one's, and its clean start ends the session then.
        let late_start = |old: &Connection| old.clean && old.accepted.is_none();
        let may_end = self.clients[at].old.iter().any(late_start);
        match connection.goodbye {
            // It was heard: the server has closed before the client was gone.
            Some((end, false))
                if connection.link.read() >= end && connection.over && connection.polite => {}
            _ => {
                let delay = match may_end {
                    true => 0,
                    false => connection.will_delay_s.min(connection.expiry_s),
                };
                let message = &mut self.model.messages[will];
                message.disturbed |= delay > 0
                    || may_end
                    || connection.accepted.is_none()
                    || connection.goodbye.is_some()
                    || connection.may_close;
                if message.due_ms == NEVER {
                    message.due_ms = lost_ms + u64::from(delay) * 1000;
                }
            }
        }
    }

    /// Wills of a client's earlier connections that may still be published.
    pub(super) fn wills_of(&self, at: usize) -> Vec<usize> {
        let messages = self.model.messages.iter().enumerate();
        messages
            .filter(|(_, m)| {
                m.is_will && m.publisher == at && m.due_ms != NEVER && m.cancelled == NEVER
            })
            .map(|(number, _)| number)
            .collect()
    }

    /// Notices what the server has closed, and whether it may.
    pub(super) fn look(&mut self) -> Outcome {
        let wall_ms = self.wall_ms;
        for at in 0..self.clients.len() {
            let client = &mut self.clients[at];
            client.old.retain(|old| !old.link.is_closed());
            let expired =
                |ms: u64| wall_ms >= ms.saturating_add(u64::from(client.kept.expiry_s) * 1000);
            if client
                .connection
                .as_ref()
                .is_none_or(|connection| connection.over)
                && client.kept.certain
                && client.kept.lost_ms.is_some_and(expired)
            {
                client.kept.certain = false;
                self.model.session_in_doubt(at);
            }
            let client = &mut self.clients[at];
            let Some(connection) = client.connection.as_mut() else {
                continue;
            };
            let silent = wall_ms.saturating_sub(connection.heard_ms);
            let keep_alive_ms = u64::from(connection.keep_alive_s) * 1500;
            let timed_out = connection.keep_alive_s > 0 && silent + 100 >= keep_alive_ms;
            let open = wall_ms.saturating_sub(connection.opened_ms);
            let never_opened = connection.accepted.is_none() && open + 100 >= 10_000;
            let stalled = wall_ms.saturating_sub(connection.emptied_ms) + 100 >= 20_000;
            // It may have begun to close long before it has closed.
            connection.may_close |= timed_out || never_opened || stalled;
            connection.polite &= !(timed_out || stalled);
            let quiet_ms = connection.heard_ms.min(connection.emptied_ms);
            if connection.may_close {
                connection.ended_ms.get_or_insert(quiet_ms);
            }
            if connection.may_close && !connection.polite {
                // It may have begun to close, and its will may be on its way.
                let begun_ms = connection.ended_ms.unwrap_or(quiet_ms);
                if let Some(connection) = client.connection.take() {
                    self.will_open(at, &connection, begun_ms);
                    self.clients[at].connection = Some(connection);
                }
            }
            let client = &mut self.clients[at];
            let Some(connection) = client.connection.as_mut() else {
                continue;
            };
            if !connection.link.is_closed() || connection.over {
                continue;
            }
            connection.over = true;
            // It was refused, and has not heard yet why.
            let refused = connection.accepted.is_none() && connection.link.waiting() > 0;
            if !(refused || connection.may_close) {
                return Err(format!(
                    "the server closed the connection of client {at} for no reason"
                ));
            }
            let lost_ms = connection.ended_ms.unwrap_or(quiet_ms);
            client.kept.lose(lost_ms);
            let ends = client.kept.expiry_s == 0;
            if ends {
                client.kept.certain = false;
            }
            let connection = client.connection.take();
            if let Some(connection) = connection {
                self.will_open(at, &connection, lost_ms);
                self.clients[at].connection = Some(connection);
            }
            if ends {
                self.model.session_in_doubt(at);
            }
        }
        if crate::panicked() {
            return Err("the broker panicked".to_owned());
        }
        Ok(())
    }
}
