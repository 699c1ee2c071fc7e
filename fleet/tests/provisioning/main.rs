//! Fleet provisioning through the registry's public face: who may claim, what becomes of it, and that it is all or
//! nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod again;
mod cut;
mod desk;
mod in_vain;

use ca::{Authority, AuthorityConfig, CertificateId, KeyPair};
use fleet::{
    CertificateStatus, Fleet, FleetError, GroupChange, GroupName, Target, ThingName,
    provisioning::{
        Claim, ClaimLimits, Hook, HookCaller, NewClaim, ProvisioningAnswer, ProvisioningDesk,
        ProvisioningRequest, Registered, Rejection, TOKEN_LIFETIME, TemplateChange, TemplateKind,
        TemplateName, ThingRegistration,
    },
};
use policy::{Action, Decision, Grant, Realm};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::{Duration, SystemTime},
};
use store::Store;

struct House {
    _directory: tempfile::TempDir,
    fleet: Fleet,
    now: SystemTime,
}

/// A hook that answers what it was told to, and remembers what it was asked.
struct Says(Result<Value, String>, Mutex<Option<Value>>);

impl Says {
    fn new(answer: Result<Value, String>) -> Self {
        Says(answer, Mutex::new(None))
    }
}

impl HookCaller for Says {
    fn call(&self, _: &str, _: Option<&str>, body: &Value, _: Duration) -> Result<Value, String> {
        *self.1.lock().unwrap() = Some(body.clone());
        self.0.clone()
    }
}

fn body(thing: Value) -> String {
    json!({
        "Parameters": {"SerialNumber": {"Type": "String"}},
        "Resources": {
            "thing": thing,
            "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
                "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "Active"}},
            "policy": {"Type": "AWS::IoT::Policy", "Properties": {"PolicyName": "device-default"}},
        },
        "DeviceConfiguration": {"site": {"Fn::Sub": "site of ${SerialNumber}"}},
    })
    .to_string()
}

fn lamp(more: Value) -> Value {
    let mut thing = json!({"Type": "AWS::IoT::Thing", "Properties": {
        "ThingName": {"Fn::Join": ["-", ["lamp", {"Ref": "SerialNumber"}]]},
        "AttributePayload": {"serial": {"Ref": "SerialNumber"}}, "ThingGroups": ["lamps"]}});
    for (key, value) in more.as_object().unwrap() {
        thing[key] = value.clone();
    }
    thing
}

fn house(thing: Value) -> House {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let now = SystemTime::now();
    let authority = Authority::open_or_create(&directory.path().join("ca"), config, now).unwrap();
    let fleet = Fleet::open(
        &store,
        Arc::new(authority),
        Realm::live("000000000000"),
        now,
    )
    .unwrap();
    let lamps: GroupName = "lamps".parse().unwrap();
    fleet
        .create_group(&lamps, None, &GroupChange::default(), "id".into(), now)
        .unwrap();
    let house = House {
        _directory: directory,
        fleet,
        now,
    };
    let enabled = TemplateChange {
        enabled: Some(true),
        ..TemplateChange::default()
    };
    let kind = TemplateKind::FleetProvisioning;
    house
        .fleet
        .create_provisioning_template(&house.template(), kind, &body(thing), &enabled, now)
        .unwrap();
    house
}

impl House {
    fn template(&self) -> TemplateName {
        "lamps".parse().unwrap()
    }

    fn claim(&self, uses: Option<u32>) -> Claim {
        let limits = ClaimLimits {
            uses,
            rate_per_minute: None,
            sources: Vec::new(),
        };
        self.claim_with(limits).unwrap()
    }

    fn claim_with(&self, limits: ClaimLimits) -> Result<Claim, FleetError> {
        let template = self.template();
        let new = NewClaim {
            template: &template,
            limits,
            lifetime: Duration::from_secs(3_600),
            csr: None,
        };
        Ok(self.fleet.create_claim(&new, self.now)?.0)
    }

