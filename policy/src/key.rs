//! Names of what is known of a connection: the language's condition keys, which are its variables.
//! The letters' case is one, as in IAM, but for the name of an attribute.

use std::fmt;

use crate::own::{self, Own};
use crate::shown::nearest;

/// What a condition asks for, or a variable stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    ClientId,
    SourceIp,
    DomainName,
    CertificateId,
    SerialNumber,
    AvailableKeys,
    ThingName,
    ThingTypeName,
    IsAttached,
    Attribute(Box<str>),
    Certificate(Holder, Field, Place),
    ConnectAttributes,
    LastWillTopic,
    CurrentTime,
    EpochTime,
    SecureTransport,
    /// One of Muster's own.
    Own(Own),
    /// A key of another service, in documents judged as AWS judges them: it never has a value.
    Foreign(Box<str>),
}

/// Whose name in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// Whom it names.
    Subject,
    /// Who signed it.
    Issuer,
}

/// A field of a name in a certificate; may hold several values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are those of X.520 and RFC 5280")]
pub enum Field {
    CommonName,
    Organization,
    OrganizationalUnit,
    Country,
    State,
    SerialNumber,
    DistinguishedNameQualifier,
    Title,
    Surname,
    GivenName,
    Initials,
    Pseudonym,
    GenerationQualifier,
    Rfc822Name,
    DnsName,
    DirectoryName,
    UniformResourceIdentifier,
    IpAddress,
}

/// Which of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    First,
    /// Counted from 0.
    Nth(u16),
    /// All of them.
    List,
}

impl Holder {
    /// Both.
    pub const ALL: [Holder; 2] = [Holder::Subject, Holder::Issuer];

    fn name(self) -> &'static str {
        match self {
            Holder::Subject => "Subject",
            Holder::Issuer => "Issuer",
        }
    }
}

impl Field {
    /// Every field.
    pub const ALL: [Field; 18] = [
        Field::CommonName,
        Field::Organization,
        Field::OrganizationalUnit,
        Field::Country,
        Field::State,
        Field::SerialNumber,
        Field::DistinguishedNameQualifier,
        Field::Title,
        Field::Surname,
        Field::GivenName,
        Field::Initials,
        Field::Pseudonym,
        Field::GenerationQualifier,
        Field::Rfc822Name,
        Field::DnsName,
        Field::DirectoryName,
        Field::UniformResourceIdentifier,
        Field::IpAddress,
    ];

    /// The field of this name, with or without `AlternativeName.`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let known = |field: &Field| {
            let known = field.name();
            known == name || known.strip_prefix("AlternativeName.") == Some(name)
        };
        Field::ALL.into_iter().find(known)
    }

    /// The name as it stands behind `iot:Certificate.Subject.`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Field::CommonName => "CommonName",
            Field::Organization => "Organization",
            Field::OrganizationalUnit => "OrganizationalUnit",
            Field::Country => "Country",
            Field::State => "State",
            Field::SerialNumber => "SerialNumber",
            Field::DistinguishedNameQualifier => "DistinguishedNameQualifier",
            Field::Title => "Title",
            Field::Surname => "Surname",
            Field::GivenName => "GivenName",
            Field::Initials => "Initials",
            Field::Pseudonym => "Pseudonym",
            Field::GenerationQualifier => "GenerationQualifier",
            Field::Rfc822Name => "AlternativeName.RFC822Name",
            Field::DnsName => "AlternativeName.DNSName",
            Field::DirectoryName => "AlternativeName.DirectoryName",
            Field::UniformResourceIdentifier => "AlternativeName.UniformResourceIdentifier",
            Field::IpAddress => "AlternativeName.IPAddress",
        }
    }
}

