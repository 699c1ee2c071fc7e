//! Figures, as a program reads them and as a person does.

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use crate::messages::{Pacing, Shape};

/// A load above this share of a core measures itself.
const BUSY_CORES: f64 = 0.95;

/// Times of single events, in microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// How many were recorded.
    pub count: u64,
    /// The shortest.
    pub min: f64,
    /// The mean.
    pub mean: f64,
    /// Half were at most so long.
    pub p50: f64,
    /// 90 % were.
    pub p90: f64,
    /// 99 % were.
    pub p99: f64,
    /// 99.9 % were.
    pub p999: f64,
    /// 99.99 % were.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
    /// The whole distribution, ever finer towards its end.
    pub quantiles: Vec<Quantile>,
}

/// A point of a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantile {
    /// From 0 to 1.
    pub quantile: f64,
    /// At most so long, in microseconds.
    pub us: f64,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let us = |ns: u64| ns as f64 / 1e3;
        let at = |quantile| us(histogram.value_at_quantile(quantile));
        let quantiles = histogram.iter_quantiles(2).map(|step| Quantile {
            quantile: step.quantile_iterated_to(),
            us: us(step.value_iterated_to()),
        });
        Self {
            count: histogram.len(),
            min: us(histogram.min()),
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: us(histogram.max()),
            quantiles: quantiles.collect(),
        }
    }
}

/// What the broker paid.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Broker {
    /// Its process.
    pub pid: u32,
    /// Microseconds of CPU per delivered message, or per connect.
    pub cpu_us: f64,
    /// How many cores it kept busy.
    pub cores: f64,
    /// Memory that it alone has and has written to, at the end.
    pub private_bytes: u64,
}

/// What the load itself paid.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Load {
    /// As [`Broker::cpu_us`].
    pub cpu_us: f64,
    /// As [`Broker::cores`]; there is one thread.
    pub cores: f64,
}

/// Figures of a run of messages.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MessagesReport {
    /// Who spoke to whom.
    #[serde(serialize_with = "shape")]
    pub shape: Shape,
    /// When messages were sent.
    #[serde(flatten, serialize_with = "pacing")]
    pub pacing: Pacing,
    /// QoS of the messages and the subscriptions.
    pub qos: u8,
    /// Payload bytes.
    pub size_bytes: usize,
    /// How many published.
    pub publishers: u32,
    /// How many subscribed.
    pub subscribers: u32,
    /// Subscriptions held beside.
    pub held_subscriptions: u32,
    /// Whether the subscribers' sessions outlived their connections.
    pub persistent: bool,
    /// How long was counted.
    pub seconds: f64,
    /// Counted messages that were sent.
    pub sent: u64,
    /// Messages that were due and could not be sent, because the broker took none.
    pub unsent: u64,
    /// Copies of the counted messages that came, late ones too.
    pub received: u64,
    /// Copies that did not come.
    pub lost: u64,
    /// Messages of somebody else on the same topics.
    pub foreign: u64,
    /// How often a publisher had all its messages lost.
    pub stalls: u64,
    /// PUBACKs and PUBCOMPs that came while counting.
    pub acknowledged: u64,
    /// Copies of any message that came while counting.
    pub delivered: u64,
    /// Of those, a second.
    pub per_s: f64,
    /// From when a message was due (open loop) or sent (closed) until it came.
    pub latency_us: Latency,
    /// Open loop: how long after it was due a message had left.
    pub late_us: Option<Latency>,
    /// The broker, where its process was named.
    pub broker: Option<Broker>,
    /// The load.
    pub load: Load,
}

/// Figures of connects.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConnectReport {
    /// How many were tried.
    pub connects: u32,
    /// How many at a time.
    pub at_once: u32,
    /// Whether resumption was asked for.
    pub resume: bool,
    /// How many TLS sessions were resumed.
    pub resumed: u32,
    /// How many failed.
    pub failed: u32,
    /// Why the first one did.
    pub first_failure: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Connects a second.
    pub per_s: f64,
    /// From the first SYN to CONNACK.
    pub latency_us: Latency,
    /// The broker, where its process was named.
    pub broker: Option<Broker>,
    /// The load.
    pub load: Load,
}

/// Figures of idle connections.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdleReport {
    /// How many were held.
    pub connections: u32,
    /// Their keep alive in seconds.
    pub keep_alive_seconds: u16,
    /// How long connecting took.
    pub connecting_seconds: f64,
    /// How long each took from its first try to its SUBACK.
    pub connecting_us: Latency,
    /// How often one was turned away and came again.
    pub turned_away: u64,
    /// How long idleness was watched.
    pub seconds: u32,
    /// Pings answered meanwhile.
    pub pings: u64,
    /// Private memory each added to the broker.
    pub bytes_per_connection: Option<u64>,
    /// Private memory of the broker with all of them.
    pub private_bytes: Option<u64>,
    /// Milliseconds of the broker's CPU a second.
    pub cpu_ms_per_s: Option<f64>,
}

