//! What clients receive, packet by packet.

use super::*;

impl World {
    /// The client reads up to `count` bytes and handles what is whole.
    pub(super) fn read(&mut self, at: usize, count: usize) -> Outcome {
        let wall_ms = self.wall_ms;
        let Some(connection) = self.clients[at].connection.as_mut() else {
            return Ok(());
        };
        let bytes = connection.link.take(count);
        if connection.link.waiting() == 0 {
            connection.emptied_ms = wall_ms;
        }
        connection.input.extend_from_slice(&bytes);
        if !bytes.is_empty() {
            self.note(at, &bytes);
        }
        let version = self.clients[at].version;
        loop {
            let Some(connection) = self.clients[at].connection.as_mut() else {
                return Ok(());
            };
            let decoded = wire::decode(version, &connection.input)
                .map_err(|error| format!("client {at} got a malformed packet: {error}"))?;
            let Some((packet, length)) = decoded else {
                return Ok(());
            };
            connection.input.drain(..length);
            let offset = connection.input_at;
            connection.input_at += length as u64;
            let accepted = connection.accepted.is_some();
            self.say(|| format!("client {at} receives {packet:?}"));
            match packet {
                Packet::ConnAck { .. } if accepted => {
                    return Err(format!("client {at} got a second CONNACK"));
                }
                Packet::ConnAck {
                    present,
                    code,
                    receive_max,
                    alias_max,
                    keep_alive_s,
                    ..
                } => {
                    self.accepted(at, present, code, receive_max, alias_max, keep_alive_s)?;
                }
                Packet::Disconnect(reason) => self.dismissed(at, reason)?,
                other if !accepted => {
                    return Err(format!("client {at} got {other:?} before its CONNACK"));
                }
                Packet::Publish(publish) => self.received(at, publish, offset, length)?,
                Packet::Ack(kind, packet_id, reason) => self.acked(at, kind, packet_id, reason)?,
                Packet::SubAck(packet_id, codes) => self.suback(at, packet_id, &codes)?,
                Packet::UnsubAck(packet_id) => {
                    let asked = self.clients[at]
                        .connection
                        .as_mut()
                        .and_then(|connection| connection.asked.remove(&packet_id));
                    match asked {
                        Some(Asked::Unsubscribe(filter, sent)) => {
                            self.model.unsubscribed(at, &filter, sent);
                        }
                        _ => return Err(format!("client {at} got an UNSUBACK it did not ask for")),
                    }
                }
                Packet::PingResp => {}
            }
        }
    }

    pub(super) fn dismissed(&mut self, at: usize, reason: u8) -> Outcome {
        let Some(connection) = self.clients[at].connection.as_mut() else {
            return Ok(());
        };
        // Whether the server may close is asked where it has closed; here only what it must not say.
        let never = [0x81, 0x82, 0x93, 0x94, 0x95, 0x99];
        if never.contains(&reason) && !connection.may_close {
            return Err(format!(
                "client {at} kept to the protocol and was told 0x{reason:02X}"
            ));
        }
        Ok(())
    }

