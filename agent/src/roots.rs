//! Which roots a device trusts: those it came with, and who follows them.
//!
//! A root that follows is believed only under its cross-certificate, its name and key signed by a root that is trusted
//! already. One that was followed goes when the server no longer shows it but shows one that came after: the order in
//! `root.crt` is that of coming, so nobody who has an old root's key can have a newer one forgotten.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::renewal::signed;

/// Roots that are trusted at one time, at most.
const MOST: usize = 8;

/// The roots to trust from now on, oldest first, out of those that are trusted and what the server showed; `None` where
/// nothing changes.
pub(crate) fn follow(
    trusted: &[CertificateDer<'static>],
    offered: &[CertificateDer<'static>],
    now: SystemTime,
) -> Option<Vec<CertificateDer<'static>>> {
    let mut roots = trusted.to_vec();
    while roots.len() < MOST {
        let next = offered.iter().find(|one| {
            !roots.contains(one)
                && is_root(one, now)
                && offered.iter().any(|cross| {
                    is_cross(cross, one, now) && roots.iter().any(|root| signed(root, cross))
                })
        });
        match next {
            Some(next) => roots.push(next.clone()),
            None => break,
        }
    }
    let shown: Vec<bool> = roots.iter().map(|root| offered.contains(root)).collect();
    let mut at = 0;
    roots.retain(|_| {
        let (here, after) = shown
            .get(at..)
            .and_then(<[bool]>::split_first)
            .unwrap_or((&true, &[]));
        at += 1;
        *here || !after.contains(&true)
    });
    (roots != trusted).then_some(roots)
}

/// Whether a certificate is an authority's, signed by its own key, and has not ended.
fn is_root(der: &CertificateDer<'_>, now: SystemTime) -> bool {
    signed(der, der) && lives(der, now)
}

/// Whether a certificate has a root's name and key, and may sign; who signed it is looked at elsewhere.
fn is_cross(der: &CertificateDer<'_>, root: &CertificateDer<'_>, now: SystemTime) -> bool {
    match (
        X509Certificate::from_der(der),
        X509Certificate::from_der(root),
    ) {
        (Ok((_, cross)), Ok((_, root))) => {
            let signs = cross.key_usage().ok().flatten();
            cross.is_ca()
                && signs.is_none_or(|usage| usage.value.key_cert_sign())
                && cross.subject().as_raw() == root.subject().as_raw()
                && cross.public_key().raw == root.public_key().raw
                && lives(der, now)
        }
        _ => false,
    }
}

fn lives(der: &CertificateDer<'_>, now: SystemTime) -> bool {
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    let validity = certificate.validity();
    let (from, until) = (validity.not_before, validity.not_after);
    i64::try_from(seconds).is_ok_and(|at| (from.timestamp()..=until.timestamp()).contains(&at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, CertifiedIssuer, DistinguishedName, DnType, KeyPair};
    use std::time::Duration;

    type Root = CertifiedIssuer<'static, KeyPair>;
    type Der = CertificateDer<'static>;

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
        params
    }

    fn root(name: &str) -> Root {
        CertifiedIssuer::self_signed(params(name), KeyPair::generate().unwrap()).unwrap()
    }

    fn cross(name: &str, subject: &Root, signer: &Root) -> Der {
        let signed = params(name).signed_by(subject.key(), signer).unwrap();
        signed.der().clone()
    }

    fn der(root: &Root) -> Der {
        root.der().clone()
    }

    #[test]
    fn a_successor_is_believed_under_its_cross_certificate_alone() {
        let now = SystemTime::now();
        let (old, new, other) = (root("old"), root("new"), root("other"));
        let trusted = [der(&old)];
        let believed = |offered: &[Der]| follow(&trusted, offered, now);
        let by_old = cross("new", &new, &old);
        let both = Some(vec![der(&old), der(&new)]);
        assert_eq!(believed(&[der(&old), der(&new), by_old.clone()]), both);
        assert_eq!(believed(&[by_old.clone(), der(&new), der(&old)]), both);
        // Without it, signed by somebody else, of another name or key, or with a bit turned.
        assert_eq!(believed(&[der(&old), der(&new)]), None);
        assert_eq!(
            believed(&[der(&new), cross("new", &new, &other), der(&other)]),
            None
        );
        assert_eq!(believed(&[der(&new), cross("else", &new, &old)]), None);
        assert_eq!(believed(&[der(&new), cross("new", &other, &old)]), None);
        let mut turned = by_old.to_vec();
        *turned.last_mut().unwrap() ^= 1;
        assert_eq!(believed(&[der(&new), Der::from(turned)]), None);
        assert_eq!(
            believed(&[Der::from(vec![0x30, 0]), Der::from(vec![])]),
            None
        );
        // The cross-certificate itself is no root, and a device's certificate makes none.
        assert_eq!(believed(std::slice::from_ref(&by_old)), None);
        let mut leaf = params("new");
        leaf.is_ca = rcgen::IsCa::ExplicitNoCa;
        let leaf = leaf.signed_by(new.key(), &old).unwrap().der().clone();
        assert_eq!(believed(&[der(&new), leaf]), None);
        // After its end it is followed by nobody.
        let late = now + Duration::from_secs(86_400 * 366 * 3000);
        assert_eq!(follow(&trusted, &[der(&new), by_old], late), None);
    }

    #[test]
    fn several_at_once_are_followed_step_by_step() {
        let (one, two, three) = (root("one"), root("two"), root("three"));
        let offered = [
            der(&three),
            der(&two),
            cross("three", &three, &two),
            cross("two", &two, &one),
        ];
        let now = SystemTime::now();
        let all = follow(&[der(&one)], &offered, now).unwrap();
        assert_eq!(all, [der(&two), der(&three)]);
    }

    #[test]
    fn a_former_one_goes_with_its_successor_shown_and_never_the_other_way() {
        let now = SystemTime::now();
        let (old, new) = (root("old"), root("new"));
        let both = [der(&old), der(&new)];
        assert_eq!(follow(&both, &both, now), None);
        assert_eq!(follow(&both, &[der(&new)], now), Some(vec![der(&new)]));
        // Whoever has the old one's key says that there is no other.
        assert_eq!(follow(&both, &[der(&old)], now), None);
        assert_eq!(follow(&both, &[], now), None);
    }

    #[test]
    fn they_do_not_become_ever_more() {
        let chain: Vec<Root> = (0..20).map(|number| root(&number.to_string())).collect();
        let mut offered: Vec<Der> = chain.iter().map(der).collect();
        for pair in chain.windows(2) {
            if let [signer, subject] = pair {
                let name = (offered.len() - 19).to_string();
                offered.push(cross(&name, subject, signer));
            }
        }
        let first = offered[0].clone();
        let followed = follow(&[first], &offered, SystemTime::now()).unwrap();
        assert_eq!(followed.len(), MOST);
    }
}
