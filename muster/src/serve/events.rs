//! Events of sessions, of the registry and of jobs on their way to whoever subscribed to `$aws/events/…`: one bounded queue,
//! one thread that writes and publishes them, so that neither a connection nor an operation waits for it.

use broker::{
    ApplicationMessage, Broker, Lifecycle, LifecycleChange, codec::Qos, topic::TopicName,
};
use fleet::events::RegistryEvent;
use ota::server::JobEvent;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::SystemTime,
};

/// Most events that wait; one more is lost, and said so.
const EVENTS_LIMIT_ITEMS: usize = 65_536;
/// Of the lost ones, how many share one line of the log.
const LOST_PER_LINE: u64 = 10_000;

enum Told {
    Session(Box<Lifecycle>),
    Registry(Box<RegistryEvent>, SystemTime),
    Job(Box<JobEvent>, SystemTime),
}

/// The queue's end that takes.
#[derive(Clone)]
pub(super) struct Events {
    queue: SyncSender<Told>,
    /// Set before the first session.
    broker: Arc<OnceLock<Broker>>,
    lost: Arc<AtomicU64>,
}

/// The queue's other end, until the broker is there.
pub(super) struct Waiting {
    queue: Receiver<Told>,
    broker: Arc<OnceLock<Broker>>,
}

impl Events {
    pub(super) fn queue() -> (Self, Waiting) {
        let (queue, waiting) = sync_channel(EVENTS_LIMIT_ITEMS);
        let events = Events {
            queue,
            broker: Arc::default(),
            lost: Arc::default(),
        };
        let waiting = Waiting {
            queue: waiting,
            broker: Arc::clone(&events.broker),
        };
        (events, waiting)
    }

    /// One that nobody listens to costs a look at the subscriptions and wakes no thread.
    pub(super) fn session(&self, event: Lifecycle) {
        if let Some(broker) = self.broker.get()
            && !broker.is_heard(&topic(&event))
        {
            return;
        }
        self.take(Told::Session(Box::new(event)));
    }

    pub(super) fn registry(&self, event: RegistryEvent) {
        self.take(Told::Registry(Box::new(event), SystemTime::now()));
    }

    pub(super) fn job(&self, event: JobEvent) {
        self.take(Told::Job(Box::new(event), SystemTime::now()));
    }

    fn take(&self, told: Told) {
        if self.queue.try_send(told).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed);
            if lost.is_multiple_of(LOST_PER_LINE) {
                tracing::error!(
                    lost = lost + 1,
                    "events for $aws/events/ come faster than they can be published"
                );
            }
        }
    }
}

impl Waiting {
    /// Publishes events as long as there are rooms that tell any.
    pub(super) fn publish(
        self,
        broker: Broker,
        account: String,
        region: String,
    ) -> std::io::Result<()> {
        // There is one queue and one publisher of it.
        let broker = self.broker.get_or_init(|| broker).clone();
        let run = move || {
            for told in self.queue {
                let (topic, body) = match told {
                    Told::Session(event) => message(&event),
                    Told::Registry(event, at) => event.message(&account, &region, at),
                    Told::Job(event, at) => event.message(&account, &region, at),
                };
                // A client id with a wildcard in it has no topic: it gets no events, as with AWS.
                let Ok(topic) = topic.parse::<TopicName>() else {
                    continue;
                };
                let published = broker.publish(ApplicationMessage {
                    topic,
                    payload: body.to_string().into(),
                    qos: Qos::AtLeastOnce,
                    retain: false,
                });
                if let Err(error) = published {
                    tracing::error!(%error, "an event was lost");
                }
            }
        };
        let thread = std::thread::Builder::new().name("events".into());
        thread.spawn(run).map(|_| ())
    }
}

/// Which branch of `$aws/events/` an event is on, and its type.
fn kind(change: &LifecycleChange) -> (&'static str, &'static str) {
    match change {
        LifecycleChange::Connected => ("presence", "connected"),
        LifecycleChange::Disconnected(_) => ("presence", "disconnected"),
        LifecycleChange::Subscribed(_) => ("subscriptions", "subscribed"),
        LifecycleChange::Unsubscribed(_) => ("subscriptions", "unsubscribed"),
    }
}

fn topic(event: &Lifecycle) -> String {
    let (tree, kind) = kind(&event.change);
    format!("$aws/events/{tree}/{kind}/{}", event.client_id.as_str())
}

/// A session's event as AWS IoT writes it.
fn message(event: &Lifecycle) -> (String, Value) {
    let (_, kind) = kind(&event.change);
    let client_id = event.client_id.as_str();
    let since = event.at.duration_since(SystemTime::UNIX_EPOCH);
    let mut body = json!({
        "clientId": client_id,
        "timestamp": u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX),
        "eventType": kind,
        "sessionIdentifier": format!("{:032x}", event.session),
        "principalIdentifier": event.principal.certificate.to_string(),
        "versionNumber": event.version,
    });
    let mut add = |field: &str, value: Value| {
        if let Some(fields) = body.as_object_mut() {
            fields.insert(field.to_owned(), value);
        }
    };
    if let Some(thing) = &event.principal.thing {
        add("thingName", thing.as_str().into());
    }
    match &event.change {
        LifecycleChange::Connected => {
            let source = event
                .source
                .map(|address| address.to_canonical().to_string());
            add("ipAddress", source.into());
        }
        LifecycleChange::Disconnected(reason) => {
            let own = *reason == broker::DisconnectReason::ClientInitiated;
            add("clientInitiatedDisconnect", own.into());
            add("disconnectReason", reason.as_str().into());
        }
        LifecycleChange::Subscribed(filters) | LifecycleChange::Unsubscribed(filters) => {
            let topics = filters.iter().map(|filter| filter.as_str());
            add("topics", topics.collect::<Vec<_>>().into());
        }
    }
    (topic(event), body)
}
