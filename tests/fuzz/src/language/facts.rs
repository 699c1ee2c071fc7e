//! What keys and variables stand for, from the tables of the documentation.

use policy::{Context, Field, Holder, Listener, TlsVersion};

use super::conditions::{address, in_network};
use super::{Case, Unread};

/// All that is known under a key.
pub(super) struct Known {
    pub(super) values: Vec<String>,
    nature: Nature,
}

#[derive(PartialEq)]
enum Nature {
    Text,
    /// Several values.
    List,
    Certificate,
    /// Of the clock or of the message: no part of a name.
    Passing,
}

const FIELDS: [(&str, Field); 18] = [
    ("CommonName", Field::CommonName),
    ("Organization", Field::Organization),
    ("OrganizationalUnit", Field::OrganizationalUnit),
    ("Country", Field::Country),
    ("State", Field::State),
    ("SerialNumber", Field::SerialNumber),
    (
        "DistinguishedNameQualifier",
        Field::DistinguishedNameQualifier,
    ),
    ("Title", Field::Title),
    ("Surname", Field::Surname),
    ("GivenName", Field::GivenName),
    ("Initials", Field::Initials),
    ("Pseudonym", Field::Pseudonym),
    ("GenerationQualifier", Field::GenerationQualifier),
    ("AlternativeName.RFC822Name", Field::Rfc822Name),
    ("AlternativeName.DNSName", Field::DnsName),
    ("AlternativeName.DirectoryName", Field::DirectoryName),
    (
        "AlternativeName.UniformResourceIdentifier",
        Field::UniformResourceIdentifier,
    ),
    ("AlternativeName.IPAddress", Field::IpAddress),
];

/// Whether a key is one of Muster's own.
pub(super) fn is_own(key: &str) -> bool {
    key.to_ascii_lowercase().starts_with("muster:")
}

/// The values of a key; names are read in any case, but for the name of an attribute.
pub(super) fn known(key: &str, case: &Case) -> Result<Known, Unread> {
    use Nature::{Certificate, List, Passing, Text};
    let context = &case.context;
    let thing = context.thing.as_deref();
    let lower = key.to_ascii_lowercase();
    let word = lower.replace("iot:thing.", "iot:connection.thing.");
    let text = |value: Option<&str>| value.map(str::to_owned).into_iter().collect::<Vec<_>>();
    let (nature, values) = match word.as_str() {
        // Who came over HTTPS has none.
        "iot:clientid" => (
            Text,
            Some(context.client_id.to_string())
                .filter(|id| !id.is_empty())
                .into_iter()
                .collect(),
        ),
        "aws:sourceip" | "iot:sourceip" => (
            Text,
            context
                .source_ip
                .iter()
                .map(|ip| ip.to_canonical().to_string())
                .collect(),
        ),
        "iot:domainname" => (Text, text(context.domain_name.as_deref())),
        "iot:certificateid" => (Text, text(context.certificate.id.as_deref())),
        "iot:certificate.serialnumber" => (
            Certificate,
            text(context.certificate.serial_number.as_deref()),
        ),
        "iot:certificate.availablekeys" => (List, available(context)),
        "iot:connection.thing.thingname" => (Text, text(thing.map(|thing| &*thing.name))),
        "iot:connection.thing.thingtypename" => (
            Text,
            text(thing.and_then(|thing| thing.type_name.as_deref())),
        ),
        "iot:connection.thing.isattached" => (Text, vec![thing.is_some().to_string()]),
        "iot:connectattributes" => {
            let persistent = context
                .connect
                .persistent
                .then(|| "PersistentConnect".to_owned());
            let will = context
                .connect
                .last_will
                .is_some()
                .then(|| "LastWill".to_owned());
            (List, persistent.into_iter().chain(will).collect())
        }
        "iot:lastwilltopic" => (
            Text,
            text(
                context
                    .connect
                    .last_will
                    .as_deref()
                    .filter(|topic| !topic.is_empty()),
            ),
        ),
        "aws:currenttime" => (
            Passing,
            context.now.iter().map(|now| moment(*now)).collect(),
        ),
        "aws:epochtime" => (Passing, context.now.iter().map(i64::to_string).collect()),
        "aws:securetransport" => (Text, vec!["true".into()]),
        own if own.starts_with("muster:") => return own_known(own, case),
        _ => return named(key, &lower, context),
    };
    Ok(Known { values, nature })
}

/// An attribute or a field of the certificate.
fn named(key: &str, lower: &str, context: &Context) -> Result<Known, Unread> {
    for prefix in ["iot:connection.thing.attributes[", "iot:thing.attributes["] {
        if lower.starts_with(prefix) {
            let name = key[prefix.len()..].strip_suffix(']').ok_or(Unread)?;
            let value = context
                .thing
                .as_ref()
                .and_then(|thing| thing.attributes.get(name));
            let (values, nature) = (
                value.iter().map(ToString::to_string).collect(),
                Nature::Text,
            );
            return Ok(Known { values, nature });
        }
    }
    for (name, holder) in [("subject", Holder::Subject), ("issuer", Holder::Issuer)] {
        let Some(rest) = lower.strip_prefix(&format!("iot:certificate.{name}.")) else {
            continue;
        };
        for (field, which) in FIELDS {
            let Some(place) = rest.strip_prefix(&field.to_ascii_lowercase()) else {
                continue;
            };
            let all = five(context, holder, which);
            let (nature, values) = match place.strip_prefix('.') {
                None if place.is_empty() => {
                    (Nature::Certificate, all.into_iter().take(1).collect())
                }
                Some("list") => (Nature::List, all),
                Some(number) => {
                    let number: usize = number.parse().map_err(|_| Unread)?;
                    (
                        Nature::Certificate,
                        all.into_iter().skip(number).take(1).collect(),
                    )
                }
                // The beginning of a longer name.
                None => continue,
            };
            return Ok(Known { values, nature });
        }
    }
    Err(Unread)
}

