//! The messages of EST (RFC 7030) that are ASN.1: certificates without a signature around them, and
//! what a request should hold.

use cms::cert::CertificateChoices;
use cms::content_info::{CmsVersion, ContentInfo};
use cms::signed_data::{CertificateSet, EncapsulatedContentInfo, SignedData, SignerInfos};
use der::asn1::{ObjectIdentifier, SetOfVec};
use der::{Any, AnyRef, Decode, Encode};
use x509_cert::Certificate;
use x509_cert::attr::Attribute;

use crate::error::CaError;
use crate::facts;

const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");

fn encoding(error: der::Error) -> CaError {
    facts::unreadable(error.to_string())
}

/// A certs-only CMC Simple PKI Response (RFC 7030 §4.1.3 and §4.2.3): DER certificates in CMS
/// SignedData that nobody signed.
///
/// # Errors
/// [`CaError::Unreadable`] for what is no certificate.
pub fn certs_only(certificates: &[&[u8]]) -> Result<Vec<u8>, CaError> {
    let mut set = SetOfVec::new();
    for der in certificates {
        let certificate = Certificate::from_der(der).map_err(encoding)?;
        set.insert(CertificateChoices::Certificate(certificate))
            .map_err(encoding)?;
    }
    let signed = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::default(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: DATA,
            econtent: None,
        },
        certificates: Some(CertificateSet(set)),
        crls: None,
        signer_infos: SignerInfos(SetOfVec::default()),
    };
    let signed = signed.to_der().map_err(encoding)?;
    let content = AnyRef::try_from(&signed[..]).map_err(encoding)?;
    ContentInfo {
        content_type: SIGNED_DATA,
        content: Any::from(content),
    }
    .to_der()
    .map_err(encoding)
}

/// CsrAttrs (RFC 7030 §4.5.2): a P-256 key, signed with SHA-256, is what a device does best with.
///
/// # Errors
/// [`CaError::Unreadable`] if it could not be encoded.
pub fn csr_attributes() -> Result<Vec<u8>, CaError> {
    let curve = Attribute {
        oid: EC_PUBLIC_KEY,
        values: SetOfVec::try_from(vec![Any::from(P256)]).map_err(encoding)?,
    };
    let curve = Any::encode_from(&curve).map_err(encoding)?;
    vec![curve, Any::from(ECDSA_WITH_SHA256)]
        .to_der()
        .map_err(encoding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::tests::authority;

    #[test]
    fn certificates_come_back() {
        let (_dir, authority) = authority();
        let both = [&authority.root_der()[..], &authority.issuing_der()[..]];
        let der = certs_only(&both).unwrap();
        let info = ContentInfo::from_der(&der).unwrap();
        let signed: SignedData = info.content.decode_as().unwrap();
        let found: Vec<_> = signed
            .certificates
            .unwrap()
            .0
            .iter()
            .map(|one| one.to_der().unwrap())
            .collect();
        assert_eq!(found.len(), 2);
        assert!(both.iter().all(|der| found.iter().any(|one| one == der)));
        assert!(certs_only(&[&b"junk"[..]]).is_err());
    }

    #[test]
    fn attributes_of_a_request() {
        let expected = [
            &[0x30, 33, 0x30, 21, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1][..],
            &[0x31, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
            &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
        ];
        assert_eq!(csr_attributes().unwrap(), expected.concat());
    }
}
