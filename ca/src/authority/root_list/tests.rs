use super::*;
use crate::authority::tests::{authority, config, now, subject};
use crate::{KeyPair, Passphrase, Profile};

const DAY: Duration = Duration::from_secs(86_400);
const SECOND: IssuerNumber = match IssuerNumber::new(2) {
    Some(number) => number,
    None => IssuerNumber::FIRST,
};

fn reopened(dir: &tempfile::TempDir) -> Authority {
    Authority::open_or_create(&dir.path().join("ca"), config(), now()).unwrap()
}

fn list(authority: &Authority, now: SystemTime) -> Arc<RootList> {
    let list = authority.root_list(RootNumber::FIRST, now).unwrap();
    list.unwrap()
}

fn issue(authority: &Authority) -> Result<crate::Issued, CaError> {
    let key = KeyPair::generate().unwrap();
    authority.issue(
        Profile::Device,
        &subject("lamp-1", &[]),
        key.public(),
        now() + DAY,
    )
}

#[test]
fn a_former_issuing_certificate_is_withdrawn_for_good() {
    let (dir, authority) = authority();
    let first = list(&authority, now());
    assert_eq!((first.number, first.entries.len()), (1, 0));
    let revoke =
        |number| authority.revoke_issuing(number, RevocationReason::CaCompromise, now() + DAY);
    let said = revoke(IssuerNumber::FIRST).unwrap_err().to_string();
    assert!(said.contains("rotate-issuing"), "{said}");
    assert!(revoke(SECOND).unwrap_err().to_string().contains("ca show"));
    let old = issue(&authority).unwrap();
    authority.rotate_issuing(now() + DAY).unwrap();
    assert_eq!(authority.certificates(now() + DAY).len(), 3);
    revoke(IssuerNumber::FIRST).unwrap();
    let said = revoke(IssuerNumber::FIRST).unwrap_err().to_string();
    assert!(said.contains("already"), "{said}");
    for authority in [&authority, &reopened(&dir)] {
        let list = list(authority, now() + DAY);
        assert_eq!((list.number, list.entries.len()), (2, 1));
        let entry = authority.issuing_revoked(IssuerNumber::FIRST).unwrap();
        assert_eq!(entry.reason, RevocationReason::CaCompromise);
        assert_eq!(authority.issuing_revoked(SECOND), None);
        // The registry decides about what it signed; nobody is told to follow it any more.
        assert_eq!(authority.issuer_of(&old.der), Some(IssuerNumber::FIRST));
        assert_eq!(authority.certificates(now() + DAY).len(), 2);
        assert_eq!(issue(authority).unwrap().issuer, SECOND);
    }
}

#[test]
fn the_next_list_comes_before_the_last_has_ended() {
    let (_dir, authority) = authority();
    let first = list(&authority, now());
    assert_eq!(list(&authority, now() + 200 * DAY), first);
    let next = list(&authority, now() + 300 * DAY);
    assert_eq!(next.number, 2);
    // A clock that was ahead: what it signed is not left there.
    assert_eq!(list(&authority, now()).number, 3);
    assert_eq!(
        authority
            .root_list(RootNumber::FIRST.next(), now())
            .unwrap(),
        None
    );
}

