//! What clients do.

use super::*;

impl World {
    pub(super) fn add_client(&mut self) {
        let rng = &mut self.rng;
        let number = self.clients.len();
        let principal = rng.usize(..self.plan.principals);
        let version = if rng.bool() {
            Version::V5
        } else {
            Version::V311
        };
        // Of two principals with the same client id each has a session of its own.
        let same = (0..number).find(|other| self.clients[*other].principal != principal);
        let name = match same {
            Some(other)
                if rng.u8(..4) == 0
                    && self.clients.iter().all(|c| {
                        c.principal != principal || c.name != self.clients[other].name
                    }) =>
            {
                self.clients[other].name.clone()
            }
            _ => format!("client-{number}"),
        };
        let packet_max = (version == Version::V5 && rng.u8(..10) == 0).then(|| rng.u32(64..200));
        self.clients.push(Client {
            principal,
            name,
            version,
            expiry_s: match (version, rng.u8(..6)) {
                (_, 0) => 0,
                (Version::V311, _) => EXPIRY_MAX_S,
                (Version::V5, 1) => rng.u32(1..20),
                (Version::V5, 2) => rng.u32(20..120),
                (Version::V5, _) => 3600 * rng.u32(1..100),
            },
            receive_max: if rng.bool() { 65_535 } else { rng.u16(1..8) },
            alias_max: if rng.bool() { 0 } else { rng.u16(1..4) },
            packet_max,
            keep_alive_s: if rng.bool() { 0 } else { rng.u16(12..120) },
            must_clean: false,
            room: if rng.u8(..4) == 0 {
                rng.usize(40..400)
            } else {
                1 << 20
            },
            connection: None,
            old: Vec::new(),
            kept: Kept::default(),
            life: 0,
            next_id: rng.u16(..),
            outgoing: VecDeque::new(),
            incoming: Default::default(),
        });
        self.model.peers.push(Peer {
            principal,
            picky: packet_max.is_some(),
            ..Peer::default()
        });
    }

