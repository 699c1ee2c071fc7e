//! What the registry tells about its own changes, as AWS IoT does on `$aws/events/…`: off until it is switched on,
//! kind by kind, and sent after the change is durable.

use crate::{
    CertificateRecord, CertificateStatus, Fleet, FleetError, Group, GroupName, Thing, ThingName,
    ThingType, ThingTypeName, keys, registry::Transaction,
};
use aws_lc_rs::rand;
use ca::CertificateId;
use data_encoding::HEXLOWER;
use policy::PolicyName;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::SystemTime};
use store::Stored;

/// A kind of event that can be switched on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "AWS's words")]
pub enum EventType {
    Thing,
    ThingGroup,
    ThingType,
    ThingGroupMembership,
    ThingGroupHierarchy,
    ThingTypeAssociation,
    Job,
    JobExecution,
    Policy,
    Certificate,
    CaCertificate,
}

impl EventType {
    /// Every kind, in AWS's order.
    pub const ALL: [EventType; 11] = [
        EventType::Thing,
        EventType::ThingGroup,
        EventType::ThingType,
        EventType::ThingGroupMembership,
        EventType::ThingGroupHierarchy,
        EventType::ThingTypeAssociation,
        EventType::Job,
        EventType::JobExecution,
        EventType::Policy,
        EventType::Certificate,
        EventType::CaCertificate,
    ];

    /// AWS's word.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Thing => "THING",
            EventType::ThingGroup => "THING_GROUP",
            EventType::ThingType => "THING_TYPE",
            EventType::ThingGroupMembership => "THING_GROUP_MEMBERSHIP",
            EventType::ThingGroupHierarchy => "THING_GROUP_HIERARCHY",
            EventType::ThingTypeAssociation => "THING_TYPE_ASSOCIATION",
            EventType::Job => "JOB",
            EventType::JobExecution => "JOB_EXECUTION",
            EventType::Policy => "POLICY",
            EventType::Certificate => "CERTIFICATE",
            EventType::CaCertificate => "CA_CERTIFICATE",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = EventType::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text);
        found.ok_or_else(|| {
            let words = EventType::ALL.map(EventType::as_str).join(", ");
            format!("{text:?} is no kind of event: {words}")
        })
    }
}

/// Which kinds are switched on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventConfigurations {
    /// What was said of each kind; one that is not named is off.
    pub enabled: BTreeMap<EventType, bool>,
    /// When it was first changed.
    pub created: Option<SystemTime>,
    /// When it was last changed.
    pub modified: Option<SystemTime>,
}

impl Stored for EventConfigurations {}

impl EventConfigurations {
    /// Whether a kind is on.
    pub fn is_on(&self, kind: EventType) -> bool {
        self.enabled.get(&kind).copied().unwrap_or(false)
    }
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Created,
    /// It is another now.
    Updated,
    /// It is gone.
    Deleted,
}

/// One change of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryEvent {
    /// Of a thing, as it is now or was last.
    Thing(Change, Thing),
    /// Of a thing type.
    ThingType(Change, ThingType),
    /// A thing got (`true`) or lost a type.
    Association(bool, Thing, ThingTypeName),
    /// Of a group, with those above it, the topmost first.
    Group(Change, Group, Vec<GroupName>),
    /// A thing came into (`true`) or left a group.
    Membership(bool, GroupName, ThingName, Option<(Thing, Group)>),
    /// A group came (`true`) below another or left it.
    Hierarchy(bool, Group, Group),
    /// Of a policy, with the version that decides.
    Policy(Change, PolicyName, u32),
    /// Of a certificate, with its state.
    Certificate(Change, CertificateId, CertificateStatus),
    /// Of a registered authority, with its state.
    Authority(Change, CertificateId, &'static str),
    /// A certificate of this registered authority came by itself and waits for activation.
    CertificateRegistered(Box<CertificateRecord>, CertificateId),
}

/// Where events go; must not block.
pub type EventSink = Arc<dyn Fn(RegistryEvent) + Send + Sync>;

impl RegistryEvent {
    /// Its kind; `None` for one that is sent whatever is switched on, as with AWS IoT.
    pub fn kind(&self) -> Option<EventType> {
        Some(match self {
            RegistryEvent::Thing(..) => EventType::Thing,
            RegistryEvent::ThingType(..) => EventType::ThingType,
            RegistryEvent::Association(..) => EventType::ThingTypeAssociation,
            RegistryEvent::Group(..) => EventType::ThingGroup,
            RegistryEvent::Membership(..) => EventType::ThingGroupMembership,
            RegistryEvent::Hierarchy(..) => EventType::ThingGroupHierarchy,
            RegistryEvent::Policy(..) => EventType::Policy,
            RegistryEvent::Certificate(..) => EventType::Certificate,
            RegistryEvent::Authority(..) => EventType::CaCertificate,
            RegistryEvent::CertificateRegistered(..) => return None,
        })
    }

