//! By claim, as AWS IoT's fleet provisioning has it: over MQTT, under a certificate that many devices share, a device
//! asks for one of its own (CreateCertificateFromCsr) and for what a template makes of it (RegisterThing).
//!
//! The certificate and its token are on disk before the server is asked to register it. Where the answer to that is
//! lost, the certificate itself says what came of it: under a thing's the server gives the next one, with its name.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use data_encoding::HEXLOWER;
use rcgen::PublicKeyData as _;
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions, NetworkOptions,
    Packet, QoS, SubscribeFilter, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::est::{self, Found};
use super::place::Place;
use super::{EnrolError, Enrolment, Fault, chain_of, stranger};
use crate::AgentError;
use crate::identity::{Identity, is_thing_name};
use crate::renewal::{self, RenewalError};
use crate::tls;

/// Where a certificate is asked for.
const CREATE: &str = "$aws/certificates/create-from-csr/json";
/// The largest message that is read.
const MESSAGE_BYTES_MAX: usize = 128 << 10;
/// How long the server may take for all of it: a provisioning hook of the operator's is asked meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const CONNECT_SECONDS: u64 = 20;
const KEEP_ALIVE: Duration = Duration::from_secs(45);
const REQUESTS_MAX: usize = 8;
/// AWS's words for a token that is no good (any more).
const BAD_TOKEN: &str = "InvalidCertificateOwnershipToken";

/// A request that was refused, as the `rejected` topics have it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rejection {
    #[serde(default)]
    status_code: u16,
    #[serde(default)]
    error_code: String,
    #[serde(default)]
    error_message: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    certificate_pem: String,
    certificate_ownership_token: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    thing_name: String,
    #[serde(default)]
    device_configuration: Option<Value>,
}

/// Why a request came to nothing.
enum Unasked {
    Refused(Rejection),
    Fault(Fault),
}

impl<F: Into<Fault>> From<F> for Unasked {
    fn from(fault: F) -> Self {
        Self::Fault(fault.into())
    }
}

impl Unasked {
    fn into_fault(self, what: &str) -> Fault {
        match self {
            Self::Fault(fault) => fault,
            Self::Refused(said) => said.fault(what),
        }
    }
}

impl Rejection {
    fn fault(self, what: &str) -> Fault {
        let words = format!(
            "the server refused {what}: {} ({})",
            self.error_message, self.error_code
        );
        match self.status_code {
            408 | 429 | 500..=599 => Fault::passing(words),
            _ => Fault::refused(words),
        }
    }
}

