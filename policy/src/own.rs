//! Muster's own condition keys, `muster:…`: what this server knows of a connection, its device
//! and its message beyond AWS's keys.
//!
//! One rule sets them apart: what is not known never meets a condition of an Allow, whatever the
//! operator; only `Null` may ask whether it is known. A Deny treats them as it treats AWS's.

use std::sync::Arc;

use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::action::Action;
use crate::context::{Context, Listener, MessageFacts, TlsVersion};
use crate::operator::Family;
use crate::shown::{WORD_MAX_CHARS, nearest};
use crate::values::Comparison;

/// One of Muster's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Own {
    SourceNetwork,
    Listener,
    TlsVersion,
    TimeOfDay(Zone),
    Weekday(Zone),
    MessageSize,
    Qos,
    Retain,
    CertificateAge,
    CertificateRemainingLife,
    CertificateKeyKind,
    EnrolmentWay,
    FirmwareName,
    FirmwareVersion,
    Quarantined,
    Attested,
    LastViolationAge,
}

/// A time zone under the name that the document has for it; none is UTC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Zone {
    name: Option<Box<str>>,
    zone: TimeZone,
}

/// What a key may be compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// By String operators; the words there are, where they are few.
    Text(&'static [&'static str]),
    /// By Numeric operators.
    Number,
    /// By Date operators, with `08:30` or `08:30:59`.
    TimeOfDay,
    /// By Bool.
    Flag,
}

const UTC: Zone = Zone {
    name: None,
    zone: TimeZone::UTC,
};