    pub(super) fn accepted(
        &mut self,
        at: usize,
        present: bool,
        code: u8,
        receive_max: u16,
        alias_max: u16,
        keep_alive_s: Option<u16>,
    ) -> Outcome {
        let (step, wall_ms) = (self.model.step, self.wall_ms);
        let client = &mut self.clients[at];
        let rules = &self.model.principals[client.principal];
        let Some(connection) = client.connection.as_mut() else {
            return Ok(());
        };
        if code != 0 {
            // Refused: by a policy, or because another connection was faster or does not let go.
            let barred = rules.ever_since(connection.opened, |rules| {
                rules.revoked || rules.no_connect || rules.no_publish.is_some()
            });
            let busy = [3, 0x89].contains(&code);
            if !barred && !busy {
                return Err(format!(
                    "client {at} was refused with 0x{code:02X} for no reason"
                ));
            }
            connection.may_close = true;
            return Ok(());
        }
        let barred = |rules: &Rules| !rules.may_connect();
        if rules.always_since(connection.opened, barred) {
            return Err(format!("client {at} may not connect and was accepted"));
        }
        connection.accepted = Some(step);
        client.must_clean = false;
        connection.receive_max = usize::from(receive_max).min(IN_FLIGHT);
        connection.alias_max = alias_max;
        if let Some(keep_alive_s) = keep_alive_s {
            connection.keep_alive_s = keep_alive_s;
        }
        let kept = client.kept;
        let expiry_ms = u64::from(kept.expiry_s) * 1000;
        let opened_after_end = |since: Option<u64>| {
            since.is_some_and(|since| wall_ms >= since.saturating_add(expiry_ms))
        };
        if present && (connection.clean || !kept.possible) {
            return Err(format!("client {at} was told of a session that it has not"));
        }
        if !present && kept.certain && !connection.clean && !opened_after_end(kept.lost_ms) {
            return Err(format!(
                "client {at} was told that its session is gone: {kept:?}"
            ));
        }
        let (durable, will) = (connection.expiry_s > 0, connection.will);
        client.kept = Kept {
            possible: true,
            certain: durable && !rules.ever_since(connection.opened, |rules| rules.revoked),
            expiry_s: connection.expiry_s,
            // The server may have closed it meanwhile.
            lost_ms: connection.link.is_closed().then_some(connection.heard_ms),
            noticed_ms: None,
        };
        // Delayed wills of earlier connections die where the session goes on.
        let earlier: Vec<usize> = self
            .wills_of(at)
            .into_iter()
            .filter(|number| Some(*number) != will)
            .collect();
        for number in earlier {
            let sure = self.model.set_back_ms == 0 && self.model.crashes.is_empty();
            let message = &mut self.model.messages[number];
            if present && sure && wall_ms < message.due_ms {
                message.cancelled = step;
            }
        }
        if present {
            self.resume(at);
        } else {
            self.model.session_begun(at);
            self.lives += 1;
            let client = &mut self.clients[at];
            client.life = self.lives;
            client.outgoing.clear();
            client.incoming.clear();
        }
        Ok(())
    }

    pub(super) fn received(
        &mut self,
        at: usize,
        mut publish: Publish,
        offset: u64,
        length: usize,
    ) -> Outcome {
        let (v5, alias_max) = (
            self.clients[at].version == Version::V5,
            self.clients[at].alias_max,
        );
        let (receive_max, packet_max) = (self.clients[at].receive_max, self.clients[at].packet_max);
        let client = &mut self.clients[at];
        let Some(connection) = client.connection.as_mut() else {
            return Ok(());
        };
        if let Some(alias) = publish.alias {
            if alias == 0 || alias > alias_max {
                return Err(format!(
                    "client {at} got the alias {alias} above its maximum"
                ));
            }
            if publish.topic.is_empty() {
                match connection.aliases.get(&alias) {
                    Some(topic) => publish.topic.clone_from(topic),
                    None => {
                        return Err(format!(
                            "client {at} got the alias {alias} that means nothing"
                        ));
                    }
                }
            } else {
                connection.aliases.insert(alias, publish.topic.clone());
            }
        }
        if packet_max.is_some_and(|max| length > max as usize) {
            return Err(format!(
                "client {at} got {length} bytes, more than it takes"
            ));
        }
        let number = std::str::from_utf8(&publish.payload)
            .ok()
            .and_then(|text| text.split(' ').next()?.parse::<usize>().ok());
        let held = client.incoming.get(&publish.packet_id).copied();
        let again = publish.qos == 2 && held.is_some();
        if publish.qos > 0 {
            if publish.packet_id == 0 {
                return Err(format!("client {at} got the packet identifier 0"));
            }
            if connection.in_flight.contains_key(&publish.packet_id) {
                return Err(format!(
                    "client {at} got the packet identifier {} again before it was free",
                    publish.packet_id
                ));
            }
            connection.in_flight.insert(publish.packet_id, number);
            let most = usize::from(if v5 { receive_max } else { IN_FLIGHT as u16 });
            if connection.in_flight.len() > most {
                return Err(format!(
                    "client {at} got more than its Receive Maximum of {most}"
                ));
            }
            if again && held != Some(number) {
                return Err(format!(
                    "client {at} got another message under the packet identifier {} of QoS 2",
                    publish.packet_id
                ));
            }
        }
        let mark = connection.link.mark(offset);
        let (step, wall_ms) = (self.model.step, self.wall_ms);
        let mark = mark.map_or((step, wall_ms, true), |mark| {
            (mark.step, mark.wall_ms, mark.late)
        });
        match publish.qos {
            1 => connection.replies.push_back(Reply {
                kind: Ack::Pub,
                packet_id: publish.packet_id,
                settles: number,
            }),
            2 => {
                client.incoming.insert(publish.packet_id, number);
                connection.replies.push_back(Reply {
                    kind: Ack::Rec,
                    packet_id: publish.packet_id,
                    settles: None,
                });
            }
            _ => {}
        }
        let delivery = Delivery {
            topic: &publish.topic,
            payload: &publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            again,
            expiry_s: publish.expiry_s,
            ids: publish.subscription_ids.clone(),
            user: &publish.user,
            v5,
            written: mark.0,
            written_ms: mark.1,
            late: mark.2,
        };
        self.model
            .received(at, &delivery)
            .map_err(|error| format!("client {at}: {error}"))
    }

