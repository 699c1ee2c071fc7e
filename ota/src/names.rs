//! Names that cannot hold an invalid value: they become file names, URL segments and store keys, so
//! nothing that any of these reads specially ever gets in.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Longest firmware name, version, hardware id or rollout id.
pub const MAX_NAME_BYTES: usize = 64;

/// `true` for a first byte that no path, shell or URL gives a meaning to.
const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// Where the characters of a name that are no letters and digits may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extra {
    AfterTheFirst,
    Anywhere,
}

/// Checks `text` against `[A-Za-z0-9][A-Za-z0-9<extra>]{0,63}`, or `[A-Za-z0-9<extra>]{1,64}`.
fn check(
    what: &'static str,
    text: &str,
    extra: &'static str,
    place: Extra,
) -> Result<Box<str>, Error> {
    let fits = (1..=MAX_NAME_BYTES).contains(&text.len())
        && (place == Extra::Anywhere || text.bytes().next().is_some_and(is_plain))
        && text
            .bytes()
            .all(|b| is_plain(b) || extra.as_bytes().contains(&b));
    if fits {
        Ok(text.into())
    } else {
        Err(Error::Name {
            what,
            value: text.chars().take(MAX_NAME_BYTES + 1).collect(),
            extra,
            begins: match place {
                Extra::AfterTheFirst => ", beginning with a letter or digit",
                Extra::Anywhere => "",
            },
        })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $extra:literal) => {
        name!($(#[$doc])* $name, $what, $extra, AfterTheFirst);
    };
    ($(#[$doc:meta])* $name:ident, $what:literal, $extra:literal, $place:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The text, as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                check($what, text, $extra, Extra::$place).map(Self)
            }
        }
        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// What a firmware is called, `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    FirmwareName, "firmware name", "._-"
);
name!(
    /// A firmware's version, `[A-Za-z0-9][A-Za-z0-9._+-]{0,63}`. `Ord` is by bytes, for maps; which of
    /// two is newer is told by [`FirmwareVersion::precedence`].
    FirmwareVersion, "firmware version", "._+-"
);
name!(
    /// A kind of hardware an image is for, `[A-Za-z0-9][A-Za-z0-9._:-]{0,63}`.
    HardwareId, "hardware id", "._:-"
);
name!(
    /// A job's id in AWS IoT's alphabet, `[A-Za-z0-9_-]{1,64}`.
    JobId, "job id", "_-", Anywhere
);
name!(
    /// A rollout's id. Its jobs' ids are made from it, so it is shorter in practice.
    RolloutId, "rollout id", "_-"
);

name!(
    /// A role that firmware is delegated to. It becomes the name of a metadata file, so it has no dots,
    /// and it is none of TUF's own (see [`RoleName::is_free`]).
    RoleName, "delegate", "_-"
);

impl RoleName {
    /// Whether it is no name of a role that the trust root itself names.
    #[must_use]
    pub fn is_free(&self) -> bool {
        !["root", "targets", "snapshot", "timestamp"].contains(&self.as_str())
    }
}

impl FirmwareVersion {
    /// Which of two versions is newer, by Semantic Versioning 2.0.0 §11 taken to any number of
    /// dot-separated parts (a missing part counts as 0): a pre-release (`1.2.0-rc1`) is older than its
    /// release, build metadata (`+…`) does not count.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        let (core_a, pre_a) = self.halves();
        let (core_b, pre_b) = other.halves();
        parts(core_a, core_b, Some("0")).then_with(|| match (pre_a, pre_b) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => parts(a, b, None),
        })
    }

    fn halves(&self) -> (&str, Option<&str>) {
        let bare = self
            .0
            .split_once('+')
            .map_or(&*self.0, |(bare, _build)| bare);
        bare.split_once('-')
            .map_or((bare, None), |(core, pre)| (core, Some(pre)))
    }
}

/// Compares dot-separated identifiers one by one; `filler` stands for a missing one, and where there is
/// no filler the shorter list is the older.
fn parts(a: &str, b: &str, filler: Option<&'static str>) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let (left, right) = match (a.next(), b.next(), filler) {
            (None, None, _) => return Ordering::Equal,
            (None, Some(_), None) => return Ordering::Less,
            (Some(_), None, None) => return Ordering::Greater,
            (left, right, filler) => (
                left.or(filler).unwrap_or_default(),
                right.or(filler).unwrap_or_default(),
            ),
        };
        let order = identifier(left, right);
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// SemVer §11.4: numbers by value and before words, words by bytes.
fn identifier(a: &str, b: &str) -> Ordering {
    let numeric = |s: &str| !s.is_empty() && s.bytes().all(|c| c.is_ascii_digit());
    match (numeric(a), numeric(b)) {
        (true, true) => {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        }
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_that_climbs_out_of_a_directory_is_a_name() {
        for bad in [
            "", ".", "..", "../x", "a/b", ".hidden", "-rf", "a b", "a\0", "é", "a\n", "a%2f",
            "a\\b",
        ] {
            assert!(bad.parse::<FirmwareName>().is_err(), "{bad:?}");
            assert!(bad.parse::<FirmwareVersion>().is_err(), "{bad:?}");
            // What begins like an option of a command is a job's id with AWS, and leads nowhere.
            assert_eq!(bad.parse::<JobId>().is_err(), bad != "-rf", "{bad:?}");
        }
        for good in ["_x", "-x", "_", "r-1"] {
            assert_eq!(good.parse::<JobId>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn the_bound_holds_and_one_past_it_does_not() {
        assert!("a".repeat(MAX_NAME_BYTES).parse::<FirmwareName>().is_ok());
        let error = "a"
            .repeat(MAX_NAME_BYTES + 1)
            .parse::<FirmwareName>()
            .unwrap_err();
        assert!(error.to_string().contains("firmware name"), "{error}");
    }

    #[test]
    fn a_bad_name_in_json_is_refused_too() {
        assert!(serde_json::from_str::<FirmwareName>("\"../../etc\"").is_err());
        assert_eq!(
            serde_json::from_str::<FirmwareName>("\"lamp\"")
                .unwrap()
                .as_str(),
            "lamp"
        );
    }

    #[test]
    fn versions_are_compared_as_semantic_versioning_has_it() {
        let ordered = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.9",
            "1.10",
            "2",
            "10.0",
        ];
        let parsed: Vec<FirmwareVersion> = ordered.iter().map(|v| v.parse().unwrap()).collect();
        for (i, a) in parsed.iter().enumerate() {
            for (j, b) in parsed.iter().enumerate() {
                assert_eq!(a.precedence(b), i.cmp(&j), "{a} and {b}");
            }
        }
        let v = |s: &str| s.parse::<FirmwareVersion>().unwrap();
        assert_eq!(v("1.0").precedence(&v("1.0.0+build7")), Ordering::Equal);
        assert_eq!(v("1.007").precedence(&v("1.7")), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn precedence_is_antisymmetric(a in "[0-9a-b][0-9a-b.+-]{0,12}", b in "[0-9a-b][0-9a-b.+-]{0,12}") {
            let (a, b): (FirmwareVersion, FirmwareVersion) = (a.parse().unwrap(), b.parse().unwrap());
            prop_assert_eq!(a.precedence(&b), b.precedence(&a).reverse());
        }
    }
}