const WEEKDAYS: &[&str] = &[
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// Every key with its name and how it is compared: the table of `docs/policy-condition-keys.md`.
const KEYS: [(Own, &str, Compared); 17] = [
    (
        Own::SourceNetwork,
        "muster:SourceNetwork",
        Compared::Text(&[]),
    ),
    (
        Own::Listener,
        "muster:Listener",
        Compared::Text(&["mqtt", "wss", "https"]),
    ),
    (
        Own::TlsVersion,
        "muster:TlsVersion",
        Compared::Text(&["1.2", "1.3"]),
    ),
    (Own::TimeOfDay(UTC), "muster:TimeOfDay", Compared::TimeOfDay),
    (
        Own::Weekday(UTC),
        "muster:Weekday",
        Compared::Text(WEEKDAYS),
    ),
    (Own::MessageSize, "muster:MessageSize", Compared::Number),
    (Own::Qos, "muster:QoS", Compared::Number),
    (Own::Retain, "muster:Retain", Compared::Flag),
    (
        Own::CertificateAge,
        "muster:CertificateAge",
        Compared::Number,
    ),
    (
        Own::CertificateRemainingLife,
        "muster:CertificateRemainingLife",
        Compared::Number,
    ),
    (
        Own::CertificateKeyKind,
        "muster:CertificateKeyKind",
        Compared::Text(&[
            "P-256", "P-384", "Ed25519", "RSA-2048", "RSA-3072", "RSA-4096",
        ]),
    ),
    (
        Own::EnrolmentWay,
        "muster:EnrolmentWay",
        Compared::Text(&["operator", "claim", "est", "jitp", "jitr", "bulk", "import"]),
    ),
    (
        Own::FirmwareName,
        "muster:FirmwareName",
        Compared::Text(&[]),
    ),
    (
        Own::FirmwareVersion,
        "muster:FirmwareVersion",
        Compared::Text(&[]),
    ),
    (Own::Quarantined, "muster:Quarantined", Compared::Flag),
    (Own::Attested, "muster:Attested", Compared::Flag),
    (
        Own::LastViolationAge,
        "muster:LastViolationAge",
        Compared::Number,
    ),
];

/// Before the name of every one of them.
pub(crate) const PREFIX: &str = "muster:";

impl Own {
    /// Reads a key's name; upper and lower case are one, also of a zone.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let (word, zone) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
            Some((word, zone)) => (word, Some(zone)),
            None => (name, None),
        };
        let known = KEYS.into_iter();
        let mut known = known.filter(|(_, known, _)| known.eq_ignore_ascii_case(word));
        let (key, ..) = known.next()?;
        let Some(zone) = zone else { return Some(key) };
        let zone = Zone::named(zone)?;
        match key {
            Own::TimeOfDay(_) => Some(Own::TimeOfDay(zone)),
            Own::Weekday(_) => Some(Own::Weekday(zone)),
            _ => None,
        }
    }

    /// The known name that was probably meant.
    pub(crate) fn nearest(name: &str) -> Option<String> {
        match name.split_once('[') {
            Some((word, zone)) => {
                let word = nearest(word, &["muster:TimeOfDay", "muster:Weekday"])?;
                let zone = zone.trim_end_matches(']');
                let zone = match Zone::named(zone) {
                    Some(_) => zone.to_owned(),
                    None => Zone::nearest(zone).unwrap_or_else(|| "Europe/Berlin".to_owned()),
                };
                Some(format!("{word}[{zone}]"))
            }
            None => nearest(name, &KEYS.map(|(_, name, _)| name)).map(str::to_owned),
        }
    }

    fn row(&self) -> Option<&'static (Own, &'static str, Compared)> {
        static TABLE: [(Own, &str, Compared); 17] = KEYS;
        let same = |known: &Own| std::mem::discriminant(known) == std::mem::discriminant(self);
        TABLE.iter().find(|(known, ..)| same(known))
    }

    fn compared(&self) -> Compared {
        self.row()
            .map_or(Compared::Flag, |(_, _, compared)| *compared)
    }

    /// Whether something is known of it where this is asked; for the keys of a message.
    pub(crate) fn is_known_of(&self, action: Action) -> bool {
        let of_message = matches!(
            action,
            Action::Publish | Action::RetainPublish | Action::Receive
        );
        of_message || *self == Own::Qos && action == Action::Subscribe
    }

    /// What an operator must be for this key, where `family` is not that.
    pub(crate) fn mismatch(&self, family: Family) -> Option<&'static str> {
        let fits = match (self.compared(), family) {
            (_, Family::Null) => true,
            (Compared::Text(_), family) => {
                matches!(family, Family::Text(_))
                    || *self == Own::TlsVersion && matches!(family, Family::Numeric(_))
            }
            (Compared::Number, family) => matches!(family, Family::Numeric(_)),
            (Compared::TimeOfDay, family) => matches!(family, Family::Date(_)),
            (Compared::Flag, family) => family == Family::Bool,
        };
        (!fits).then_some(match self.compared() {
            Compared::Text(_) => "a String operator, such as StringEquals",
            Compared::Number => "a Numeric operator, such as NumericLessThan",
            Compared::TimeOfDay => "a Date operator, such as DateLessThan, with times like 08:30",
            Compared::Flag => "Bool",
        })
    }

    /// The words that the key may hold, where `family` compares with whole words and this is none.
    pub(crate) fn unknown_word(&self, family: Family, word: &str) -> Option<&'static str> {
        let Compared::Text(words) = self.compared() else {
            return None;
        };
        let known = match family {
            Family::Text(Comparison::Exact) => words.contains(&word),
            Family::Text(Comparison::IgnoringCase) => {
                words.iter().any(|known| known.eq_ignore_ascii_case(word))
            }
            _ => true,
        };
        if words.is_empty() || known {
            return None;
        }
        Some(match self {
            Own::Listener => "mqtt, wss or https",
            Own::TlsVersion => "1.2 or 1.3",
            Own::Weekday(_) => "a day such as Monday",
            Own::EnrolmentWay => "operator, claim, est, jitp, jitr, bulk or import",
            _ => "P-256, P-384, Ed25519, RSA-2048, RSA-3072 or RSA-4096",
        })
    }

    /// Whether it is a property of a message, so that a decision on it holds for that message
    /// only.
    pub(crate) fn is_of_message(&self) -> bool {
        matches!(self, Own::MessageSize | Own::Qos | Own::Retain)
    }

    /// Whether time alone changes it.
    pub(crate) fn is_moving(&self) -> bool {
        matches!(
            self,
            Own::TimeOfDay(_)
                | Own::Weekday(_)
                | Own::CertificateAge
                | Own::CertificateRemainingLife
                | Own::Attested
                | Own::LastViolationAge
        )
    }

    /// Every value in a connection, for a message where it is about one.
    pub(crate) fn values(&self, context: &Context, message: &MessageFacts) -> Vec<Arc<str>> {
        fn one<T: ToString>(value: Option<T>) -> Vec<Arc<str>> {
            value.into_iter().map(|v| v.to_string().into()).collect()
        }
        let posture = &context.posture;
        let since = |then: Option<i64>| Some(context.now?.saturating_sub(then?).max(0));
        match self {
            Own::SourceNetwork => match context.source_ip {
                Some(address) => context.networks.of(address).cloned().collect(),
                None => Vec::new(),
            },
            Own::Listener => one(context.listener.map(Listener::name)),
            Own::TlsVersion => one(context.tls_version.map(TlsVersion::name)),
            Own::TimeOfDay(zone) => {
                one(context
                    .now
                    .and_then(|now| zone.time_of_day(now))
                    .map(|seconds| {
                        let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
                        format!("{hour:02}:{minute:02}:{:02}", seconds % 60)
                    }))
            }
            Own::Weekday(zone) => one(context.now.and_then(|now| zone.weekday(now))),
            Own::MessageSize => one(message.size_bytes),
            Own::Qos => one(message.qos),
            Own::Retain => one(message.retain),
            Own::CertificateAge => one(since(context.certificate.not_before)),
            Own::CertificateRemainingLife => one((|| {
                Some(context.certificate.not_after?.saturating_sub(context.now?))
            })()),
            Own::CertificateKeyKind => one(context.certificate.key_kind.as_deref()),
            Own::EnrolmentWay => one(context.certificate.enrolled_by.as_deref()),
            Own::FirmwareName => one(posture.firmware_name.as_deref()),
            Own::FirmwareVersion => one(posture.firmware_version.as_deref()),
            Own::Quarantined => one(posture.quarantined),
            Own::Attested => one(posture.is_attested(context.now)),
            Own::LastViolationAge => one(since(posture.last_violation)),
        }
    }

    /// The first second after `now` at which a comparison with one of `limits` (seconds, or the
    /// time of day in seconds) may come out otherwise.
    pub(crate) fn turns(&self, context: &Context, limits: &[i128]) -> Option<i64> {
        let now = context.now?;
        let at = |base: Option<i64>, ahead: bool| {
            let base = i128::from(base?);
            let moments = limits.iter().flat_map(|limit| {
                let moment = if ahead {
                    base.saturating_add(*limit)
                } else {
                    base.saturating_sub(*limit)
                };
                // A limit with a fraction, and operators with and without equality.
                [moment.saturating_sub(1), moment, moment.saturating_add(1)]
            });
            let moments = moments.filter(|moment| *moment > i128::from(now));
            moments.min().and_then(|moment| i64::try_from(moment).ok())
        };
        match self {
            Own::TimeOfDay(zone) => zone.turns(now, limits),
            Own::Weekday(zone) => zone.turns(now, &[]),
            Own::CertificateAge => at(context.certificate.not_before, true),
            Own::CertificateRemainingLife => at(context.certificate.not_after, false),
            Own::Attested => {
                let attested = context.posture.is_attested(Some(now)) == Some(true);
                context.posture.attested_until.filter(|_| attested)
            }
            Own::LastViolationAge => at(context.posture.last_violation, true),
            _ => None,
        }
    }

    pub(crate) fn write(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.row().map_or("?", |(_, name, _)| name))?;
        match self {
            Own::TimeOfDay(Zone {
                name: Some(name), ..
            })
            | Own::Weekday(Zone {
                name: Some(name), ..
            }) => write!(f, "[{name}]"),
            _ => Ok(()),
        }
    }
}

