//! The ways in which a policy, or what one asks about, takes the right to be connected.

use super::{Device, OWN};
use anyhow::bail;
use fleet::{Fleet, GroupChange, GroupName, NamedNetwork, Quarantine, Target, ThingChange};
use policy::PolicyName;
use std::time::{Duration, SystemTime};

pub(super) const WAYS: [&str; 7] = [
    "policy document",
    "default version",
    "detachment from the group above",
    "attribute",
    "posture",
    "network",
    "clock",
];
/// A place that is in no policy's way: the same as [`OWN`] without the right to be connected.
const NOTHING: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"iot:Publish","Resource":"*"}]}"#;
/// How far ahead a clock's turn is set.
const AHEAD: Duration = Duration::from_secs(2);

fn when(condition: &str) -> String {
    let connect = r#""Resource":"arn:aws:iot:*:*:client/${iot:Connection.Thing.ThingName}""#;
    OWN.replacen(
        connect,
        &format!(r#"{connect},"Condition":{{{condition}}}"#),
        1,
    )
}

fn network(way: &str, range: &str) -> NamedNetwork {
    NamedNetwork {
        name: way.to_owned(),
        ranges: vec![range.to_owned()],
    }
}

fn site(fleet: &Fleet, device: &Device, site: &str) -> anyhow::Result<()> {
    let change = ThingChange {
        attributes: Some([("site".to_owned(), site.to_owned())].into()),
        ..ThingChange::default()
    };
    fleet.update_thing(&device.thing, &change, None)?;
    Ok(())
}

/// What lets the devices of a group be connected until [`change`]: a policy named as the group.
pub(super) fn prepare(
    fleet: &Fleet,
    way: &str,
    group: &GroupName,
    hit: &[Device],
) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let name: PolicyName = group.as_str().parse()?;
    let document = match way {
        "attribute" => OWN.replacen(
            "client/${iot:Connection.Thing.ThingName}",
            "client/${iot:Connection.Thing.Attributes[site]}",
            1,
        ),
        "posture" => when(r#""Bool":{"muster:Quarantined":"false"}"#),
        "network" => {
            fleet.set_network(&network(way, "127.0.0.0/8"))?;
            when(r#""ForAnyValue:StringEquals":{"muster:SourceNetwork":"network"}"#)
        }
        _ => OWN.to_owned(),
    };
    if way == "attribute" {
        for device in hit {
            site(fleet, device, device.thing.as_str())?;
        }
    }
    fleet.create_policy(&name, &document, now)?;
    if way == "default version" {
        fleet.create_policy_version(&name, NOTHING, false, now)?;
    }
    let target = if way == "detachment from the group above" {
        above(group)?
    } else {
        group.clone()
    };
    Ok(fleet.attach_policy(&name, &Target::Group(target))?)
}

/// The group above that of the devices.
pub(super) fn above(group: &GroupName) -> anyhow::Result<GroupName> {
    Ok(format!("above-{group}").parse()?)
}

/// Makes the group above, where the way has one.
pub(super) fn make_above(
    fleet: &Fleet,
    way: &str,
    group: &GroupName,
) -> anyhow::Result<Option<GroupName>> {
    if way != "detachment from the group above" {
        return Ok(None);
    }
    let above = above(group)?;
    let (change, id) = (GroupChange::default(), above.to_string());
    fleet.create_group(&above, None, &change, id, SystemTime::now())?;
    Ok(Some(above))
}

/// Sets when the clock turns for all of them; nobody loses anything by that yet.
pub(super) fn wind(fleet: &Fleet, group: &GroupName) -> anyhow::Result<SystemTime> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + AHEAD;
    let second = since.as_secs();
    let document = when(&format!(
        r#""NumericLessThan":{{"aws:EpochTime":"{second}"}}"#
    ));
    fleet.update_policy(&group.as_str().parse()?, &document, SystemTime::now())?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(second))
}

/// Takes the right to be connected from all of them.
pub(super) fn change(
    fleet: &Fleet,
    way: &str,
    hit: &[Device],
    group: &GroupName,
) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let name: PolicyName = group.as_str().parse()?;
    match way {
        "policy document" => fleet.update_policy(&name, NOTHING, now).map(drop)?,
        "default version" => fleet.set_default_version(&name, 2)?,
        "detachment from the group above" => {
            fleet.detach_policy(&name, &Target::Group(above(group)?))?;
        }
        "attribute" => hit
            .iter()
            .try_for_each(|device| site(fleet, device, "elsewhere"))?,
        "posture" => {
            for device in hit {
                fleet.set_health(&device.thing, |health| {
                    health.quarantine = Some(Quarantine {
                        since: now,
                        reason: None,
                    });
                })?;
            }
        }
        "network" => fleet.set_network(&network(way, "10.0.0.0/8"))?,
        _ => bail!("{way} is no way"),
    }
    Ok(())
}
