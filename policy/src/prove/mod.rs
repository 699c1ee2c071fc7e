//! Claims about all devices at once: proven, or refuted by one device, one action, one topic.
//!
//! A claim is held against each kind of device that the policies make, in two steps:
//! 1. With the names left open. If no text exists by which a device of any name reaches what is
//!    another's, whatever that is called, the claim is proven for things that are yet to come.
//! 2. Otherwise with the names that there are: each device's own, and the sorted list of all for
//!    the other's, walked as one automaton.
//!
//! A certificate that is attached without being exclusive is two kinds: one that speaks as its thing under
//! the thing's name, and one that speaks as nobody, and for which groups only deny, under any other name
//! that Connect allows. Over HTTPS, where messages are published and retained ones are read, nobody has a client
//! id: where that makes a difference, a certificate is one kind more.
//!
//! Conditions on what the registry knows (thing, type, attributes, certificate) are judged as it is
//! now. All others are taken against the claim: one of an Allow may hold, one of a Deny may not.
//! What only a live connection knows may be anything that it can be: nobody subscribes with a payload, or in the past. Every counter-example is decided once more by
//! the engine itself before it is told.

mod claim;
mod clients;
pub(crate) mod facts;
mod fate;
mod given;
mod invariant;
mod places;
mod population;
mod search;
#[cfg(test)]
mod tests;
mod topic;

use std::fmt;

use serde::Serialize;

use claim::{Claim, Verdict};
pub use given::Given;
pub use invariant::{Invariant, InvariantError, InvariantText};
pub use population::{Needs, Population};

use crate::action::Action;
use crate::explain::StatementRef;
use crate::shown::{NAME_MAX_CHARS, shown};

/// What became of a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "outcome"
)]
pub enum Proof {
    /// It holds.
    Holds {
        /// Also for things of any name that are yet to come, with the policies that there are.
        for_any_name: bool,
    },
    /// It does not hold.
    Broken(Box<CounterExample>),
    /// Neither could be shown.
    Undecided {
        /// Why.
        reason: String,
    },
}

impl Proof {
    /// Whether the claim is proven.
    #[must_use]
    pub fn holds(&self) -> bool {
        matches!(self, Proof::Holds { .. })
    }
}

/// How a claim is broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CounterExample {
    /// The device; `None` for a certificate that belongs to no thing.
    pub thing: Option<String>,
    /// The client id that it connects with; empty over HTTPS, where there is none.
    pub client_id: String,
    /// Whose topic it reaches, where the claim is about others' topics.
    pub other: Option<String>,
    /// What it does.
    pub action: Action,
    /// On which topic, or with which topic filter.
    pub topic: String,
    /// The statement that lets it.
    pub statement: StatementRef,
    /// Conditions of that statement, with their values, which must hold for it.
    pub assumes: Vec<String>,
    /// Values with which they hold, and the Denies' do not; of keys of which one can be given to `explain`.
    pub given: Vec<Given>,
    /// Denies that would speak if their conditions held.
    pub spared_by: Vec<StatementRef>,
    /// Those conditions, with their values.
    #[serde(skip)]
    pub unless: Vec<(StatementRef, String)>,
}

impl fmt::Display for CounterExample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.thing {
            Some(thing) => write!(f, "device {}", shown(thing, NAME_MAX_CHARS))?,
            None => f.write_str("a certificate of no thing")?,
        }
        if self.client_id.is_empty() {
            f.write_str(" over HTTPS")?;
        } else if self.thing.as_ref() != Some(&self.client_id) {
            write!(
                f,
                " with client id {:?}",
                shown(&self.client_id, NAME_MAX_CHARS)
            )?;
        }
        write!(
            f,
            " may do {} on {}",
            self.action,
            shown(&self.topic, NAME_MAX_CHARS)
        )?;
        if let Some(other) = &self.other {
            write!(
                f,
                ", which reaches what is {}'s",
                shown(other, NAME_MAX_CHARS)
            )?;
        }
        write!(f, ", by {}", self.statement)?;
        for condition in &self.assumes {
            write!(f, ", where its condition {condition} is met")?;
        }
        for deny in &self.spared_by {
            write!(f, ", where the condition of {deny} is not")?;
            for (place, condition) in self.unless.iter().filter(|(of, _)| of == deny).enumerate() {
                let before = if place == 0 { ": " } else { " and " };
                write!(f, "{before}{}", condition.1)?;
            }
        }
        Ok(())
    }
}

impl Population {
    /// Proves or refutes a claim.
    pub fn prove(&mut self, invariant: &Invariant) -> Proof {
        self.complete();
        let mut for_any_name = true;
        let mut undecided = None;
        for class in &self.classes {
            let exempt = invariant.only_group.as_ref();
            if exempt.is_some_and(|group| class.groups.iter().any(|g| **g == **group)) {
                continue;
            }
            for action in &invariant.actions {
                let kinds = Claim {
                    population: self,
                    invariant,
                    class,
                    action: *action,
                };
                match kinds.judge() {
                    Verdict::Never => {}
                    Verdict::NotYet => for_any_name = false,
                    Verdict::Broken(example) => return Proof::Broken(example),
                    Verdict::Undecided(reason) => {
                        undecided.get_or_insert(reason);
                    }
                }
            }
        }
        match undecided {
            Some(reason) => Proof::Undecided { reason },
            None => Proof::Holds { for_any_name },
        }
    }
}
