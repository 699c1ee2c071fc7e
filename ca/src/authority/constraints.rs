//! Name constraints (RFC 5280 §4.2.1.10) of issuing certificates: the names that servers may have. A kind of name that is not
//! spoken of is free, so addresses are spoken of wherever DNS names are: all of them are excluded but those that are
//! permitted, as the CA/Browser Forum asks (Baseline Requirements §7.1.5).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rcgen::{CidrSubnet, GeneralSubtree};
use rustls_pki_types::DnsName;
use x509_parser::extensions::{GeneralName, NameConstraints, ParsedExtension};

use crate::error::CaError;
use crate::facts::{self, CertificateName};

/// Names in one certificate's constraints.
const MAX_NAMES: usize = 64;

/// A network of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    /// Leading bits that count.
    prefix: u8,
}

impl Network {
    const EVERY_V4: Self = Self {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        prefix: 0,
    };
    const EVERY_V6: Self = Self {
        address: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        prefix: 0,
    };

    const fn bits(address: IpAddr) -> u8 {
        match address {
            IpAddr::V4(_) => 32,
            IpAddr::V6(_) => 128,
        }
    }

    /// Of `192.0.2.7`, `192.0.2.0/24` or the same of IPv6; `None` for anything else, also for a network with bits behind its
    /// prefix.
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address.parse().ok()?, prefix.parse().ok()?),
            None => {
                let address = text.parse().ok()?;
                (address, Self::bits(address))
            }
        };
        let network = Self { address, prefix };
        (prefix <= Self::bits(address) && network.first() == address).then_some(network)
    }

    /// Of an address and a mask, as certificates have it.
    fn read(octets: &[u8]) -> Option<Self> {
        let (address, mask) = octets.split_at_checked(octets.len() / 2)?;
        let address = match (<[u8; 4]>::try_from(address), <[u8; 16]>::try_from(address)) {
            (Ok(v4), _) => IpAddr::from(v4),
            (_, Ok(v6)) => IpAddr::from(v6),
            _ => return None,
        };
        let prefix = mask.iter().map(|octet| octet.leading_ones()).sum::<u32>();
        let ones = mask.iter().map(|octet| octet.count_ones()).sum::<u32>();
        let network = Self {
            address,
            prefix: u8::try_from(prefix).ok()?,
        };
        (octets.len() == mask.len() * 2
            && prefix == ones
            && network.mask() == mask
            && network.first() == address)
            .then_some(network)
    }

    fn mask(self) -> Vec<u8> {
        match self.encoded() {
            CidrSubnet::V4(_, mask) => mask.to_vec(),
            CidrSubnet::V6(_, mask) => mask.to_vec(),
        }
    }

    fn encoded(self) -> CidrSubnet {
        CidrSubnet::from_addr_prefix(self.address, self.prefix)
    }

    /// Its first address.
    fn first(self) -> IpAddr {
        self.within(self.address)
    }

    /// An address without what is behind the prefix.
    fn within(self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                IpAddr::from((v4.to_bits() & !mask).to_be_bytes())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                IpAddr::from((v6.to_bits() & !mask).to_be_bytes())
            }
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && self.within(address) == self.address
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.prefix == Self::bits(self.address) {
            return write!(f, "{}", self.address);
        }
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What servers may be called; anything where there are no DNS names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Permitted {
    dns: Vec<String>,
    networks: Vec<Network>,
}

impl Permitted {
    /// Of DNS names and of addresses or networks.
    ///
    /// # Errors
    /// [`CaError::Invalid`], naming what is neither.
    pub(super) fn new(dns: &[String], networks: &[String]) -> Result<Self, CaError> {
        if dns.len() > MAX_NAMES || networks.len() > MAX_NAMES {
            let reason =
                "an issuing certificate is constrained to 64 names and 64 networks at most";
            let all = [dns, networks].concat().join(", ");
            return Err(CaError::invalid("permitted names", &all, reason));
        }
        if dns.is_empty() && !networks.is_empty() {
            let reason =
                "addresses are permitted beside DNS names, which would all be free: name those too";
            return Err(CaError::invalid(
                "permitted addresses",
                &networks.join(", "),
                reason,
            ));
        }
        for name in dns {
            let fits = DnsName::try_from(name.as_str()).is_ok()
                && !name.ends_with('.')
                && *name == name.to_ascii_lowercase();
            if !fits {
                let reason = "it is a DNS name in lower case, without a dot at either end; all names below it are meant too";
                return Err(CaError::invalid("permitted name", name, reason));
            }
        }
        let network = |text: &String| {
            Network::parse(text).ok_or_else(|| {
                let reason = "it is an address, or a network without bits behind its prefix, e.g. 192.0.2.0/24 or 2001:db8::/32";
                CaError::invalid("permitted address", text, reason)
            })
        };
        let networks = networks.iter().map(network).collect::<Result<_, _>>()?;
        Ok(Self::of(dns.to_vec(), networks))
    }