/// "Arrays are capped at five."
fn five(context: &Context, holder: Holder, field: Field) -> Vec<String> {
    let fields = context.certificate.fields.iter();
    let same = fields.filter(|(h, f, _)| *h == holder && *f == field);
    same.map(|(_, _, value)| value.to_string())
        .take(5)
        .collect()
}

fn available(context: &Context) -> Vec<String> {
    let mut keys = Vec::new();
    if context.certificate.serial_number.is_some() {
        keys.push("iot:Certificate.SerialNumber".to_owned());
    }
    for (name, holder) in [("Subject", Holder::Subject), ("Issuer", Holder::Issuer)] {
        let there = FIELDS
            .iter()
            .filter(|(_, field)| !five(context, holder, *field).is_empty());
        keys.extend(there.map(|(field, _)| format!("iot:Certificate.{name}.{field}")));
    }
    keys
}

/// `docs/policy-condition-keys.md`, on a clock in UTC.
fn own_known(key: &str, case: &Case) -> Result<Known, Unread> {
    use Nature::{List, Passing, Text};
    fn one<T: ToString>(value: Option<T>) -> Vec<String> {
        value.map(|value| value.to_string()).into_iter().collect()
    }
    let (context, message) = (&case.context, &case.message);
    let (certificate, posture, now) = (&context.certificate, &context.posture, context.now);
    let since = |then: Option<i64>| now.zip(then).map(|(now, then)| (now - then).max(0));
    let (nature, values) = match key {
        "muster:sourcenetwork" => {
            let lies = |ranges: &[&str]| {
                let ip = context.source_ip.map(|ip| ip.to_string());
                let bits = ip.and_then(|ip| address(&ip));
                bits.is_some_and(|bits| ranges.iter().any(|range| in_network(&bits, range)))
            };
            let names = case.networks.iter().filter(|(_, ranges)| lies(ranges));
            (List, names.map(|(name, _)| (*name).to_owned()).collect())
        }
        "muster:listener" => (
            Text,
            one(context.listener.map(|listener| match listener {
                Listener::Mqtt => "mqtt",
                Listener::Wss => "wss",
                Listener::Https => "https",
            })),
        ),
        "muster:tlsversion" => (
            Text,
            one(context.tls_version.map(|version| match version {
                TlsVersion::V1_2 => "1.2",
                TlsVersion::V1_3 => "1.3",
            })),
        ),
        "muster:timeofday" => (Passing, one(now.map(|now| moment(now)[11..19].to_owned()))),
        "muster:weekday" => (
            Passing,
            one(now.map(|now| {
                // The first of January 1970 was a Thursday.
                let days = [
                    "Thursday",
                    "Friday",
                    "Saturday",
                    "Sunday",
                    "Monday",
                    "Tuesday",
                    "Wednesday",
                ];
                days[usize::try_from(now.div_euclid(86_400).rem_euclid(7)).unwrap()]
            })),
        ),
        "muster:messagesize" => (Passing, one(message.size_bytes)),
        "muster:qos" => (Passing, one(message.qos)),
        "muster:retain" => (Passing, one(message.retain)),
        "muster:certificateage" => (Passing, one(since(certificate.not_before))),
        "muster:certificateremaininglife" => (
            Passing,
            one(certificate.not_after.zip(now).map(|(end, now)| end - now)),
        ),
        "muster:certificatekeykind" => (Text, one(certificate.key_kind.as_deref())),
        "muster:enrolmentway" => (Text, one(certificate.enrolled_by.as_deref())),
        "muster:firmwarename" => (Text, one(posture.firmware_name.as_deref())),
        "muster:firmwareversion" => (Text, one(posture.firmware_version.as_deref())),
        "muster:quarantined" => (Text, one(posture.quarantined)),
        // An attestation that ends is told by the clock.
        "muster:attested" => (
            Passing,
            one(match (posture.attested, posture.attested_until) {
                (Some(true), Some(until)) => now.map(|now| now < until),
                (word, _) => word,
            }),
        ),
        "muster:lastviolationage" => (Passing, one(since(posture.last_violation))),
        _ => return Err(Unread),
    };
    Ok(Known { values, nature })
}

/// What a variable stands for: "certificate values with * $ + ? # or over 1024 characters are not substituted".
pub(super) fn substitute(name: &str, case: &Case) -> Result<Option<String>, Unread> {
    let known = known(name, case)?;
    let value = known
        .values
        .into_iter()
        .next()
        .filter(|value| !value.is_empty());
    Ok(value.filter(|value| match known.nature {
        Nature::Text => true,
        Nature::List | Nature::Passing => false,
        Nature::Certificate => {
            !value.contains(['*', '$', '+', '?', '#']) && value.chars().count() <= 1024
        }
    }))
}

/// A moment as text, by the calendar of 400 years.
fn moment(now: i64) -> String {
    let (mut days, second) = (now.div_euclid(86_400), now.rem_euclid(86_400));
    let mut year = 1970;
    while days >= year_days(year) {
        days -= year_days(year);
        year += 1;
    }
    let mut month = 1;
    while days >= month_days(year, month) {
        days -= month_days(year, month);
        month += 1;
    }
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        days + 1
    )
}

pub(super) fn year_days(year: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if leap { 366 } else { 365 }
}

pub(super) fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 => year_days(year) - 337,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}
