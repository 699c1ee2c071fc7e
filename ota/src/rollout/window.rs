//! Maintenance windows: a cron line says when one opens, a duration how long it stays open, and a time
//! zone whose clock is meant. An opening in an hour that a zone skips is the first moment after it; in an
//! hour that comes twice a fixed time opens once, with the first.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Shortest and longest time a window may stay open.
const DURATION_SECONDS: std::ops::RangeInclusive<i64> = 1..=7 * 86_400;
/// Openings looked at to find where windows that overlap come to an end.
const MAX_OVERLAPS: usize = 100;
/// More than any zone has ever skipped.
const LONGEST_GAP_HOURS: u64 = 48;
/// An opening further away than this is none: 29 February on a given weekday comes every 28 years.
const MAX_WAIT_YEARS: i64 = 30;

/// A recurring time in which devices may begin an install (`--window 'CRON/DURATION'`).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    text: String,
    cron: Box<Cron>,
    seconds: u64,
}

/// How a window stands at some moment, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// Open until then.
    Open {
        /// The first second outside.
        until: u64,
    },
    /// Closed.
    Closed {
        /// When it opens; `None` for never again.
        opens: Option<u64>,
    },
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Window {}

fn refuse(text: &str, why: impl fmt::Display) -> Error {
    Error::Rollout {
        why: format!(
            "window `{}`: {why}; write it as CRON/DURATION, as '0 2 * * 1-5/3h' for three hours from 02:00 on workdays",
            text.chars().take(80).collect::<String>().escape_debug()
        ),
    }
}

impl FromStr for Window {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        // A cron line has slashes of its own: the last one parts it from the duration.
        let (cron, length) = text
            .rsplit_once('/')
            .ok_or_else(|| refuse(text, "it has no `/DURATION`"))?;
        let length: SignedDuration = length
            .trim()
            .parse()
            .map_err(|_| refuse(text, format_args!("`{}` is no duration", length.trim())))?;
        if !DURATION_SECONDS.contains(&length.as_secs()) {
            return Err(refuse(text, "it must stay open for 1s to 168h (7 days)"));
        }
        let cron: Cron = cron
            .trim()
            .parse()
            .map_err(|error: croner::errors::CronError| {
                refuse(
                    text,
                    format_args!("`{}` is no cron line: {error}", cron.trim()),
                )
            })?;
        Ok(Self {
            text: text.to_owned(),
            cron: Box::new(cron),
            seconds: length.as_secs().unsigned_abs(),
        })
    }
}

