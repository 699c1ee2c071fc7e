//! Whose decisions a simulation or a suggestion is about.

use ca::CertificateId;
use fleet::{CertificateStatus, Record, Recorded, StandingNow, ThingName};
use policy::Action;
use std::sync::Arc;

use crate::api_error::ApiError;
use crate::page::MAX_PAGE_ITEMS;
use crate::rooms::Rooms;

/// A certificate that may act, with what it was seen to do.
pub(super) struct Seen {
    pub(super) thing: ThingName,
    pub(super) standing: Arc<StandingNow>,
    pub(super) recorded: Vec<Recorded>,
    /// How often it did something whose topic is not kept, because there were too many.
    pub(super) left_out: u64,
    /// The client ids under which it was let in, at any time; the thing's name where none is recorded.
    pub(super) client_ids: Vec<String>,
}

impl Seen {
    /// The client ids under which it may have done this; one that is empty for HTTPS.
    pub(super) fn client_ids_of<'s>(&'s self, one: &'s Recorded) -> impl Iterator<Item = &'s str> {
        let connects = one.action == Action::Connect;
        let named: &[String] = match connects {
            true => std::slice::from_ref(&one.name),
            false => &self.client_ids,
        };
        let https = one.tally.over_https.then_some("");
        named.iter().map(String::as_str).chain(https)
    }
}

/// The things of a group and of those below it, or one, or all.
pub(super) fn things(
    rooms: &Rooms,
    group: Option<&str>,
    device: Option<&ThingName>,
) -> Result<Vec<ThingName>, ApiError> {
    if group.is_some() && device.is_some() {
        return Err(ApiError::invalid("name a group or a device, not both"));
    }
    if let Some(device) = device {
        rooms.fleet.thing(device)?;
        return Ok(vec![device.clone()]);
    }
    let group = group
        .map(|name| {
            name.parse::<fleet::GroupName>()
                .map_err(|error| ApiError::invalid(format!("group: {error}")))
        })
        .transpose()?;
    let (mut things, mut after) = (Vec::new(), None::<String>);
    loop {
        let next = match &group {
            Some(group) => {
                // Policies of a group count for the groups below it too.
                let page = rooms
                    .fleet
                    .members_below(group, after.as_deref(), MAX_PAGE_ITEMS)?;
                things.extend(page.items);
                page.next
            }
            None => {
                let page = rooms.fleet.things(after.as_deref(), MAX_PAGE_ITEMS)?;
                things.extend(page.items.into_iter().map(|thing| thing.name));
                page.next
            }
        };
        after = next;
        if after.is_none() {
            return Ok(things);
        }
    }
}

/// Goes through the certificates of things that may act, with what they were seen to do since
/// `since` (seconds since 1970).
pub(super) fn each_seen(
    rooms: &Rooms,
    things: &[ThingName],
    since: u64,
    mut take: impl FnMut(Seen) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    for thing in things {
        let ids: Vec<CertificateId> = rooms.fleet.principals(thing, None, MAX_PAGE_ITEMS)?.items;
        for id in ids {
            let standing = rooms.fleet.standing(&id)?.now();
            if standing.status != Some(CertificateStatus::Active) {
                continue;
            }
            let Record {
                seen: mut recorded,
                left_out,
            } = rooms.fleet.decisions(&id)?;
            let connected = recorded
                .iter()
                .filter(|one| one.action == Action::Connect && one.tally.allowed);
            let mut client_ids: Vec<String> = connected.map(|one| one.name.clone()).collect();
            if client_ids.is_empty() {
                client_ids.push(thing.to_string());
            }
            recorded.retain(|one| one.tally.last >= since);
            take(Seen {
                thing: thing.clone(),
                standing,
                recorded,
                left_out,
                client_ids,
            })?;
        }
    }
    Ok(())
}

/// The second that lies so many days before now.
pub(super) fn since(days: Option<u32>, now: std::time::SystemTime) -> u64 {
    let now = now.duration_since(std::time::SystemTime::UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    days.map_or(0, |days| now.saturating_sub(u64::from(days) * 24 * 60 * 60))
}