    fn pending(&self, claim: &CertificateId) -> (CertificateId, String) {
        let made = self
            .fleet
            .create_pending_certificate(claim, None, None, self.now)
            .unwrap();
        (made.issued.id, made.token)
    }

    fn register(
        &self,
        claim: &CertificateId,
        token: &str,
        serial: &str,
    ) -> Result<Registered, Rejection> {
        self.register_at(
            claim,
            token,
            serial,
            &Says::new(Err("nobody asks".into())),
            self.now,
        )
    }

    fn register_at(
        &self,
        claim: &CertificateId,
        token: &str,
        serial: &str,
        hook: &dyn HookCaller,
        now: SystemTime,
    ) -> Result<Registered, Rejection> {
        let template = self.template();
        let asked = ThingRegistration {
            template: &template,
            token,
            parameters: [("SerialNumber".to_owned(), serial.to_owned())].into(),
            claim: *claim,
            client_id: "someone",
            region: "local",
        };
        self.fleet.register_thing(&asked, hook, now)
    }

    fn status(&self, id: &CertificateId) -> Option<CertificateStatus> {
        self.fleet.certificate(id).ok().map(|record| record.status)
    }

    fn things(&self) -> usize {
        self.fleet.things(None, 250).unwrap().items.len()
    }
}

fn thing(name: &str) -> ThingName {
    name.parse().unwrap()
}

#[test]
fn a_claim_makes_a_whole_device_once() {
    let house = house(lamp(json!({})));
    let claim = house.claim(Some(2)).id;
    let (id, token) = house.pending(&claim);
    assert_eq!(
        house.status(&id),
        Some(CertificateStatus::PendingActivation)
    );
    let done = house.register(&claim, &token, "7").unwrap();
    assert_eq!((done.thing.as_str(), done.certificate), ("lamp-7", id));
    assert_eq!(done.configuration["site"], "site of 7");
    assert_eq!(house.status(&id), Some(CertificateStatus::Active));
    let standing = house.fleet.standing(&id).unwrap().now();
    assert_eq!(standing.certificate.enrolled_by.as_deref(), Some("claim"));
    let known = house.fleet.thing(&thing("lamp-7")).unwrap();
    assert_eq!(known.attributes["serial"], "7");
    assert_eq!(house.fleet.thing_of(&id).unwrap(), Some(thing("lamp-7")));
    assert_eq!(
        house.fleet.groups_of(&thing("lamp-7")).unwrap()[0].as_str(),
        "lamps"
    );
    let policies = house
        .fleet
        .attached_policies(&Target::Certificate(id))
        .unwrap();
    assert_eq!(policies[0].to_string(), "device-default");
    assert_eq!(house.fleet.claim(&claim).unwrap().1, 1);
    // The token is spent, for itself and for another serial number.
    for serial in ["7", "8"] {
        let error = house.register(&claim, &token, serial).unwrap_err();
        assert_eq!(error.code, "InvalidCertificateOwnershipToken");
    }
    assert_eq!(house.things(), 1);
}

#[test]
fn a_token_is_good_for_its_claim_and_for_an_hour() {
    let house = house(lamp(json!({})));
    let (claim, other) = (house.claim(None).id, house.claim(None).id);
    let (id, token) = house.pending(&claim);
    for (who, token, later) in [
        (&other, token.as_str(), Duration::ZERO),
        (&claim, "no-such-token", Duration::ZERO),
        (&claim, "", Duration::ZERO),
        (&claim, token.as_str(), TOKEN_LIFETIME),
    ] {
        let hook = Says::new(Err(String::new()));
        let error = house
            .register_at(who, token, "7", &hook, house.now + later)
            .unwrap_err();
        assert_eq!(error.code, "InvalidCertificateOwnershipToken");
    }
    assert_eq!(
        (house.things(), house.status(&id)),
        (0, Some(CertificateStatus::PendingActivation))
    );
    let last = house.now + TOKEN_LIFETIME - Duration::from_secs(1);
    house
        .register_at(&claim, &token, "7", &Says::new(Err(String::new())), last)
        .unwrap();
}

