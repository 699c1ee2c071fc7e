//! The second look: what is about to be signed is read with another library than the one that wrote
//! it and held against what was meant, so that no violation is ever signed; what was signed is read
//! back before anyone gets it.

use std::time::SystemTime;

use x509_parser::certificate::TbsCertificate;
use x509_parser::der_parser::{Oid, oid};
use x509_parser::extensions::{
    CRLDistributionPoint, DistributionPointName, GeneralName, ParsedExtension,
};

use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Version;

use crate::authority::subject_key_id;
use crate::error::CaError;
use crate::facts::{self, CertificateFacts, CertificateName};
use crate::identifier::Serial;
use crate::pointers::Pointers;
use crate::profile::{Rules, Usage};
use crate::public_key::PublicKey;

/// What a certificate was meant to be.
pub(crate) struct Meant<'a> {
    pub(crate) rules: &'a Rules,
    pub(crate) common_name: &'a str,
    pub(crate) names: &'a [CertificateName],
    pub(crate) key: &'a PublicKey,
    pub(crate) serial: &'a Serial,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    /// Where it says that its status is told.
    pub(crate) pointers: Option<&'a Pointers>,
    /// DER of the issuing certificate.
    pub(crate) issuer: &'a [u8],
}

/// Reads a certificate back.
///
/// # Errors
/// [`CaError::Lint`] naming the first rule broken.
pub(crate) fn check(der: &[u8], meant: &Meant<'_>) -> Result<CertificateFacts, CaError> {
    let certificate = facts::parse(der)?;
    let issuer = facts::parse(meant.issuer)?;
    if certificate
        .verify_signature(Some(issuer.public_key()))
        .is_err()
    {
        return Err(broken("its signature does not verify with the issuing key"));
    }
    check_content(&certificate, der, meant)
}

/// Reads what is about to be signed, as DER.
///
/// # Errors
/// [`CaError::Lint`] naming the first rule broken.
pub(crate) fn check_unsigned(der: &[u8], meant: &Meant<'_>) -> Result<(), CaError> {
    match TbsCertificate::from_der(der) {
        Ok(([], content)) => check_content(&content, der, meant).map(drop),
        _ => Err(broken("it cannot be read")),
    }
}

fn broken(rule: &str) -> CaError {
    CaError::Lint {
        rule: rule.to_owned(),
    }
}

fn check_content(
    certificate: &TbsCertificate<'_>,
    der: &[u8],
    meant: &Meant<'_>,
) -> Result<CertificateFacts, CaError> {
    let facts = CertificateFacts::of(certificate, der)?;
    let issuer = facts::parse(meant.issuer)?;
    let issuer_facts = CertificateFacts::of(&issuer, meant.issuer)?;
    let marks = Marks::of(certificate)?;
    // Where its own status is told is its signer's matter.
    let issuer_key = subject_key_id(meant.issuer)?;

    let rules: [(bool, &str); 13] = [
        (
            certificate.version() == X509Version::V3,
            "it is not of version 3",
        ),
        (
            certificate.issuer().as_raw() == issuer.subject().as_raw(),
            "its issuer is not the issuing certificate's subject",
        ),
        (
            certificate.public_key().raw == meant.key.der(),
            "its key is not the requested one",
        ),
        (
            facts.serial == *meant.serial,
            "its serial number is another",
        ),
        (
            facts.profile() == Some(meant.rules.profile),
            "its usages, subject or names are not those of its profile",
        ),
        (
            facts.subject_common_names == [meant.common_name],
            "its common name is another",
        ),
        (facts.names == meant.names, "its names are others"),
        (
            facts.not_before == meant.not_before && facts.not_after == meant.not_after,
            "its validity is another",
        ),
        (
            facts.not_before < facts.not_after
                && issuer_facts.not_before <= facts.not_before
                && facts.not_after <= issuer_facts.not_after,
            "it does not live within its issuer's life",
        ),
        (
            marks.critical_end_entity && marks.critical_key_usage,
            "its basicConstraints or keyUsage is not critical",
        ),
        (
            marks.subject_key.is_some()
                && issuer_key.is_some()
                && marks.authority_key == issuer_key,
            "its key identifiers do not lead to its issuer",
        ),
        (
            marks.pointers.as_ref() == meant.pointers && !marks.unknown_critical,
            "it does not say where its revocation list and its OCSP responder are, or says what it should not",
        ),
        (
            marks.ocsp_no_check == (meant.rules.usage == Usage::OcspSigning),
            "it is not marked as an OCSP responder's, or is and should not be",
        ),
    ];
    match rules.into_iter().find(|(kept, _)| !kept) {
        None => Ok(facts),
        Some((_, rule)) => Err(broken(rule)),
    }
}

