//! A whole server in a directory of its own: store, authority, registry and broker on free ports.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use broker::tls::{self, ClientAuth, Protocol};
use broker::{Broker, BrokerParts, Limits, Listeners, Request, ReservedTopics};
use ca::{Authority, AuthorityConfig, CertificateId, ServerIdentity};
use fleet::{DeviceKey, Enrolled, Enrolment, Fleet};
use policy::Realm;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use store::Store;

pub const ACCOUNT: &str = "000000000000";

/// Longer than anything takes; a test that meets it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct House {
    pub fleet: Fleet,
    pub broker: Broker,
    pub mqtt: SocketAddr,
    pub wss: SocketAddr,
    pub requests: mpsc::Receiver<Request>,
    store: Store,
    identity: Arc<ServerIdentity>,
    /// Of the run after the next restart.
    pub limits: Limits,
    dir: Arc<tempfile::TempDir>,
}

pub struct Device {
    pub name: String,
    pub id: CertificateId,
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub crt_file: PathBuf,
    pub key_file: PathBuf,
}

impl Clone for Device {
    fn clone(&self) -> Self {
        Self {
            name: self.name.clone(),
            id: self.id,
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            crt_file: self.crt_file.clone(),
            key_file: self.key_file.clone(),
        }
    }
}

struct Recorder(mpsc::Sender<Request>);

impl ReservedTopics for Recorder {
    fn request(&self, request: Request) {
        // A test that does not look at requests has dropped nothing that matters.
        let _ = self.0.send(request);
    }
}