#[test]
fn what_nobody_claims_is_deleted_and_what_was_claimed_stays() {
    let house = house(lamp(json!({})));
    let claim = house.claim(None).id;
    let (claimed, token) = house.pending(&claim);
    house.register(&claim, &token, "7").unwrap();
    let (forgotten, _) = house.pending(&claim);
    let (by_hand, _) = house.pending(&claim);
    let unspecified = ca::RevocationReason::Unspecified;
    house
        .fleet
        .set_certificate_status(&by_hand, CertificateStatus::Active, unspecified, house.now)
        .unwrap();
    let soon = house.now + TOKEN_LIFETIME - Duration::from_secs(2);
    assert_eq!(house.fleet.sweep_pending_certificates(soon).unwrap(), 0);
    let late = house.now + TOKEN_LIFETIME + Duration::from_secs(2);
    assert_eq!(house.fleet.sweep_pending_certificates(late).unwrap(), 2);
    assert_eq!(house.status(&forgotten), None);
    // Whoever asked for it has it still: everybody is told that it is worth nothing.
    assert_eq!(house.fleet.revoked(late).unwrap().len(), 1);
    assert_eq!(house.status(&claimed), Some(CertificateStatus::Active));
    assert_eq!(house.status(&by_hand), Some(CertificateStatus::Active));
    assert_eq!(house.fleet.sweep_pending_certificates(late).unwrap(), 0);
}

#[test]
fn the_key_that_a_fleet_was_born_with_is_no_devices() {
    let house = house(lamp(json!({})));
    let (key, template) = (KeyPair::generate().unwrap(), house.template());
    let csr = key.request("batch").unwrap();
    let claim_over = |csr: &str| {
        let new = NewClaim {
            template: &template,
            limits: ClaimLimits {
                uses: None,
                rate_per_minute: None,
                sources: Vec::new(),
            },
            lifetime: Duration::from_secs(3_600),
            csr: Some(csr.as_bytes()),
        };
        house.fleet.create_claim(&new, house.now)
    };
    let other = house.claim(None).id;
    // Asked for when it was nobody's yet, and not registered before it is a claim's.
    let asked = |csr: &str| {
        let fleet = &house.fleet;
        fleet.create_pending_certificate(&other, None, Some(csr.as_bytes()), house.now)
    };
    let early = asked(&csr).unwrap();
    let claim = claim_over(&csr).unwrap().0.id;
    let refused = house.register(&other, &early.token, "7").unwrap_err();
    assert!(refused.message.contains("claim certificate"), "{refused}");
    for refused in [
        asked(&csr).map(drop),
        (house.fleet)
            .create_certificate_from_csr(csr.as_bytes(), true, house.now)
            .map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, FleetError::Key(_)), "{refused}");
    }
    assert_eq!(house.things(), 0);
    // The next batch may be born with it, and it stays what it was when the claim is gone.
    claim_over(&csr).unwrap();
    let (revoked, reason) = (CertificateStatus::Revoked, ca::RevocationReason::Superseded);
    house
        .fleet
        .set_certificate_status(&claim, revoked, reason, house.now)
        .unwrap();
    house
        .fleet
        .delete_certificate(&claim, true, house.now)
        .unwrap();
    assert!(matches!(asked(&csr), Err(FleetError::Key(_))));

    let own = KeyPair::generate().unwrap().request("own").unwrap();
    let made = asked(&own).unwrap();
    house.register(&other, &made.token, "8").unwrap();
    let refused = claim_over(&own).map(drop).unwrap_err();
    assert!(matches!(refused, FleetError::Key(_)), "{refused}");
}

