//! What a connect asks the rows of one principal, as one value: read from its rows, or from a pack that was made of them.

use super::profile::names;
use super::reading::{certificate_values, thing_facts};
use crate::{
    Attachment, Binding, CertificateRecord, CertificateStatus, GroupName, Health, Origin, Target,
    Thing, ThingName, keys,
};
use ca::CertificateId;
use policy::{CertificateValues, Field, Holder, PolicyName, ThingFacts};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::SystemTime};
use store::{StoreError, Stored, Table};

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Card {
    pub(super) status: CertificateStatus,
    pub(super) origin: Origin,
    /// The registered authority that must be active.
    pub(super) authority: Option<CertificateId>,
    pub(super) not_before: SystemTime,
    pub(super) not_after: SystemTime,
    pub(super) certificate: Arc<CertificateValues>,
    pub(super) thing: Option<ThingName>,
    /// Whether the thing counts only under its own name as client id.
    pub(super) by_name: bool,
    pub(super) facts: Option<Arc<ThingFacts>>,
    pub(super) health: Health,
    /// Policies of the certificate itself.
    pub(super) attached: Vec<PolicyName>,
    /// The groups the thing is in, without those above them.
    pub(super) groups: Vec<GroupName>,
}

impl Card {
    /// From the rows; `certificate` is what is known of the certificate itself: its id is a digest of it, so what was read
    /// once stays true.
    pub(super) fn read(
        table: &Table,
        id: &CertificateId,
        certificate: Option<Arc<CertificateValues>>,
    ) -> Result<Option<Card>, StoreError> {
        let row = table.get_as::<CertificateRecord>(&keys::certificate(id))?;
        let Some(record) = row.map(|row| row.value) else {
            return Ok(None);
        };
        let certificate = match certificate {
            Some(known) => known,
            None => Arc::new(certificate_values(id, &record)?),
        };
        let bound = table.get_as::<Binding>(&keys::bound(id))?;
        let bound = bound.map(|row| row.value);
        let by_name = matches!(&bound, Some(bound) if bound.attachment == Attachment::NonExclusive);
        let thing = bound.map(|bound| bound.thing);
        let (facts, health, groups) = match &thing {
            Some(name) => (
                facts(table, name)?,
                health(table, name)?,
                names(table, &keys::groups_of(name))?,
            ),
            None => (None, Health::default(), Vec::new()),
        };
        Ok(Some(Card {
            status: record.status,
            origin: record.origin,
            authority: record.vouching_authority(),
            not_before: record.not_before,
            not_after: record.not_after,
            certificate,
            facts,
            health,
            attached: names(table, &keys::attached(&Target::Certificate(*id)))?,
            groups,
            thing,
            by_name,
        }))
    }
}

pub(super) fn facts(
    table: &Table,
    thing: &ThingName,
) -> Result<Option<Arc<ThingFacts>>, StoreError> {
    let row = table.get_as::<Thing>(&keys::thing(thing))?;
    Ok(row.map(|row| Arc::new(thing_facts(row.value))))
}

pub(super) fn health(table: &Table, thing: &ThingName) -> Result<Health, StoreError> {
    let row = table.get_as::<Health>(&keys::posture(thing))?;
    Ok(row.map(|row| row.value).unwrap_or_default())
}

/// A card as a pack has it. Whoever changes what a card is made of, or what it means, raises its version: what was packed
/// before is not read any more then, and made anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PackedCard {
    status: CertificateStatus,
    origin: Origin,
    authority: Option<CertificateId>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial_number: Option<Box<str>>,
    /// Whether it is the issuer's, the field's name, the value.
    fields: Vec<(bool, Box<str>, Box<str>)>,
    /// First and last second of the certificate's life.
    life: (Option<i64>, Option<i64>),
    key_kind: Option<Box<str>>,
    enrolled_by: Option<Box<str>>,
    thing: ThingName,
    by_name: bool,
    type_name: Option<Box<str>>,
    attributes: Vec<(Box<str>, Box<str>)>,
    #[serde(default, skip_serializing_if = "is_default")]
    health: Health,
    attached: Vec<PolicyName>,
    groups: Vec<GroupName>,
}

impl Stored for PackedCard {}

fn is_default(health: &Health) -> bool {
    *health == Health::default()
}

impl PackedCard {
    /// `None` for what belongs to no thing that is there, and for what would not be read as the same again.
    pub(super) fn of(id: &CertificateId, card: &Card) -> Option<PackedCard> {
        let values = &card.certificate;
        let text = |value: &Option<Arc<str>>| value.as_deref().map(Box::from);
        let fields = values.fields.iter().map(|(holder, field, value)| {
            let of_issuer = *holder == Holder::Issuer;
            (of_issuer, field.name().into(), (&**value).into())
        });
        let facts = card.facts.as_ref()?;
        let attributes = facts.attributes.iter();
        let attributes = attributes.map(|(name, value)| (name.clone(), (&**value).into()));
        let packed = PackedCard {
            status: card.status,
            origin: card.origin,
            authority: card.authority,
            not_before: card.not_before,
            not_after: card.not_after,
            serial_number: text(&values.serial_number),
            fields: fields.collect(),
            life: (values.not_before, values.not_after),
            key_kind: text(&values.key_kind),
            enrolled_by: text(&values.enrolled_by),
            thing: card.thing.clone()?,
            by_name: card.by_name,
            type_name: text(&facts.type_name),
            attributes: attributes.collect(),
            health: card.health.clone(),
            attached: card.attached.clone(),
            groups: card.groups.clone(),
        };
        (packed.clone().into_card(id).as_ref() == Some(card)).then_some(packed)
    }

    /// `None` where a field has a name that no release wrote.
    pub(super) fn into_card(self, id: &CertificateId) -> Option<Card> {
        let text = |value: Option<Box<str>>| value.map(Arc::from);
        let fields = self.fields.into_iter().map(|(of_issuer, field, value)| {
            let holder = if of_issuer {
                Holder::Issuer
            } else {
                Holder::Subject
            };
            Some((holder, Field::named(&field)?, value.into()))
        });
        let certificate = CertificateValues {
            id: Some(id.to_string().into()),
            serial_number: text(self.serial_number),
            fields: fields.collect::<Option<_>>()?,
            not_before: self.life.0,
            not_after: self.life.1,
            key_kind: text(self.key_kind),
            enrolled_by: text(self.enrolled_by),
        };
        let attributes = self.attributes.into_iter();
        let facts = ThingFacts {
            name: self.thing.as_str().into(),
            type_name: text(self.type_name),
            attributes: attributes
                .map(|(name, value)| (name, value.into()))
                .collect(),
        };
        Some(Card {
            status: self.status,
            origin: self.origin,
            authority: self.authority,
            not_before: self.not_before,
            not_after: self.not_after,
            certificate: Arc::new(certificate),
            thing: Some(self.thing),
            by_name: self.by_name,
            facts: Some(Arc::new(facts)),
            health: self.health,
            attached: self.attached,
            groups: self.groups,
        })
    }
}
