//! What is attached to what: policies to certificates and groups, certificates to things.

use crate::{
    Attachment, Binding, CertificateRecord, Fleet, FleetError, Kind, Page, Target, ThingName,
    holders, keys, records::Present, registry::Transaction,
};
use ca::{CertificateId, RevocationReason};
use policy::PolicyName;
use serde::{Deserialize, Serialize};
use store::Stored;

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
            delete_attachment(t, name, target);
            Ok(())
        })
    }

    /// Detaches every policy of what is about to be deleted, in the transaction that deletes it: one that changes the
    /// registry alone, so that none comes meanwhile.
    pub(crate) fn detach_all(
        &self,
        t: &mut Transaction<'_>,
        target: &Target,
    ) -> Result<(), FleetError> {
        for name in self.attached_policies(target)? {
            delete_attachment(t, &name, target);
        }
        Ok(())
    }

    /// Attaches a certificate to a thing. A certificate belongs to one thing at most, however it is attached: every
    /// device has its own. Attached already, it is so from now on the way that is asked for, if one is.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either; [`FleetError::Invalid`] when it belongs to another thing.
    pub fn attach_principal(
        &self,
        thing: &ThingName,
        id: &CertificateId,
        attachment: Option<Attachment>,
    ) -> Result<(), FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let record: CertificateRecord = t
                .get(&keys::certificate(id))?
                .ok_or_else(|| FleetError::not_found(Kind::Certificate, id))?;
            match t.get::<Binding>(&keys::bound(id))? {
                Some(bound) if bound.thing == *thing => match attachment {
                    Some(attachment) if attachment != bound.attachment => {
                        put_binding(t, thing, attachment, (id, &record.pem))
                    }
                    _ => Ok(()),
                },
                Some(Binding { thing: other, .. }) => Err(FleetError::Invalid(format!(
                    "certificate {id} belongs to thing {other}: every device has a certificate of its own; \
                     detach it there first (DetachThingPrincipal)"
                ))),
                None => {
                    let attachment = attachment.unwrap_or(Attachment::NonExclusive);
                    put_binding(t, thing, attachment, (id, &record.pem))
                }
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
            let bound: Option<Binding> = t.get(&keys::bound(id))?;
            if bound.is_none_or(|bound| bound.thing != *thing) {
                return Err(FleetError::not_found(
                    Kind::Certificate,
                    format!("{id} of thing {thing}"),
                ));
            }
            unbind(t, thing, id)
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
        Ok(self.binding_of(id)?.map(|bound| bound.thing))
    }

    /// The thing a certificate belongs to, and how it is attached to it.
    ///
    /// # Errors
    /// When the store fails.
    pub fn binding_of(&self, id: &CertificateId) -> Result<Option<Binding>, FleetError> {
        self.read(&keys::bound(id))
    }
}

pub(crate) fn require_policy(t: &mut Transaction<'_>, name: &PolicyName) -> Result<(), FleetError> {
    if t.will_exist(&keys::policy(name))? {
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

fn delete_attachment(t: &mut Transaction<'_>, name: &PolicyName, target: &Target) {
    t.delete(format!("{}{name}", keys::attached(target)));
    t.delete(format!("{}{target}", keys::targets(name)));
}

/// Takes a certificate from its thing. Unless it was superseded, the thing remembers that it had one: a claim is not to
/// bring back by itself what an operator took away, whatever has become of the rows that said so.
pub(crate) fn unbind(
    t: &mut Transaction<'_>,
    thing: &ThingName,
    id: &CertificateId,
) -> Result<(), FleetError> {
    t.delete(keys::bound(id));
    t.delete(format!("{}{id}", keys::principals(thing)));
    let record: Option<CertificateRecord> = t.get(&keys::certificate(id))?;
    let superseded = record.as_ref().is_none_or(|record| {
        let revocation = record.revocation.as_ref();
        revocation.is_some_and(|r| r.reason == RevocationReason::Superseded)
    });
    if superseded {
        return Ok(());
    }
    let known: Option<Bereft> = t.current(&keys::bereft(thing))?;
    let barred = record.is_some_and(|record| record.is_barred());
    let bereft = Bereft {
        barred: barred || known.is_some_and(|known| known.barred),
    };
    if known != Some(bereft) {
        t.put(keys::bereft(thing), &bereft)?;
    }
    if !superseded && t.exists(&keys::password(thing))? {
        t.delete(keys::password(thing));
    }
    Ok(())
}

/// That a thing lost a certificate otherwise than by being superseded, and has got none since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bereft {
    /// Whether no template brings it back.
    pub(crate) barred: bool,
}

impl Stored for Bereft {
    const VERSION: u16 = 2;

    /// Once it was not told apart why.
    fn upgrade(_: u16, _: serde_json::Value) -> Result<Self, String> {
        Ok(Self { barred: false })
    }
}

pub(crate) fn put_binding(
    t: &mut Transaction<'_>,
    thing: &ThingName,
    attachment: Attachment,
    (id, pem): (&CertificateId, &str),
) -> Result<(), FleetError> {
    holders::hold(t, thing, id, pem)?;
    let binding = Binding {
        thing: thing.clone(),
        attachment,
    };
    t.put(keys::bound(id), &binding)?;
    t.delete(keys::bereft(thing));
    t.put(format!("{}{id}", keys::principals(thing)), &Present)
}
