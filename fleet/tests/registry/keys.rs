//! A key is one device's alone, by whichever of its certificates, and nobody's once it was in other hands.

use ca::{KeyPair, RevocationReason};
use fleet::{
    Attachment, CertificateStatus, DeviceKey, Enrolment, FleetError,
    mass::{Measure, Selection},
    provisioning::{ClaimLimits, NewClaim, TemplateChange, TemplateKind, TemplateName},
};
use std::time::{Duration, SystemTime};

use crate::house::*;

const UNSPECIFIED: RevocationReason = RevocationReason::Unspecified;

fn csr() -> String {
    KeyPair::generate().unwrap().request("").unwrap()
}

fn enrol(house: &House, name: &str, csr: &str) -> Result<fleet::Enrolled, FleetError> {
    let enrolment = Enrolment {
        key: DeviceKey::Csr(csr.as_bytes()),
        ..enrolment(name)
    };
    house.fleet.enrol(&enrolment, SystemTime::now())
}

fn is_refused(done: Result<fleet::Enrolled, FleetError>) -> bool {
    match done {
        Err(FleetError::Key(_)) => true,
        Err(other) => panic!("{other}"),
        Ok(_) => false,
    }
}

#[test]
fn an_older_certificate_over_a_key_keeps_it_from_others_too() {
    let house = house();
    let (now, key) = (SystemTime::now(), csr());
    let first = enrol(&house, "a", &key).unwrap().certificate.id;
    let renew = |id| {
        house
            .fleet
            .renew(id, DeviceKey::Csr(key.as_bytes()), now)
            .unwrap()
    };
    // The newer is revoked and deleted, or taken off: the older one is A's still.
    let second = renew(&first).certificate.id;
    let revoked = CertificateStatus::Revoked;
    house
        .fleet
        .set_certificate_status(&second, revoked, UNSPECIFIED, now)
        .unwrap();
    house.fleet.delete_certificate(&second, true, now).unwrap();
    assert!(is_refused(enrol(&house, "b", &key)));
    let third = renew(&first).certificate.id;
    house.fleet.detach_principal(&thing("a"), &third).unwrap();
    assert!(is_refused(enrol(&house, "b", &key)));
    // A itself may go on with it, and who is nobody's any more leaves it.
    renew(&first);
    house.fleet.decommission(&thing("a"), now).unwrap();
    house
        .fleet
        .set_certificate_status(&third, revoked, UNSPECIFIED, now)
        .unwrap();
    enrol(&house, "b", &key).unwrap();
}

#[test]
fn a_compromised_key_is_nobodys_by_whichever_certificate() {
    let house = house();
    let now = SystemTime::now();
    let compromise = |id| {
        let (revoked, reason) = (CertificateStatus::Revoked, RevocationReason::KeyCompromise);
        house
            .fleet
            .set_certificate_status(id, revoked, reason, now)
            .unwrap();
    };
    let status = |id| house.fleet.certificate(id).unwrap().status;
    // Of two over one key the older.
    let key = csr();
    let made = || {
        house
            .fleet
            .create_certificate_from_csr(key.as_bytes(), true, now)
            .unwrap()
            .0
            .id
    };
    let (first, second) = (made(), made());
    house
        .fleet
        .create_thing(&thing("c"), Default::default(), None, now)
        .unwrap();
    for id in [&first, &second] {
        house
            .fleet
            .attach_principal(&thing("c"), id, Some(Attachment::Exclusive))
            .unwrap();
    }
    compromise(&first);
    assert_eq!(status(&second), CertificateStatus::Revoked);
    let replaced = house
        .fleet
        .replace(&thing("c"), DeviceKey::Csr(key.as_bytes()), now);
    assert!(is_refused(replaced));
    // One that was no thing's.
    let key = csr();
    let (record, _) = house
        .fleet
        .create_certificate_from_csr(key.as_bytes(), true, now)
        .unwrap();
    compromise(&record.id);
    assert!(is_refused(enrol(&house, "u", &key)));
    // One that was revoked for another reason before, when that is found out.
    let key = csr();
    let (old, _) = house
        .fleet
        .create_certificate_from_csr(key.as_bytes(), true, now)
        .unwrap();
    let (revoked, superseded) = (CertificateStatus::Revoked, RevocationReason::Superseded);
    house
        .fleet
        .set_certificate_status(&old.id, revoked, superseded, now)
        .unwrap();
    compromise(&old.id);
    assert!(is_refused(enrol(&house, "u", &key)));
    let found = house.fleet.certificate(&old.id).unwrap().revocation;
    assert_eq!(found.unwrap().reason, RevocationReason::KeyCompromise);
    let listed = house.fleet.revoked(now).unwrap();
    let listed = listed.iter().find(|one| one.serial == old.serial);
    assert_eq!(listed.unwrap().reason, RevocationReason::KeyCompromise);
    // And after its row has gone, over a restart.
    house
        .fleet
        .delete_certificate(&record.id, true, now)
        .unwrap();
    let House { directory, fleet } = house;
    drop(fleet);
    let fleet = open(&directory);
    let house = House { directory, fleet };
    assert!(is_refused(enrol(&house, "u", &key)));
}

