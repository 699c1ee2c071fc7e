use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer as Signs, KeyPair as Pair, KeyUsagePurpose, NameConstraints,
    PKCS_ECDSA_P256_SHA256,
};

use crate::authority::tests::now;
use crate::{
    Authority, CaError, CertificateId, IssuingPlan, Keyring, Plan, Profile, RootPlan, SecretKey,
    Subject,
};

type Change = fn(&mut CertificateParams);

fn params(name: &str, pathlen: BasicConstraints, change: Change) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(pathlen);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    change(&mut params);
    params
}

/// Founds an authority of an organisation's root and issuing certificate, each changed.
fn founded(dir: &std::path::Path, root: Change, issuing: Change) -> Result<(), CaError> {
    let pair = || Pair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let (root_key, issuing_key) = (pair(), pair());
    let root = params("Org Root", BasicConstraints::Unconstrained, root);
    let root_certificate = root.self_signed(&root_key).unwrap();
    let signs = Signs::from_params(&root, &root_key);
    let issuing = params("Org Issuing", BasicConstraints::Constrained(0), issuing);
    let issuing_certificate = issuing.signed_by(&issuing_key, &signs).unwrap();
    let plan = Plan {
        root: RootPlan::Existing {
            certificate: root_certificate.pem(),
            key: None,
        },
        issuing: IssuingPlan::Existing {
            chain: issuing_certificate.pem(),
            key: SecretKey::from_pem(issuing_key.serialize_pem().as_bytes(), None).unwrap(),
        },
        root_leaves: false,
        public_url: None,
    };
    let (url, keyring) = ("http://ca.example", Keyring::default());
    Authority::found(dir, plan, url, keyring, now(), |_| Ok(())).map(drop)
}

fn as_is(_: &mut CertificateParams) {}

fn usages(params: &mut CertificateParams, usages: &[ExtendedKeyUsagePurpose]) {
    params.extended_key_usages = usages.to_vec();
}

fn permits(params: &mut CertificateParams, subtree: GeneralSubtree) {
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![subtree],
        excluded_subtrees: Vec::new(),
    });
}

fn unknown(params: &mut CertificateParams) {
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions.push(extension);
}

/// An authorityKeyIdentifier of these octets in place of the signer's.
fn names_key(params: &mut CertificateParams, content: &[u8]) {
    params.use_authority_key_identifier_extension = false;
    let length = u8::try_from(content.len()).unwrap();
    let content = [&[0x30, length], content].concat();
    let extension = CustomExtension::from_oid_content(&[2, 5, 29, 35], content);
    params.custom_extensions.push(extension);
}

fn day(from_now: i64) -> time::OffsetDateTime {
    time::OffsetDateTime::from(now()) + time::Duration::days(from_now)
}

#[test]
fn what_clients_would_not_follow_is_not_taken() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let cases: [(&str, Change, Change); 14] = [
        ("empty subject", as_is, |params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
        }),
        ("extendedKeyUsage", as_is, |params| {
            usages(params, &[ClientAuth])
        }),
        ("extendedKeyUsage", as_is, |params| {
            usages(params, &[ServerAuth])
        }),
        ("1.2.3.4", as_is, unknown),
        ("1.2.3.4", unknown, as_is),
        ("nameConstraints", as_is, |params| {
            let mut name = rcgen::DistinguishedName::new();
            name.push(DnType::OrganizationName, "Org");
            permits(params, GeneralSubtree::DirectoryName(name));
        }),
        ("nameConstraints", as_is, |params| {
            params.name_constraints = Some(NameConstraints {
                permitted_subtrees: Vec::new(),
                excluded_subtrees: vec![GeneralSubtree::DnsName("localhost".to_owned())],
            });
        }),
        (
            "nameConstraints",
            |params| permits(params, GeneralSubtree::DnsName("works.example".to_owned())),
            as_is,
        ),
        (
            "pathlen",
            |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)),
            as_is,
        ),
        ("authorityKeyIdentifier", as_is, |params| {
            names_key(params, &[0x80, 2, 7, 7])
        }),
        ("authorityKeyIdentifier", as_is, |params| {
            names_key(params, &[0x82, 2, 7, 7])
        }),
        (
            "authorityKeyIdentifier",
            |params| names_key(params, &[0x80, 2, 7, 7]),
            as_is,
        ),
        (
            "the root is valid from",
            |params| params.not_before = day(10),
            as_is,
        ),
        ("without a dot", as_is, |params| {
            permits(params, GeneralSubtree::DnsName(".works.example".to_owned()))
        }),
    ];
    for (words, root, issuing) in cases {
        let base = tempfile::tempdir().unwrap();
        let said = founded(&base.path().join("ca"), root, issuing).unwrap_err();
        assert!(said.to_string().contains(words), "{words}: {said}");
        let left = std::fs::read_dir(base.path()).unwrap().count();
        assert_eq!(left, 0, "{words}");
    }
    let good: [Change; 4] = [
        as_is,
        |params| usages(params, &[ClientAuth, ServerAuth]),
        |params| permits(params, GeneralSubtree::DnsName("works.example".to_owned())),
        |params| permits(params, GeneralSubtree::DnsName("Works.Example".to_owned())),
    ];
    for issuing in good {
        let base = tempfile::tempdir().unwrap();
        founded(&base.path().join("ca"), as_is, issuing).unwrap();
    }
}

#[test]
fn a_successor_that_does_not_permit_the_servers_names_is_not_taken() {
    let (dir, authority) = crate::authority::tests::authority();
    let names = ["works.example".to_owned()];
    authority
        .server_identity(&dir.path().join("tls"), &names, now())
        .unwrap();
    let root_key = std::fs::read(dir.path().join("ca/root.key")).unwrap();
    let sign = |permitted: &str| {
        let root_key = SecretKey::from_pem(&root_key, None).unwrap();
        let request = authority.issuing_request().unwrap();
        let permitted = [permitted.to_owned()];
        let root = authority.root_pem();
        crate::sign_issuing_request(&root, root_key, &request, &permitted, None, now()).unwrap()
    };
    let said = authority.adopt_issuing(&sign("other.example"), None, now());
    let said = said.unwrap_err().to_string();
    assert!(said.contains("permits only other.example"), "{said}");
    assert_eq!(authority.issuers().len(), 1);
    let before = CertificateId::of(&authority.issuing_der());
    authority
        .adopt_issuing(&sign("works.example"), None, now())
        .unwrap();
    assert_ne!(CertificateId::of(&authority.issuing_der()), before);
    let subject = Subject {
        common_name: "works.example".to_owned(),
        names: names.to_vec(),
    };
    let key = crate::KeyPair::generate().unwrap();
    authority
        .issue(Profile::Server, &subject, key.public(), now())
        .unwrap();
}
