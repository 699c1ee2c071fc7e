//! Deletions of templates that are cut short.

use super::*;
use serde::{Deserialize, Serialize};
use store::{Expect, StoreError, Stored, Write};

/// A row whose key says it all.
#[derive(Serialize, Deserialize)]
struct Present;
impl Stored for Present {}

/// Once the fleet that had it has let go of it.
fn store(directory: &std::path::Path) -> Store {
    loop {
        match Store::open(&directory.join("store")) {
            Err(StoreError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn a_deletion_that_was_cut_short_is_gone_on_with_and_nobody_takes_the_name_before() {
    let house = house(lamp(json!({})));
    let (claim, name) = (house.claim(None), house.template());
    let House {
        _directory: directory,
        fleet,
        now,
    } = house;
    let authority = Arc::clone(fleet.authority());
    drop(fleet);
    {
        // As it lies where the power went between the template and its claims.
        let store = store(directory.path());
        let cut = [
            Write::delete("template/lamps", Expect::Any),
            Write::put("deleting/template/lamps", &Present, Expect::Any).unwrap(),
        ];
        store.table("registry").unwrap().batch(&cut).unwrap();
    }
    let store = store(directory.path());
    let realm = Realm::live("000000000000");
    let fleet = Fleet::open(&store, authority, realm, now).unwrap();
    let make = || {
        let kind = TemplateKind::FleetProvisioning;
        let change = TemplateChange::default();
        fleet.create_provisioning_template(&name, kind, &body(lamp(json!({}))), &change, now)
    };
    let said = make().unwrap_err().to_string();
    assert!(said.contains("being deleted"), "{said}");
    let status = || fleet.certificate(&claim.id).unwrap().status;
    assert_eq!(status(), CertificateStatus::Active);
    assert_eq!(fleet.finish_template_deletions(now).unwrap(), 1);
    assert_eq!(status(), CertificateStatus::Revoked);
    assert_eq!(fleet.finish_template_deletions(now).unwrap(), 0);
    make().unwrap();
}