/// One attempt: afterwards the place holds the whole of an identity.
pub(super) fn attempt(
    asked: &Enrolment,
    (dir, template, parameters): (&Path, &str, &BTreeMap<String, String>),
    place: &mut Place<'_>,
) -> Result<(), Fault> {
    let claim = Identity::of_claim(dir).map_err(|error| {
        Fault::Final(EnrolError::Given {
            field: "--claim",
            value: dir.display().to_string(),
            what: unusable(&error),
        })
    })?;
    // The answer to its registration may have been lost.
    let mut looked = Ok(Found::Nobodys);
    if let Some(waiting) = place.waiting() {
        looked = est::look(asked, waiting, claim.roots(), place);
        match looked {
            Ok(Found::Enrolled) => return Ok(()),
            Err(Fault::Final(error)) => return Err(Fault::Final(error)),
            _ => {}
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|why| Fault::passing(format!("starting the runtime: {why}")))?;
    let said = runtime.block_on(async {
        let all = Conversation::hold(asked, &claim, (template, parameters), place);
        tokio::time::timeout(ANSWER_WITHIN, all).await
    });
    let said = said.unwrap_or_else(|_| {
        Err(Unasked::Fault(Fault::passing(format!(
            "no answer from {}:{} within {} s",
            asked.server,
            asked.mqtt_port,
            ANSWER_WITHIN.as_secs()
        ))))
    });
    let rejection = match said {
        Ok(()) => return Ok(()),
        Err(Unasked::Fault(fault)) => return Err(fault),
        Err(Unasked::Refused(rejection)) => rejection,
    };
    if rejection.error_code != BAD_TOKEN {
        return Err(rejection.fault("to register this device"));
    }
    // Used, or too old. Whoever used it was this device.
    if let Some(waiting) = place.waiting() {
        looked = est::look(asked, waiting, claim.roots(), place);
    }
    match looked? {
        Found::Enrolled => Ok(()),
        Found::Nobodys => {
            place.forget()?;
            Err(Fault::passing(
                "what was begun before is of no use any more; it is begun anew",
            ))
        }
    }
}

/// What is wrong with a claim's directory, in words that say what it should be.
fn unusable(error: &AgentError) -> String {
    let words = error.to_string();
    let words = words.strip_prefix("identity: ").unwrap_or(&words);
    words
        .replace("muster device create", "muster claim create")
        .replace("--identity must name", "it must be")
}

/// One session under the claim.
struct Conversation {
    client: AsyncClient,
    events: EventLoop,
}

impl Conversation {
    async fn hold(
        asked: &Enrolment,
        claim: &Identity,
        (template, parameters): (&str, &BTreeMap<String, String>),
        place: &mut Place<'_>,
    ) -> Result<(), Unasked> {
        let register = format!("$aws/provisioning-templates/{template}/provision/json");
        let explain = |error: &ConnectionError| explain(error, asked, claim);
        let mut server = Self::open(asked, claim, [CREATE, &register], template, &explain).await?;
        let token = match place.waiting() {
            Some(waiting) => waiting.token,
            None => {
                let key = place.key()?;
                let request = renewal::request(&key, None)
                    .and_then(|request| request.pem())
                    .map_err(RenewalError::from)?;
                let made = server
                    .ask(
                        CREATE,
                        &json!({ "certificateSigningRequest": request }),
                        &explain,
                    )
                    .await
                    .map_err(|unasked| unasked.into_fault("a certificate"))?;
                let made: Created = read(made)?;
                let given: Vec<_> = CertificateDer::pem_slice_iter(made.certificate_pem.as_bytes())
                    .collect::<Result<_, _>>()
                    .map_err(|_| RenewalError::Answer("it is not PEM"))?;
                let leaf = given
                    .first()
                    .ok_or(RenewalError::Answer("it holds no certificate"))?;
                let mut known: Vec<_> = given.iter().skip(1).cloned().collect();
                known.extend(claim.server_chain().into_iter().skip(1));
                let key = key.subject_public_key_info();
                let chain = chain_of(leaf, (&key, None), &known, claim.roots())?;
                place.given(&chain, &made.certificate_ownership_token)?;
                made.certificate_ownership_token
            }
        };
        let body = json!({ "certificateOwnershipToken": token, "parameters": parameters });
        let done: Registered = read(server.ask(&register, &body, &explain).await?)?;
        let _ = server.client.try_disconnect();
        if !is_thing_name(&done.thing_name) {
            return Err(RenewalError::Answer("its name is no thing's").into());
        }
        let configuration = done
            .device_configuration
            .filter(|all| all.as_object().is_some_and(|all| !all.is_empty()));
        place.registered(&done.thing_name, claim.roots(), configuration)?;
        Ok(())
    }

    /// Connects, and listens to the answers.
    async fn open(
        asked: &Enrolment,
        claim: &Identity,
        topics: [&str; 2],
        template: &str,
        explain: &impl Fn(&ConnectionError) -> Fault,
    ) -> Result<Self, Fault> {
        let mut options = MqttOptions::new(client_id(), &asked.server, asked.mqtt_port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX);
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
            claim.tls(),
        )));
        let (client, mut events) = AsyncClient::new(options, REQUESTS_MAX);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_SECONDS);
        network.set_tcp_nodelay(true);
        events.set_network_options(network);
        let mut server = Self { client, events };
        loop {
            match server.next(explain).await? {
                Packet::ConnAck(_) => {
                    let ends = topics.iter().flat_map(|topic| {
                        ["accepted", "rejected"].map(|end| format!("{topic}/{end}"))
                    });
                    let filters = ends.map(|path| SubscribeFilter::new(path, QoS::AtLeastOnce));
                    server
                        .client
                        .try_subscribe_many(filters)
                        .map_err(|error| Fault::passing(error.to_string()))?;
                }
                Packet::SubAck(ack) => {
                    if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                        return Err(Fault::refused(format!(
                            "--template {template:?}: the claim may not ask for it: is it the template that the claim was made for (`muster claim show ID`), and is this network one that it may be used from?"
                        )));
                    }
                    return Ok(server);
                }
                _ => {}
            }
        }
    }

    /// The next packet that the server sends.
    async fn next(
        &mut self,
        explain: &impl Fn(&ConnectionError) -> Fault,
    ) -> Result<Packet, Fault> {
        loop {
            match self.events.poll().await {
                Ok(Event::Incoming(packet)) => return Ok(packet),
                Ok(Event::Outgoing(_)) => {}
                Err(error) => return Err(explain(&error)),
            }
        }
    }

    /// Sends a request and waits for its answer.
    async fn ask(
        &mut self,
        topic: &str,
        body: &Value,
        explain: &impl Fn(&ConnectionError) -> Fault,
    ) -> Result<Value, Unasked> {
        self.client
            .try_publish(topic, QoS::AtLeastOnce, false, body.to_string())
            .map_err(|error| Fault::passing(error.to_string()))?;
        loop {
            let Packet::Publish(message) = self.next(explain).await? else {
                continue;
            };
            match message.topic.strip_prefix(topic) {
                Some("/accepted") => return Ok(read(parse(&message.payload)?)?),
                Some("/rejected") => return Err(Unasked::Refused(read(parse(&message.payload)?)?)),
                _ => {}
            }
        }
    }
}