#[test]
fn a_claim_ends_with_its_uses_its_time_its_template_and_its_revocation() {
    let house = house(lamp(json!({})));
    let claim = house.claim(Some(1)).id;
    let (_, first) = house.pending(&claim);
    let (id, second) = house.pending(&claim);
    house.register(&claim, &first, "1").unwrap();
    let error = house.register(&claim, &second, "2").unwrap_err();
    assert_eq!(error.code, "AccessDenied", "{error}");
    assert_eq!(
        house.status(&id),
        Some(CertificateStatus::PendingActivation)
    );

    let revoked = house.claim(None).id;
    let (_, token) = house.pending(&revoked);
    let compromised = ca::RevocationReason::KeyCompromise;
    house
        .fleet
        .set_certificate_status(&revoked, CertificateStatus::Revoked, compromised, house.now)
        .unwrap();
    assert_eq!(
        house.register(&revoked, &token, "3").unwrap_err().code,
        "AccessDenied"
    );

    let claim = house.claim(None);
    let now = house.fleet.standing(&claim.id).unwrap().now();
    assert!(now.is_active(house.now) && !now.is_active(claim.expires + Duration::from_secs(1)));
    let ended = claim.expires + Duration::from_secs(2);
    assert_eq!(house.fleet.sweep_claims(ended).unwrap(), 3);
    assert_eq!(house.status(&claim.id), None);
    assert!(house.fleet.claim(&claim.id).is_err());
    assert!(
        house.fleet.revoked(house.now).unwrap().len() == 1,
        "what was revoked stays on the list"
    );

    let off = TemplateChange {
        enabled: Some(false),
        ..TemplateChange::default()
    };
    let claim = house.claim(None).id;
    let (_, token) = house.pending(&claim);
    house
        .fleet
        .update_provisioning_template(&house.template(), &off, house.now)
        .unwrap();
    assert_eq!(
        house.register(&claim, &token, "4").unwrap_err().code,
        "AccessDenied"
    );
    assert_eq!(house.things(), 1);
}

#[test]
fn a_claim_may_enrol_and_nothing_else() {
    let house = house(lamp(json!({})));
    let sources = ClaimLimits {
        uses: None,
        rate_per_minute: None,
        sources: vec!["10.0.0.0/8".into()],
    };
    let claim = house.claim_with(sources.clone()).unwrap();
    let standing = house.fleet.standing(&claim.id).unwrap().now();
    let decide = |action, on: &str, from: &str| {
        let context = policy::Context {
            source_ip: Some(from.parse().unwrap()),
            ..standing.context("anything", house.now)
        };
        let grant = Grant::new(
            Arc::clone(house.fleet.realm()),
            Arc::clone(&standing.policies),
            context,
        );
        grant.decide(action, on) == Decision::Allow
    };
    for (action, on) in [
        (Action::Connect, "anything"),
        (Action::Publish, "$aws/certificates/create/json"),
        (Action::Publish, "$aws/certificates/create-from-csr/cbor"),
        (Action::Subscribe, "$aws/certificates/create/json/accepted"),
        (
            Action::Receive,
            "$aws/provisioning-templates/lamps/provision/json/rejected",
        ),
        (
            Action::Publish,
            "$aws/provisioning-templates/lamps/provision/json",
        ),
    ] {
        assert!(decide(action, on, "10.1.2.3"), "{action} {on}");
        assert!(
            !decide(action, on, "192.0.2.1"),
            "{action} {on} from elsewhere"
        );
    }
    for (action, on) in [
        (
            Action::Publish,
            "$aws/provisioning-templates/others/provision/json",
        ),
        (Action::Subscribe, "#"),
        (Action::Subscribe, "$aws/#"),
        (Action::Publish, "dt/lamp-1/x"),
        (Action::Receive, "$aws/things/lamp-1/jobs/notify"),
    ] {
        assert!(!decide(action, on, "10.1.2.3"), "{action} {on}");
    }
    for bad in ["10.0.0.0/40", "everywhere", ""] {
        let limits = ClaimLimits {
            sources: vec![bad.into()],
            ..sources.clone()
        };
        assert!(house.claim_with(limits).is_err(), "{bad}");
    }
}