    pub(super) fn client_acts(&mut self, at: usize) -> Outcome {
        let step = self.model.step;
        let Some(connection) = &self.clients[at].connection else {
            if self.rng.u8(..3) == 0 {
                self.connect(at, false);
            }
            return Ok(());
        };
        if connection.over || connection.goodbye.is_some() {
            let ms = self.wall_ms;
            self.lose(at, ms);
            return Ok(());
        }
        if connection.accepted.is_none() {
            if self.rng.u8(..40) == 0 {
                let ms = self.wall_ms;
                self.lose(at, ms);
            } else if self.rng.u8(..60) == 0 && step > connection.opened {
                self.connect(at, true);
            }
            return Ok(());
        }
        match self.rng.u8(..100) {
            0..58 => self.publish(at),
            58..76 => self.subscribe(at),
            76..82 => self.unsubscribe(at),
            82..86 => {
                if let Some(connection) = self.clients[at].live() {
                    connection.write(&wire::ping());
                }
            }
            86..89 => self.goodbye(at),
            89..95 => {
                let ms = self.wall_ms;
                self.lose(at, ms);
            }
            95..98 => self.connect(at, true),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn connect(&mut self, at: usize, over: bool) {
        if over && let Some(connection) = self.clients[at].connection.take() {
            // The client gave up; the server may still believe in the connection.
            let mut connection = connection;
            connection.may_close = true;
            let ms = connection.ended_ms.unwrap_or(self.wall_ms);
            self.will_open(at, &connection, ms);
            if self.clients[at].kept.expiry_s == 0 {
                self.clients[at].kept.certain = false;
                self.model.session_in_doubt(at);
            }
            self.clients[at].kept.lose(ms);
            self.clients[at].old.push(connection);
        }
        let rng = &mut self.rng;
        let client = &mut self.clients[at];
        if client.kept.has_expired(self.wall_ms) {
            // The session ended with its connection or some time after, on this side too.
            client.outgoing.clear();
            client.incoming.clear();
            client.must_clean |= client.kept.expiry_s > 0;
        }
        let v5 = client.version == Version::V5;
        let calm = self.calm;
        let clean = rng.u8(..8) == 0 && !calm || client.expiry_s == 0 || client.must_clean;
        client.must_clean = clean;
        let expiry_s = match (v5, clean) {
            (false, true) => 0,
            (false, false) => EXPIRY_MAX_S,
            (true, _) => client.expiry_s,
        };
        let will = (rng.u8(..3) == 0 && !calm).then(|| {
            let area = ['a', 'b', 'c'][rng.usize(..3)];
            (
                format!("t/{area}/will"),
                rng.u8(..3),
                rng.u8(..6) == 0,
                if v5 && rng.bool() { rng.u32(1..30) } else { 0 },
            )
        });
        let room = client.room;
        let principal = client.principal;
        let rules = self.model.principals[principal].at(self.model.step);
        let may_connect = rules.may_connect()
            && will
                .as_ref()
                .is_none_or(|(topic, ..)| rules.may_publish(topic));
        let Some(link) = self
            .server
            .as_ref()
            .and_then(|server| server.connect(&self.certificates[principal], room))
        else {
            return;
        };
        let wire_will = will.map(|(topic, qos, retain, delay_s)| {
            let number = self.new_message(at, topic.clone(), qos, retain, None, Vec::new());
            let message = &mut self.model.messages[number];
            message.is_will = true;
            message.due_ms = NEVER;
            let payload = message.payload.clone();
            (
                number,
                Will {
                    topic,
                    payload,
                    qos,
                    retain,
                    delay_s,
                    expiry_s: None,
                },
            )
        });
        for will in self.wills_of(at) {
            let message = &mut self.model.messages[will];
            message.disturbed |= message.routed == NEVER;
        }
        self.connections += 1;
        let client = &mut self.clients[at];
        let connect = Connect {
            version: client.version,
            client_id: client.name.clone(),
            clean,
            keep_alive_s: client.keep_alive_s,
            expiry_s,
            receive_max: client.receive_max,
            alias_max: client.alias_max,
            packet_max: client.packet_max,
            will: wire_will.as_ref().map(|(_, will)| will.clone()),
        };
        let mut connection = Connection {
            number: self.connections,
            link,
            opened: self.model.step,
            opened_ms: self.wall_ms,
            clean,
            expiry_s,
            will_delay_s: wire_will.as_ref().map_or(0, |(_, will)| will.delay_s),
            will: wire_will.map(|(number, _)| number),
            up: VecDeque::new(),
            written: 0,
            input: Vec::new(),
            input_at: 0,
            accepted: None,
            receive_max: IN_FLIGHT,
            alias_max: 0,
            aliases: Default::default(),
            own_aliases: Vec::new(),
            asked: Default::default(),
            replies: VecDeque::new(),
            in_flight: Default::default(),
            quiet: VecDeque::new(),
            heard_ms: self.wall_ms,
            emptied_ms: self.wall_ms,
            keep_alive_s: client.keep_alive_s,
            goodbye: None,
            may_close: !may_connect,
            polite: false,
            ended_ms: None,
            over: false,
        };
        connection.write(&connect.encode());
        // It counts from when it arrives, whether the client hears of it or not.
        self.clients[at].kept.possible |= expiry_s > 0;
        if clean {
            // The old session ends as soon as this arrives; the client has ended it already.
            self.clients[at].kept.certain = false;
            self.clients[at].outgoing.clear();
            self.clients[at].incoming.clear();
            self.model.session_in_doubt(at);
            let wall_ms = self.wall_ms;
            for will in self.wills_of(at) {
                let message = &mut self.model.messages[will];
                message.due_ms = message.due_ms.min(wall_ms);
            }
        }
        self.clients[at].connection = Some(connection);
        self.say(|| format!("client {at} connects: {connect:?}"));
    }

    pub(super) fn goodbye(&mut self, at: usize) {
        let with_will = self.clients[at].version == Version::V5 && self.rng.u8(..3) == 0;
        let version = self.clients[at].version;
        let Some(connection) = self.clients[at].live() else {
            return;
        };
        connection.write(&wire::disconnect(version, if with_will { 4 } else { 0 }));
        connection.goodbye = Some((connection.written, with_will));
        connection.polite = !connection.may_close && !with_will;
        connection.may_close = true;
        if connection.expiry_s == 0 {
            self.clients[at].kept.certain = false;
            self.model.session_in_doubt(at);
        }
        let ms = self.wall_ms;
        self.clients[at].kept.lose(ms);
        self.say(|| format!("client {at} says goodbye"));
    }

    pub(super) fn new_message(
        &mut self,
        at: usize,
        topic: String,
        qos: u8,
        retain: bool,
        expiry_s: Option<u32>,
        user: Vec<(String, String)>,
    ) -> usize {
        let number = self.model.messages.len();
        let mut payload = format!("{number} ").into_bytes();
        let long = if self.rng.u8(..10) == 0 { 600 } else { 30 };
        payload.resize(payload.len() + self.rng.usize(..long), b'.');
        self.model.messages.push(Message {
            topic,
            payload,
            qos,
            retain,
            expiry_s,
            user,
            publisher: at,
            principal: self.clients[at].principal,
            life: self.clients[at].life,
            is_will: false,
            sent: self.model.step,
            transmissions: 1,
            routed: NEVER,
            arrived_ms: NEVER,
            refused: false,
            due_ms: 0,
            cancelled: NEVER,
            disturbed: false,
        });
        number
    }

    pub(super) fn publish(&mut self, at: usize) {
        let rng = &mut self.rng;
        let v5 = self.clients[at].version == Version::V5;
        let qos = rng.u8(..3);
        let area = ['a', 'b', 'c'][rng.usize(..3)];
        let leaf = ['x', 'y'][rng.usize(..2)];
        let topic = format!("t/{area}/{leaf}");
        let retain = rng.u8(..8) == 0;
        let empty = retain && rng.u8(..4) == 0;
        let expiry_s = (v5 && rng.u8(..6) == 0).then(|| rng.u32(1..40));
        let user = match v5 && rng.u8(..8) == 0 {
            true => vec![("k".to_owned(), format!("v{}", rng.u8(..10)))],
            false => Vec::new(),
        };
        let wants_alias = rng.bool();
        let outgoing = self.clients[at].outgoing.len();
        match self.clients[at].live() {
            Some(connection) if qos == 0 || outgoing < connection.receive_max => {}
            _ => return,
        }
        let number = self.new_message(at, topic, qos, retain, expiry_s, user);
        if empty {
            self.model.messages[number].payload.clear();
        }
        let packet_id = if qos > 0 {
            self.clients[at].packet_id()
        } else {
            0
        };
        if qos > 0 {
            self.clients[at].outgoing.push_back(Outgoing {
                packet_id,
                message: number,
                released: false,
            });
        }
        self.send(at, number, packet_id, false, wants_alias);
    }

    /// Writes a PUBLISH.
    pub(super) fn send(
        &mut self,
        at: usize,
        number: usize,
        packet_id: u16,
        dup: bool,
        wants_alias: bool,
    ) {
        let version = self.clients[at].version;
        let message = self.model.messages[number].clone();
        let rules = self.model.principals[message.principal].at(self.model.step);
        let Some(connection) = self.clients[at].connection.as_mut() else {
            return;
        };
        if !rules.may_publish(&message.topic) {
            connection.may_close = true;
        }
        let mut publish = Publish {
            topic: message.topic.clone(),
            payload: message.payload,
            qos: message.qos,
            retain: message.retain,
            dup,
            packet_id,
            expiry_s: message.expiry_s,
            user: message.user,
            ..Publish::default()
        };
        if version == Version::V5 && wants_alias && connection.alias_max > 0 {
            let known = connection
                .own_aliases
                .iter()
                .position(|name| *name == publish.topic);
            match known {
                Some(known) => {
                    publish.topic.clear();
                    publish.alias = Some(known as u16 + 1);
                }
                None if connection.own_aliases.len() < connection.alias_max.into() => {
                    connection.own_aliases.push(publish.topic.clone());
                    publish.alias = Some(connection.own_aliases.len() as u16);
                }
                None => {}
            }
        }
        connection.write(&publish.encode(version));
        if message.qos == 0 {
            let end = connection.written;
            connection.quiet.push_back((end, Certain::Routed(number)));
        }
        self.say(|| format!("client {at} publishes {number}: {publish:?}"));
    }

    pub(super) fn subscribe(&mut self, at: usize) {
        let v5 = self.clients[at].version == Version::V5;
        if self.clients[at].live().is_none() {
            return;
        }
        let packet_id = self.clients[at].packet_id();
        let count = if self.rng.u8(..5) == 0 { 2 } else { 1 };
        let rng = &mut self.rng;
        let id = (v5 && rng.bool()).then(|| rng.u32(1..300));
        let mut filters: Vec<wire::Filter> = Vec::new();
        for _ in 0..count {
            let area = ['a', 'b', 'c'][rng.usize(..3)];
            let plain = match rng.u8(..7) {
                0 => "t/#".to_owned(),
                1 => "t/+/x".to_owned(),
                2 => format!("t/{area}/#"),
                3 => format!("t/{area}/+"),
                4 => format!("t/{area}/will"),
                _ => format!("t/{area}/{}", ['x', 'y'][rng.usize(..2)]),
            };
            let shared = self.plan.shared && rng.u8(..5) == 0;
            let filter = match shared {
                true => format!("$share/g{}/{plain}", rng.u8(..2)),
                false => plain,
            };
            if filters.iter().all(|other| other.filter != filter) {
                filters.push(wire::Filter {
                    no_local: v5 && !shared && rng.u8(..4) == 0,
                    filter,
                    qos: rng.u8(..3),
                    retain_as_published: v5 && rng.u8(..4) == 0,
                    retain_handling: if v5 { rng.u8(..3) } else { 0 },
                });
            }
        }
        let asked = filters
            .iter()
            .map(|filter| {
                self.model.subscribing(
                    at,
                    Subscription {
                        filter: filter.filter.clone(),
                        qos: filter.qos,
                        no_local: filter.no_local,
                        retain_as_published: filter.retain_as_published,
                        retain_handling: filter.retain_handling,
                        id,
                        span: Span::beginning(self.model.step),
                    },
                )
            })
            .collect();
        let version = self.clients[at].version;
        if let Some(connection) = self.clients[at].live() {
            connection.write(&wire::subscribe(version, packet_id, id, &filters));
            connection.asked.insert(packet_id, Asked::Subscribe(asked));
        }
        self.say(|| format!("client {at} subscribes ({id:?}): {filters:?}"));
    }

    pub(super) fn unsubscribe(&mut self, at: usize) {
        let alive: Vec<String> = self.model.peers[at]
            .subscriptions
            .iter()
            .filter(|s| s.span.possible_to == NEVER)
            .map(|s| s.filter.clone())
            .collect();
        if alive.is_empty() || self.clients[at].live().is_none() {
            return;
        }
        let filter = alive[self.rng.usize(..alive.len())].clone();
        let (packet_id, version) = (self.clients[at].packet_id(), self.clients[at].version);
        self.model.unsubscribing(at, &filter);
        let step = self.model.step;
        if let Some(connection) = self.clients[at].live() {
            connection.write(&wire::unsubscribe(version, packet_id, &filter));
            let asked = Asked::Unsubscribe(filter.clone(), step);
            connection.asked.insert(packet_id, asked);
        }
        self.say(|| format!("client {at} unsubscribes {filter}"));
    }

    /// Writes acknowledgements that are owed, in their order.
    pub(super) fn reply(&mut self, at: usize, count: usize) {
        let Some(connection) = self.clients[at].live() else {
            return;
        };
        let count = count.min(connection.replies.len());
        for reply in connection.replies.drain(..count).collect::<Vec<_>>() {
            connection.write(&wire::ack(reply.kind, reply.packet_id));
            match reply.kind {
                Ack::Pub | Ack::Comp => drop(connection.in_flight.remove(&reply.packet_id)),
                Ack::Rec | Ack::Rel => {}
            }
            if let Some(message) = reply.settles {
                let end = connection.written;
                connection.quiet.push_back((end, Certain::Settled(message)));
            }
        }
    }

    /// Sends again what is open, as a client must (§4.4).
    pub(super) fn resume(&mut self, at: usize) {
        let all: Vec<Outgoing> = self.clients[at].outgoing.iter().copied().collect();
        for out in all {
            if out.released {
                if let Some(connection) = self.clients[at].connection.as_mut() {
                    connection.write(&wire::ack(Ack::Rel, out.packet_id));
                }
            } else {
                self.model.messages[out.message].transmissions += 1;
                self.send(at, out.message, out.packet_id, true, false);
            }
        }
    }
}