const DAY_S: i64 = 24 * 60 * 60;

impl Zone {
    fn named(name: &str) -> Option<Self> {
        // The zones that come with the program: a decision does not depend on the machine.
        let zone = TimeZoneDatabase::bundled().get(name).ok()?;
        Some(Self {
            name: Some(zone.iana_name().unwrap_or(name).into()),
            zone,
        })
    }

    /// The zone whose name was probably meant.
    fn nearest(name: &str) -> Option<String> {
        const SLIPS_MAX: usize = 2;
        if name.len() > WORD_MAX_CHARS {
            return None;
        }
        let name = name.to_ascii_lowercase();
        let zones = TimeZoneDatabase::bundled();
        let near = zones.available().map(|zone| {
            let zone = zone.as_str();
            let slips = strsim::damerau_levenshtein(&name, &zone.to_ascii_lowercase());
            (slips, zone.to_owned())
        });
        let near = near.filter(|(slips, _)| *slips <= SLIPS_MAX).min();
        near.map(|(_, zone)| zone)
    }

    fn local(&self, now: i64) -> Option<jiff::Zoned> {
        let moment = jiff::Timestamp::from_second(now).ok()?;
        Some(moment.to_zoned(self.zone.clone()))
    }

    /// Seconds since midnight.
    fn time_of_day(&self, now: i64) -> Option<i64> {
        let local = self.local(now)?;
        let (hour, minute) = (i64::from(local.hour()), i64::from(local.minute()));
        Some(hour * 3600 + minute * 60 + i64::from(local.second()))
    }

