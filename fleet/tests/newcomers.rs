//! Just in time: who comes by a template whose hook says nothing, and whoever comes again and again, holds up nobody else.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_docs_in_private_items
)]

use ca::{Authority, AuthorityConfig, CertificateId};
use fleet::{
    CertificateStatus, Fleet, ThingName,
    authorities::{AuthorityMode, NewAuthority, NewcomerDesk, Registration},
    provisioning::{Hook, HookCaller, TemplateChange, TemplateKind, TemplateName},
};
use policy::Realm;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant, SystemTime},
};
use store::Store;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const PATIENCE: Duration = Duration::from_secs(60);
/// What is at a lane's hook at a time.
const AT_THE_HOOK: usize = 4;
/// More than wait in one lane, fewer than wait at the desk.
const AGAIN_AND_AGAIN: usize = 2_000;

struct House {
    _directory: tempfile::TempDir,
    fleet: Fleet,
    now: SystemTime,
}

type Factory = CertifiedIssuer<'static, KeyPair>;

fn house() -> House {
    let (directory, now) = (tempfile::tempdir().unwrap(), SystemTime::now());
    let config = AuthorityConfig {
        name: "test".into(),
        public_url: "http://localhost:8880".into(),
    };
    let authority = Authority::open_or_create(&directory.path().join("ca"), config, now).unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let realm = Realm::live("000000000000");
    let fleet = Fleet::open(&store, Arc::new(authority), realm, now).unwrap();
    House {
        _directory: directory,
        fleet,
        now,
    }
}

impl House {
    fn params(&self, name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let (from, to) = (self.now - DAY, self.now + 200 * DAY);
        (params.not_before, params.not_after) = (from.into(), to.into());
        params
    }

    /// An authority whose devices come by a template of this name with a hook of its own, or without one wait to be activated.
    fn factory(&self, name: &str, template: Option<&str>) -> Factory {
        let mut params = self.params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let factory = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let registration = template.map(|template| {
            let name: TemplateName = template.parse().unwrap();
            let body = json!({
                "Parameters": {"AWS::IoT::Certificate::CommonName": {"Type": "String"},
                               "AWS::IoT::Certificate::Id": {"Type": "String"}},
                "Resources": {
                    "thing": {"Type": "AWS::IoT::Thing", "Properties": {
                        "ThingName": {"Ref": "AWS::IoT::Certificate::CommonName"}}},
                    "certificate": {"Type": "AWS::IoT::Certificate", "Properties": {
                        "CertificateId": {"Ref": "AWS::IoT::Certificate::Id"}, "Status": "ACTIVE"}},
                },
            });
            let hook = format!("https://hook.example/{template}");
            let change = TemplateChange {
                enabled: Some(true),
                hook: Some(Some(Hook::parse(&hook, None).unwrap())),
                ..TemplateChange::default()
            };
            self.fleet
                .create_provisioning_template(
                    &name,
                    TemplateKind::Jitp,
                    &body.to_string(),
                    &change,
                    self.now,
                )
                .unwrap();
            Registration {
                template_body: None,
                template_name: Some(name),
                role_arn: None,
            }
        });
        let new = NewAuthority {
            certificate: &factory.pem(),
            verification: None,
            mode: AuthorityMode::SniOnly,
            active: true,
            auto_registration: true,
            registration,
        };
        self.fleet.register_authority(&new, self.now).unwrap();
        factory
    }

    fn device(&self, name: &str, by: &Factory) -> Vec<u8> {
        let mut params = self.params(name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let leaf = params.signed_by(&KeyPair::generate().unwrap(), by).unwrap();
        leaf.der().to_vec()
    }

    fn status(&self, leaf: &[u8]) -> Option<CertificateStatus> {
        let found = self.fleet.certificate(&CertificateId::of(leaf));
        found.ok().map(|record| record.status)
    }

    /// Waits until this certificate is known, and says how it stands.
    fn known(&self, leaf: &[u8]) -> CertificateStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.status(leaf) {
                return status;
            }
            assert!(Instant::now() < deadline, "nobody looked after it");
            std::thread::yield_now();
        }
    }
}

/// Lets everybody in at once, but at the template `silent`, where nothing is said until it is let go.
struct Hooks {
    asked: Mutex<Sender<()>>,
    release: Mutex<Receiver<()>>,
}

impl HookCaller for Hooks {
    fn call(&self, url: &str, _: Option<&str>, _: &Value, _: Duration) -> Result<Value, String> {
        if url.ends_with("/silent") {
            self.asked.lock().unwrap().send(()).unwrap();
            let _ = self.release.lock().unwrap().recv();
            return Err("nothing was said".into());
        }
        Ok(json!({"allowProvisioning": true}))
    }
}

#[test]
fn a_silent_hook_and_who_comes_again_and_again_hold_up_no_other_newcomer() {
    let house = house();
    let silent = house.factory("silent factory", Some("silent"));
    let quick = house.factory("quick factory", Some("quick"));
    let by_hand = house.factory("factory without a template", None);
    let ((asked, asks), (release, released)) = (channel(), channel());
    let hooks = Arc::new(Hooks {
        asked: Mutex::new(asked),
        release: Mutex::new(released),
    });
    let desk = NewcomerDesk::start(house.fleet.clone(), hooks, "local".into()).unwrap();
    let held = house.device("held", &silent);
    for _ in 0..AGAIN_AND_AGAIN {
        desk.take(&held);
    }
    for _ in 0..AT_THE_HOOK {
        asks.recv_timeout(PATIENCE).unwrap();
    }
    // The hook says nothing, its lane is full, and those of other authorities come in.
    let (served, waiting) = (house.device("served", &quick), house.device("x", &by_hand));
    desk.take(&waiting);
    desk.take(&served);
    assert_eq!(house.known(&served), CertificateStatus::Active);
    assert_eq!(house.known(&waiting), CertificateStatus::PendingActivation);
    let name: ThingName = "served".parse().unwrap();
    assert_eq!(house.fleet.thing(&name).unwrap().name, name);
    assert_eq!(asks.try_iter().count(), 0, "no more than four at a time");
    assert_eq!(house.status(&held), None);
    drop(release);
}