    /// Of names and networks in one list, as [`Self::names`] gives them.
    pub(super) fn of_names(names: &[String]) -> Result<Self, CaError> {
        let is_network = |name: &&String| Network::parse(name).is_some();
        let (networks, dns): (Vec<_>, Vec<_>) = names.iter().partition(is_network);
        let owned = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<_>>();
        Self::new(&owned(dns), &owned(networks))
    }

    fn of(dns: Vec<String>, networks: Vec<Network>) -> Self {
        let every = [Network::EVERY_V4, Network::EVERY_V6];
        let free = every.iter().all(|every| networks.contains(every));
        Self {
            dns,
            networks: if free { every.to_vec() } else { networks },
        }
    }

    /// What a certificate permits.
    pub(super) fn read(der: &[u8]) -> Result<Self, CaError> {
        let certificate = facts::parse(der)?;
        for extension in certificate.iter_extensions() {
            if let ParsedExtension::NameConstraints(constraints) = extension.parsed_extension() {
                return Ok(Self::read_extension(constraints).unwrap_or_default());
            }
        }
        Ok(Self::default())
    }

    /// What constraints permit, DNS names in lower case: they know none (RFC 5280 §7.2). `None` where they speak of more than
    /// permitted DNS names and addresses, or exclude but one of the two kinds of addresses as a whole.
    pub(super) fn read_extension(found: &NameConstraints<'_>) -> Option<Self> {
        let (mut dns, mut networks, mut excluded) = (Vec::new(), Vec::new(), Vec::new());
        for one in found.permitted_subtrees.iter().flatten() {
            match &one.base {
                GeneralName::DNSName(name) => dns.push(name.to_ascii_lowercase()),
                GeneralName::IPAddress(octets) => networks.push(Network::read(octets)?),
                _ => return None,
            }
        }
        for one in found.excluded_subtrees.iter().flatten() {
            match &one.base {
                GeneralName::IPAddress(octets) => excluded.push(Network::read(octets)?),
                _ => return None,
            }
        }
        if excluded.iter().any(|network| network.prefix != 0) || dns.is_empty() {
            return None;
        }
        if networks.is_empty() {
            networks.extend([Network::EVERY_V4, Network::EVERY_V6]);
        }
        networks.retain(|network| {
            let mut excluded = excluded.iter();
            !excluded.any(|one| one.address.is_ipv4() == network.address.is_ipv4())
        });
        Some(Self::of(dns, networks))
    }

    /// As it is encoded; `None` where nothing is constrained.
    pub(super) fn encoded(&self) -> Option<rcgen::NameConstraints> {
        if self.dns.is_empty() {
            return None;
        }
        let dns = self.dns.iter().cloned().map(GeneralSubtree::DnsName);
        let every = [Network::EVERY_V4, Network::EVERY_V6];
        let subtree = |network: &Network| GeneralSubtree::IpAddress(network.encoded());
        let of_a_kind =
            |one: &Network, other: &Network| one.address.is_ipv4() == other.address.is_ipv4();
        // Where every address is permitted nothing is said of them.
        let networks: &[Network] = if self.networks == every {
            &[]
        } else {
            &self.networks
        };
        let mut excluded = every.to_vec();
        excluded.retain(|every| !self.networks.iter().any(|one| of_a_kind(one, every)));
        Some(rcgen::NameConstraints {
            permitted_subtrees: dns.chain(networks.iter().map(subtree)).collect(),
            excluded_subtrees: excluded.iter().map(subtree).collect(),
        })
    }

    /// Names and networks in one list; empty for any.
    pub(super) fn names(&self) -> Vec<String> {
        let networks = self.networks.iter().map(Network::to_string);
        self.dns.iter().cloned().chain(networks).collect()
    }

