//! Where a request of a claim comes from: a claim has many holders, and where one of them asks too much the others are to be
//! told from it. Client ids do not tell: a holder has as many as it likes.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// An address as far as it tells one holder of a claim from another: IPv6 networks are given away by /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Place(Option<IpAddr>);

impl Place {
    /// `None` is a place too: whoever's address is not known shares it.
    pub(super) fn of(source: Option<IpAddr>) -> Self {
        Place(source.map(|address| match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        }))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(IpAddr::V6(network)) => write!(f, "{network}/64"),
            Some(address) => address.fmt(f),
            None => f.write_str("an unknown address"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_a_network_of_the_newer_kind() {
        let place = |text: &str| Place::of(Some(text.parse().unwrap())).to_string();
        assert_eq!(place("10.0.0.1"), "10.0.0.1");
        assert_eq!(place("::ffff:10.0.0.1"), "10.0.0.1");
        assert_eq!(place("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(Place::of(None).to_string(), "an unknown address");
    }
}
