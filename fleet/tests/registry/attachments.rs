//! How a certificate is attached to its thing, and what its policies make of that.

use crate::house::{House, house, named, thing};
use ca::CertificateId;
use fleet::{Attachment, DeviceKey, Target};
use policy::{Action, Decision};
use std::{collections::BTreeMap, time::SystemTime};

fn document(effect: &str, action: &str, resource: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"{effect}","Action":"iot:{action}",
        "Resource":"arn:aws:iot:local:000000000000:{resource}"}}]}}"#
    )
}

/// A thing with the pattern that AWS calls compliant on its certificate, and a group that allows one topic and denies
/// another. The certificate is not attached yet.
fn lamp(house: &House) -> CertificateId {
    let (fleet, now) = (&house.fleet, SystemTime::now());
    let (certificate, ..) = fleet.create_keys_and_certificate(true, now).unwrap();
    let id = certificate.id;
    fleet
        .create_thing(&thing("lamp-1"), BTreeMap::new(), None, now)
        .unwrap();
    let attached = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Action":"iot:Connect","Resource":"arn:aws:iot:local:000000000000:client/${iot:ClientId}",
         "Condition":{"Bool":{"iot:Connection.Thing.IsAttached":"true"}}},
        {"Effect":"Allow","Action":"iot:Publish","Resource":"arn:aws:iot:local:000000000000:topic/*"}]}"#;
    for (name, document) in [
        ("attached", attached.to_owned()),
        ("opens", document("Allow", "Receive", "topic/site")),
        ("closes", document("Deny", "Publish", "topic/barred")),
    ] {
        fleet.create_policy(&named(name), &document, now).unwrap();
    }
    fleet
        .attach_policy(&named("attached"), &Target::Certificate(id))
        .unwrap();
    let group = house.group("site");
    for name in ["opens", "closes"] {
        fleet
            .attach_policy(&named(name), &Target::Group(group.clone()))
            .unwrap();
    }
    fleet.add_to_group(&group, &thing("lamp-1")).unwrap();
    id
}

fn says(house: &House, id: &CertificateId, client: &str) -> (Decision, Decision, Decision) {
    let decide = |action, on| house.decide(id, client, action, on);
    (
        decide(Action::Connect, client),
        decide(Action::Receive, "site"),
        decide(Action::Publish, "barred"),
    )
}

use Decision::{Allow, ExplicitDeny, ImplicitDeny};

#[test]
fn a_thing_that_is_not_exclusive_counts_under_its_own_name_only() {
    let house = house();
    let id = lamp(&house);
    house
        .fleet
        .attach_principal(&thing("lamp-1"), &id, None)
        .unwrap();
    let bound = house.fleet.binding_of(&id).unwrap().unwrap();
    assert_eq!(bound.attachment, Attachment::NonExclusive);
    assert_eq!(says(&house, &id, "lamp-1"), (Allow, Allow, ExplicitDeny));
    // A group's Deny is not escaped by calling oneself otherwise; nor is there a name at all over HTTPS.
    for other in ["lamp-2", "Lamp-1", ""] {
        let said = says(&house, &id, other);
        assert_eq!(said, (ImplicitDeny, ImplicitDeny, ExplicitDeny), "{other}");
    }
    // Whose it is does not depend on the name.
    let now = house.fleet.standing(&id).unwrap().now();
    assert_eq!(now.thing, Some(thing("lamp-1")));
    assert_eq!(now.groups.len(), 1);
}

#[test]
fn an_exclusive_thing_counts_under_every_name_and_both_ways_are_felt_at_once() {
    let house = house();
    let id = lamp(&house);
    let attach = |attachment| {
        let done = house
            .fleet
            .attach_principal(&thing("lamp-1"), &id, attachment);
        done.unwrap();
    };
    attach(Some(Attachment::Exclusive));
    let standing = house.fleet.standing(&id).unwrap();
    assert_eq!(says(&house, &id, "other"), (Allow, Allow, ExplicitDeny));
    let before = standing.generation();
    // Attached already: nothing is changed that nobody asked for.
    attach(None);
    assert_eq!(standing.generation(), before);
    attach(Some(Attachment::NonExclusive));
    assert!(standing.generation() > before);
    let (connect, ..) = says(&house, &id, "other");
    assert_eq!(connect, ImplicitDeny);
    // What is on the certificate as well as on the group counts by the certificate.
    house
        .fleet
        .attach_policy(&named("opens"), &Target::Certificate(id))
        .unwrap();
    assert_eq!(
        says(&house, &id, "other"),
        (ImplicitDeny, Allow, ExplicitDeny)
    );
}

#[test]
fn a_certificate_that_comes_after_another_is_attached_as_that_was() {
    let house = house();
    let (id, now) = (lamp(&house), SystemTime::now());
    house
        .fleet
        .attach_principal(&thing("lamp-1"), &id, None)
        .unwrap();
    let renewed = house.fleet.renew(&id, DeviceKey::Generate, now).unwrap();
    let renewed = renewed.certificate.id;
    assert_eq!(
        says(&house, &renewed, "other"),
        (ImplicitDeny, ImplicitDeny, ExplicitDeny)
    );
    assert_eq!(
        says(&house, &renewed, "lamp-1"),
        (Allow, Allow, ExplicitDeny)
    );
    let replaced = house
        .fleet
        .replace(&thing("lamp-1"), DeviceKey::Generate, now)
        .unwrap();
    let replaced = replaced.certificate.id;
    assert_eq!(says(&house, &replaced, "other").0, ImplicitDeny);
    // Our own ways make exclusive ones, and keep them so.
    let own = house.enrol("lamp-2").certificate.id;
    let own = house.fleet.renew(&own, DeviceKey::Generate, now).unwrap();
    let own = house
        .fleet
        .binding_of(&own.certificate.id)
        .unwrap()
        .unwrap();
    assert_eq!(own.attachment, Attachment::Exclusive);
}

#[test]
fn an_attachment_ends_as_it_began() {
    let house = house();
    let id = lamp(&house);
    for attachment in [Attachment::NonExclusive, Attachment::Exclusive] {
        house
            .fleet
            .attach_principal(&thing("lamp-1"), &id, Some(attachment))
            .unwrap();
        house.fleet.detach_principal(&thing("lamp-1"), &id).unwrap();
        assert_eq!(house.fleet.binding_of(&id).unwrap(), None);
        let said = says(&house, &id, "lamp-1");
        assert_eq!(said, (ImplicitDeny, ImplicitDeny, Allow));
    }
}
