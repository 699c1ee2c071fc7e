//! How fast devices are told: a rate that stands, or one that grows as AWS IoT's exponential rate does.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::Error;

/// Smallest and largest factor, in tenths (AWS IoT: 1.1 to 5).
const FACTOR_TENTHS: std::ops::RangeInclusive<u16> = 11..=50;

/// What a rate grows to where nothing is said, in devices a minute (AWS IoT: as much, and no more).
const GROWS_TO: u32 = 1_000;

/// Most devices told within any 60 seconds (`--rate`): `50/min`, or `50/min x2/1000 to 5000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The rate, and where it grows what it begins with.
    pub per_minute: u32,
    /// How it grows.
    pub growth: Option<Growth>,
}

/// How a rate grows: `x2/1000` doubles it each time another 1000 devices were told, `x1.5/200 succeeded`
/// each time another 200 have succeeded. Both end at 1,000 a minute, or at another greatest: a rate that grows by those
/// it has told would soon tell all the rest at once, before any of them has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Growth {
    /// The factor in tenths.
    pub factor_tenths: u16,
    /// After how many devices.
    pub every: u32,
    /// Which devices.
    pub counts: Counted,
    /// The greatest rate.
    #[serde(default = "grows_to")]
    pub most: u32,
}

const fn grows_to() -> u32 {
    GROWS_TO
}

/// What a rate grows by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Devices that were told.
    Told,
    /// Devices that have succeeded.
    Succeeded,
}

impl Growth {
    /// The rate that began as `base`, now that so many devices were counted.
    #[must_use]
    pub fn rate(&self, base: u32, counted: usize) -> u32 {
        let every = usize::try_from(self.every).unwrap_or(usize::MAX).max(1);
        let most = u64::from(self.most.max(base));
        let mut thousandths = u64::from(base) * 1000;
        for _ in 0..counted / every {
            thousandths = thousandths * u64::from(self.factor_tenths) / 10;
            if thousandths / 1000 >= most || thousandths == 0 {
                break;
            }
        }
        u32::try_from((thousandths / 1000).min(most)).unwrap_or(u32::MAX)
    }

    /// Refuses what means nothing.
    ///
    /// # Errors
    /// [`Error::Rollout`] naming the value and the mend.
    pub fn check(&self) -> Result<(), Error> {
        let why = if !FACTOR_TENTHS.contains(&self.factor_tenths) {
            format!(
                "--rate grows by x{}; x1.1 to x5 are possible",
                f64::from(self.factor_tenths) / 10.0
            )
        } else if self.every == 0 {
            "--rate grows after 0 devices; write 1 or more".into()
        } else if self.most == 0 {
            "--rate grows to 0 devices a minute; write 1 or more".into()
        } else {
            return Ok(());
        };
        Err(Error::Rollout { why })
    }
}

