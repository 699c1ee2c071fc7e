//! What is attached to what: policies to certificates and groups, certificates to things.

use crate::{
    CertificateRecord, Fleet, FleetError, Kind, Page, Target, ThingName, holders, keys,
    records::Present, registry::Transaction,
};
use ca::CertificateId;
use policy::PolicyName;

impl Fleet {
    /// Attaches a policy; no change when it is attached already.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either, [`FleetError::Limit`] past [`crate::PolicyLimits::attached`].
    pub fn attach_policy(&self, name: &PolicyName, target: &Target) -> Result<(), FleetError> {
        self.transact(|t| {
            require_policy(t, name)?;
            require_target(t, target)?;
            let attached = self.attached_policies(target)?;
            if attached.contains(name) {
                return Ok(());
            }
            let what = format!("policies attached to {target}");
            let limits = self.policy_limits();
            limits.check_attached(&what, attached.len() + 1)?;
            put_attachment(t, name, target)
        })
    }

    /// Detaches a policy; no change when it is not attached.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either.
    pub fn detach_policy(&self, name: &PolicyName, target: &Target) -> Result<(), FleetError> {
        self.transact(|t| {
            require_policy(t, name)?;
            require_target(t, target)?;
            t.delete(format!("{}{name}", keys::attached(target)));
            t.delete(format!("{}{target}", keys::targets(name)));
            Ok(())
        })
    }

    /// Attaches a certificate to a thing. A certificate belongs to one thing at most: every device has its own.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either; [`FleetError::Invalid`] when it belongs to another thing.
    pub fn attach_principal(
        &self,
        thing: &ThingName,
        id: &CertificateId,
    ) -> Result<(), FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let record: CertificateRecord = t
                .get(&keys::certificate(id))?
                .ok_or_else(|| FleetError::not_found(Kind::Certificate, id))?;
            match t.get::<ThingName>(&keys::bound(id))? {
                Some(other) if other == *thing => Ok(()),
                Some(other) => Err(FleetError::Invalid(format!(
                    "certificate {id} belongs to thing {other}: every device has a certificate of its own; \
                     detach it there first (DetachThingPrincipal)"
                ))),
                None => put_binding(t, thing, (id, &record.pem)),
            }
        })
    }

    /// Detaches a certificate from a thing.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] when it is not attached to it.
    pub fn detach_principal(
        &self,
        thing: &ThingName,
        id: &CertificateId,
    ) -> Result<(), FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            if t.get::<ThingName>(&keys::bound(id))?.as_ref() != Some(thing) {
                return Err(FleetError::not_found(
                    Kind::Certificate,
                    format!("{id} of thing {thing}"),
                ));
            }
            t.delete(keys::bound(id));
            t.delete(format!("{}{id}", keys::principals(thing)));
            Ok(())
        })
    }

    /// The certificates of a thing, in order of id.
    ///
    /// # Errors
    /// When the store fails.
    pub fn principals(
        &self,
        thing: &ThingName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<CertificateId>, FleetError> {
        self.page_of_names(&keys::principals(thing), after, limit)
    }

    /// The thing a certificate belongs to.
    ///
    /// # Errors
    /// When the store fails.
    pub fn thing_of(&self, id: &CertificateId) -> Result<Option<ThingName>, FleetError> {
        self.read(&keys::bound(id))
    }
}

pub(crate) fn require_policy(t: &mut Transaction<'_>, name: &PolicyName) -> Result<(), FleetError> {
    if t.exists(&keys::policy(name))? {
        Ok(())
    } else {
        Err(FleetError::not_found(Kind::Policy, name))
    }
}

fn require_target(t: &mut Transaction<'_>, target: &Target) -> Result<(), FleetError> {
    match target {
        Target::Certificate(id) => match t.get::<CertificateRecord>(&keys::certificate(id))? {
            Some(_) => Ok(()),
            None => Err(FleetError::not_found(Kind::Certificate, id)),
        },
        Target::Group(name) => {
            if t.exists(&keys::group(name))? {
                Ok(())
            } else {
                Err(FleetError::not_found(Kind::Group, name))
            }
        }
    }
}

pub(crate) fn put_attachment(
    t: &mut Transaction<'_>,
    name: &PolicyName,
    target: &Target,
) -> Result<(), FleetError> {
    t.put(format!("{}{name}", keys::attached(target)), &Present)?;
    t.put(format!("{}{target}", keys::targets(name)), &Present)
}

pub(crate) fn put_binding(
    t: &mut Transaction<'_>,
    thing: &ThingName,
    (id, pem): (&CertificateId, &str),
) -> Result<(), FleetError> {
    holders::hold(t, thing, id, pem)?;
    t.put(keys::bound(id), thing)?;
    t.put(format!("{}{id}", keys::principals(thing)), &Present)
}