/// Under one certificate each device has a session of its own, so none takes another's over.
fn client_id() -> String {
    let mut octets = [0; 8];
    // Where the system gives no random numbers there is no TLS either.
    let _ = aws_lc_rs::rand::fill(&mut octets);
    format!("enrol-{}", HEXLOWER.encode(&octets))
}

fn parse(payload: &[u8]) -> Result<Value, Fault> {
    serde_json::from_slice(payload)
        .map_err(|error| Fault::refused(format!("the server's answer is not JSON: {error}")))
}

fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, Fault> {
    serde_json::from_value(value)
        // The error names a field; the value may be a token.
        .map_err(|_| {
            Fault::refused("the server's answer is not that of fleet provisioning: a field is missing or of another kind")
        })
}

/// What a session that ended means under a claim.
fn explain(error: &ConnectionError, asked: &Enrolment, claim: &Identity) -> Fault {
    let (host, port) = (&asked.server, asked.mqtt_port);
    if let Some(why) = claim.server_refused() {
        return stranger(&why, host, "a root in the claim's root.crt");
    }
    let io = match error {
        ConnectionError::Tls(rumqttc::TlsError::Io(error))
        | ConnectionError::Io(error)
        | ConnectionError::MqttState(
            rumqttc::StateError::Io(error)
            | rumqttc::StateError::Deserialization(rumqttc::mqttbytes::Error::Io(error)),
        ) => Some(error),
        _ => None,
    };
    let alert = match (error, io.and_then(tls::inside)) {
        (ConnectionError::Tls(rumqttc::TlsError::TLS(error)), _) => Some(error),
        (_, inside) => inside,
    };
    match (error, alert, io) {
        (_, Some(rustls::Error::AlertReceived(alert)), _) => Fault::refused(format!(
            "the server does not take the claim certificate ({alert:?}): it was revoked, has expired, or is another server's; `muster claim list` shows those that there are, `muster claim create` makes another"
        )),
        (
            ConnectionError::ConnectionRefused(
                code @ (ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadClientId),
            ),
            ..,
        ) => Fault::refused(format!(
            "the server does not let the claim connect ({code:?}): is it a claim's certificate (`muster claim list`), and is this network one that it may be used from?"
        )),
        // A server ends the connections of certificates that are out of use without a word, and so does one that is
        // overrun.
        (ConnectionError::MqttState(_), ..) => Fault::passing(format!(
            "{host}:{port} ended the session; where it does so each time, the claim was revoked or has expired (`muster claim list`), and `muster claim create` makes another"
        )),
        (_, _, Some(error)) => Fault::passing(tls::explain_io(error, host, port)),
        (ConnectionError::NetworkTimeout, ..) => Fault::passing(format!(
            "no answer from {host}:{port} within {CONNECT_SECONDS} s"
        )),
        (other, ..) => Fault::passing(other.to_string()),
    }
}