    /// What the next issuing certificate permits: the same, and where this one says nothing of addresses those that the
    /// server is called by, if that is known.
    pub(super) fn next(self, server: &[CertificateName]) -> Self {
        let every = [Network::EVERY_V4, Network::EVERY_V6];
        if server.is_empty() || self.networks != every {
            return self;
        }
        let addresses = server.iter().filter_map(|name| match name {
            CertificateName::Address(address) => Some(Network {
                address: *address,
                prefix: Network::bits(*address),
            }),
            _ => None,
        });
        Self::of(self.dns, addresses.collect())
    }

    fn allows(&self, name: &CertificateName) -> bool {
        match name {
            CertificateName::Dns(name) => self.dns.iter().any(|one| {
                name.strip_suffix(one.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            CertificateName::Address(address) => {
                self.networks.iter().any(|one| one.contains(*address))
            }
            CertificateName::Other(_) => true,
        }
    }
}

/// Refuses a server's names that clients would refuse under such an issuing certificate.
pub(super) fn check_names(issuer: &[u8], names: &[CertificateName]) -> Result<(), CaError> {
    let permitted = Permitted::read(issuer)?;
    if permitted.dns.is_empty() {
        return Ok(());
    }
    match names.iter().find(|name| !permitted.allows(name)) {
        None => Ok(()),
        Some(refused) => {
            let reason = format!(
                "the issuing certificate permits only {} and what is below",
                permitted.names().join(", ")
            );
            Err(CaError::invalid("name", &refused.to_string(), reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|&one| one.to_owned()).collect()
    }

    #[test]
    fn names_that_constrain() {
        let good = Permitted::new(&names(&["works.example", "localhost"]), &[]).unwrap();
        assert_eq!(good.names(), ["works.example", "localhost"]);
        for bad in [
            "",
            ".works.example",
            "works.example.",
            "Works.example",
            "a b",
            "*.a",
        ] {
            assert!(Permitted::new(&names(&[bad]), &[]).is_err(), "{bad:?}");
        }
        assert!(Permitted::new(&vec!["a".to_owned(); 65], &[]).is_err());
        let network = |text: &str| Permitted::new(&names(&["a"]), &names(&[text]));
        for good in [
            "192.0.2.7",
            "192.0.2.0/24",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::/32",
            "::1",
        ] {
            assert_eq!(network(good).unwrap().names(), ["a", good]);
        }
        for bad in [
            "192.0.2.1/24",
            "192.0.2.0/33",
            "::1/64",
            "10",
            "a",
            "",
            "10.0.0.0/",
        ] {
            assert!(network(bad).is_err(), "{bad:?}");
        }
        let said = Permitted::new(&[], &names(&["10.0.0.0/8"])).unwrap_err();
        assert!(said.to_string().contains("name those too"), "{said}");
    }

    #[test]
    fn addresses_are_excluded_unless_they_are_permitted() {
        let of = |list: &[&str]| Permitted::of_names(&names(list)).unwrap();
        let allowed = |permitted: &Permitted, address: &str| {
            permitted.allows(&CertificateName::Address(address.parse().unwrap()))
        };
        let none = of(&["works.example"]);
        let encoded = none.encoded().unwrap();
        assert_eq!(
            encoded.excluded_subtrees,
            [
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ]
        );
        assert!(!allowed(&none, "192.0.2.7") && !allowed(&none, "::1"));
        let some = of(&["works.example", "192.0.2.0/24", "::1"]);
        assert!(some.encoded().unwrap().excluded_subtrees.is_empty());
        assert!(allowed(&some, "192.0.2.7") && allowed(&some, "::1"));
        assert!(!allowed(&some, "192.0.3.7") && !allowed(&some, "::2"));
        let v4 = of(&["works.example", "0.0.0.0/0"]).encoded().unwrap();
        assert_eq!(
            (v4.permitted_subtrees.len(), v4.excluded_subtrees.len()),
            (2, 1)
        );
        // One of before leaves them open, and that is read of it; what follows permits what the server is called by.
        let free = of(&["works.example", "::/0", "0.0.0.0/0"]);
        let encoded = free.encoded().unwrap();
        assert_eq!(
            (
                encoded.permitted_subtrees.len(),
                encoded.excluded_subtrees.len()
            ),
            (1, 0)
        );
        let server = [
            CertificateName::Dns("works.example".to_owned()),
            CertificateName::Address("192.0.2.7".parse().unwrap()),
        ];
        assert_eq!(free.clone().next(&[]), free);
        assert_eq!(free.next(&server).names(), ["works.example", "192.0.2.7"]);
        assert_eq!(none.clone().next(&server), none);
    }
}