    pub(super) fn acked(&mut self, at: usize, kind: Ack, packet_id: u16, reason: u8) -> Outcome {
        let (step, wall_ms) = (self.model.step, self.wall_ms);
        let client = &mut self.clients[at];
        let Some(connection) = client.connection.as_mut() else {
            return Ok(());
        };
        if kind == Ack::Rel {
            client.incoming.remove(&packet_id);
            connection.replies.push_back(Reply {
                kind: Ack::Comp,
                packet_id,
                settles: None,
            });
            return Ok(());
        }
        let found = client
            .outgoing
            .iter()
            .position(|out| out.packet_id == packet_id);
        let Some(found) = found else {
            return Err(format!(
                "client {at} got {kind:?} for {packet_id}, which is not open"
            ));
        };
        let out = client.outgoing[found];
        let message = &mut self.model.messages[out.message];
        let refused = reason >= 0x80;
        match (kind, message.qos, out.released) {
            (Ack::Pub, 1, _) | (Ack::Rec, 2, false) => {
                if refused {
                    let principal = &self.model.principals[message.principal];
                    let topic = message.topic.clone();
                    if !principal.ever_since(message.sent, |rules| !rules.may_publish(&topic)) {
                        return Err(format!(
                            "message {} was refused with 0x{reason:02X}",
                            out.message
                        ));
                    }
                    // Sent again, it may have been taken the first time.
                    message.refused = message.transmissions == 1;
                    client.outgoing.remove(found);
                    return Ok(());
                }
                message.arrived_ms = wall_ms;
                if kind == Ack::Pub {
                    message.routed = step;
                    client.outgoing.remove(found);
                } else {
                    client.outgoing[found].released = true;
                    connection.write(&wire::ack(Ack::Rel, packet_id));
                    let rules = self.model.principals[message.principal].at(step);
                    if !rules.may_publish(&message.topic) {
                        connection.may_close = true;
                    }
                }
            }
            (Ack::Rec, 2, true) => connection.write(&wire::ack(Ack::Rel, packet_id)),
            (Ack::Comp, 2, true) => {
                // It may have been refused when it was released.
                let principal = &self.model.principals[message.principal];
                let topic = message.topic.clone();
                let denied = principal.ever_since(message.sent, |rules| !rules.may_publish(&topic));
                if reason == 0 && !denied {
                    message.routed = step;
                }
                client.outgoing.remove(found);
            }
            _ => {
                return Err(format!(
                    "client {at} got {kind:?} for message {} of QoS {}",
                    out.message, message.qos
                ));
            }
        }
        Ok(())
    }

    pub(super) fn suback(&mut self, at: usize, packet_id: u16, codes: &[u8]) -> Outcome {
        let client = &mut self.clients[at];
        let Some(connection) = client.connection.as_mut() else {
            return Ok(());
        };
        let (number, durable) = (connection.number, connection.expiry_s > 0);
        match connection.asked.remove(&packet_id) {
            Some(Asked::Subscribe(all)) if all.len() == codes.len() => {
                for (subscription, code) in all.into_iter().zip(codes) {
                    self.model
                        .subscribed(at, subscription, *code, number, durable)
                        .map_err(|error| format!("client {at}: {error}"))?;
                }
                Ok(())
            }
            _ => Err(format!("client {at} got a SUBACK it did not ask for")),
        }
    }
}
