//! Certificates that are asked for by a claim and never registered.

use fleet::provisioning::{PENDING_PER_CLAIM_LIMIT_ITEMS, WASTED_PER_PLACE_LIMIT_ITEMS};

use super::*;

#[test]
fn who_asks_and_never_registers_loses_his_own_and_keeps_nobody_out() {
    let house = house(lamp(json!({})));
    let claim = house.claim(None).id;
    let place = |n: u8| Some([10, 0, 0, n].into());
    let ask = |from, second: u64| {
        let at = house.now + Duration::from_secs(second);
        let made = house
            .fleet
            .create_pending_certificate(&claim, from, None, at);
        made.unwrap()
    };
    let honest = ask(place(2), 0);
    let loud: Vec<_> = (1..PENDING_PER_CLAIM_LIMIT_ITEMS as u64)
        .map(|second| ask(place(1), second))
        .collect();
    assert!(loud.iter().all(|made| made.in_place_of.is_none()));
    // There is no room: the loud one makes it, with what it asked for first, for itself and for others.
    for from in [1, 3] {
        let made = ask(place(from), 2_000);
        assert_eq!(made.in_place_of.as_deref(), Some("10.0.0.1"));
    }
    assert_eq!(house.status(&loud[0].issued.id), None);
    assert_eq!(house.status(&loud[1].issued.id), None);
    let waits = Some(CertificateStatus::PendingActivation);
    assert_eq!(house.status(&loud[2].issued.id), waits);
    assert_eq!(house.status(&honest.issued.id), waits);
    for _ in 0..100 {
        ask(place(1), 2_000);
    }
    // Its token is as dead as it, and no list calls the certificate good.
    let rejection = house.register(&claim, &loud[0].token, "1").unwrap_err();
    assert_eq!(rejection.code, "InvalidCertificateOwnershipToken");
    let state = house.fleet.state_of(&loud[0].issued.serial).unwrap();
    assert!(
        matches!(state, ca::CertificateState::Revoked(_)),
        "{state:?}"
    );
    house.register(&claim, &honest.token, "2").unwrap();
    // And the registry holds no more of it than before.
    let (all, after) = (house.fleet.certificates(None, 250).unwrap(), Vec::new());
    let (mut page, mut waiting): (_, Vec<CertificateId>) = (all, after);
    loop {
        let pending = page
            .items
            .iter()
            .filter(|record| Some(record.status) == waits);
        waiting.extend(pending.map(|record| record.id));
        let Some(next) = page.next else { break };
        page = house.fleet.certificates(Some(&next), 250).unwrap();
    }
    assert_eq!(waiting.len(), PENDING_PER_CLAIM_LIMIT_ITEMS - 1);
    let later = house.now + Duration::from_secs(6_000);
    let swept = house.fleet.sweep_pending_certificates(later).unwrap();
    assert_eq!(swept, PENDING_PER_CLAIM_LIMIT_ITEMS - 1);
    // What was asked for in vain stands on lists for a year: so much of it from one place, and no more.
    let ask = |from| {
        let made = house
            .fleet
            .create_pending_certificate(&claim, from, None, later);
        made.map(drop)
    };
    let refused = ask(place(1)).unwrap_err();
    assert!(matches!(refused, FleetError::Limit { .. }), "{refused}");
    ask(place(2)).unwrap();
    let other = house.claim(None).id;
    let made = house
        .fleet
        .create_pending_certificate(&other, place(1), None, later);
    assert!(made.is_ok(), "by another claim it may ask");
    // An address may be that of many: it is not shut for good.
    let an_hour = later + Duration::from_secs(3_600);
    let made = house
        .fleet
        .create_pending_certificate(&claim, place(1), None, an_hour);
    assert!(made.is_ok(), "what was in vain is forgotten again");
}

#[test]
fn a_certificate_with_policies_is_bound_as_a_claim_of_our_own_is() {
    let house = house(lamp(json!({})));
    let device = house
        .fleet
        .create_keys_and_certificate(true, house.now)
        .unwrap()
        .0
        .id;
    let from = Some([10, 0, 0, 1].into());
    let ask = || {
        house
            .fleet
            .create_pending_certificate(&device, from, None, house.now)
    };
    let most = PENDING_PER_CLAIM_LIMIT_ITEMS as u32 + WASTED_PER_PLACE_LIMIT_ITEMS;
    for _ in 0..most {
        ask().unwrap();
    }
    let refused = ask().unwrap_err();
    assert!(matches!(refused, FleetError::Limit { .. }), "{refused}");
}
