//! What comes to the authority from outside: requests, certificates of others, OCSP requests, keys.

use ca::{
    CertificateFacts, Csr, ForeignAuthority, ForeignCertificate, KeyKind, OcspRequest, PublicKey,
    SecretKey,
};

/// It is read or refused in words, never more; and what is taken is what it says: a key of an accepted kind that signed
/// the request, the same when it is read again.
///
/// The bytes: what is read, then the object.
pub fn identity(bytes: &[u8]) {
    let Some((which, object)) = bytes.split_first() else {
        return;
    };
    match which {
        0 => request(object),
        1 => certificate(object),
        2 => text(object),
        3 => match OcspRequest::parse(object) {
            Ok(read) => assert_eq!(OcspRequest::parse(object), Ok(read)),
            Err(refusal) => assert!(!refusal.to_der().is_empty()),
        },
        4 => match SecretKey::from_pem(object, None) {
            Ok(key) => accepted(key.public()),
            Err(error) => assert!(!error.to_string().contains("BEGIN PRIVATE")),
        },
        5 => {
            if let Ok(key) = PublicKey::from_der(object) {
                accepted(&key);
                assert_eq!(key.der(), object);
            }
        }
        _ => {}
    }
}

fn accepted(key: &PublicKey) {
    match key.kind() {
        KeyKind::P256 | KeyKind::P384 | KeyKind::Ed25519 => {}
        KeyKind::Rsa(bits) => assert!((2048..=4096).contains(&bits)),
    }
}

fn request(object: &[u8]) {
    match Csr::parse(object) {
        Ok(read) => {
            accepted(read.public_key());
            let _ = read.requested_names().fit("lamp-1");
            assert_eq!(Csr::parse(object).as_ref(), Ok(&read));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn certificate(der: &[u8]) {
    let facts = CertificateFacts::read(der);
    if let Ok(facts) = &facts {
        let _ = facts.profile();
        assert!(facts.serial.as_bytes().len() <= 20);
    }
    if let Ok(foreign) = ForeignCertificate::read(der) {
        assert_eq!(facts.unwrap().id, foreign.facts.id);
        accepted(&PublicKey::of_certificate(foreign.der()).unwrap());
    }
}

fn text(object: &[u8]) {
    let text = String::from_utf8_lossy(object);
    if let Ok(foreign) = ForeignCertificate::parse(&text) {
        accepted(&PublicKey::of_certificate(foreign.der()).unwrap());
    }
    let _ = ForeignAuthority::parse(&text);
}
