//! What an operator claims of all devices, and that policies are to keep true.

use crate::{Change, Fleet, FleetError, Joining, Page, Whose, keys, population};
use policy::{InvariantText, PolicyName, Population, Proof};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use store::Stored;

/// Most claims of one server.
const INVARIANTS_LIMIT_ITEMS: usize = 100;

/// A claim under a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredInvariant {
    /// Its name.
    pub name: PolicyName,
    /// What is claimed.
    pub claim: InvariantText,
}

impl Stored for DeclaredInvariant {}

impl Fleet {
    /// Declares a claim, or says anew what a name claims. It need not hold.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for a claim that is not understood, [`FleetError::Limit`].
    pub fn set_invariant(&self, declared: &DeclaredInvariant) -> Result<(), FleetError> {
        let read = declared.claim.read();
        read.map_err(|error| FleetError::Invalid(error.to_string()))?;
        self.transact_alone(|t| {
            let key = keys::invariant(&declared.name);
            let full = || Ok::<_, FleetError>(self.invariants()?.len() >= INVARIANTS_LIMIT_ITEMS);
            if !t.exists(&key)? && full()? {
                return Err(FleetError::Limit {
                    what: "invariants".to_owned(),
                    limit: INVARIANTS_LIMIT_ITEMS,
                });
            }
            t.put(key, declared)
        })
    }

    /// Forgets a claim; whether there was one.
    ///
    /// # Errors
    /// When the store fails.
    pub fn delete_invariant(&self, name: &PolicyName) -> Result<bool, FleetError> {
        self.transact(|t| {
            let found = t.exists(&keys::invariant(name))?;
            if found {
                t.delete(keys::invariant(name));
            }
            Ok(found)
        })
    }

    /// Every claim that is declared, in order of name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn invariants(&self) -> Result<Vec<DeclaredInvariant>, FleetError> {
        let page: Page<DeclaredInvariant> =
            self.page_of_values(keys::INVARIANT, None, INVARIANTS_LIMIT_ITEMS)?;
        Ok(page.items)
    }

    /// Proves or refutes claims about the registry as it is.
    ///
    /// # Errors
    /// When the registry cannot be read, or a claim is not understood.
    pub fn prove(&self, claims: &[InvariantText]) -> Result<Vec<Proof>, FleetError> {
        let groups = groups_of(claims);
        let mut population = self.population(&groups, Whose::All, Joining::Now)?;
        let prove = |claim: &InvariantText| {
            let invariant = claim.read();
            let invariant = invariant.map_err(|error| FleetError::Invalid(error.to_string()))?;
            Ok(population.prove(&invariant))
        };
        claims.iter().map(prove).collect()
    }

    /// Checks that every declared claim is kept by a policy that is to say this: by all who have
    /// the policy, and by any device that would have it alone. A claim about a group's members is
    /// not held against the latter: only its attachment tells whom it is for.
    ///
    /// # Errors
    /// [`FleetError::InvariantBroken`] with the counter-example, and as [`Fleet::prove`].
    pub fn keeps_invariants(&self, name: &PolicyName, document: &str) -> Result<(), FleetError> {
        let policy = population::named(name, document)?;
        let declared = self.invariants()?;
        let groups: Vec<String> = groups_of(declared.iter().map(|one| &one.claim))
            .into_iter()
            .collect();
        let alone = self.population_of(&policy, &groups)?;
        let change = Change::Policy(policy);
        keeps(&change, &declared, alone)?;
        self.keeps_invariants_after(&change)
    }

    /// Checks that every declared claim holds of those whom a change touches once it is made, whoever
    /// comes into dynamic groups or leaves them afterwards: no change of an attribute is held against
    /// claims. What others break already is not held against it.
    ///
    /// # Errors
    /// As [`Fleet::keeps_invariants`].
    pub fn keeps_invariants_after(&self, change: &Change) -> Result<(), FleetError> {
        let declared = self.invariants()?;
        let groups = groups_of(declared.iter().map(|one| &one.claim));
        let after = self.population(&groups, Whose::After(change), Joining::EverAny)?;
        let Err(mut broken) = keeps(change, &declared, after) else {
            return Ok(());
        };
        // Who is told that a change breaks what was broken before looks in the wrong place.
        if let FleetError::InvariantBroken {
            already, invariant, ..
        } = &mut broken
            && let Some(one) = declared.iter().find(|one| one.name == *invariant)
            && let Ok(claim) = one.claim.read()
        {
            let mut before = self.population(&groups, Whose::Before(change), Joining::EverAny)?;
            *already = !before.prove(&claim).holds();
        }
        Err(broken)
    }
}

fn keeps(
    change: &Change,
    declared: &[DeclaredInvariant],
    mut population: Population,
) -> Result<(), FleetError> {
    for one in declared {
        let invariant = one.claim.read();
        let invariant = invariant.map_err(|error| FleetError::Invalid(error.to_string()))?;
        let why = match population.prove(&invariant) {
            Proof::Holds { .. } => continue,
            Proof::Broken(example) => example.to_string(),
            Proof::Undecided { reason } => format!("it cannot be shown: {reason}"),
        };
        return Err(FleetError::InvariantBroken {
            already: false,
            change: change.to_string(),
            invariant: one.name.clone(),
            claim: one.claim.to_string(),
            why,
        });
    }
    Ok(())
}

fn groups_of<'c>(claims: impl IntoIterator<Item = &'c InvariantText>) -> BTreeSet<String> {
    claims
        .into_iter()
        .filter_map(|claim| claim.only_group.clone())
        .collect()
}
