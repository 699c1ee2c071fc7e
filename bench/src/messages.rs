//! What a run of messages is: who speaks to whom, about what, and when.

use mqttbytes::QoS;

use crate::dial::Hello;
use crate::error::BenchError;
use crate::payload::HEAD_BYTES;
use crate::template::{self, Values};

/// Subscriptions that one connection holds for others' sake.
pub(crate) const HELD_PER_CONNECTION: u32 = 10_000;
const MAX_CLIENTS: u32 = 100_000;

/// Who speaks to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Publisher N to subscriber N.
    Pairs,
    /// All publishers to one subscriber.
    FanIn,
    /// One publisher to all subscribers.
    FanOut,
}

/// What makes a publisher send its next message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pacing {
    /// Closed loop: fewer than so many of its messages are on their way.
    InFlight(u32),
    /// Open loop: so many messages a second, over all publishers, whatever the broker does.
    Rate(u32),
}

/// A run of messages.
#[derive(Debug, Clone)]
pub struct Messages {
    /// Who speaks to whom.
    pub shape: Shape,
    /// Pairs, publishers (fan-in) or subscribers (fan-out).
    pub clients: u32,
    /// 0, 1 or 2.
    pub qos: u8,
    /// Payload bytes.
    pub size_bytes: usize,
    /// When messages are sent.
    pub pacing: Pacing,
    /// Topic: `%i` is the pair's or the publisher's number.
    pub topic: String,
    /// How long to count.
    pub seconds: u32,
    /// How long the load runs before counting begins.
    pub warm_up_seconds: u32,
    /// Count so many messages instead of counting for a time.
    pub messages: Option<u64>,
    /// Subscriptions that other connections hold and nothing is published to.
    pub held_subscriptions: u32,
    /// Whether the subscribers' sessions outlive their connections.
    pub persistent: bool,
}

impl Messages {
    pub(crate) fn publishers(&self) -> u32 {
        if self.shape == Shape::FanOut {
            1
        } else {
            self.clients
        }
    }

    pub(crate) fn subscribers(&self) -> u32 {
        if self.shape == Shape::FanIn {
            1
        } else {
            self.clients
        }
    }

    /// How many subscribers hear a message.
    pub(crate) fn copies(&self) -> u32 {
        if self.shape == Shape::FanOut {
            self.clients
        } else {
            1
        }
    }

    pub(crate) fn holders(&self) -> u32 {
        self.held_subscriptions.div_ceil(HELD_PER_CONNECTION)
    }

    pub(crate) fn connections(&self) -> u32 {
        self.publishers() + self.subscribers() + self.holders()
    }

    pub(crate) fn check(&self) -> Result<(), BenchError> {
        let flag = |flag, value: &dyn ToString, mend: &str| {
            Err(BenchError::Flag {
                flag,
                value: value.to_string(),
                mend: mend.into(),
            })
        };
        if self.clients == 0 || self.clients > MAX_CLIENTS {
            let mend = format!("take 1 to {MAX_CLIENTS}");
            return flag("--clients", &self.clients, &mend);
        }
        if self.qos > 2 {
            return flag("--qos", &self.qos, "0, 1 and 2 there are");
        }
        if self.size_bytes < HEAD_BYTES {
            let mend = format!(
                "a payload carries at least {HEAD_BYTES} bytes: when it was due and who sent it"
            );
            return flag("--size", &self.size_bytes, &mend);
        }
        if self.seconds == 0 {
            return flag("--seconds", &self.seconds, "take at least 1");
        }
        if self.messages == Some(0) {
            return flag("--messages", &0, "take at least 1");
        }
        match self.pacing {
            Pacing::InFlight(0) => return flag("--in-flight", &0, "take at least 1"),
            Pacing::Rate(0) => return flag("--rate", &0, "take at least 1 message a second"),
            Pacing::InFlight(_) | Pacing::Rate(_) => {}
        }
        if self.shape == Shape::FanIn && !self.topic.split('/').any(|level| level == "%i") {
            let mend = "fan-in needs %i as a level of its own, for the subscriber to put + there";
            return flag("--topic", &self.topic, mend);
        }
        if self.topic.is_empty() || self.topic.contains(['+', '#', '\0']) {
            return flag("--topic", &self.topic, "it is a topic's name, not a filter");
        }
        if self.shape == Shape::Pairs && self.clients > 1 && self.topic(0)? == self.topic(1)? {
            let mend = "each pair needs a topic of its own: put %i in it";
            return flag("--topic", &self.topic, mend);
        }
        Ok(())
    }

