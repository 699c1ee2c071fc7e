//! Devices that come again: to a thing that has a certificate, had one, or lost it.

use super::*;

#[test]
fn a_claim_cannot_take_a_device_over() {
    let house = house(lamp(json!({})));
    let claim = house.claim(None).id;
    let (first, token) = house.pending(&claim);
    house.register(&claim, &token, "7").unwrap();
    let (id, token) = house.pending(&claim);
    let error = house.register(&claim, &token, "7").unwrap_err();
    assert_eq!(
        (error.status, error.code),
        (409, "ResourceConflict"),
        "{error}"
    );
    assert_eq!(house.status(&first), Some(CertificateStatus::Active));
    assert_eq!(
        house.status(&id),
        Some(CertificateStatus::PendingActivation)
    );
    // Revoked for its own sake it stays out; where the operator says that another is to follow it may come again: the
    // same thing, with its new certificate.
    let unspecified = ca::RevocationReason::Unspecified;
    let superseded = ca::RevocationReason::Superseded;
    house
        .fleet
        .revoke_device(&thing("lamp-7"), unspecified, house.now)
        .unwrap();
    let error = house.register(&claim, &token, "7").unwrap_err();
    assert_eq!(error.code, "ResourceConflict", "{error}");
    house
        .fleet
        .decommission(&thing("lamp-7"), house.now)
        .unwrap();
    house.register(&claim, &token, "7").unwrap();
    let (id, token) = house.pending(&claim);
    house
        .fleet
        .revoke_device(&thing("lamp-7"), superseded, house.now)
        .unwrap();
    house.register(&claim, &token, "7").unwrap();
    assert_eq!(house.things(), 1);
    // A device's own certificate is no claim, whatever its policy says.
    let (_, token) = house.pending(&id);
    assert_eq!(
        house.register(&id, &token, "8").unwrap_err().code,
        "AccessDenied"
    );
}

#[test]
fn a_template_says_what_a_device_that_comes_again_does_to_its_thing() {
    let settings =
        json!({"OverrideSettings": {"AttributePayload": "MERGE", "ThingGroups": "DO_NOTHING"}});
    let again = house(lamp(settings));
    let claim = again.claim(None).id;
    let (first, token) = again.pending(&claim);
    again.register(&claim, &token, "7").unwrap();
    let (second, token) = again.pending(&claim);
    let done = again.register(&claim, &token, "7").unwrap();
    assert_eq!(done.revoked, [first]);
    assert_eq!(again.status(&first), Some(CertificateStatus::Revoked));
    assert_eq!(again.status(&second), Some(CertificateStatus::Active));
    assert_eq!(again.things(), 1);
    let failing = house(lamp(
        json!({"OverrideSettings": {"AttributePayload": "FAIL"}}),
    ));
    let claim = failing.claim(None).id;
    let (_, token) = failing.pending(&claim);
    failing.register(&claim, &token, "7").unwrap();
    let (_, token) = failing.pending(&claim);
    assert_eq!(
        failing.register(&claim, &token, "7").unwrap_err().code,
        "ResourceConflict"
    );
}

#[test]
fn what_was_taken_from_a_thing_does_not_come_back_by_itself() {
    use CertificateStatus::{Inactive, Revoked};
    let compromised = ca::RevocationReason::KeyCompromise;
    for (case, how) in ["revoked and deleted", "inactive and deleted", "detached"]
        .into_iter()
        .enumerate()
    {
        let house = house(lamp(json!({})));
        let claim = house.claim(None).id;
        let (id, token) = house.pending(&claim);
        house.register(&claim, &token, "7").unwrap();
        let (fleet, lamp) = (&house.fleet, thing("lamp-7"));
        let set = |status| fleet.set_certificate_status(&id, status, compromised, house.now);
        match case {
            0 => {
                set(Revoked).unwrap();
                fleet.delete_certificate(&id, true, house.now).unwrap();
            }
            1 => {
                set(Inactive).unwrap();
                fleet.delete_certificate(&id, true, house.now).unwrap();
            }
            _ => fleet.detach_principal(&lamp, &id).unwrap(),
        }
        let again = || {
            let (_, token) = house.pending(&claim);
            house.register(&claim, &token, "7")
        };
        assert_eq!(again().unwrap_err().code, "ResourceConflict", "{how}");
        // What the operator gives it and supersedes then may be followed by what a claim brings.
        let given = fleet
            .replace(&lamp, fleet::DeviceKey::Generate, house.now)
            .unwrap();
        let superseded = ca::RevocationReason::Superseded;
        let id = given.certificate.id;
        fleet
            .set_certificate_status(&id, Revoked, superseded, house.now)
            .unwrap();
        fleet.delete_certificate(&id, true, house.now).unwrap();
        let back = again();
        // Of a certificate that still hangs on the thing nothing was taken back.
        assert!(back.is_ok(), "{how}: {}", back.unwrap_err());
        fleet.decommission(&lamp, house.now).unwrap();
        again().unwrap();
    }
}

#[test]
fn what_was_deactivated_or_compromised_no_template_brings_back() {
    use CertificateStatus::{Active, Inactive, Revoked};
    let again =
        json!({"OverrideSettings": {"AttributePayload": "REPLACE", "ThingGroups": "REPLACE"}});
    let compromised = ca::RevocationReason::KeyCompromise;
    let unspecified = ca::RevocationReason::Unspecified;
    for (status, reason, deleted, comes) in [
        (Inactive, unspecified, false, false),
        (Inactive, unspecified, true, false),
        (Revoked, compromised, false, false),
        (Revoked, compromised, true, false),
        (Revoked, unspecified, false, true),
        (Revoked, unspecified, true, true),
    ] {
        let case = format!("{status} {reason} deleted: {deleted}");
        let house = house(lamp(again.clone()));
        let claim = house.claim(None).id;
        let (id, token) = house.pending(&claim);
        house.register(&claim, &token, "7").unwrap();
        let fleet = &house.fleet;
        fleet
            .set_certificate_status(&id, status, reason, house.now)
            .unwrap();
        if deleted {
            fleet.delete_certificate(&id, true, house.now).unwrap();
        }
        let (_, token) = house.pending(&claim);
        let back = house.register(&claim, &token, "7");
        assert_eq!(back.is_ok(), comes, "{case}: {back:?}");
        if comes {
            continue;
        }
        assert_eq!(back.unwrap_err().code, "ResourceConflict", "{case}");
        if status == Inactive && !deleted {
            fleet
                .set_certificate_status(&id, Active, unspecified, house.now)
                .unwrap();
        } else {
            let generate = fleet::DeviceKey::Generate;
            fleet
                .replace(&thing("lamp-7"), generate, house.now)
                .unwrap();
        }
        house.register(&claim, &token, "7").unwrap();
    }
}