    fn weekday(&self, now: i64) -> Option<&'static str> {
        let day = self.local(now)?.weekday().to_monday_zero_offset();
        WEEKDAYS.get(usize::try_from(day).ok()?).copied()
    }

    /// When the local clock next stands at one of `limits` or the second behind it, at midnight,
    /// or is put forward or back: between those a comparison comes out the same.
    fn turns(&self, now: i64, limits: &[i128]) -> Option<i64> {
        let moment = jiff::Timestamp::from_second(now).ok()?;
        let today = self.time_of_day(now)?;
        let changed = self.zone.following(moment).next();
        let changed = changed.map(|transition| transition.timestamp().as_second());
        let limits = limits.iter().filter_map(|limit| i64::try_from(*limit).ok());
        let marks = limits.flat_map(|limit| [limit, limit.saturating_add(1)]);
        let marks = marks.filter(|mark| (today + 1..DAY_S).contains(mark));
        let ahead = marks.chain([DAY_S]).min()? - today;
        let clock = now.saturating_add(ahead);
        Some(
            changed
                .filter(|at| *at > now)
                .map_or(clock, |at| at.min(clock)),
        )
    }
}

/// Reads `08:30` or `08:30:59` as nanoseconds since midnight.
pub(crate) fn time_of_day(text: &str) -> Option<i128> {
    let mut parts = text.split(':');
    let mut part = |below: i128| {
        let part = parts.next()?;
        let digits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        let value = digits.then(|| part.parse::<i128>().ok())??;
        (value < below).then_some(value)
    };
    let (hour, minute) = (part(24)?, part(60)?);
    let second = if text.len() == 5 { 0 } else { part(60)? };
    let seconds = hour * 3600 + minute * 60 + second;
    parts.next().is_none().then_some(seconds * 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<jiff::Timestamp>().unwrap().as_second()
    }

    #[test]
    fn every_key_is_read_as_it_is_written_and_in_any_case() {
        for (key, name, _) in KEYS {
            assert_eq!(Own::named(name), Some(key.clone()), "{name}");
            assert_eq!(Own::named(&name.to_lowercase()), Some(key), "{name}");
        }
        let berlin = Own::named("muster:Weekday[europe/berlin]").unwrap();
        assert_eq!(
            crate::key::Key::Own(berlin).to_string(),
            "muster:Weekday[Europe/Berlin]"
        );
        for none in [
            "muster:",
            "muster:Qos[UTC]",
            "muster:Weekday[]",
            "muster:Weekday[Europe/Atlantis]",
            "muster:Weekday[Europe/Berlin",
            "iot:QoS",
        ] {
            assert_eq!(Own::named(none), None, "{none}");
        }
        assert_eq!(
            Own::nearest("muster:MesageSize").as_deref(),
            Some("muster:MessageSize")
        );
        assert_eq!(
            Own::nearest("muster:TimeOfday[Europe/Atlantis]").as_deref(),
            Some("muster:TimeOfDay[Europe/Berlin]")
        );
        assert_eq!(
            Own::nearest("muster:TimeOfDay[America/New_Yrk]").as_deref(),
            Some("muster:TimeOfDay[America/New_York]")
        );
    }

    #[test]
    fn times_of_day_are_read() {
        let second = |n: i128| Some(n * 1_000_000_000);
        for (text, expected) in [
            ("00:00", second(0)),
            ("08:30", second(30_600)),
            ("23:59:59", second(86_399)),
            ("24:00", None),
            ("8:30", None),
            ("08:60", None),
            ("08:30:", None),
            ("08:30:1", None),
            ("08:30:00:00", None),
            ("", None),
            ("+8:30", None),
        ] {
            assert_eq!(time_of_day(text), expected, "{text}");
        }
    }

    /// Second by second over days in which the clock is put forward and back: the value of a
    /// comparison changes only where `turns` said that it may.
    #[test]
    fn nothing_turns_unannounced() {
        for (zone, day) in [
            ("Europe/Berlin", "2026-03-28T20:00:00Z"),
            ("Europe/Berlin", "2026-10-24T20:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T10:00:00Z"),
            ("UTC", "2026-01-01T00:00:00Z"),
        ] {
            let zone = Zone::named(zone).unwrap();
            let limits = [2 * 3600 + 1800, 3600, 0, 86_399];
            let start = at(day);
            let seen = |now| {
                let today = i128::from(zone.time_of_day(now).unwrap());
                (limits.map(|limit| today.cmp(&limit)), zone.weekday(now))
            };
            let mut turn = start;
            for now in start..start + 36 * 3600 {
                if now == turn {
                    turn = zone.turns(now, &limits).unwrap();
                    assert!(turn > now);
                } else {
                    assert_eq!(seen(now), seen(now - 1), "{now} in {zone:?}");
                }
            }
        }
    }
}
