//! Networks under names that an operator gives them, so that policies need no addresses.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::shown::{WORD_MAX_CHARS, shown};
use crate::values::Network;

/// Characters of the longest name.
const NAME_MAX_CHARS: usize = 128;
/// Ranges that one name may stand for.
pub const NETWORK_MAX_RANGES: usize = 256;

/// Named sets of addresses, for `muster:SourceNetwork`. An address may lie in several.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Networks(BTreeMap<Arc<str>, Box<[Network]>>);

/// A network that cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Not a name.
    #[error(
        "network name {found:?} is not understood: 1 to {NAME_MAX_CHARS} letters, digits, '-', '_', '.' or ':'"
    )]
    Name {
        /// What was given.
        found: String,
    },
    /// Not an address or a range of addresses.
    #[error(
        "range {found:?} of network {name} is not understood: write an address or CIDR such as 10.1.0.0/16 or 2001:db8::/32"
    )]
    Range {
        /// The network.
        name: String,
        /// What was given.
        found: String,
    },
    /// None, or too many.
    #[error("network {name} has {count} ranges: 1 to {NETWORK_MAX_RANGES} are possible")]
    Count {
        /// The network.
        name: String,
        /// How many were given.
        count: usize,
    },
}

impl Networks {
    /// Reads a set of networks: names with addresses or CIDRs.
    ///
    /// # Errors
    /// The first that is not understood.
    pub fn read<'t>(
        named: impl IntoIterator<Item = (&'t str, &'t [String])>,
    ) -> Result<Self, NetworkError> {
        let mut networks = BTreeMap::new();
        for (name, ranges) in named {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
            if name.is_empty() || name.len() > NAME_MAX_CHARS || !name.chars().all(plain) {
                let found = shown(name, WORD_MAX_CHARS);
                return Err(NetworkError::Name { found });
            }
            if ranges.is_empty() || ranges.len() > NETWORK_MAX_RANGES {
                let (name, count) = (name.to_owned(), ranges.len());
                return Err(NetworkError::Count { name, count });
            }
            let range = |text: &String| {
                Network::read(text).ok_or_else(|| NetworkError::Range {
                    name: name.to_owned(),
                    found: shown(text, WORD_MAX_CHARS),
                })
            };
            let ranges = ranges.iter().map(range).collect::<Result<_, _>>()?;
            networks.insert(name.into(), ranges);
        }
        Ok(Self(networks))
    }

    /// The names of the networks that an address lies in.
    pub(crate) fn of(&self, address: IpAddr) -> impl Iterator<Item = &Arc<str>> {
        let holds = move |ranges: &[Network]| ranges.iter().any(|r| r.contains(address));
        let named = self.0.iter();
        named.filter(move |(_, r)| holds(r)).map(|(name, _)| name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, ranges: &[&str]) -> Result<Networks, NetworkError> {
        let ranges: Vec<String> = ranges.iter().map(|r| (*r).to_owned()).collect();
        Networks::read([(name, ranges.as_slice())])
    }

    #[test]
    fn an_address_lies_in_every_network_that_holds_it() {
        let (plant, cell) = (
            ["10.0.0.0/8".to_owned()],
            ["10.1.2.3".to_owned(), "::1".to_owned()],
        );
        let networks = Networks::read([("plant", &plant[..]), ("cell", &cell[..])]).unwrap();
        let names = |address: &str| {
            let names = networks.of(address.parse().unwrap());
            names.map(|name| &**name).collect::<Vec<_>>()
        };
        assert_eq!(names("10.1.2.3"), ["cell", "plant"]);
        assert_eq!(names("::ffff:10.9.9.9"), ["plant"]);
        assert_eq!(names("::1"), ["cell"]);
        assert!(names("192.0.2.1").is_empty());
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (name, ranges, word) in [
            ("", &["::1"][..], "network name"),
            ("a/b", &["::1"], "a/b"),
            ("a", &[], "0 ranges"),
            ("a", &["10.0.0.0/33"], "10.0.0.0/33"),
            ("a", &["home\n"], "home"),
        ] {
            let error = read(name, ranges).unwrap_err().to_string();
            assert!(error.contains(word) && !error.contains('\n'), "{error}");
        }
    }
}