impl FromStr for Rate {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let read = || {
            let mut words = text.split_whitespace().peekable();
            let per_minute = words.next()?.strip_suffix("/min")?.parse().ok()?;
            let growth = match words.next() {
                None => None,
                Some(growth) => {
                    let (factor, every) = growth.strip_prefix('x')?.split_once('/')?;
                    let (whole, tenths) = factor.split_once('.').unwrap_or((factor, "0"));
                    let tenths: u16 = tenths.parse().ok().filter(|_| tenths.len() == 1)?;
                    let whole: u16 = whole.parse().ok()?;
                    let counts = if words.next_if_eq(&"succeeded").is_some() {
                        Counted::Succeeded
                    } else {
                        words.next_if_eq(&"told");
                        Counted::Told
                    };
                    let most = match words.next_if_eq(&"to") {
                        Some(_) => words.next()?.parse().ok()?,
                        None => GROWS_TO,
                    };
                    Some(Growth {
                        factor_tenths: whole.checked_mul(10)?.checked_add(tenths)?,
                        every: every.parse().ok()?,
                        counts,
                        most,
                    })
                }
            };
            words
                .next()
                .is_none()
                .then_some(Self { per_minute, growth })
        };
        let shown = || text.chars().take(80).collect::<String>();
        let rate: Self = read().ok_or_else(|| Error::Rollout {
            why: format!(
                "--rate `{}`: write it as 100/min, or as `50/min x2/1000` to double it after each 1000 devices that were told (`x2/1000 succeeded`: that succeeded), to {GROWS_TO} a minute at most (`x2/1000 to 5000`: to 5000)",
                shown().escape_debug()
            ),
        })?;
        match rate.growth {
            Some(growth) if growth.most > 0 && growth.most <= rate.per_minute => {
                Err(Error::Rollout {
                    why: format!(
                        "--rate `{}` grows to {} a minute, where it begins already; write behind it how far it may grow, `to {}`",
                        shown().escape_debug(),
                        growth.most,
                        u64::from(rate.per_minute) * 4
                    ),
                })
            }
            _ => Ok(rate),
        }
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Seen;
        impl Visitor<'_> for Seen {
            type Value = Rate;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate: devices in a minute, or text such as `50/min x2/1000`")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Rate, E> {
                let per_minute = u32::try_from(number).map_err(E::custom)?;
                Ok(Rate {
                    per_minute,
                    growth: None,
                })
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Rate, E> {
                text.parse().map_err(E::custom)
            }
        }
        from.deserialize_any(Seen)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        let rate = |text: &str| text.parse::<Rate>().unwrap();
        assert_eq!(
            (rate("100/min").per_minute, rate("100/min").growth),
            (100, None)
        );
        let growth = rate("50/min x1.5/200 succeeded").growth.unwrap();
        assert_eq!(
            (growth.factor_tenths, growth.every, growth.counts),
            (15, 200, Counted::Succeeded)
        );
        assert_eq!(rate("50/min x2/1000").growth.unwrap().counts, Counted::Told);
        for bad in [
            "",
            "50",
            "50/h",
            "x/min",
            "50/min 2/1000",
            "50/min x2",
            "50/min x2.55/10",
            "50/min x2/10 failed",
            "50/min x2/10 told too",
            "50/min x9999999/10",
            "50/min x2/10 to",
            "50/min x2/10 to many",
            "50/min x2/10 to 60 told",
        ] {
            let words = bad.parse::<Rate>().unwrap_err().to_string();
            assert!(words.contains("x2/1000"), "{words}");
        }
        let most = |text: &str| rate(text).growth.unwrap().most;
        assert_eq!(
            [
                most("50/min x2/1000"),
                most("50/min x2/1000 to 5000"),
                most("50/min x2/1000 succeeded to 51"),
            ],
            [1000, 5000, 51]
        );
        for (bad, mend) in [
            ("1000/min x2/10", "`to 4000`"),
            ("50/min x2/10 to 50", "`to 200`"),
        ] {
            let words = bad.parse::<Rate>().unwrap_err().to_string();
            assert!(words.contains(mend), "{words}");
        }
        assert!(rate("5/min x2/1 to 0").growth.unwrap().check().is_err());
        let from = |json: &str| serde_json::from_str::<Rate>(json).unwrap();
        assert_eq!(from("7"), rate("7/min"));
        assert_eq!(from("\"7/min x5/1\""), rate("7/min x5/1"));
        assert!(serde_json::from_str::<Rate>("-7").is_err());
        assert!(rate("5/min x1/10").growth.unwrap().check().is_err());
        assert!(rate("5/min x5.1/10").growth.unwrap().check().is_err());
        assert!(rate("5/min x2/0").growth.unwrap().check().is_err());
        assert!(rate("5/min x1.1/1").growth.unwrap().check().is_ok());
    }

    #[test]
    fn it_grows_as_aws_says_it_does() {
        // 50, 100, 200, 400 at 1000, 2000, 3000 notified.
        let growth = "50/min x2/1000".parse::<Rate>().unwrap().growth.unwrap();
        let at = |count| growth.rate(50, count);
        assert_eq!(
            [at(0), at(999), at(1000), at(2000), at(3000)],
            [50, 50, 100, 200, 400]
        );
        assert_eq!([at(5000), at(1_000_000)], [1000, 1000], "and no further");
        assert_eq!(
            growth.rate(2000, 1_000_000),
            2000,
            "one from before there was an end"
        );
        let slow = "1/min x1.1/1".parse::<Rate>().unwrap().growth.unwrap();
        assert_eq!(slow.rate(1, 8), 2, "the tenths are not lost on the way");
    }

    proptest! {
        #[test]
        fn it_never_shrinks_and_never_overflows(base in 1..=u32::MAX, tenths in 11..=50u16, every in 1..100u32, most in any::<u32>(), count in any::<usize>()) {
            let growth = Growth { factor_tenths: tenths, every, counts: Counted::Told, most };
            prop_assert!((base..=base.max(most)).contains(&growth.rate(base, count)));
            prop_assert!(growth.rate(base, count.saturating_add(every as usize)) >= growth.rate(base, count));
        }
    }
}