/// Keys that are one word, with every spelling that AWS's documentation has of them; the first
/// is the one written.
const PLAIN: [(Key, &[&str]); 15] = [
    (
        Key::ThingName,
        &["iot:Connection.Thing.ThingName", "iot:Thing.ThingName"],
    ),
    (
        Key::ThingTypeName,
        &[
            "iot:Connection.Thing.ThingTypeName",
            "iot:Thing.ThingTypeName",
        ],
    ),
    (
        Key::IsAttached,
        &["iot:Connection.Thing.IsAttached", "iot:Thing.IsAttached"],
    ),
    (Key::ClientId, &["iot:ClientId"]),
    (Key::CertificateId, &["iot:CertificateId"]),
    (Key::SerialNumber, &["iot:Certificate.SerialNumber"]),
    (Key::AvailableKeys, &["iot:Certificate.AvailableKeys"]),
    (Key::SourceIp, &["aws:SourceIp", "iot:SourceIp"]),
    (Key::DomainName, &["iot:DomainName"]),
    (Key::ConnectAttributes, &["iot:ConnectAttributes"]),
    (Key::LastWillTopic, &["iot:LastWillTopic"]),
    (Key::CurrentTime, &["aws:CurrentTime"]),
    (Key::EpochTime, &["aws:EpochTime"]),
    (Key::SecureTransport, &["aws:SecureTransport"]),
    // For the nearest word only; the parser takes any Nth value and `.List` too.
    (
        Key::Certificate(Holder::Subject, Field::CommonName, Place::First),
        &["iot:Certificate.Subject.CommonName"],
    ),
];

const ATTRIBUTES: [&str; 2] = ["iot:Connection.Thing.Attributes[", "iot:Thing.Attributes["];

impl Key {
    /// Reads a key's name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        for (key, spellings) in PLAIN {
            if spellings.iter().any(|s| name.eq_ignore_ascii_case(s)) {
                return Some(key);
            }
        }
        if let Some(key) = Own::named(name) {
            return Some(Key::Own(key));
        }
        for prefix in ATTRIBUTES {
            if let Some(rest) = strip(name, prefix) {
                let attribute = rest.strip_suffix(']')?;
                return (!attribute.is_empty()).then(|| Key::Attribute(attribute.into()));
            }
        }
        let rest = strip(name, "iot:Certificate.")?;
        for holder in Holder::ALL {
            let Some(rest) = strip(rest, holder.name()).and_then(|rest| rest.strip_prefix('.'))
            else {
                continue;
            };
            return Field::ALL.into_iter().find_map(|field| {
                let place = match strip(rest, field.name())? {
                    "" => Place::First,
                    rest => place(rest.strip_prefix('.')?)?,
                };
                Some(Key::Certificate(holder, field, place))
            });
        }
        None
    }

    /// The known name that was probably meant.
    pub(crate) fn nearest(name: &str) -> Option<String> {
        if Key::is_own(name) {
            return Own::nearest(name);
        }
        let certificate = || {
            let (holder, field) = strip(name, "iot:Certificate.")?.split_once('.')?;
            let holder = nearest(holder, &Holder::ALL.map(Holder::name))?;
            let field = nearest(field, &Field::ALL.map(Field::name))?;
            Some(format!("iot:Certificate.{holder}.{field}"))
        };
        let attribute = || {
            let (of, rest) = name.split_once('[')?;
            let known = ATTRIBUTES.map(|known| known.trim_end_matches('['));
            let of = nearest(of, &known)?;
            let attribute = rest.trim_end_matches(']');
            let attribute = if attribute.is_empty() {
                "NAME"
            } else {
                attribute
            };
            Some(format!("{of}[{attribute}]"))
        };
        let plain = PLAIN.map(|(_, spellings)| spellings.first().copied().unwrap_or_default());
        let others = || nearest(name, &plain).map(str::to_owned);
        certificate().or_else(attribute).or_else(others)
    }

    /// Whether it holds several values, so that a condition on it wants `ForAllValues:` or
    /// `ForAnyValue:` and a resource cannot hold it.
    pub(crate) fn is_list(&self) -> bool {
        matches!(
            self,
            Key::AvailableKeys
                | Key::ConnectAttributes
                | Key::Certificate(_, _, Place::List)
                | Key::Own(Own::SourceNetwork)
        )
    }

    /// Whether a name is one of Muster's, known or not.
    pub(crate) fn is_own(name: &str) -> bool {
        strip(name, own::PREFIX).is_some()
    }

    /// Whether it is a property of a message.
    pub(crate) fn is_of_message(&self) -> bool {
        matches!(self, Key::Own(own) if own.is_of_message())
    }

    /// Whether time alone changes it.
    pub(crate) fn is_moving(&self) -> bool {
        match self {
            Key::CurrentTime | Key::EpochTime => true,
            Key::Own(own) => own.is_moving(),
            _ => false,
        }
    }
}

