//! A whole HTTPS face on free ports of this machine, and clients of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use broker::tls::{ClientAnchors, ClientAuth, Protocol, ServerCertificate, server_config};
use broker::{Broker, BrokerParts, Limits};
use ca::{Authority, AuthorityConfig};
use control::{Control, ControlError, ControlParts, Endpoint, Endpoints, Operators, Role};
use fleet::provisioning::RegistrationDesk;
use fleet::{AttestationTerms, Fleet, RevocationFaces};
use ota::server::Ota;
use policy::Realm;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::Value;
use shadow::Shadows;
use tempfile::TempDir;

pub(crate) const ACCOUNT: &str = "000000000000";

pub(crate) struct House {
    pub(crate) dir: TempDir,
    pub(crate) fleet: Fleet,
    pub(crate) ota: Ota,
    pub(crate) authority: Arc<Authority>,
    pub(crate) operators: Operators,
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) control: Option<Control>,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) error: String,
    pub(crate) body: Value,
    pub(crate) head: String,
    pub(crate) bytes: Vec<u8>,
}

/// Who asks.
#[derive(Clone)]
pub(crate) enum Who {
    Nobody,
    Key(Credentials),
    Certificate { chain_pem: String, key_pem: String },
}

impl House {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let (https, http) = (listen(), listen());
        let (https_at, http_at) = (https.local_addr().unwrap(), http.local_addr().unwrap());
        let config = AuthorityConfig {
            name: "Tests".into(),
            public_url: format!("http://localhost:{}", http_at.port()),
        };
        let authority = Authority::open_or_create(&dir.path().join("ca"), config, now).unwrap();
        let authority = Arc::new(authority);
        let store = store::Store::open(dir.path()).unwrap();
        let realm = Realm::live(ACCOUNT);
        let fleet = Fleet::open(&store, authority.clone(), realm, now).unwrap();
        let (journal, replay) = store.journal("broker").unwrap();
        let broker = Broker::new(BrokerParts {
            fleet: fleet.clone(),
            journal,
            replay,
            limits: Limits::default(),
            aws: false,
            lost_subscription: broker::LostSubscription::default(),
        })
        .unwrap();
        let messages = Arc::new(|_message| {});
        let ota = Ota::open(&store, fleet.clone(), messages, dir.path()).unwrap();
        let messages = Arc::new(|_message| {});
        let shadows = Shadows::open(&store, fleet.clone(), messages).unwrap();
        let at = |port| Endpoint {
            host: "localhost".into(),
            port,
        };
        let endpoints = Endpoints {
            mqtt: at(8883),
            wss: at(8884),
            https: at(https_at.port()),
        };
        let address = format!("https://{}", endpoints.https);
        let operators = Operators::open_or_create(dir.path(), &authority, address, now).unwrap();
        let control = Control::serve(ControlParts {
            descriptors: Control::descriptors_wanted(),
            registration: RegistrationDesk::open(fleet.clone(), dir.path().join("registration"))
                .unwrap(),
            fleet: fleet.clone(),
            ota: ota.clone(),
            shadows,
            broker,
            revocation: RevocationFaces::open(&fleet).unwrap(),
            authority: authority.clone(),
            operators: operators.clone(),
            endpoints,
            account: ACCOUNT.into(),
            expired_grace: Duration::ZERO,
            attestation: AttestationTerms::default(),
            region: "local".into(),
            https,
            http,
            tls: tls(&authority, &dir),
        })
        .unwrap();
        Self {
            dir,
            fleet,
            ota,
            authority,
            operators,
            https: https_at,
            http: http_at,
            control: Some(control),
        }
    }

    /// The admin by its access key.
    pub(crate) fn admin(&self) -> Who {
        let path = self.dir.path().join("operators/admin.credentials");
        Who::Key(credentials(&std::fs::read_to_string(path).unwrap()))
    }

    /// The admin by its certificate.
    pub(crate) fn admin_certificate(&self) -> Who {
        let read = |name| std::fs::read_to_string(self.dir.path().join(name)).unwrap();
        Who::Certificate {
            chain_pem: read("operators/admin.crt"),
            key_pem: read("operators/admin.key"),
        }
    }

    /// A new operator by its access key.
    pub(crate) fn operator(&self, name: &str, role: Role) -> Who {
        let name = name.parse().unwrap();
        let now = SystemTime::now();
        let made = self.operators.add(&name, role, &self.authority, now, |_| {
            Ok::<(), ControlError>(())
        });
        Who::Key(credentials(&made.unwrap().credentials))
    }

    /// Asks as the admin; any error is the test's.
    pub(crate) fn ask(&self, method: &str, target: &str, body: &Value) -> Value {
        let reply = self.call(&self.admin(), method, target, body);
        assert_eq!(reply.status, 200, "{method} {target}: {reply:?}");
        reply.body
    }

    /// Asks as the admin and is refused: status and error name.
    pub(crate) fn refused(&self, method: &str, target: &str, body: &Value) -> (u16, String) {
        let reply = self.call(&self.admin(), method, target, body);
        assert!(reply.status >= 400, "{method} {target}: {reply:?}");
        assert!(reply.body["message"].is_string(), "{reply:?}");
        (reply.status, reply.error)
    }

    pub(crate) fn call(&self, who: &Who, method: &str, target: &str, body: &Value) -> Reply {
        self.call_with(who, method, target, &[], body)
    }

    pub(crate) fn call_with(
        &self,
        who: &Who,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Reply {
        let body = match body {
            Value::Null => Vec::new(),
            body => serde_json::to_vec(body).unwrap(),
        };
        let mut head: Vec<(String, String)> =
            vec![("host".into(), format!("localhost:{}", self.https.port()))];
        head.extend(headers.iter().map(|(n, v)| ((*n).into(), (*v).into())));
        if let Who::Key(key) = who {
            let signed = signed_headers(key, method, target, &head, &body);
            head.extend(signed);
        }
        self.send(who, method, target, &head, &body)
    }

    /// Sends a request as it is given.
    pub(crate) fn send(
        &self,
        who: &Who,
        method: &str,
        target: &str,
        head: &[(String, String)],
        body: &[u8],
    ) -> Reply {
        let mut request = format!("{method} {target} HTTP/1.1\r\n");
        for (name, value) in head {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        ));
        let mut stream = self.connect(who);
        stream.write_all(request.as_bytes()).unwrap();
        // A refusal may come, and the connection end, before the whole body is out.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Reply::read(&answer)
    }

    /// A TLS connection to the API.
    pub(crate) fn connect(&self, who: &Who) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.root_der()).unwrap();
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match who {
            Who::Certificate { chain_pem, key_pem } => {
                let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
                    .collect::<Result<_, _>>()
                    .unwrap();
                let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
            Who::Nobody | Who::Key(_) => config.with_no_client_auth(),
        };
        let name = ServerName::try_from("localhost").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let socket = TcpStream::connect(self.https).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        StreamOwned::new(client, socket)
    }

    /// Asks the plain listener.
    pub(crate) fn plain(&self, method: &str, target: &str) -> Reply {
        let mut stream = TcpStream::connect(self.http).unwrap();
        let request =
            format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        Reply::read(&answer)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        if let Some(control) = self.control.take() {
            control.drain(Duration::from_secs(5));
        }
    }
}

