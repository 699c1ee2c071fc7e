//! What a certificate says of itself. Whether it is to be believed is the chain's to say.

use std::fmt;
use std::net::IpAddr;
use std::time::SystemTime;

use data_encoding::HEXLOWER;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::{TbsCertificate, X509Certificate};
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::{GeneralName, KeyUsage, ParsedExtension};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::error::CaError;
use crate::identifier::{CertificateId, Serial};
use crate::profile::{OPERATOR_ORGANIZATION, Profile};
use crate::public_key::PublicKey;
use crate::times;

/// Octets of the longest certificate read.
pub const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;

/// What a certificate's key may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyUsages {
    /// Signatures, as in a TLS handshake (key usage).
    pub digital_signature: bool,
    /// Signing certificates (key usage).
    pub key_cert_sign: bool,
    /// Signing revocation lists (key usage).
    pub crl_sign: bool,
    /// Any other key usage.
    pub other: bool,
    /// TLS client (extended key usage).
    pub client_auth: bool,
    /// TLS server (extended key usage).
    pub server_auth: bool,
    /// OCSP answers in the issuer's name (extended key usage).
    pub ocsp_signing: bool,
    /// Any other extended key usage, `anyExtendedKeyUsage` included.
    pub other_extended: bool,
}

/// A subject alternative name that Muster gives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertificateName {
    /// A DNS name in lower case.
    Dns(String),
    /// An IP address.
    Address(IpAddr),
    /// A name of another kind, as found in a foreign certificate.
    Other(String),
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) | Self::Other(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// One value of a name in a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameValue {
    /// Whether the issuer's, otherwise the subject's.
    pub of_issuer: bool,
    /// The field, as AWS IoT's policy variables call it: `CommonName`,
    /// `AlternativeName.DNSName`.
    pub field: &'static str,
    /// The value as text.
    pub value: String,
}

/// The facts of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the DER.
    pub id: CertificateId,
    /// Serial number, unique in its issuer.
    pub serial: Serial,
    /// The subject's common names, in order.
    pub subject_common_names: Vec<String>,
    /// The subject's organizations, in order.
    pub subject_organizations: Vec<String>,
    /// The issuer's name for people to read; not for comparison.
    pub issuer: String,
    /// First second of its life.
    pub not_before: SystemTime,
    /// Last second of its life.
    pub not_after: SystemTime,
    /// Whether it may sign certificates (basicConstraints).
    pub is_ca: bool,
    /// What its key is for.
    pub key_usages: KeyUsages,
    /// Subject alternative names.
    pub names: Vec<CertificateName>,
    /// Every value of the subject's and the issuer's names, alternative names behind the others.
    pub values: Vec<NameValue>,
    /// Attributes in the subject, of any kind.
    subject_attributes: usize,
}

impl CertificateFacts {
    /// Reads a DER certificate. Nothing is verified.
    ///
    /// # Errors
    /// [`CaError::Unreadable`] for anything that is not one whole X.509 v3 certificate with
    /// readable subject, serial number, validity and extensions.
    pub fn read(der: &[u8]) -> Result<Self, CaError> {
        let certificate = parse(der)?;
        Self::of(&certificate, der)
    }