/// Marks of a certificate that [`CertificateFacts`] has no use for.
#[derive(Default)]
struct Marks {
    critical_end_entity: bool,
    critical_key_usage: bool,
    subject_key: Option<Vec<u8>>,
    authority_key: Option<Vec<u8>>,
    pointers: Option<Pointers>,
    ocsp_no_check: bool,
    unknown_critical: bool,
}

impl Marks {
    fn of(certificate: &TbsCertificate<'_>) -> Result<Self, CaError> {
        // RFC 5280 §4.2: no extension twice.
        certificate
            .extensions_map()
            .map_err(|_| facts::unreadable("it has an extension twice"))?;
        let mut marks = Self::default();
        let (mut list, mut access) = (Vec::new(), Vec::new());
        for extension in certificate.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::BasicConstraints(constraints) => {
                    marks.critical_end_entity = extension.critical && !constraints.ca;
                }
                ParsedExtension::KeyUsage(_) => marks.critical_key_usage = extension.critical,
                ParsedExtension::SubjectKeyIdentifier(id) => {
                    marks.subject_key = Some(id.0.to_owned());
                }
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    marks.authority_key = id.key_identifier.as_ref().map(|id| id.0.to_owned());
                }
                ParsedExtension::CRLDistributionPoints(points) => {
                    list.extend(points.points.iter().map(|point| point_url(point)));
                }
                ParsedExtension::AuthorityInfoAccess(infos) => {
                    access.extend(infos.accessdescs.iter().map(|info| {
                        (
                            info.access_method.to_id_string(),
                            url(&info.access_location),
                        )
                    }));
                }
                ParsedExtension::ExtendedKeyUsage(_)
                | ParsedExtension::SubjectAlternativeName(_) => {}
                _ => {
                    marks.ocsp_no_check |= extension.oid == OCSP_NO_CHECK;
                    marks.unknown_critical |= extension.critical;
                }
            }
        }
        marks.pointers = match (&list[..], &access[..]) {
            ([], []) => None,
            ([Some(crl)], [(ocsp_method, Some(ocsp)), (issuer_method, Some(issuer))])
                if ocsp_method == OCSP && issuer_method == CA_ISSUERS =>
            {
                Some(Pointers {
                    crl: crl.clone(),
                    ocsp: ocsp.clone(),
                    issuer: issuer.clone(),
                })
            }
            _ => {
                return Err(facts::unreadable(
                    "its pointers are not those of this authority",
                ));
            }
        };
        Ok(marks)
    }
}

const OCSP: &str = "1.3.6.1.5.5.7.48.1";
const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";
const OCSP_NO_CHECK: Oid<'static> = oid!(1.3.6.1.5.5.7.48.1.5);

/// The one URL of a distribution point that has nothing else.
fn point_url(point: &CRLDistributionPoint<'_>) -> Option<String> {
    match (&point.distribution_point, &point.reasons, &point.crl_issuer) {
        (Some(DistributionPointName::FullName(names)), None, None) => match &names[..] {
            [name] => url(name),
            _ => None,
        },
        _ => None,
    }
}