impl Reply {
    fn read(answer: &[u8]) -> Self {
        let at = answer
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {}", String::from_utf8_lossy(answer)));
        let head = String::from_utf8(answer[..at].to_vec()).unwrap();
        let bytes = answer[at + 4..].to_vec();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let error = head
            .lines()
            .find_map(|line| line.strip_prefix("x-amzn-errortype: "));
        Self {
            status,
            error: error.unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            head,
            bytes,
        }
    }
}

/// The headers that sign a request now.
pub(crate) fn signed_headers(
    key: &Credentials,
    method: &str,
    target: &str,
    head: &[(String, String)],
    body: &[u8],
) -> Vec<(String, String)> {
    let identity = key.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region("eu-central-1")
        .name("iot")
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let headers = head.iter().map(|(n, v)| (n.as_str(), v.as_str()));
    let request = SignableRequest::new(method, target, headers, SignableBody::Bytes(body)).unwrap();
    let (signed, _) = sign(request, &parameters).unwrap().into_parts();
    signed
        .headers()
        .map(|(n, v)| (n.to_owned(), v.to_owned()))
        .collect()
}

fn credentials(file: &str) -> Credentials {
    let value = |name: &str| {
        file.lines()
            .find_map(|line| line.strip_prefix(&format!("{name} = ")))
            .unwrap()
            .to_owned()
    };
    let (id, secret) = (value("aws_access_key_id"), value("aws_secret_access_key"));
    Credentials::new(id, secret, None, None, "tests")
}

fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn tls(authority: &Authority, dir: &TempDir) -> Arc<ServerConfig> {
    let names = ["localhost".to_owned()];
    let home = dir.path().join("server");
    let identity = authority
        .server_identity(&home, &names, SystemTime::now())
        .unwrap();
    let certificate =
        ServerCertificate::new(identity.chain(), identity.private_key(), None).unwrap();
    server_config(
        &ClientAnchors::new(&authority.anchors()).unwrap(),
        None,
        &certificate,
        ClientAuth::Optional {
            grace: Duration::ZERO,
        },
        Protocol::Http,
    )
    .unwrap()
}