#[test]
fn with_the_root_elsewhere_its_list_comes_from_there() {
    let (dir, authority) = authority();
    authority.rotate_issuing(now()).unwrap();
    let passphrase = Passphrase::new(b"a long passphrase").unwrap();
    let sealed = authority.export_root_key(None, &passphrase).unwrap();
    let kept = CertificateId::of(sealed.as_bytes()).to_string();
    // It is as fresh as it can be when the key goes.
    authority
        .take_root_offline(&kept, now() + 300 * DAY)
        .unwrap();
    let former = list(&authority, now() + 300 * DAY);
    assert_eq!(
        (former.number, former.is_due(now() + 500 * DAY)),
        (2, false)
    );
    let refused =
        authority.revoke_issuing(IssuerNumber::FIRST, RevocationReason::Superseded, now());
    assert!(matches!(refused, Err(CaError::RootOffline)));
    // It stands until its end and after, for want of a better.
    assert_eq!(list(&authority, now() + 900 * DAY), former);

    let root = authority.root_pem();
    let key = || SecretKey::from_pem(sealed.as_bytes(), Some(&passphrase)).unwrap();
    let at = now() + 400 * DAY;
    let pem = |number| pem::certificate(&authority.issuing_der_of(number).unwrap());
    let (one, two) = (pem(IssuerNumber::FIRST), pem(SECOND));
    let sign = |former: &RootList, revoke: Option<&str>| {
        let revoke = revoke.map(|pem| (pem, RevocationReason::KeyCompromise));
        sign_root_list(&root, key(), Some(&former.der), revoke, at)
    };
    let next = sign(&former, Some(&one)).unwrap();
    let taken = authority.take_root_list(next.as_bytes(), at).unwrap();
    assert_eq!((taken.number, taken.entries.len()), (3, 1));
    let said = authority
        .take_root_list(next.as_bytes(), at)
        .unwrap_err()
        .to_string();
    assert!(said.contains("number 3 is there already"), "{said}");
    let said = sign(&taken, Some(&one)).unwrap_err().to_string();
    assert!(said.contains("already"), "{said}");
    // Made without what is revoked, it would undo that.
    let forked = RootList {
        number: 9,
        ..former.as_ref().clone()
    };
    let mut forgetful = Root::new(RootNumber::FIRST, authority.root_der(), Path::new("")).unwrap();
    forgetful.list = Some(Arc::new(forked));
    let forked = RootList::next(&forgetful, &FileKey::from(key()), None, at).unwrap();
    let said = authority
        .take_root_list(&forked.der, at)
        .unwrap_err()
        .to_string();
    assert!(said.contains("leaves out"), "{said}");
    let said = authority
        .take_root_list(&taken.der, at + 900 * DAY)
        .unwrap_err()
        .to_string();
    assert!(said.contains("it is good from"), "{said}");
    assert!(authority.take_root_list(b"-----BEGIN X", at).is_err());
    let (_dir, other) = super::super::tests::authority();
    let said = other
        .take_root_list(next.as_bytes(), at)
        .unwrap_err()
        .to_string();
    assert!(said.contains("did not sign it"), "{said}");

    // The one that signs, withdrawn by who has the root: nothing is issued, and the next one mends it.
    let next = sign(&taken, Some(&two)).unwrap();
    authority.take_root_list(next.as_bytes(), at).unwrap();
    assert!(authority.issuing_is_over(now() + DAY));
    for authority in [&authority, &reopened(&dir)] {
        let refused = issue(authority).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("issuing certificate 2 is revoked (keyCompromise)"),
            "{refused}"
        );
    }
    let request = authority.issuing_request().unwrap();
    let signed = crate::sign_issuing_request(&root, key(), &request, &[], None, now()).unwrap();
    authority.adopt_issuing(&signed, None, now()).unwrap();
    assert_eq!(issue(&authority).unwrap().issuer.to_string(), "3");
}

#[test]
fn lists_of_a_part_are_not_taken() {
    let (_dir, authority) = authority();
    // A list of leaf certificates of the same name and key.
    let root = authority.state.load_full().root.clone();
    let key = authority.root_key().unwrap();
    let urls = ["http://ca.example/crl/16/0.crl".to_owned()];
    let signer = crl::ListSigner {
        der: &root.der,
        key_id: &subject_key_id(&root.der).unwrap().unwrap(),
        custody: key.as_ref(),
    };
    let content = crl::Content {
        number: 7,
        entries: &[],
        this_update: now(),
        next_update: now() + DAY,
        urls: &urls,
    };
    let (der, _) = crl::sign(&signer, &content).unwrap();
    let said = authority
        .take_root_list(&der, now())
        .unwrap_err()
        .to_string();
    assert!(said.contains("a part"), "{said}");
    let whole = crl::Content {
        urls: &[],
        ..content
    };
    let (der, _) = crl::sign(&signer, &whole).unwrap();
    assert_eq!(authority.take_root_list(&der, now()).unwrap().number, 7);
}
