use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::authority::tests::{authority, now};
use crate::{Authority, IssuerNumber, RevocationReason, RevokedEntry, Serial};

const HOUR: Duration = Duration::from_secs(3600);

fn serial(octet: u8) -> Serial {
    Serial::from_be_bytes(&[octet, 0x80]).unwrap()
}

/// Serial numbers 1 to 9 are good, from 10 on revoked with every reason, others unknown.
fn state(asked: &Serial) -> Option<CertificateState> {
    let number = *asked.as_bytes().first().unwrap();
    let revoked = RevocationReason::ALL.get(usize::from(number).wrapping_sub(10));
    Some(match revoked {
        _ if number < 10 => CertificateState::Good,
        Some(reason) => CertificateState::Revoked(RevokedEntry {
            serial: asked.clone(),
            revoked_at: now() - HOUR,
            reason: *reason,
        }),
        None => CertificateState::Unknown,
    })
}

fn answered(authority: &Authority, serials: &[Serial]) -> Vec<(Serial, CertificateState)> {
    let responder = authority
        .ocsp_responder(IssuerNumber::FIRST, now())
        .unwrap();
    let request = responder.request(serials).unwrap();
    let request = OcspRequest::parse(&request.to_der()).unwrap();
    let der = responder
        .answer(&request, now(), now() + HOUR, state)
        .unwrap();
    authority.read_ocsp(&der, now()).unwrap()
}

#[test]
fn each_state_comes_back_as_it_was() {
    let (_dir, authority) = authority();
    let serials: Vec<_> = (1..=30).map(serial).collect();
    for (asked, (serial, found)) in serials.iter().zip(answered(&authority, &serials)) {
        assert_eq!(*asked, serial);
        assert_eq!(Some(found), state(asked));
    }
}

#[test]
fn an_answer_of_another_authority_or_time_is_not_believed() {
    let (_dir, authority) = authority();
    let (_other_dir, other) = crate::authority::tests::authority();
    let responder = authority
        .ocsp_responder(IssuerNumber::FIRST, now())
        .unwrap();
    let request = responder.request(&[serial(1)]).unwrap();
    let der = responder
        .answer(&request, now(), now() + HOUR, state)
        .unwrap();
    assert!(other.read_ocsp(&der, now()).is_err());
    assert!(authority.read_ocsp(&der, now() - HOUR).is_err());
    assert!(authority.read_ocsp(&der, now() + 2 * HOUR).is_err());
    assert!(
        authority
            .read_ocsp(&OcspRefusal::Internal.to_der(), now())
            .is_err()
    );
    // And it is not asked for.
    let foreign = other.ocsp_responder(IssuerNumber::FIRST, now()).unwrap();
    assert_eq!(
        foreign.answer(&request, now(), now() + HOUR, state),
        Err(OcspRefusal::Unauthorized)
    );
}

#[test]
fn what_cannot_be_told_now_is_not_guessed() {
    let (_dir, authority) = authority();
    let responder = authority
        .ocsp_responder(IssuerNumber::FIRST, now())
        .unwrap();
    let request = responder.request(&[serial(1), serial(2)]).unwrap();
    let failed = responder.answer(&request, now(), now() + HOUR, |_| None);
    assert_eq!(failed, Err(OcspRefusal::Internal));
}

#[test]
fn the_responder_is_renewed_before_it_ends_and_no_answer_outlives_it() {
    let (_dir, authority) = authority();
    let responder = authority
        .ocsp_responder(IssuerNumber::FIRST, now())
        .unwrap();
    let life = crate::OCSP_RESPONDER_VALIDITY;
    assert!(responder.renew_at() > now() + life / 3 && responder.renew_at() < now() + life / 2);
    let request = responder.request(&[serial(1)]).unwrap();
    let late = now() + life - Duration::from_secs(10);
    let der = responder
        .answer(&request, late, late + HOUR, state)
        .unwrap();
    authority.read_ocsp(&der, late).unwrap();
    authority.read_ocsp(&der, now() + life).unwrap();
    let past = now() + life + Duration::from_secs(1);
    assert!(authority.read_ocsp(&der, past).is_err());
}

#[test]
fn rubbish_and_too_much_are_refused() {
    let (_dir, authority) = authority();
    let responder = authority
        .ocsp_responder(IssuerNumber::FIRST, now())
        .unwrap();
    let whole = responder.request(&[serial(1)]).unwrap().to_der();
    for end in 0..whole.len() {
        assert_eq!(
            OcspRequest::parse(&whole[..end]),
            Err(OcspRefusal::Malformed)
        );
    }
    let followed = [&whole[..], &[0]].concat();
    assert_eq!(OcspRequest::parse(&followed), Err(OcspRefusal::Malformed));
    let long = vec![0x30; MAX_OCSP_REQUEST_BYTES + 1];
    assert_eq!(OcspRequest::parse(&long), Err(OcspRefusal::Malformed));
    let serials: Vec<_> = (1..=65).map(serial).collect();
    assert!(responder.request(&serials).is_err());
    assert!(responder.request(&[]).is_err());
    assert!(responder.request(&serials[1..]).is_ok());
    for (refusal, last) in [
        (OcspRefusal::Malformed, 1),
        (OcspRefusal::Internal, 2),
        (OcspRefusal::Unauthorized, 6),
    ] {
        assert_eq!(refusal.to_der(), [0x30, 3, 0x0a, 1, last]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// No panic; what is still a request is answered, and the answer is about what was asked.
    #[test]
    fn mutated_requests_are_answered_or_refused(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        type Sample = (Authority, OcspResponder, Vec<u8>);
        static SAMPLE: std::sync::LazyLock<Sample> = std::sync::LazyLock::new(|| {
            // Its directory goes at once: nothing that is static is dropped, and from here on it is not read.
            let (_dir, authority) = authority();
            let responder = authority.ocsp_responder(IssuerNumber::FIRST, now()).unwrap();
            let mut request = responder.request(&[serial(1), serial(12)]).unwrap();
            request.nonce = Some(x509_cert::ext::Extension {
                extn_id: NONCE,
                critical: false,
                extn_value: der::asn1::OctetString::new(vec![4, 4, 1, 2, 3, 4]).unwrap(),
            });
            (authority, responder, request.to_der())
        });
        let (authority, responder, original) = &*SAMPLE;
        let mut bytes = original.clone();
        for (at, octet) in changes {
            let at = at.index(bytes.len());
            bytes[at] = octet;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(request) = OcspRequest::parse(&bytes) {
            match responder.answer(&request, now(), now() + HOUR, state) {
                // A serial number may have become one that nothing has.
                Ok(answer) => {
                    if let Ok(read) = authority.read_ocsp(&answer, now()) {
                        prop_assert_eq!(read.len(), request.asked.len());
                    }
                }
                Err(refusal) => prop_assert_eq!(refusal, OcspRefusal::Unauthorized),
            }
        }
    }

    #[test]
    fn random_octets_never_panic(octets in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = OcspRequest::parse(&octets);
        let _ = ANY.read_ocsp(&octets, SystemTime::now());
        let _ = ANY.read_crl(&octets);
    }
}

static ANY: std::sync::LazyLock<Authority> = std::sync::LazyLock::new(|| authority().1);