    /// As [`Self::read`], with its key where that is of an accepted kind.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_with_key(der: &[u8]) -> Result<(Self, Option<PublicKey>), CaError> {
        let certificate = parse(der)?;
        let key = PublicKey::from_der(certificate.public_key().raw).ok();
        Ok((Self::of(&certificate, der)?, key))
    }

    /// The facts of what is or will be signed; the id is that of `der`.
    pub(crate) fn of(certificate: &TbsCertificate<'_>, der: &[u8]) -> Result<Self, CaError> {
        let subject = certificate.subject();
        let serial = match certificate.raw_serial() {
            [first, ..] if *first >= 0x80 => None,
            octets => Serial::from_be_bytes(octets),
        };
        let validity = certificate.validity();
        Ok(Self {
            id: CertificateId::of(der),
            serial: serial.ok_or_else(|| {
                unreadable("its serial number is not a positive number of up to 20 octets")
            })?,
            subject_common_names: strings(subject.iter_common_name())?,
            subject_organizations: strings(subject.iter_organization())?,
            issuer: name_text(certificate.issuer()),
            not_before: times::system(validity.not_before)?,
            not_after: times::system(validity.not_after)?,
            is_ca: certificate
                .basic_constraints()
                .map_err(|_| unreadable("its basicConstraints cannot be read"))?
                .is_some_and(|constraints| constraints.value.ca),
            key_usages: usages(certificate)?,
            names: names(certificate)?,
            values: values(certificate),
            subject_attributes: subject.iter_attributes().count(),
        })
    }

    /// The profile that this certificate has the shape of, if any. Each certificate fits one at
    /// most: servers differ by usage, operators by the organization in their subject, which a
    /// device's subject (a common name alone) never has.
    ///
    /// It says nothing of who signed it: ask only of a certificate whose chain was verified.
    #[must_use]
    pub fn profile(&self) -> Option<Profile> {
        let usages = self.key_usages;
        let only_signs = usages.digital_signature
            && !(usages.key_cert_sign || usages.crl_sign || usages.other || usages.other_extended);
        if self.is_ca || !only_signs || self.subject_common_names.len() != 1 {
            return None;
        }
        let organizations: Vec<&str> = self
            .subject_organizations
            .iter()
            .map(String::as_str)
            .collect();
        let bare = self.subject_attributes == 1 && organizations.is_empty();
        match (
            usages.client_auth,
            usages.server_auth,
            usages.ocsp_signing,
            self.names.is_empty(),
        ) {
            (true, false, false, true) if bare => Some(Profile::Device),
            (true, false, false, true)
                if self.subject_attributes == 2 && organizations == [OPERATOR_ORGANIZATION] =>
            {
                Some(Profile::Operator)
            }
            (false, true, false, false) if bare => Some(Profile::Server),
            (false, false, true, true) if bare => Some(Profile::OcspResponder),
            _ => None,
        }
    }

    /// Whether `now` lies in its life, both ends included (RFC 5280 §4.1.2.5).
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

pub(crate) fn unreadable(reason: impl Into<String>) -> CaError {
    CaError::Unreadable {
        reason: reason.into(),
    }
}

/// One whole DER certificate.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CaError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(unreadable(format!(
            "it is {} octets long, at most {MAX_CERTIFICATE_BYTES} are read",
            der.len()
        )));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(unreadable("it is followed by something else")),
        Err(_) => Err(unreadable("it is truncated or not an X.509 certificate")),
    }
}

/// The id of a certificate's key: SHA-256 of its SubjectPublicKeyInfo, as hexadecimal digits. Two
/// certificates over one key have the same.
///
/// # Errors
/// [`CaError::Unreadable`] for what is no certificate in PEM.
pub fn key_id(certificate_pem: &str) -> Result<String, CaError> {
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
        .map_err(|_| unreadable("it is not PEM"))?;
    let certificate = parse(&der)?;
    let digest =
        aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate.public_key().raw);
    Ok(HEXLOWER.encode(digest.as_ref()))
}

fn name_text(name: &X509Name<'_>) -> String {
    name.to_string()
}

fn strings<'a>(
    attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> Result<Vec<String>, CaError> {
    attributes
        .map(|attribute| attribute.as_str().map(str::to_owned))
        .collect::<Result<_, _>>()
        .map_err(|_| unreadable("its subject is not readable text"))
}

fn usages(certificate: &TbsCertificate<'_>) -> Result<KeyUsages, CaError> {
    let usage = certificate
        .key_usage()
        .map_err(|_| unreadable("its keyUsage cannot be read"))?;
    let extended = certificate
        .extended_key_usage()
        .map_err(|_| unreadable("its extendedKeyUsage cannot be read"))?;
    let mut usages = KeyUsages::default();
    if let Some(usage) = usage {
        let usage = usage.value;
        usages.digital_signature = usage.digital_signature();
        usages.key_cert_sign = usage.key_cert_sign();
        usages.crl_sign = usage.crl_sign();
        usages.other = has_other(*usage);
    }
    if let Some(extended) = extended {
        let extended = extended.value;
        usages.client_auth = extended.client_auth;
        usages.server_auth = extended.server_auth;
        usages.ocsp_signing = extended.ocsp_signing;
        usages.other_extended = extended.any
            || extended.code_signing
            || extended.email_protection
            || extended.time_stamping
            || !extended.other.is_empty();
    }
    Ok(usages)
}

