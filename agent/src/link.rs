//! The MQTT session: dials, subscribes, hands messages on, dials again.
//!
//! A task of its own: a client's poll must not be dropped half-way. Sessions are clean: on each
//! one the agent asks how its jobs stand, so the server need keep nothing while it is away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, NetworkOptions, Packet,
    QoS, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};

use crate::backoff::{self, Backoff};
use crate::identity::Identity;
use crate::jobs;
use crate::tls;

/// First and longest wait between two attempts to connect.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// A session that lasted so long counts as one that worked; a shorter one (kicked out for its
/// policy, say) keeps the backoff growing.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// Requests that may wait to be written.
const REQUESTS_MAX: usize = 64;

const KEEP_ALIVE: Duration = Duration::from_secs(45);
const CONNECT_SECONDS: u64 = 20;

/// What the link tells the agent.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A session stands; send through this.
    Up(Sender),
    /// A message.
    Message {
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
    },
    /// The session is over.
    Down,
}

/// Sends through the present session.
#[derive(Clone, Debug)]
pub(crate) struct Sender(AsyncClient);

impl Sender {
    /// Sends a request at QoS 1. One that cannot be sent is dropped: the machine repeats what
    /// must arrive.
    pub(crate) fn send(&self, request: jobs::Request) {
        if let Err(error) =
            self.0
                .try_publish(&request.topic, QoS::AtLeastOnce, false, request.payload)
        {
            tracing::warn!("could not send to {}: {error}", request.topic);
        }
    }

    /// Says goodbye.
    pub(crate) fn disconnect(&self) {
        let _ = self.0.try_disconnect();
    }
}

/// Where and as whom to connect.
pub(crate) struct Link {
    options: MqttOptions,
    identity: watch::Receiver<Arc<ClientConfig>>,
    filters: [String; 4],
    host: String,
    port: u16,
}

impl Link {
    /// A link of a device to a server; each session is opened with what `tls` holds then.
    #[must_use]
    pub(crate) fn new(
        identity: &Identity,
        tls: watch::Receiver<Arc<ClientConfig>>,
        host: &str,
        port: u16,
    ) -> Self {
        let mut options = MqttOptions::new(identity.thing(), host, port);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(2 * jobs::MESSAGE_BYTES_MAX, 2 * jobs::MESSAGE_BYTES_MAX);
        Self {
            options,
            identity: tls,
            filters: jobs::filters(identity.thing()),
            host: host.to_string(),
            port,
        }
    }

    /// Connects for ever, until the receiver of `events` is gone or [`Sender::disconnect`] was
    /// called on the last session.
    pub(crate) async fn run(self, events: mpsc::Sender<LinkEvent>) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        loop {
            let began = Instant::now();
            let error = self.session(&events).await;
            if events.is_closed() {
                return;
            }
            if events.send(LinkEvent::Down).await.is_err() {
                return;
            }
            if began.elapsed() > STEADY_AFTER {
                backoff.reset();
            }
            let wait = backoff.next(backoff::random());
            tracing::warn!(
                "not connected: {}; trying again in {wait:?}",
                self.explain(&error)
            );
            tokio::time::sleep(wait).await;
        }
    }

    /// One session, from dialling to its end. Nothing of it is carried to the next.
    async fn session(&self, events: &mpsc::Sender<LinkEvent>) -> ConnectionError {
        let mut options = self.options.clone();
        // The identity of now: it may have been renewed since the last session.
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(
            Arc::clone(&self.identity.borrow()),
        )));
        let (client, mut eventloop) = AsyncClient::new(options, REQUESTS_MAX);
        let mut network = NetworkOptions::new();
        network.set_connection_timeout(CONNECT_SECONDS);
        network.set_tcp_nodelay(true);
        eventloop.set_network_options(network);
        loop {
            let event = match eventloop.poll().await {
                Ok(Event::Incoming(packet)) => packet,
                Ok(Event::Outgoing(_)) => continue,
                Err(error) => return error,
            };
            let told = match event {
                Packet::ConnAck(_) => {
                    for filter in &self.filters {
                        let _ = client.try_subscribe(filter, QoS::AtLeastOnce);
                    }
                    tracing::info!(
                        "connected to {}:{} as {}",
                        self.host,
                        self.port,
                        self.options.client_id()
                    );
                    events.send(LinkEvent::Up(Sender(client.clone()))).await
                }
                Packet::SubAck(ack) => {
                    if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                        tracing::warn!(
                            "the device's policy does not let it listen to its own jobs topics ($aws/things/{}/jobs/#); updates are only found by asking",
                            self.options.client_id()
                        );
                    }
                    Ok(())
                }
                Packet::Publish(publish) => {
                    let payload = publish.payload.to_vec();
                    events
                        .send(LinkEvent::Message {
                            topic: publish.topic,
                            payload,
                        })
                        .await
                }
                _ => Ok(()),
            };
            if told.is_err() {
                return ConnectionError::RequestsDone;
            }
        }
    }

    fn explain(&self, error: &ConnectionError) -> String {
        match error {
            ConnectionError::Tls(rumqttc::TlsError::Io(error)) | ConnectionError::Io(error) => {
                tls::explain_io(error, &self.host, self.port)
            }
            ConnectionError::Tls(rumqttc::TlsError::TLS(error)) => tls::explain(error, &self.host),
            ConnectionError::MqttState(rumqttc::StateError::Io(error)) => {
                tls::explain_io(error, &self.host, self.port)
            }
            ConnectionError::ConnectionRefused(
                ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadClientId,
            ) => format!(
                "the server does not let {} connect: its policy must allow iot:Connect to client/{} (`muster policy explain --device {} --action connect`)",
                self.options.client_id(),
                self.options.client_id(),
                self.options.client_id()
            ),
            ConnectionError::NetworkTimeout => {
                format!(
                    "no answer from {}:{} within {CONNECT_SECONDS} s",
                    self.host, self.port
                )
            }
            other => other.to_string(),
        }
    }
}