impl TryFrom<String> for Window {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.text
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Window {
    /// How the window stands at `now` on the clocks of `zone`.
    #[must_use]
    pub fn at(&self, zone: &TimeZone, now: u64) -> Opening {
        let Some(first) = self.next(zone, now.saturating_sub(self.seconds), now) else {
            return Opening::Closed { opens: None };
        };
        if first > now {
            return Opening::Closed { opens: Some(first) };
        }
        let mut last = first;
        for _ in 0..MAX_OVERLAPS {
            match self.next(zone, last, now) {
                Some(next) if next <= last + self.seconds => last = next,
                _ => break,
            }
        }
        Opening::Open {
            until: last + self.seconds,
        }
    }

    /// Refuses a window that will not open again after `now`.
    ///
    /// # Errors
    /// [`Error::Rollout`] naming the window.
    pub fn check(&self, zone: &TimeZone, now: u64) -> Result<(), Error> {
        match self.at(zone, now) {
            Opening::Closed { opens: None } => Err(refuse(
                &self.text,
                "its cron line never comes true again, so nothing would ever be installed",
            )),
            _ => Ok(()),
        }
    }

    /// The first opening after `after`, if it is not too far from `now` to count.
    fn next(&self, zone: &TimeZone, after: u64, now: u64) -> Option<u64> {
        let next = self.occurrence(zone, after).or_else(|| {
            // The search gives up before a gap of more than two hours; zones have skipped whole days. Where
            // the line comes true at all, it is looked for on the other side.
            self.occurrence(&TimeZone::UTC, after)?;
            (1..=LONGEST_GAP_HOURS).find_map(|hours| self.occurrence(zone, after + hours * 3600))
        })?;
        let latest = i64::try_from(now)
            .ok()?
            .saturating_add(MAX_WAIT_YEARS * 31_557_600);
        u64::try_from(next).ok().filter(|_| next <= latest)
    }
}

impl Window {
    fn occurrence(&self, zone: &TimeZone, after: u64) -> Option<i64> {
        let from = Timestamp::from_second(i64::try_from(after).ok()?).ok()?;
        let next: Zoned = self
            .cron
            .find_next_occurrence(&from.to_zoned(zone.clone()), false)
            .ok()?;
        Some(next.timestamp().as_second())
    }
}

/// The zone of an IANA name, `Europe/Berlin`.
///
/// # Errors
/// [`Error::Rollout`] where there is no such zone; `whose` says where the name stands.
pub fn zone(name: &str, whose: &str) -> Result<TimeZone, Error> {
    TimeZone::get(name).map_err(|_| Error::Rollout {
        why: format!(
            "{whose} `{}` is no time zone; use an IANA name such as Europe/Berlin or UTC",
            name.chars().take(60).collect::<String>().escape_debug()
        ),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> u64 {
        let time: Timestamp = text.parse().unwrap();
        u64::try_from(time.as_second()).unwrap()
    }

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    fn opens(window: &Window, zone_name: &str, now: &str) -> String {
        match window.at(&zone(zone_name, "zone").unwrap(), at(now)) {
            Opening::Open { until } => format!("until {}", stamp(until)),
            Opening::Closed { opens } => format!("opens {}", opens.map_or("never".into(), stamp)),
        }
    }

    fn stamp(seconds: u64) -> String {
        Timestamp::from_second(seconds as i64).unwrap().to_string()
    }

    #[test]
    fn it_opens_by_the_clock_of_the_zone() {
        let nightly = window("0 2 * * */3h");
        for (zone, now, want) in [
            ("UTC", "2026-07-01T01:59:59Z", "opens 2026-07-01T02:00:00Z"),
            ("UTC", "2026-07-01T02:00:00Z", "until 2026-07-01T05:00:00Z"),
            ("UTC", "2026-07-01T04:59:59Z", "until 2026-07-01T05:00:00Z"),
            ("UTC", "2026-07-01T05:00:00Z", "opens 2026-07-02T02:00:00Z"),
            (
                "Europe/Berlin",
                "2026-07-01T00:00:00Z",
                "until 2026-07-01T03:00:00Z",
            ),
            (
                "America/New_York",
                "2026-07-01T05:00:00Z",
                "opens 2026-07-01T06:00:00Z",
            ),
            (
                "Asia/Kolkata",
                "2026-07-01T20:30:00Z",
                "until 2026-07-01T23:30:00Z",
            ),
        ] {
            assert_eq!(opens(&nightly, zone, now), want, "{zone} {now}");
        }
        let steps = window("*/15 8-17 * * 1-5/5m");
        assert_eq!(
            opens(&steps, "UTC", "2026-07-03T17:46:00Z"),
            "until 2026-07-03T17:50:00Z"
        );
        assert_eq!(
            opens(&steps, "UTC", "2026-07-03T17:50:00Z"),
            "opens 2026-07-06T08:00:00Z"
        );
    }

    #[test]
    fn hours_that_are_skipped_or_come_twice() {
        // Berlin 2026: 02:00 becomes 03:00 on 29 March, 03:00 becomes 02:00 on 25 October.
        let half_two = window("30 2 * * */1h");
        assert_eq!(
            opens(&half_two, "Europe/Berlin", "2026-03-28T12:00:00Z"),
            "opens 2026-03-29T01:00:00Z",
            "the first moment after the hour that is not there"
        );
        assert_eq!(
            opens(&half_two, "Europe/Berlin", "2026-03-29T12:00:00Z"),
            "opens 2026-03-30T00:30:00Z"
        );
        assert_eq!(
            opens(&half_two, "Europe/Berlin", "2026-10-24T12:00:00Z"),
            "opens 2026-10-25T00:30:00Z",
            "the first of the two"
        );
        assert_eq!(
            opens(&half_two, "Europe/Berlin", "2026-10-25T01:30:00Z"),
            "opens 2026-10-26T01:30:00Z",
            "not with the second of the two"
        );
        // A window that is open over the change is as long as it says.
        assert_eq!(
            opens(
                &window("0 1 * * */3h"),
                "Europe/Berlin",
                "2026-03-29T00:30:00Z"
            ),
            "until 2026-03-29T03:00:00Z"
        );
        // Samoa had no 30 December 2011 at all; Lord Howe moves by half an hour.
        assert_eq!(
            opens(
                &window("0 12 * * */1h"),
                "Pacific/Apia",
                "2011-12-29T23:30:00Z"
            ),
            "opens 2011-12-30T22:00:00Z"
        );
        assert_eq!(
            opens(
                &window("15 2 * * */1h"),
                "Australia/Lord_Howe",
                "2026-10-03T10:00:00Z"
            ),
            "opens 2026-10-03T15:30:00Z"
        );
    }

    #[test]
    fn windows_that_overlap_are_one() {
        assert_eq!(
            opens(&window("0 2,3,4 * * */90m"), "UTC", "2026-07-01T02:10:00Z"),
            "until 2026-07-01T05:30:00Z"
        );
        let always = window("* * * * */2m");
        assert!(opens(&always, "UTC", "2026-07-01T02:10:30Z").starts_with("until 2026-07-01T03"));
    }

    #[test]
    fn what_never_opens_or_means_nothing_is_refused_in_words() {
        let utc = TimeZone::UTC;
        let now = at("2026-07-01T00:00:00Z");
        let words = |text: &str| match text.parse::<Window>() {
            Err(error) => error.to_string(),
            Ok(window) => window.check(&utc, now).unwrap_err().to_string(),
        };
        assert!(words("0 0 30 2 */1h").contains("never comes true"));
        assert!(words("0 0 0 1 1 * 2020/1h").contains("never comes true"));
        assert!(window("0 0 29 2 */1h").check(&utc, now).is_ok());
        assert!(words("0 2 * * *").contains("no `/DURATION`"));
        assert!(words("daily").contains("no `/DURATION`"));
        assert!(words("0 2 * * */soon").contains("`soon` is no duration"));
        assert!(words("61 2 * * */1h").contains("no cron line"));
        assert!(words("/1h").contains("no cron line"));
        for bad in ["0 2 * * */0s", "0 2 * * */-1h", "0 2 * * */169h"] {
            assert!(words(bad).contains("1s to 168h"), "{bad}");
        }
        assert!(
            zone("Europe/Atlantis", "--zone")
                .unwrap_err()
                .to_string()
                .contains("IANA")
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}", now in 0..4_000_000_000u64) {
            if let Ok(window) = text.parse::<Window>() {
                let opening = window.at(&TimeZone::UTC, now);
                let ended = matches!(opening, Opening::Open { until } if until <= now);
                prop_assert!(!ended);
            }
        }

        #[test]
        fn open_and_closed_agree_with_each_other(
            minute in 0..60u8, hour in 0..24u8, length in 1..2000u64,
            name in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe"]),
            now in 1_300_000_000..2_000_000_000u64,
        ) {
            let window: Window = format!("{minute} {hour} * * */{length}m").parse().unwrap();
            let zone = zone(name, "zone").unwrap();
            match window.at(&zone, now) {
                Opening::Closed { opens } => {
                    let opens = opens.unwrap();
                    prop_assert!(opens > now);
                    let open = matches!(window.at(&zone, opens), Opening::Open { .. });
                    prop_assert!(open, "it is open when it opens");
                    let before = matches!(window.at(&zone, opens - 1), Opening::Closed { .. });
                    prop_assert!(before, "it is closed until then");
                }
                Opening::Open { until } => {
                    prop_assert!(until > now);
                    let still = matches!(window.at(&zone, until - 1), Opening::Open { .. });
                    prop_assert!(still);
                }
            }
        }
    }
}