    /// The topic and the message.
    pub fn message(&self, account: &str, region: &str, at: SystemTime) -> (String, Value) {
        let arn = |resource: String| format!("arn:aws:iot:{region}:{account}:{resource}");
        let (topic, mut fields) = match self {
            RegistryEvent::Thing(change, thing) => (
                format!("thing/{}/{}", thing.name, change.topic()),
                json!({
                    "eventType": "THING_EVENT",
                    "operation": change.operation(),
                    "accountId": account,
                    "thingId": thing.id(),
                    "thingName": thing.name,
                    "versionNumber": thing.version,
                    "thingTypeName": thing.type_name,
                    "attributes": thing.attributes,
                }),
            ),
            RegistryEvent::ThingType(change, made) => (
                format!("thingType/{}/{}", made.name, change.topic()),
                json!({
                    "eventType": "THING_TYPE_EVENT",
                    "operation": change.operation(),
                    "accountId": account,
                    "thingTypeId": made.id,
                    "thingTypeName": made.name,
                    "isDeprecated": made.deprecated.is_some(),
                    "deprecationDate": made.deprecated.map(millis),
                    "searchableAttributes": made.properties.searchable,
                    "description": made.properties.description,
                }),
            ),
            RegistryEvent::Association(added, thing, type_name) => (
                format!("thingTypeAssociation/thing/{}/{type_name}", thing.name),
                json!({
                    "eventType": "THING_TYPE_ASSOCIATION_EVENT",
                    "operation": if *added { "CREATED" } else { "DELETED" },
                    "accountId": account,
                    "thingId": thing.id(),
                    "thingName": thing.name,
                    "thingTypeName": type_name,
                }),
            ),
            RegistryEvent::Group(change, group, above) => (
                format!("thingGroup/{}/{}", group.name, change.topic()),
                json!({
                    "eventType": "THING_GROUP_EVENT",
                    "operation": change.operation(),
                    "accountId": account,
                    "thingGroupId": group.id,
                    "thingGroupName": group.name,
                    "versionNumber": group.version,
                    "parentGroupName": group.parent,
                    "description": group.description,
                    "rootToParentThingGroups": above.iter().map(|name| json!({
                        "groupName": name,
                        "groupArn": arn(format!("thinggroup/{name}")),
                    })).collect::<Vec<_>>(),
                    "attributes": group.attributes,
                }),
            ),
            RegistryEvent::Membership(added, group, thing, both) => (
                format!(
                    "thingGroupMembership/thingGroup/{group}/thing/{thing}/{}",
                    moved(*added)
                ),
                json!({
                    "eventType": "THING_GROUP_MEMBERSHIP_EVENT",
                    "operation": if *added { "ADDED" } else { "REMOVED" },
                    "accountId": account,
                    "groupArn": arn(format!("thinggroup/{group}")),
                    "groupId": both.as_ref().map(|(_, group)| group.id.clone()),
                    "thingArn": arn(format!("thing/{thing}")),
                    "thingId": both.as_ref().map(|(thing, _)| thing.id()),
                    "membershipId": format!("{group}/{thing}"),
                }),
            ),
            RegistryEvent::Hierarchy(added, parent, child) => (
                format!(
                    "thingGroupHierarchy/thingGroup/{}/childThingGroup/{}/{}",
                    parent.name,
                    child.name,
                    moved(*added)
                ),
                json!({
                    "eventType": "THING_GROUP_HIERARCHY_EVENT",
                    "operation": if *added { "ADDED" } else { "REMOVED" },
                    "accountId": account,
                    "thingGroupId": parent.id,
                    "thingGroupName": parent.name,
                    "childGroupId": child.id,
                    "childGroupName": child.name,
                }),
            ),
            RegistryEvent::Policy(change, name, version) => (
                format!("policy/{name}/{}", change.topic()),
                json!({
                    "eventType": "POLICY_EVENT",
                    "operation": change.operation(),
                    "accountId": account,
                    "policyName": name,
                    "policyArn": arn(format!("policy/{name}")),
                    "defaultVersionId": version.to_string(),
                }),
            ),
            RegistryEvent::Certificate(change, id, status) => (
                format!("certificate/{id}/{}", change.topic()),
                json!({
                    "eventType": "CERTIFICATE_EVENT",
                    "operation": change.operation(),
                    "accountId": account,
                    "certificateId": id.to_string(),
                    "certificateArn": arn(format!("cert/{id}")),
                    "certificateStatus": status.as_str(),
                }),
            ),
            RegistryEvent::Authority(change, id, status) => (
                format!("caCertificate/{id}/{}", change.topic()),
                json!({
                    "eventType": "CA_CERTIFICATE_EVENT",
                    "operation": change.operation(),
                    "accountId": account,
                    "caCertificateId": id.to_string(),
                    "caCertificateArn": arn(format!("cacert/{id}")),
                    "caCertificateStatus": status,
                }),
            ),
            RegistryEvent::CertificateRegistered(record, authority) => {
                return (
                    format!("$aws/events/certificates/registered/{authority}"),
                    json!({
                        "certificateId": record.id.to_string(),
                        "caCertificateId": authority.to_string(),
                        "timestamp": millis(at),
                        "certificateStatus": record.status.as_str(),
                        "awsAccountId": account,
                        "certificateRegistrationTimestamp": millis(record.created),
                    }),
                );
            }
        };
        if let Some(fields) = fields.as_object_mut() {
            fields.insert("timestamp".to_owned(), millis(at).into());
            fields.insert("eventId".to_owned(), event_id().into());
        }
        (format!("$aws/events/{topic}"), fields)
    }
}