#[test]
fn a_claim_has_no_key_that_a_certificate_is_over() {
    let house = house();
    let (now, key) = (SystemTime::now(), csr());
    let template: TemplateName = "t".parse().unwrap();
    let body = r#"{"Parameters":{"S":{"Type":"String"}},"Resources":{"thing":{"Type":"AWS::IoT::Thing","Properties":{"ThingName":{"Ref":"S"}}},"certificate":{"Type":"AWS::IoT::Certificate","Properties":{"CertificateId":{"Ref":"AWS::IoT::Certificate::Id"}}}}}"#;
    let kind = TemplateKind::FleetProvisioning;
    house
        .fleet
        .create_provisioning_template(&template, kind, body, &TemplateChange::default(), now)
        .unwrap();
    let claim = || {
        let new = NewClaim {
            template: &template,
            limits: ClaimLimits {
                uses: None,
                rate_per_minute: None,
                sources: Vec::new(),
            },
            lifetime: Duration::from_secs(3_600),
            csr: Some(key.as_bytes()),
        };
        house.fleet.create_claim(&new, now)
    };
    // Two claims may share one.
    claim().unwrap();
    claim().unwrap();
    let key = csr();
    let (record, _) = house
        .fleet
        .create_certificate_from_csr(key.as_bytes(), true, now)
        .unwrap();
    let new = NewClaim {
        template: &template,
        limits: ClaimLimits {
            uses: None,
            rate_per_minute: None,
            sources: Vec::new(),
        },
        lifetime: Duration::from_secs(3_600),
        csr: Some(key.as_bytes()),
    };
    assert!(matches!(
        house.fleet.create_claim(&new, now),
        Err(FleetError::Key(_))
    ));
    assert!(!house.fleet.is_claim(&record.id).unwrap());
}

/// Who is taken out does not come back with a password that was made before, whatever there was left to change.
#[test]
fn a_password_goes_with_whoever_is_taken_out() {
    let house = house();
    let now = SystemTime::now();
    let group = house.group("hall");
    for name in ["a", "b", "c", "d"] {
        house.enrol(name);
        house.fleet.add_to_group(&group, &thing(name)).unwrap();
    }
    let password = |name: &str| {
        let terms = fleet::PasswordTerms {
            thing: thing(name),
            policies: Vec::new(),
            groups: Vec::new(),
            attributes: Default::default(),
            life: Duration::from_secs(3_600),
        };
        house.fleet.make_enrolment_password(&terms, now).unwrap()
    };
    let is_good = |name: &str, password: &str| {
        house
            .fleet
            .check_enrolment_password(&thing(name), password, now)
            .is_ok()
    };
    let of = |name: &str| house.fleet.principals(&thing(name), None, 1).unwrap().items[0];
    let change = |selection: &Selection, measure| {
        house
            .fleet
            .change_certificates(selection, measure, false, None, now)
            .unwrap()
    };
    // Out already, and taken out again.
    let selection = Selection::Thing(thing("a"));
    assert_eq!(change(&selection, Measure::Deactivate).changed.len(), 1);
    let given = password("a");
    assert_eq!(change(&selection, Measure::Deactivate).untouched, 1);
    assert!(!is_good("a", &given));
    // By its group, with nothing left to revoke, or with nothing at all.
    house
        .fleet
        .revoke_device(&thing("b"), UNSPECIFIED, now)
        .unwrap();
    house.fleet.detach_principal(&thing("c"), &of("c")).unwrap();
    let given = ["b", "c"].map(|name| (name, password(name)));
    change(
        &Selection::Group(group.clone()),
        Measure::Revoke(UNSPECIFIED),
    );
    for (name, given) in &given {
        assert!(!is_good(name, given), "{name}");
    }
    // With its certificate taken off.
    let given = password("d");
    house.fleet.detach_principal(&thing("d"), &of("d")).unwrap();
    assert!(!is_good("d", &given));
    // A dry run takes nothing.
    let given = password("a");
    house
        .fleet
        .change_certificates(&selection, Measure::Deactivate, true, None, now)
        .unwrap();
    assert!(is_good("a", &given));
}