impl House {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        Self::build(limits, store::journal::Options::default())
    }

    pub fn with_journal(journal: store::journal::Options) -> Self {
        Self::build(Limits::default(), journal)
    }

    fn build(limits: Limits, journal: store::journal::Options) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let now = SystemTime::now();
        let config = AuthorityConfig {
            name: "test".into(),
            public_url: "http://localhost:8880".into(),
        };
        let authority = Authority::open_or_create(&dir.path().join("ca"), config, now).unwrap();
        let names = ["localhost".to_owned()];
        let identity = authority
            .server_identity(&dir.path().join("tls"), &names, now)
            .unwrap();
        std::fs::write(dir.path().join("root.crt"), authority.root_pem()).unwrap();
        Self::open(
            dir,
            Arc::new(authority),
            Arc::new(identity),
            limits,
            journal,
        )
    }

    fn open(
        dir: Arc<tempfile::TempDir>,
        authority: Arc<Authority>,
        identity: Arc<ServerIdentity>,
        limits: Limits,
        options: store::journal::Options,
    ) -> Self {
        let store = Store::open(&dir.path().join("store")).unwrap();
        let realm = Realm::live(ACCOUNT);
        let fleet = Fleet::open(&store, authority, realm, SystemTime::now()).unwrap();
        let (journal, replay) = store.journal_with("broker", options).unwrap();
        let broker = Broker::new(BrokerParts {
            fleet: fleet.clone(),
            journal,
            replay,
            limits: limits.clone(),
            aws: false,
            lost_subscription: broker::LostSubscription::default(),
        })
        .unwrap();
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (mqtt, wss) = (listen(), listen());
        let addresses = (mqtt.local_addr().unwrap(), wss.local_addr().unwrap());
        let certificate =
            tls::ServerCertificate::new(identity.chain(), identity.private_key(), None).unwrap();
        let config = |protocol| {
            let anchors = tls::ClientAnchors::new(&fleet.authority().anchors()).unwrap();
            let client = ClientAuth::Required;
            tls::server_config(&anchors, Some(&fleet), &certificate, client, protocol).unwrap()
        };
        let (sender, requests) = mpsc::channel();
        let listeners = Listeners {
            mqtt,
            mqtt_tls: config(Protocol::Mqtt),
            wss,
            wss_tls: config(Protocol::Http),
        };
        broker.serve(listeners, Arc::new(Recorder(sender))).unwrap();
        Self {
            fleet,
            broker,
            mqtt: addresses.0,
            wss: addresses.1,
            requests,
            store,
            identity,
            limits,
            dir,
        }
    }

    /// Stops and starts again on the same directory.
    pub fn restart(self) -> Self {
        assert!(self.broker.drain(PATIENCE).unwrap());
        let authority = Arc::clone(self.fleet.authority());
        let (dir, identity) = (Arc::clone(&self.dir), Arc::clone(&self.identity));
        let limits = self.limits.clone();
        self.store.stop_watches();
        drop(self);
        Self::open(
            dir,
            authority,
            identity,
            limits,
            store::journal::Options::default(),
        )
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn root_file(&self) -> PathBuf {
        self.path().join("root.crt")
    }

    /// A device with `device-default`.
    pub fn device(&self, name: &str) -> Device {
        self.device_with(name, "device-default")
    }

    /// A device with a policy of its own: each line is `Effect action resource`, the resource
    /// without the head of its ARN.
    pub fn device_may(&self, name: &str, statements: &[&str]) -> Device {
        let policy = format!("only-{name}");
        self.fleet
            .create_policy(
                &policy.parse().unwrap(),
                &document(statements),
                SystemTime::now(),
            )
            .unwrap();
        self.device_with(name, &policy)
    }

    /// Replaces the policy made by [`House::device_may`].
    pub fn device_may_now(&self, name: &str, statements: &[&str]) {
        self.fleet
            .create_policy_version(
                &format!("only-{name}").parse().unwrap(),
                &document(statements),
                true,
                SystemTime::now(),
            )
            .unwrap();
    }

    fn device_with(&self, name: &str, policy: &str) -> Device {
        let enrolled = self
            .fleet
            .enrol(
                &Enrolment {
                    thing: name.parse().unwrap(),
                    policies: vec![policy.parse().unwrap()],
                    groups: Vec::new(),
                    attributes: BTreeMap::new(),
                    key: DeviceKey::Generate,
                },
                SystemTime::now(),
            )
            .unwrap();
        self.device_of(name, enrolled)
    }

    /// A thing's new certificate, which the old one is revoked for.
    pub fn replaced(&self, device: &Device) -> Device {
        let thing = device.name.parse().unwrap();
        let replaced = self
            .fleet
            .replace(&thing, DeviceKey::Generate, SystemTime::now());
        self.device_of(&device.name, replaced.unwrap())
    }

    fn device_of(&self, name: &str, enrolled: Enrolled) -> Device {
        let key = enrolled.key.unwrap();
        let crt_file = self.path().join(format!("{name}.crt"));
        let key_file = self.path().join(format!("{name}.key"));
        std::fs::write(&crt_file, &enrolled.issued.chain_pem).unwrap();
        std::fs::write(&key_file, key.to_pem().as_bytes()).unwrap();
        Device {
            name: name.to_owned(),
            id: enrolled.certificate.id,
            chain: vec![
                enrolled.issued.certificate(),
                self.fleet.authority().issuing_der(),
            ],
            key: key.private_key_der(),
            crt_file,
            key_file,
        }
    }

    pub fn revoke(&self, device: &Device) {
        self.fleet
            .revoke_device(
                &device.name.parse().unwrap(),
                ca::RevocationReason::KeyCompromise,
                SystemTime::now(),
            )
            .unwrap();
    }
}

impl Drop for House {
    fn drop(&mut self) {
        // A test that failed is already saying so.
        let _ = self.broker.drain(Duration::from_secs(5));
    }
}

/// A policy document of `Effect action resource` lines.
fn document(statements: &[&str]) -> String {
    let statements: Vec<String> = statements
        .iter()
        .map(|line| {
            let mut words = line.split(' ');
            let (effect, action, resource) =
                (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            format!(
                r#"{{"Effect":"{effect}","Action":"iot:{action}","Resource":"arn:aws:iot:local:{ACCOUNT}:{resource}"}}"#
            )
        })
        .collect();
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{}]}}"#,
        statements.join(",")
    )
}

/// What lets a device do everything.
pub const EVERYTHING: &[&str] = &[
    "Allow Connect client/*",
    "Allow Publish topic/*",
    "Allow RetainPublish topic/*",
    "Allow Subscribe topicfilter/*",
    "Allow Receive topic/*",
];
