//! What becomes of conditions that the registry leaves open, whatever a connection, a message or the hour brings: some
//! can be met by none, and some are met by all.

use super::claim::Told;
use super::facts::{Facts, Settled, is_settled};
use super::population::Speaks;
use crate::action::Action;
use crate::condition::Condition;
use crate::context::{Context, MessageFacts};
use crate::document::Effect;
use crate::key::Key;
use crate::operator::Family;
use crate::own::Own;

/// What a condition comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Never,
    Always,
    Open,
}

/// Who asks for what, when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asking<'a> {
    pub(super) action: Action,
    pub(super) speaks: Speaks,
    pub(super) facts: Facts,
    pub(super) context: &'a Context,
    /// The second since 1970 from which on it may be asked.
    pub(super) now: Option<i64>,
}

impl Asking<'_> {
    /// What a statement's conditions come to for this action, where things are known, or may be any.
    pub(super) fn settled(&self, told: &Told<'_>, known: bool) -> Settled {
        let settled = told.settled(known);
        if settled != Settled::Open {
            return settled;
        }
        let facts = match known {
            true => self.facts,
            false => Facts::Attachment,
        };
        // What is settled is met, or the whole would be unmet.
        let mut all = Settled::Met;
        for condition in &told.statement.conditions {
            if is_settled(facts, condition, self.context) {
                continue;
            }
            match self.fate(told.statement.effect, condition) {
                Fate::Never => return Settled::Unmet,
                Fate::Always => {}
                Fate::Open => all = Settled::Open,
            }
        }
        all
    }

    /// Whether a connection or a message can make a condition come out so or so.
    pub(super) fn is_open(&self, effect: Effect, condition: &Condition) -> bool {
        self.fate(effect, condition) == Fate::Open
    }

    fn fate(&self, effect: Effect, condition: &Condition) -> Fate {
        let operator = condition.operator;
        if condition.variables().next().is_some() || operator.quantifier.is_some() {
            return Fate::Open;
        }
        let fixed = |holds| if holds { Fate::Always } else { Fate::Never };
        let nothing = MessageFacts::default();
        match &condition.key {
            Key::Own(own) if own.is_of_message() && !own.is_known_of(self.action) => {
                fixed(condition.holds(effect, &Context::default(), &nothing, true))
            }
            Key::Own(own) => match (self.values(own), operator.family) {
                (Some(_), Family::Null) => fixed(condition.asks_for_presence()),
                (Some(values), _) => {
                    let met = values.iter().filter(|value| condition.takes(value)).count();
                    match met {
                        0 => Fate::Never,
                        all if all == values.len() => Fate::Always,
                        _ => Fate::Open,
                    }
                }
                (None, Family::Null) => Fate::Open,
                (None, _) => {
                    // Where it is not known, an Allow is not met, and of a Deny it depends.
                    let absence =
                        effect == Effect::Deny && (operator.if_exists || operator.negated);
                    let is_count = matches!(
                        own,
                        Own::MessageSize | Own::CertificateAge | Own::LastViolationAge
                    );
                    let none = is_count
                        && !absence
                        && condition.probes().is_some_and(|probes| {
                            let mut counts = probes.iter().filter(|value| !value.starts_with('-'));
                            !counts.any(|value| condition.takes(value))
                        });
                    if none { Fate::Never } else { Fate::Open }
                }
            },
            // Time goes one way only.
            Key::CurrentTime | Key::EpochTime => {
                let context = Context {
                    now: self.now,
                    ..Context::default()
                };
                if self.now.is_none() || condition.turns(&context).is_some() {
                    return Fate::Open;
                }
                fixed(condition.holds(effect, &context, &nothing, true))
            }
            Key::SourceIp if condition.names_every_address() => fixed(!operator.negated),
            _ => Fate::Open,
        }
    }

    /// The values that a key can have, where they are few and one of them is known of every connection or message.
    fn values(&self, own: &Own) -> Option<&'static [&'static str]> {
        Some(match own {
            Own::Listener => match (self.action, self.speaks) {
                (_, Speaks::Unnamed) | (Action::GetRetainedMessage, _) => &["https"],
                (Action::Publish | Action::RetainPublish, Speaks::Always) => {
                    &["mqtt", "wss", "https"]
                }
                _ => &["mqtt", "wss"],
            },
            Own::TlsVersion => &["1.2", "1.3"],
            Own::Qos => &["0", "1", "2"],
            Own::Retain if self.action == Action::RetainPublish => &["true"],
            Own::Retain => &["true", "false"],
            _ => return None,
        })
    }
}
