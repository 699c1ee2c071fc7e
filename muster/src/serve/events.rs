//! Events of sessions, of the registry and of jobs on their way to whoever subscribed to `$aws/events/…`: one bounded queue,
//! one thread that writes and publishes them, so that neither a connection nor an operation waits for it. A device has a
//! share of it, so that its events never push out those of others.

use broker::{
    ApplicationMessage, Broker, Lifecycle, LifecycleChange, codec::Qos, topic::TopicName,
};
use fleet::{Excerpt, Sampler, Seat, ShareBounds, Shares, events::RegistryEvent};
use ota::server::JobEvent;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Instant, SystemTime},
};

/// Most events that wait; one more is lost, and said so.
const EVENTS_LIMIT_ITEMS: usize = 65_536;
/// Of one device: connected and disconnected.
const PRESENCE: ShareBounds = ShareBounds {
    waiting: 128,
    waiting_bytes: usize::MAX,
    per_minute: 6_000,
    all_waiting: EVENTS_LIMIT_ITEMS / 2,
    all_waiting_bytes: usize::MAX,
};
/// Of one device: subscribed and unsubscribed, with all the filters that a packet names. What is left of the queue is the
/// registry's and the jobs'.
const SUBSCRIPTIONS: ShareBounds = ShareBounds {
    waiting: 128,
    waiting_bytes: 256 * 1024,
    per_minute: 6_000,
    all_waiting: EVENTS_LIMIT_ITEMS / 4,
    all_waiting_bytes: 32 * 1024 * 1024,
};

enum Told {
    /// Its seat is free when it is taken out.
    Session {
        event: Box<Lifecycle>,
        _seat: Seat,
    },
    Registry(Box<RegistryEvent>, SystemTime),
    Job(Box<JobEvent>, SystemTime),
}

/// The queue's end that takes.
#[derive(Clone)]
pub(super) struct Events {
    queue: SyncSender<Told>,
    /// Set before the first session.
    broker: Arc<OnceLock<Broker>>,
    presence: Shares,
    subscriptions: Shares,
    lost: Arc<Sampler>,
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
            presence: Shares::new(PRESENCE),
            subscriptions: Shares::new(SUBSCRIPTIONS),
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
        self.share(event);
    }

    /// Puts a session's event into its device's share.
    fn share(&self, event: Lifecycle) {
        let (shares, bytes) = match &event.change {
            LifecycleChange::Connected | LifecycleChange::Disconnected(_) => (&self.presence, 0),
            LifecycleChange::Subscribed(filters) | LifecycleChange::Unsubscribed(filters) => {
                let filters = filters.iter().map(|filter| filter.as_str().len());
                (&self.subscriptions, filters.sum())
            }
        };
        let seat = match &event.principal.thing {
            Some(thing) => shares.take(thing.as_str(), bytes, Instant::now()),
            None => {
                let certificate = event.principal.certificate.to_string();
                shares.take(&certificate, bytes, Instant::now())
            }
        };
        match seat {
            Ok(seat) => self.take(Told::Session {
                event: Box::new(event),
                _seat: seat,
            }),
            Err(crowded) => {
                if let Some(left_out) = self.lost.take_counting() {
                    tracing::warn!(
                        client_id = ?Excerpt(event.client_id.as_str()),
                        event = kind(&event.change).1,
                        left_out,
                        "an event of a device for $aws/events/ is lost: {crowded}"
                    );
                }
            }
        }
    }

    pub(super) fn registry(&self, event: RegistryEvent) {
        self.take(Told::Registry(Box::new(event), SystemTime::now()));
    }

    pub(super) fn job(&self, event: JobEvent) {
        self.take(Told::Job(Box::new(event), SystemTime::now()));
    }

    fn take(&self, told: Told) {
        if self.queue.try_send(told).is_err()
            && let Some(left_out) = self.lost.take_counting()
        {
            tracing::error!(
                left_out,
                "events for $aws/events/ come faster than they can be published: one is lost"
            );
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
                    Told::Session { event, .. } => message(&event),
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

#[cfg(test)]
mod tests {
    use super::*;
    use broker::{Principal, topic::TopicFilter};

    fn event(thing: &str, change: LifecycleChange) -> Lifecycle {
        Lifecycle {
            principal: Principal {
                certificate: "00".repeat(32).parse().unwrap(),
                thing: Some(thing.parse().unwrap()),
            },
            client_id: thing.parse().unwrap(),
            session: 1,
            version: 1,
            at: SystemTime::UNIX_EPOCH,
            source: None,
            change,
        }
    }

    /// Of whom, and what, in the order in which they wait.
    fn waiting(waiting: &Waiting) -> Vec<(String, &'static str)> {
        let told = waiting.queue.try_iter().map(|told| match told {
            Told::Session { event, .. } => {
                (event.client_id.as_str().to_owned(), kind(&event.change).1)
            }
            Told::Registry(..) => (String::new(), "registry"),
            Told::Job(..) => (String::new(), "job"),
        });
        told.collect()
    }

    #[test]
    fn one_devices_subscriptions_never_push_out_the_events_of_others() {
        let (events, queue) = Events::queue();
        let filter: TopicFilter = "cmd/loud/a".parse().unwrap();
        for _ in 0..EVENTS_LIMIT_ITEMS {
            events.session(event(
                "loud",
                LifecycleChange::Subscribed(vec![filter.clone()]),
            ));
            events.session(event(
                "loud",
                LifecycleChange::Unsubscribed(vec![filter.clone()]),
            ));
        }
        events.session(event("loud", LifecycleChange::Connected));
        events.session(event("quiet", LifecycleChange::Connected));
        events.session(event(
            "quiet",
            LifecycleChange::Subscribed(vec![filter.clone()]),
        ));
        let told = waiting(&queue);
        assert_eq!(told.len(), SUBSCRIPTIONS.waiting + 3);
        let last = told.iter().rev().take(3).rev();
        let last: Vec<(&str, &str)> = last.map(|(who, what)| (who.as_str(), *what)).collect();
        assert_eq!(
            last,
            [
                ("loud", "connected"),
                ("quiet", "connected"),
                ("quiet", "subscribed")
            ]
        );
        // What was published makes room for as many again.
        events.session(event("loud", LifecycleChange::Subscribed(vec![filter])));
        assert_eq!(waiting(&queue).len(), 1);
    }

    #[test]
    fn filters_are_weighed() {
        let (events, queue) = Events::queue();
        let long: TopicFilter = format!("cmd/{}", "x".repeat(60_000)).parse().unwrap();
        for _ in 0..100 {
            events.session(event(
                "loud",
                LifecycleChange::Subscribed(vec![long.clone(); 10]),
            ));
        }
        // One may be longer than the share.
        assert_eq!(waiting(&queue).len(), 1);
    }
}
