//! The clock, the disk, crashes and the operator.

use super::*;

impl World {
    pub(super) fn pass(&mut self, ms: u64) {
        self.server().pass(Duration::from_millis(ms));
        self.say(|| format!("{ms} ms pass"));
        self.tick();
    }

    pub(super) fn commit(&mut self) {
        let done = self.server().commit();
        self.failed |= !done;
        self.say(|| format!("commit: {done}"));
    }

    pub(super) fn crash(&mut self) -> Outcome {
        self.say(|| "the server crashes".to_owned());
        if self.rng.bool() {
            // In the middle of a write.
            self.disk.set_faults(Faults {
                writes_fail: self.rng.bool(),
                syncs_fail: true,
            });
            self.server().commit();
        }
        let rng = &mut self.rng;
        self.disk
            .crash(|torn| if rng.bool() { 0 } else { rng.usize(..=torn) });
        self.down()
    }

    /// The process ends, the machine goes on, as `kill -9` does it, or in order.
    pub(super) fn restart(&mut self) -> Outcome {
        self.say(|| "the server is shut down".to_owned());
        self.server().drain();
        for client in &mut self.clients {
            for connection in client.connection.iter_mut().chain(&mut client.old) {
                connection.may_close = true;
            }
        }
        for _ in 0..200 {
            self.pass(20);
            self.commit();
            for at in 0..self.clients.len() {
                self.read(at, usize::MAX)?;
            }
            self.look()?;
            if self.server().connections() == 0 {
                break;
            }
        }
        self.commit();
        self.down()
    }

    pub(super) fn down(&mut self) -> Outcome {
        self.model.crashes.push(self.model.step);
        self.server = None;
        self.faults = Faults::default();
        self.disk.set_faults(self.faults);
        let jump = match self.rng.u8(..4) {
            0 => self.rng.u64(..200_000) as i64 - 100_000,
            _ => self.rng.u64(..2_000) as i64,
        };
        let now_ms = self.wall_ms.saturating_add_signed(jump);
        self.model.set_back_ms += self.wall_ms.saturating_sub(now_ms);
        for at in 0..self.clients.len() {
            self.lose(at, now_ms);
            for old in std::mem::take(&mut self.clients[at].old) {
                self.will_open(at, &old, now_ms);
            }
            let expired = self.clients[at].kept.has_expired(self.wall_ms);
            let kept = &mut self.clients[at].kept;
            kept.certain &= !expired;
            kept.lose(now_ms);
            kept.noticed_ms = Some(kept.noticed_ms.map_or(now_ms, |ms| ms.max(now_ms)));
            // The end of a session may not have reached the disk.
            if !kept.certain || kept.expiry_s == 0 {
                kept.certain = false;
                self.model.session_in_doubt(at);
            }
        }
        // Those of sessions that ended with their connection are lost with the server, those that
        // were being published may come once more.
        for message in &mut self.model.messages {
            // A goodbye is safe on the disk only after a rest.
            if message.is_will && message.cancelled == NEVER {
                message.due_ms = message.due_ms.min(now_ms);
                message.disturbed = true;
            }
        }
        self.tick();
        self.say(|| format!("the server starts {jump} ms later by its clock"));
        self.start(now_ms)
    }

    pub(super) fn change_rules(&mut self) -> Outcome {
        let principal = self.rng.usize(..self.plan.principals);
        let rng = &mut self.rng;
        let mut one = || ['a', 'b', 'c'][rng.usize(..3)];
        let mut rules = Rules::default();
        let which = one();
        match self.rng.u8(..8) {
            0 => rules.revoked = true,
            1 => rules.no_connect = true,
            2 => rules.no_publish = Some(which),
            3 | 4 => rules.no_receive = Some(which),
            5 => rules.no_subscribe = Some(which),
            _ => {}
        }
        self.set_rules(principal, rules)
    }

    pub(super) fn set_rules(&mut self, principal: usize, rules: Rules) -> Outcome {
        self.say(|| format!("principal {principal} has the rules {rules:?}"));
        let mut statements = vec![serde_json::json!({
            "Effect": "Allow", "Action": "iot:*", "Resource": "*",
        })];
        let mut deny = |action: &str, kind: &str, what: &str| {
            statements.push(serde_json::json!({
                "Effect": "Deny",
                "Action": format!("iot:{action}"),
                "Resource": format!("arn:aws:iot:local:{ACCOUNT}:{kind}/{what}"),
            }));
        };
        if rules.no_connect {
            deny("Connect", "client", "*");
        }
        if let Some(area) = rules.no_publish {
            deny("Publish", "topic", &format!("t/{area}/*"));
        }
        if let Some(area) = rules.no_receive {
            deny("Receive", "topic", &format!("t/{area}/*"));
        }
        if let Some(area) = rules.no_subscribe {
            deny("Subscribe", "topicfilter", &format!("t/{area}/*"));
        }
        let document = serde_json::json!({"Version": "2012-10-17", "Statement": statements});
        let policy = Policy::parse(&document.to_string()).map_err(|error| error.to_string())?;
        let name = "simulated"
            .parse()
            .map_err(|_| "a policy's name".to_owned())?;
        let thing = format!("thing-{principal}").parse().ok();
        let status = match rules.revoked {
            true => CertificateStatus::Revoked,
            false => CertificateStatus::Active,
        };
        self.model.rules_changed(principal, rules.clone());
        for at in 0..self.clients.len() {
            if self.clients[at].principal != principal {
                continue;
            }
            let client = &mut self.clients[at];
            if rules != Rules::default() {
                for connection in client.connection.iter_mut().chain(&mut client.old) {
                    connection.may_close = true;
                    connection.polite = false;
                }
            }
            if rules.revoked {
                client.kept.certain = false;
            }
        }
        self.registry.standings.set(
            &self.certificates[principal],
            StandingNow {
                status: Some(status),
                thing,
                groups: Arc::from([]),
                policies: Arc::from([NamedPolicy {
                    name,
                    policy: Arc::new(policy),
                }]),
                not_before: UNIX_EPOCH,
                not_after: UNIX_EPOCH + Duration::from_secs(4_000_000_000),
                ..Standings::unknown()
            },
        );
        self.tick();
        Ok(())
    }
}