#[test]
fn a_hook_must_say_yes_and_may_say_more() {
    let house = house(lamp(json!({})));
    let hooked = TemplateChange {
        hook: Some(Some(Hook::parse("https://hook.example/x", None).unwrap())),
        ..TemplateChange::default()
    };
    house
        .fleet
        .update_provisioning_template(&house.template(), &hooked, house.now)
        .unwrap();
    let claim = house.claim(None).id;
    let (id, token) = house.pending(&claim);
    for no in [
        Err("timed out".to_owned()),
        Ok(json!({"allowProvisioning": false})),
        Ok(json!({"allow": true})),
        Ok(json!("yes")),
    ] {
        let error = house
            .register_at(&claim, &token, "7", &Says::new(no), house.now)
            .unwrap_err();
        assert_eq!((error.status, error.code), (403, "AccessDenied"));
    }
    let yes = Says::new(Ok(
        json!({"allowProvisioning": true, "parameterOverrides": {"SerialNumber": "8"}}),
    ));
    let done = house
        .register_at(&claim, &token, "7", &yes, house.now)
        .unwrap();
    assert_eq!(done.thing.as_str(), "lamp-8");
    let asked = yes.1.lock().unwrap().clone().unwrap();
    assert_eq!(asked["claimCertificateId"], claim.to_string());
    assert_eq!(asked["certificateId"], id.to_string());
    assert_eq!(asked["parameters"], json!({"SerialNumber": "7"}));
    assert_eq!(
        asked["templateArn"],
        "arn:aws:iot:local:000000000000:provisioningtemplate/lamps"
    );
}

#[test]
fn an_allow_list_lets_in_what_stands_on_it() {
    let house = house(lamp(json!({})));
    let listed = TemplateChange {
        hook: Some(Some(Hook::parse("allow-list:SerialNumber", None).unwrap())),
        ..TemplateChange::default()
    };
    let template = house.template();
    house
        .fleet
        .update_provisioning_template(&template, &listed, house.now)
        .unwrap();
    house
        .fleet
        .change_allow_list(&template, &["7".into(), "8".into()], &[])
        .unwrap();
    house
        .fleet
        .change_allow_list(&template, &[], &["8".into()])
        .unwrap();
    let claim = house.claim(None).id;
    for serial in ["8", "9", "", "7/", "../7"] {
        let (_, token) = house.pending(&claim);
        let error = house.register(&claim, &token, serial).unwrap_err();
        assert_eq!(error.code, "AccessDenied", "{serial:?}");
    }
    let (_, token) = house.pending(&claim);
    house.register(&claim, &token, "7").unwrap();
    for bad in ["", "a/b", "a\n", &"x".repeat(257)] {
        assert!(
            house
                .fleet
                .change_allow_list(&template, &[bad.into()], &[])
                .is_err(),
            "{bad:?}"
        );
    }
    let wrong = TemplateChange {
        hook: Some(Some(Hook::parse("allow-list:Serial", None).unwrap())),
        ..TemplateChange::default()
    };
    let error = house
        .fleet
        .update_provisioning_template(&template, &wrong, house.now);
    assert!(error.unwrap_err().to_string().contains("does not declare"));
    // A template of the same name later starts with an empty list.
    house
        .fleet
        .delete_provisioning_template(&template, house.now)
        .unwrap();
    let kind = TemplateKind::FleetProvisioning;
    house
        .fleet
        .create_provisioning_template(&template, kind, &body(lamp(json!({}))), &listed, house.now)
        .unwrap();
    assert!(
        house
            .fleet
            .allow_list(&template, None, 10)
            .unwrap()
            .items
            .is_empty()
    );
}