impl Change {
    fn topic(self) -> &'static str {
        match self {
            Change::Created => "created",
            Change::Updated => "updated",
            Change::Deleted => "deleted",
        }
    }

    fn operation(self) -> &'static str {
        match self {
            Change::Created => "CREATED",
            Change::Updated => "UPDATED",
            Change::Deleted => "DELETED",
        }
    }
}

fn moved(added: bool) -> &'static str {
    if added { "added" } else { "removed" }
}

fn millis(at: SystemTime) -> u64 {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A name for an event: random; where the system gives no random numbers, it goes without one of its own.
pub fn event_id() -> String {
    let mut bytes = [0; 16];
    match rand::fill(&mut bytes) {
        Ok(()) => crate::records::uuid(&HEXLOWER.encode(&bytes), '4'),
        Err(_) => String::new(),
    }
}

impl Fleet {
    /// Where events go from now on; set once.
    pub fn send_events_to(&self, sink: EventSink) {
        if self.inner.events.sink.set(sink).is_err() {
            tracing::error!("events of the registry have a way to go already");
        }
    }

    /// Who is told of denials from now on; set once.
    pub fn send_denials_to(&self, sink: DenialSink) {
        if self.inner.events.denied.set(sink).is_err() {
            tracing::error!("denials have a way to go already");
        }
    }

    /// Which kinds of event are on.
    ///
    /// # Errors
    /// When the store fails.
    pub fn event_configurations(&self) -> Result<EventConfigurations, FleetError> {
        Ok(self.read(keys::EVENTS)?.unwrap_or_default())
    }

    /// Switches kinds of event on and off.
    ///
    /// # Errors
    /// When the store fails.
    pub fn update_event_configurations(
        &self,
        change: &BTreeMap<EventType, bool>,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        let now = self.transact(|t| {
            let mut known: EventConfigurations = t.get(keys::EVENTS)?.unwrap_or_default();
            known.enabled.extend(change);
            known.created = known.created.or(Some(now));
            known.modified = Some(now);
            t.put(keys::EVENTS.to_owned(), &known)?;
            Ok(known)
        })?;
        self.inner.events.on.store(Arc::new(now));
        Ok(())
    }

    /// Whether a kind of event is on.
    pub fn event_is_on(&self, kind: EventType) -> bool {
        self.inner.events.on.load().is_on(kind)
    }

    /// After a commit: tells what is switched on.
    pub(crate) fn send(&self, events: Vec<RegistryEvent>) {
        let Some(sink) = self.inner.events.sink.get() else {
            return;
        };
        let on = self.inner.events.on.load();
        let wanted = |event: &RegistryEvent| event.kind().is_none_or(|kind| on.is_on(kind));
        for mut event in events.into_iter().filter(wanted) {
            if let RegistryEvent::Membership(true, group, thing, both) = &mut event {
                *both = self.thing(thing).ok().zip(self.group(group).ok());
            }
            sink(event);
        }
    }
}

/// Who wants to know of things that did what their policies do not grant; must not block.
pub type DenialSink = Arc<dyn Fn(&ThingName) + Send + Sync>;

/// What the registry keeps of its events.
#[derive(Default)]
pub(crate) struct Events {
    pub(crate) denied: std::sync::OnceLock<DenialSink>,
    sink: std::sync::OnceLock<EventSink>,
    on: arc_swap::ArcSwap<EventConfigurations>,
}

impl Events {
    pub(crate) fn with(configurations: EventConfigurations) -> Self {
        Events {
            denied: std::sync::OnceLock::new(),
            sink: std::sync::OnceLock::new(),
            on: arc_swap::ArcSwap::from_pointee(configurations),
        }
    }
}

/// A thing leaves a group: both ends of the membership go.
pub(crate) fn leave_group(
    t: &mut Transaction<'_>,
    group: &GroupName,
    thing: &ThingName,
) -> Result<(), FleetError> {
    let key = format!("{}{thing}", keys::members(group));
    if t.exists(&key)? {
        let found: Option<Thing> = t.get(&keys::thing(thing))?;
        let both = found.zip(t.get::<Group>(&keys::group(group))?);
        t.tell(RegistryEvent::Membership(
            false,
            group.clone(),
            thing.clone(),
            both,
        ));
    }
    t.delete(key);
    t.delete(format!("{}{group}", keys::groups_of(thing)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_they_are_stored() {
        for kind in EventType::ALL {
            assert_eq!(kind.as_str().parse::<EventType>().unwrap(), kind);
            let stored = serde_json::to_string(&kind).unwrap();
            assert_eq!(stored, format!("\"{kind}\""));
        }
        assert!("THINGS".parse::<EventType>().is_err());
    }
}