fn url(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyPair;
    use crate::custody::{Custody, Signer};
    use crate::pointers::{CrlShards, authority_information_access, ocsp_no_check};
    use crate::profile::Profile;
    use rcgen::{
        CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose as Extended, IsCa,
        KeyUsagePurpose as Use, SanType,
    };
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const HOUR: time::Duration = time::Duration::HOUR;

    /// Signs a server certificate after `spoil`; what the second look says of it.
    fn look(spoil: impl FnOnce(&mut CertificateParams)) -> Result<CertificateFacts, CaError> {
        let begin = 1_795_478_400;
        let at = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let mut issuer_params = CertificateParams::default();
        issuer_params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        issuer_params.not_before = at(begin - 60);
        issuer_params.not_after = at(begin + 100_000);
        let issuer_key = rcgen::KeyPair::generate().unwrap();
        let issuer_der = issuer_params
            .self_signed(&issuer_key)
            .unwrap()
            .der()
            .to_vec();
        let issuer = rcgen::Issuer::from_params(&issuer_params, &issuer_key);

        let key = KeyPair::generate().unwrap();
        let serial = Serial::random().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "broker");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![Use::DigitalSignature];
        params.extended_key_usages = vec![Extended::ServerAuth];
        params.serial_number = Some(rcgen::SerialNumber::from_slice(serial.as_bytes()));
        params.use_authority_key_identifier_extension = true;
        params.not_before = at(begin);
        params.not_after = at(begin + 3600);
        let pointers = Pointers::at(
            "http://ca.example",
            crate::IssuerNumber::FIRST,
            CrlShards::default(),
            &serial,
        );
        params.crl_distribution_points = vec![rcgen::CrlDistributionPoint {
            uris: vec![pointers.crl.clone()],
        }];
        params.custom_extensions = vec![authority_information_access(&pointers)];
        spoil(&mut params);
        let der = params
            .signed_by(key.public(), &issuer)
            .unwrap()
            .der()
            .to_vec();
        let not_before = SystemTime::UNIX_EPOCH + Duration::from_secs(begin.unsigned_abs());
        check(
            &der,
            &Meant {
                rules: Profile::Server.rules(),
                common_name: "broker",
                names: &[CertificateName::Dns("localhost".to_owned())],
                key: key.public(),
                serial: &serial,
                not_before,
                not_after: not_before + Duration::from_secs(3600),
                pointers: Some(&pointers),
                issuer: &issuer_der,
            },
        )
    }

    #[test]
    fn what_was_meant_passes() {
        look(|_| {}).unwrap();
    }

    /// Counts how often it is asked to sign.
    struct Counting(crate::custody::FileKey, AtomicUsize);

    impl Custody for Counting {
        fn public_key(&self) -> &PublicKey {
            self.0.public_key()
        }

        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, crate::custody::CustodyError> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.sign(message)
        }
    }

    #[test]
    fn a_violation_is_never_signed() {
        let (dir, authority) = crate::authority::tests::authority();
        let key = crate::custody::FileKey::open(&dir.path().join("ca/issuing.key")).unwrap();
        let custody = Counting(key, AtomicUsize::new(0));
        let device = KeyPair::generate().unwrap();
        let serial = Serial::random().unwrap();
        let pointers = authority.pointers(crate::IssuerNumber::FIRST, &serial);
        let begin: i64 = 1_795_478_400;
        let at = |seconds| time::OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let not_before = SystemTime::UNIX_EPOCH + Duration::from_secs(begin.unsigned_abs());
        let meant = Meant {
            rules: Profile::Device.rules(),
            common_name: "lamp-1",
            names: &[],
            key: device.public(),
            serial: &serial,
            not_before,
            not_after: not_before + Duration::from_secs(3600),
            pointers: Some(&pointers),
            issuer: &authority.issuing_der(),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "lamp-1");
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![Use::DigitalSignature];
        params.extended_key_usages = vec![Extended::ClientAuth];
        params.serial_number = Some(rcgen::SerialNumber::from_slice(serial.as_bytes()));
        params.use_authority_key_identifier_extension = true;
        params.not_before = at(begin);
        params.not_after = at(begin + 3600);
        params.crl_distribution_points = vec![rcgen::CrlDistributionPoint {
            uris: vec![pointers.crl.clone()],
        }];
        params.custom_extensions = vec![authority_information_access(&pointers)];
        let sign = |params: &CertificateParams| {
            let look = |content: &[u8]| check_unsigned(content, &meant);
            let signer = Signer::looking(&custody, &look);
            let signed = rcgen::Issuer::from_ca_cert_der(&authority.issuing_der(), &signer)
                .and_then(|issuer| params.signed_by(device.public(), &issuer));
            signed.map_err(|error| signer.explain(error)).map(drop)
        };
        sign(&params).unwrap();
        assert_eq!(custody.1.load(Ordering::Relaxed), 1);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let error = sign(&params).unwrap_err();
        assert!(matches!(error, CaError::Lint { .. }), "{error}");
        params.is_ca = IsCa::ExplicitNoCa;
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Muster operators");
        assert!(sign(&params).is_err());
        assert_eq!(
            custody.1.load(Ordering::Relaxed),
            1,
            "asked for nothing more"
        );
    }

    #[test]
    fn every_slip_is_seen() {
        type Slip = (&'static str, fn(&mut CertificateParams));
        let slips: &[Slip] = &[
            ("usages", |params| {
                params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)
            }),
            ("basicConstraints", |params| params.is_ca = IsCa::NoCa),
            ("usages", |params| params.key_usages.push(Use::KeyCertSign)),
            ("usages", |params| {
                params.key_usages.push(Use::KeyEncipherment)
            }),
            ("usages", |params| params.key_usages.clear()),
            ("usages", |params| {
                params.extended_key_usages.push(Extended::ClientAuth)
            }),
            ("usages", |params| {
                params.extended_key_usages.push(Extended::Any)
            }),
            ("usages", |params| params.extended_key_usages.clear()),
            ("usages", |params| params.subject_alt_names.clear()),
            ("names", |params| {
                let name = "evil.example".try_into().unwrap();
                params.subject_alt_names.push(SanType::DnsName(name));
            }),
            ("common name", |params| {
                params.distinguished_name.push(DnType::CommonName, "other")
            }),
            ("subject", |params| {
                params.distinguished_name.push(DnType::CountryName, "CH")
            }),
            ("serial", |params| params.serial_number = Some(1u64.into())),
            ("validity", |params| params.not_after += HOUR),
            ("validity", |params| params.not_before -= HOUR),
            ("identifiers", |params| {
                params.use_authority_key_identifier_extension = false
            }),
            ("revocation list", |params| {
                params.crl_distribution_points.clear();
                params.custom_extensions.clear();
            }),
            ("pointers", |params| params.crl_distribution_points.clear()),
            ("pointers", |params| params.custom_extensions.clear()),
            ("pointers", |params| {
                let more = params.crl_distribution_points.clone();
                params.crl_distribution_points.extend(more);
            }),
            ("revocation list", |params| {
                for point in &mut params.crl_distribution_points {
                    point.uris = vec!["http://ca.example/crl/16/x.crl".to_owned()];
                }
            }),
            ("responder", |params| {
                params.custom_extensions.push(ocsp_no_check())
            }),
            ("usages", |params| {
                params.extended_key_usages = vec![Extended::OcspSigning]
            }),
            ("revocation list", |params| {
                let mut odd = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
                odd.set_criticality(true);
                params.custom_extensions.push(odd);
            }),
        ];
        for (part, slip) in slips {
            let error = look(slip).unwrap_err().to_string();
            assert!(error.contains(part), "{part}: {error}");
        }
    }
}