    pub(crate) fn topic(&self, number: u32) -> Result<String, BenchError> {
        match self.shape {
            Shape::FanOut => self.fill("all"),
            Shape::Pairs | Shape::FanIn => self.fill(&number.to_string()),
        }
    }

    pub(crate) fn filter(&self, number: u32) -> Result<String, BenchError> {
        match self.shape {
            Shape::FanIn => self.fill("+"),
            Shape::Pairs | Shape::FanOut => self.topic(number),
        }
    }

    fn fill(&self, number: &str) -> Result<String, BenchError> {
        let values = Values {
            number,
            role: "%r",
            name: "%n",
        };
        template::fill("--topic", &self.topic, values)
    }

    pub(crate) fn qos(&self) -> QoS {
        mqttbytes::qos(self.qos).unwrap_or(QoS::AtMostOnce)
    }

    /// Long enough that nobody has to ping.
    pub(crate) fn hello(&self, clean: bool) -> Hello {
        let keep_alive_s = self.seconds.saturating_add(self.warm_up_seconds);
        let keep_alive_s = keep_alive_s.saturating_mul(2).max(600);
        Hello {
            clean,
            keep_alive_s: u16::try_from(keep_alive_s).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(shape: Shape) -> Messages {
        Messages {
            shape,
            clients: 3,
            qos: 0,
            size_bytes: 128,
            pacing: Pacing::InFlight(16),
            topic: "bench/%i/data".into(),
            seconds: 1,
            warm_up_seconds: 0,
            messages: None,
            held_subscriptions: 10_001,
            persistent: false,
        }
    }

    #[test]
    fn shapes_differ_in_who_hears_what() {
        let (pairs, fan_in, fan_out) =
            (work(Shape::Pairs), work(Shape::FanIn), work(Shape::FanOut));
        for (work, topic, filter, connections, copies) in [
            (&pairs, "bench/2/data", "bench/2/data", 8, 1),
            (&fan_in, "bench/2/data", "bench/+/data", 6, 1),
            (&fan_out, "bench/all/data", "bench/all/data", 6, 3),
        ] {
            work.check().unwrap();
            assert_eq!(work.topic(2).unwrap(), topic);
            assert_eq!(work.filter(2).unwrap(), filter);
            assert_eq!(work.connections(), connections);
            assert_eq!(work.copies(), copies);
        }
    }

    #[test]
    fn what_cannot_be_measured_is_refused_by_its_flag() {
        type Spoil = fn(&mut Messages);
        let spoils: [(&str, Spoil); 9] = [
            ("--clients 0", |work| work.clients = 0),
            ("--qos 3", |work| work.qos = 3),
            ("--size 19", |work| work.size_bytes = 19),
            ("--seconds 0", |work| work.seconds = 0),
            ("--messages 0", |work| work.messages = Some(0)),
            ("--in-flight 0", |work| work.pacing = Pacing::InFlight(0)),
            ("--rate 0", |work| work.pacing = Pacing::Rate(0)),
            ("--topic one", |work| work.topic = "one".into()),
            ("--topic a/%i/#", |work| work.topic = "a/%i/#".into()),
        ];
        for (said, spoil) in spoils {
            let mut work = work(Shape::Pairs);
            spoil(&mut work);
            let error = work.check().unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
        }
        let mut fan_in = work(Shape::FanIn);
        fan_in.topic = "bench/x%i".into();
        assert!(fan_in.check().unwrap_err().to_string().contains("level"));
    }
}
