//! Tags of thing groups, thing types, registered authorities and provisioning templates: for people and for tools that
//! keep accounts; nothing here decides by them. (Those of policies lie in the policy's own row.)

use std::collections::BTreeMap;

use ca::CertificateId;
use serde::{Deserialize, Serialize};
use store::Stored;

use crate::provisioning::TemplateName;
use crate::registry::Transaction;
use crate::{Fleet, FleetError, GroupName, Kind, ThingTypeName, keys};

/// What can have tags in rows beside its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tagged {
    /// A thing group, static or dynamic.
    Group(GroupName),
    /// A thing type.
    ThingType(ThingTypeName),
    /// A registered authority.
    Authority(CertificateId),
    /// A provisioning template.
    Template(TemplateName),
}

impl Tagged {
    /// The row of what has them.
    fn owner(&self) -> String {
        match self {
            Self::Group(name) => keys::group(name),
            Self::ThingType(name) => keys::thing_type(name),
            Self::Authority(id) => keys::authority(id),
            Self::Template(name) => keys::template(name),
        }
    }

    fn missing(&self) -> FleetError {
        match self {
            Self::Group(name) => FleetError::not_found(Kind::Group, name),
            Self::ThingType(name) => FleetError::not_found(Kind::ThingType, name),
            Self::Authority(id) => FleetError::not_found(Kind::Authority, id),
            Self::Template(name) => FleetError::not_found(Kind::Template, name),
        }
    }

    /// Its tags go with it: for the transaction that deletes it.
    pub(crate) fn forget(&self, t: &mut Transaction<'_>) {
        t.delete(keys::tags(&self.owner()));
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Tags(BTreeMap<String, String>);

impl Stored for Tags {}

impl Fleet {
    /// What it is tagged with.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn tags(&self, of: &Tagged) -> Result<BTreeMap<String, String>, FleetError> {
        if self.inner.table.get(&of.owner())?.is_none() {
            return Err(of.missing());
        }
        let tags: Option<Tags> = self.read(&keys::tags(&of.owner()))?;
        Ok(tags.unwrap_or_default().0)
    }

    /// What something that is about to be made is tagged with; of what is there already nothing changes. Where the server
    /// dies in between it has not been made, and whatever is made later says its own.
    ///
    /// # Errors
    /// When the store fails.
    pub fn tag_new(&self, of: &Tagged, tags: &BTreeMap<String, String>) -> Result<(), FleetError> {
        self.transact(|t| {
            if t.exists(&of.owner())? {
                return Ok(());
            }
            match tags.is_empty() {
                true => of.forget(t),
                false => t.put(keys::tags(&of.owner()), &Tags(tags.clone()))?,
            }
            Ok(())
        })
    }

    /// Changes its tags.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; what `change` refuses.
    pub fn change_tags<E: From<FleetError>>(
        &self,
        of: &Tagged,
        change: impl Fn(&mut BTreeMap<String, String>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut refused = None;
        let done = self.transact(|t| {
            if !t.exists(&of.owner())? {
                return Err(of.missing());
            }
            let Tags(mut tags) = t.get(&keys::tags(&of.owner()))?.unwrap_or_default();
            refused = change(&mut tags).err();
            match (&refused, tags.is_empty()) {
                (Some(_), _) => {}
                (None, true) => of.forget(t),
                (None, false) => t.put(keys::tags(&of.owner()), &Tags(tags))?,
            }
            Ok(())
        });
        match refused {
            Some(refused) => Err(refused),
            None => Ok(done?),
        }
    }
}
