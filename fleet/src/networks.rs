//! Networks that an operator names, so that policies can speak of where a device is.

use crate::{Fleet, FleetError, Page, keys};
use policy::Networks;
use serde::{Deserialize, Serialize};
use store::{StoreError, Stored, Table};

/// Most networks of one server.
const NETWORKS_LIMIT_ITEMS: usize = 1_000;

/// A named set of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedNetwork {
    /// Its name.
    pub name: String,
    /// Addresses and CIDRs.
    pub ranges: Vec<String>,
}

impl Stored for NamedNetwork {}

impl Fleet {
    /// Names a network, or says anew what the name stands for; live sessions are judged again.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for a name or range, [`FleetError::Limit`] past a thousand networks.
    pub fn set_network(&self, network: &NamedNetwork) -> Result<(), FleetError> {
        Networks::read([(network.name.as_str(), network.ranges.as_slice())])
            .map_err(|error| FleetError::Invalid(error.to_string()))?;
        self.transact_alone(|t| {
            let key = keys::network(&network.name);
            if !t.exists(&key)?
                && self.all_names::<String>(keys::NETWORK)?.len() >= NETWORKS_LIMIT_ITEMS
            {
                return Err(FleetError::Limit {
                    what: "networks".to_owned(),
                    limit: NETWORKS_LIMIT_ITEMS,
                });
            }
            t.put(key, network)
        })
    }

    /// Forgets a network; whether there was one. Conditions that ask for it are no longer met.
    ///
    /// # Errors
    /// When the store fails.
    pub fn delete_network(&self, name: &str) -> Result<bool, FleetError> {
        self.transact(|t| {
            let found = t.exists(&keys::network(name))?;
            if found {
                t.delete(keys::network(name));
            }
            Ok(found)
        })
    }

    /// Networks in order of name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn networks(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<NamedNetwork>, FleetError> {
        self.page_of_values(keys::NETWORK, after, limit)
    }
}

/// All of them, for decisions.
pub(crate) fn read(table: &Table) -> Result<Networks, StoreError> {
    let rows = table.scan_as::<NamedNetwork>(keys::NETWORK, None, NETWORKS_LIMIT_ITEMS)?;
    let named = rows
        .iter()
        .map(|(_, row)| (row.value.name.as_str(), row.value.ranges.as_slice()));
    Networks::read(named).map_err(|error| StoreError::Decode {
        key: keys::NETWORK.to_owned(),
        reason: error.to_string(),
    })
}