fn has_other(usage: KeyUsage) -> bool {
    usage.non_repudiation()
        || usage.key_encipherment()
        || usage.data_encipherment()
        || usage.key_agreement()
        || usage.encipher_only()
        || usage.decipher_only()
}

fn names(certificate: &TbsCertificate<'_>) -> Result<Vec<CertificateName>, CaError> {
    let extension = certificate
        .subject_alternative_name()
        .map_err(|_| unreadable("its subjectAltName cannot be read"))?;
    let Some(extension) = extension else {
        return Ok(Vec::new());
    };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(dns) => CertificateName::Dns(dns.to_ascii_lowercase()),
        GeneralName::IPAddress(octets) => address(octets).map_or_else(
            || CertificateName::Other(format!("{octets:?}")),
            CertificateName::Address,
        ),
        other => CertificateName::Other(other.to_string()),
    };
    Ok(extension.value.general_names.iter().map(name).collect())
}

/// What a policy can ask of the names. A value that is no text, or a field nobody has a word for,
/// is left out.
fn values(certificate: &TbsCertificate<'_>) -> Vec<NameValue> {
    let mut values = Vec::new();
    for (of_issuer, name) in [(false, certificate.subject()), (true, certificate.issuer())] {
        for attribute in name.iter_attributes() {
            let field = FIELDS.iter().find(|(oid, _)| oid == attribute.attr_type());
            if let (Some((_, field)), Ok(value)) = (field, attribute.as_str()) {
                values.push(NameValue {
                    of_issuer,
                    field,
                    value: value.to_owned(),
                });
            }
        }
    }
    for extension in certificate.extensions() {
        let (of_issuer, names) = match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(san) => (false, &san.general_names),
            ParsedExtension::IssuerAlternativeName(ian) => (true, &ian.general_names),
            _ => continue,
        };
        for name in names {
            let (field, value) = match name {
                GeneralName::RFC822Name(name) => ("AlternativeName.RFC822Name", (*name).to_owned()),
                GeneralName::DNSName(name) => ("AlternativeName.DNSName", (*name).to_owned()),
                GeneralName::URI(uri) => (
                    "AlternativeName.UniformResourceIdentifier",
                    (*uri).to_owned(),
                ),
                GeneralName::DirectoryName(name) => {
                    ("AlternativeName.DirectoryName", name_text(name))
                }
                GeneralName::IPAddress(octets) => match address(octets) {
                    Some(address) => ("AlternativeName.IPAddress", address.to_string()),
                    None => continue,
                },
                _ => continue,
            };
            values.push(NameValue {
                of_issuer,
                field,
                value,
            });
        }
    }
    values
}

/// Fields of a name by their object identifier (X.520, RFC 5280 appendix A).
static FIELDS: [(Oid<'static>, &str); 13] = [
    (oid!(2.5.4.3), "CommonName"),
    (oid!(2.5.4.4), "Surname"),
    (oid!(2.5.4.5), "SerialNumber"),
    (oid!(2.5.4.6), "Country"),
    (oid!(2.5.4.8), "State"),
    (oid!(2.5.4.10), "Organization"),
    (oid!(2.5.4.11), "OrganizationalUnit"),
    (oid!(2.5.4.12), "Title"),
    (oid!(2.5.4.42), "GivenName"),
    (oid!(2.5.4.43), "Initials"),
    (oid!(2.5.4.44), "GenerationQualifier"),
    (oid!(2.5.4.46), "DistinguishedNameQualifier"),
    (oid!(2.5.4.65), "Pseudonym"),
];

fn address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}