/// A name and a figure.
pub(crate) type Row = (&'static str, String);

impl MessagesReport {
    /// For a person.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let pacing = match self.pacing {
            Pacing::InFlight(bound) => format!("closed, {bound} in flight per publisher"),
            Pacing::Rate(rate) => format!("open, {rate}/s over all publishers"),
        };
        let mut rows = vec![
            ("shape", name(self.shape).to_owned()),
            ("loop", pacing),
            (
                "publishers, subscribers",
                format!("{}, {}", self.publishers, self.subscribers),
            ),
            (
                "QoS, payload",
                format!("{}, {} B", self.qos, self.size_bytes),
            ),
            ("counted for", format!("{:.1} s", self.seconds)),
            ("sent", self.sent.to_string()),
            ("received", self.received.to_string()),
            ("lost", self.lost.to_string()),
            ("delivered", format!("{:.0}/s", self.per_s)),
        ];
        for (what, count) in [
            ("due and not sent", self.unsent),
            ("others' messages", self.foreign),
            ("stalls", self.stalls),
            ("held subscriptions", u64::from(self.held_subscriptions)),
        ] {
            if count > 0 {
                rows.push((what, count.to_string()));
            }
        }
        rows.extend(self.latency_us.rows());
        if let Some(late) = &self.late_us {
            rows.push(("left late, p99", us(late.p99)));
        }
        if let Some(broker) = &self.broker {
            rows.push(("broker's CPU per message", us(broker.cpu_us)));
            rows.extend(broker.rows());
        }
        rows.push(("load's CPU per message", us(self.load.cpu_us)));
        rows.extend(self.load.rows());
        rows
    }
}

impl ConnectReport {
    /// For a person.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            (
                "connects",
                format!("{}, {} at once", self.connects, self.at_once),
            ),
            ("resumed", self.resumed.to_string()),
            ("failed", self.failed.to_string()),
        ];
        if let Some(failure) = &self.first_failure {
            rows.push(("first failure", failure.clone()));
        }
        rows.push(("connects", format!("{:.0}/s", self.per_s)));
        rows.extend(self.latency_us.rows());
        if let Some(broker) = &self.broker {
            rows.push(("broker's CPU per connect", us(broker.cpu_us)));
            rows.extend(broker.rows());
        }
        rows.push(("load's CPU per connect", us(self.load.cpu_us)));
        rows.extend(self.load.rows());
        rows
    }
}

impl IdleReport {
    /// For a person.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = vec![
            ("connections", self.connections.to_string()),
            (
                "connecting took",
                format!("{:.1} s", self.connecting_seconds),
            ),
            ("one took, p50", us(self.connecting_us.p50)),
            ("one took, p99", us(self.connecting_us.p99)),
            ("one took, max", us(self.connecting_us.max)),
            ("turned away", self.turned_away.to_string()),
            (
                "pings answered",
                format!("{} in {} s", self.pings, self.seconds),
            ),
        ];
        if let Some(bytes) = self.bytes_per_connection {
            rows.push((
                "memory per connection",
                format!("{:.1} KiB", bytes as f64 / 1024.0),
            ));
        }
        if let Some(bytes) = self.private_bytes {
            rows.push(("broker's private memory", mib(bytes)));
        }
        if let Some(cpu) = self.cpu_ms_per_s {
            rows.push(("broker's CPU", format!("{cpu:.2} ms/s")));
        }
        rows
    }
}

impl Latency {
    fn rows(&self) -> [Row; 5] {
        [
            ("latency p50", us(self.p50)),
            ("latency p90", us(self.p90)),
            ("latency p99", us(self.p99)),
            ("latency p99.9", us(self.p999)),
            ("latency max", us(self.max)),
        ]
    }

    /// The whole distribution, for a person.
    #[must_use]
    pub fn distribution(&self) -> Vec<(String, String)> {
        let row = |point: &Quantile| (format!("{:.4} %", point.quantile * 100.0), us(point.us));
        self.quantiles.iter().map(row).collect()
    }
}

impl Broker {
    fn rows(&self) -> [Row; 2] {
        [
            ("broker's cores", format!("{:.2}", self.cores)),
            ("broker's private memory", mib(self.private_bytes)),
        ]
    }
}

impl Load {
    fn rows(&self) -> [Row; 1] {
        let busy = if self.cores > BUSY_CORES {
            ": as much as its one thread can, so the broker may do more"
        } else {
            ""
        };
        [("load's cores", format!("{:.2}{busy}", self.cores))]
    }
}

fn us(us: f64) -> String {
    if us >= 10_000.0 {
        format!("{:.1} ms", us / 1e3)
    } else {
        format!("{us:.1} us")
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn name(shape: Shape) -> &'static str {
    match shape {
        Shape::Pairs => "pairs",
        Shape::FanIn => "fan-in",
        Shape::FanOut => "fan-out",
    }
}

fn shape<S: Serializer>(shape: &Shape, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name(*shape))
}

fn pacing<S: Serializer>(pacing: &Pacing, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Fields {
        r#loop: &'static str,
        in_flight: Option<u32>,
        rate: Option<u32>,
    }
    let (r#loop, in_flight, rate) = match *pacing {
        Pacing::InFlight(bound) => ("closed", Some(bound), None),
        Pacing::Rate(rate) => ("open", None, Some(rate)),
    };
    Fields {
        r#loop,
        in_flight,
        rate,
    }
    .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_ends_with_its_longest() {
        let mut histogram = Histogram::new(3).unwrap();
        for us in 1..=1000 {
            histogram.record(us * 1000).unwrap();
        }
        let latency = Latency::of(&histogram);
        assert_eq!(latency.count, 1000);
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted * 0.002;
        assert!(
            near(latency.p50, 500.0) && near(latency.p99, 990.0),
            "{latency:?}"
        );
        let last = latency.quantiles.last().unwrap();
        assert_eq!((last.quantile, near(last.us, 1000.0)), (1.0, true));
        assert_eq!(latency.distribution().last().unwrap().0, "100.0000 %");
    }

    #[test]
    fn nothing_recorded_is_nothing() {
        let latency = Latency::of(&Histogram::new(3).unwrap());
        assert_eq!((latency.count, latency.p99, latency.max), (0, 0.0, 0.0));
    }
}