#[test]
fn claims_go_with_their_template_and_the_next_of_that_name_does_not_revive_them() {
    let house = house(lamp(json!({})));
    let (claim, template) = (house.claim(None), house.template());
    let (_, token) = house.pending(&claim.id);
    house
        .fleet
        .delete_provisioning_template(&template, house.now)
        .unwrap();
    let status = house.fleet.certificate(&claim.id).unwrap().status;
    assert_eq!(status, CertificateStatus::Revoked);
    let kind = TemplateKind::FleetProvisioning;
    let on = TemplateChange {
        enabled: Some(true),
        ..TemplateChange::default()
    };
    house
        .fleet
        .create_provisioning_template(&template, kind, &body(lamp(json!({}))), &on, house.now)
        .unwrap();
    assert!(house.register(&claim.id, &token, "7").is_err());
}

#[test]
fn a_refusal_in_the_middle_leaves_nothing_behind() {
    for (what, words) in [
        (
            json!({"Properties": {"ThingName": "a", "ThingGroups": ["nowhere"]}}),
            "group nowhere",
        ),
        (json!({"Properties": {"ThingName": "a/b"}}), "thing name"),
        (
            json!({"Properties": {"ThingName": "a", "ThingTypeName": "nothing"}}),
            "thing type nothing",
        ),
        (
            json!({"Properties": {"ThingName": "a", "AttributePayload": {"x y": "1"}}}),
            "attribute name",
        ),
    ] {
        let house = house(lamp(what));
        let claim = house.claim(None).id;
        let (id, token) = house.pending(&claim);
        let error = house.register(&claim, &token, "7").unwrap_err();
        assert!(error.message.contains(words), "{error}");
        assert_eq!(house.things(), 0);
        assert_eq!(
            house.status(&id),
            Some(CertificateStatus::PendingActivation)
        );
        assert_eq!(
            house.fleet.claim(&claim).unwrap().1,
            0,
            "a refusal is no use"
        );
        assert_eq!(house.fleet.thing_of(&id).unwrap(), None);
    }
}

#[test]
fn two_that_come_at_once_for_one_thing_make_one_device() {
    let house = house(lamp(
        json!({"OverrideSettings": {"AttributePayload": "REPLACE"}}),
    ));
    let claim = house.claim(None).id;
    let tokens: Vec<(CertificateId, String)> = (0..6).map(|_| house.pending(&claim)).collect();
    std::thread::scope(|scope| {
        for (_, token) in &tokens {
            scope.spawn(|| house.register(&claim, token, "7").unwrap());
        }
    });
    let active = tokens
        .iter()
        .filter(|(id, _)| house.status(id) == Some(CertificateStatus::Active));
    assert_eq!((house.things(), active.count()), (1, 1));
    assert_eq!(house.fleet.claim(&claim).unwrap().1, 6);
}

/// A hook that takes its time, in which an operator switches the template off.
struct SwitchesOff<'h>(&'h House);

impl HookCaller for SwitchesOff<'_> {
    fn call(&self, _: &str, _: Option<&str>, _: &Value, _: Duration) -> Result<Value, String> {
        let off = TemplateChange {
            enabled: Some(false),
            ..TemplateChange::default()
        };
        let House { fleet, now, .. } = self.0;
        fleet
            .update_provisioning_template(&self.0.template(), &off, *now)
            .unwrap();
        Ok(json!({"allowProvisioning": true}))
    }
}

#[test]
fn a_template_that_is_switched_off_while_its_hook_is_asked_makes_no_device() {
    let house = house(lamp(json!({})));
    let hooked = TemplateChange {
        hook: Some(Some(Hook::parse("https://hook.example/x", None).unwrap())),
        ..TemplateChange::default()
    };
    house
        .fleet
        .update_provisioning_template(&house.template(), &hooked, house.now)
        .unwrap();
    let claim = house.claim(None).id;
    let (id, token) = house.pending(&claim);
    let refused = house.register_at(&claim, &token, "7", &SwitchesOff(&house), house.now);
    assert_eq!(refused.unwrap_err().code, "ResourceConflict");
    assert_eq!(house.things(), 0);
    let status = house.status(&id);
    assert_eq!(status, Some(CertificateStatus::PendingActivation));
}