fn strip<'n>(name: &'n str, prefix: &str) -> Option<&'n str> {
    let (begin, rest) = name.split_at_checked(prefix.len())?;
    begin.eq_ignore_ascii_case(prefix).then_some(rest)
}

fn place(text: &str) -> Option<Place> {
    if text.eq_ignore_ascii_case("List") {
        return Some(Place::List);
    }
    // `+1` is a number to `parse` and no index.
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok().map(Place::Nth)).flatten()
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Attribute(name) => write!(f, "iot:Connection.Thing.Attributes[{name}]"),
            Key::Certificate(holder, field, place) => {
                write!(f, "iot:Certificate.{}.{}", holder.name(), field.name())?;
                match place {
                    Place::First => Ok(()),
                    Place::Nth(n) => write!(f, ".{n}"),
                    Place::List => f.write_str(".List"),
                }
            }
            Key::Own(own) => own.write(f),
            Key::Foreign(name) => f.write_str(name),
            plain => {
                let known = PLAIN.iter().find(|(key, _)| key == plain);
                f.write_str(known.and_then(|(_, s)| s.first()).copied().unwrap_or("?"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_it_is_written_and_in_any_case() {
        let mut keys: Vec<Key> = PLAIN.map(|(key, _)| key).into();
        keys.push(Key::Attribute("a.b[0]:#/=".into()));
        for holder in Holder::ALL {
            for field in Field::ALL {
                for place in [Place::First, Place::Nth(0), Place::Nth(7), Place::List] {
                    keys.push(Key::Certificate(holder, field, place));
                }
            }
        }
        for key in keys {
            let name = key.to_string();
            assert_eq!(Key::named(&name), Some(key.clone()), "{name}");
            if !matches!(key, Key::Attribute(_)) {
                assert_eq!(Key::named(&name.to_uppercase()), Some(key), "{name}");
            }
        }
        assert_eq!(Key::named("iot:Thing.ThingName"), Some(Key::ThingName));
        assert_eq!(
            Key::named("IOT:thing.attributes[Role]"),
            Some(Key::Attribute("Role".into()))
        );
    }

    #[test]
    fn what_is_no_key_is_none_and_gets_the_nearest() {
        for name in [
            "",
            "iot:",
            "iot:Certificate.Subject",
            "iot:Certificate.Subject.",
            "iot:Certificate.Subject.CommonName.",
            "iot:Certificate.Subject.CommonName.-1",
            "iot:Certificate.Subject.CommonName.+1",
            "iot:Certificate.Subject.CommonName.99999999",
            "iot:Certificate.Subject.CommonNames",
            "iot:Connection.Thing.Attributes[]",
            "iot:Connection.Thing.Attributes[a",
            "iot:Certificaté.Subject.CommonName",
        ] {
            assert_eq!(Key::named(name), None, "{name}");
        }
        for (wrong, right) in [
            ("iot:ClientID2", "iot:ClientId"),
            ("aws:SourceIPs", "aws:SourceIp"),
            (
                "iot:Certificate.Subject.Organisation",
                "iot:Certificate.Subject.Organization",
            ),
            (
                "iot:Connection.Thing.Atributes[x]",
                "iot:Connection.Thing.Attributes[x]",
            ),
            (
                "iot:Connection.Thing.Attributes[",
                "iot:Connection.Thing.Attributes[NAME]",
            ),
        ] {
            assert_eq!(Key::nearest(wrong).as_deref(), Some(right));
        }
    }
}
