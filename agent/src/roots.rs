//! Which roots a device trusts: those it came with, and who follows them.
//!
//! A root that follows is believed only under its cross-certificate, its name and key signed by a root that is trusted
//! already. An issuing certificate is signed by a root too, and is none: it has a path length, which no cross-certificate
//! has, and its key is not a root's, so that whoever has that key, which is the server's every day, makes no root of it.
//!
//! One that was followed goes when the server no longer shows it but shows one that came after: the order in `root.crt`
//! is that of coming, so nobody who has an old root's key can have a newer one forgotten. It goes in a later look than
//! the one that brought the newer, and only where the server that is looked at is trusted without it.

use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::renewal::{chain_to, signed};

/// Roots that are trusted at one time, at most.
const MOST: usize = 8;

/// What a device knows beside its roots.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    /// Its own certificate and what stands above it.
    pub(crate) own: &'a [CertificateDer<'static>],
    /// The server's, as the handshake showed it.
    pub(crate) server: &'a [CertificateDer<'static>],
    /// What time it is.
    pub(crate) now: SystemTime,
}

/// The roots that are trusted, and those that follow them out of what the server showed; `None` where none follows.
pub(crate) fn follow(
    trusted: &[CertificateDer<'static>],
    offered: &[CertificateDer<'static>],
    known: Known<'_>,
) -> Option<Vec<CertificateDer<'static>>> {
    let now = known.now;
    let mut roots = trusted.to_vec();
    while roots.len() < MOST {
        let next = offered.iter().find(|one| {
            !roots.contains(one)
                && is_root(one, now)
                && !issues(known, one)
                && offered.iter().any(|cross| {
                    is_cross(cross, one, now) && roots.iter().any(|root| signed(root, cross))
                })
        });
        match next {
            Some(next) => roots.push(next.clone()),
            None => break,
        }
    }
    (roots != trusted).then_some(roots)
}

/// The roots to trust from now on, oldest first, after a look in which none followed: without those that the server
/// does not show any more, where it shows a newer one that it is trusted by; `None` where nothing changes.
pub(crate) fn forget(
    trusted: &[CertificateDer<'static>],
    offered: &[CertificateDer<'static>],
    known: Known<'_>,
) -> Option<Vec<CertificateDer<'static>>> {
    let mut roots = trusted.to_vec();
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
    let (leaf, above) = known.server.split_first()?;
    (roots != trusted && chain_to(&roots, leaf, above).is_some()).then_some(roots)
}

/// Whether a certificate's key is the one that signs devices' certificates, or the server's own.
fn issues(known: Known<'_>, one: &CertificateDer<'_>) -> bool {
    let issuers = [known.own.get(1), known.server.get(1)];
    let has_its_key = |issuer: &CertificateDer<'_>| match (
        X509Certificate::from_der(issuer),
        X509Certificate::from_der(one),
    ) {
        (Ok((_, issuer)), Ok((_, one))) => issuer.public_key().raw == one.public_key().raw,
        _ => true,
    };
    issuers.into_iter().flatten().any(has_its_key)
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
            let below = cross.basic_constraints().ok().flatten();
            cross.is_ca()
                && below.is_some_and(|one| one.value.path_len_constraint.is_none())
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

    /// Of a device and a server that have nothing in common with the roots.
    fn at(now: SystemTime) -> Known<'static> {
        Known {
            own: &[],
            server: &[],
            now,
        }
    }

    /// An issuing certificate and the server's below it.
    fn server(below: &Root, path: rcgen::BasicConstraints) -> (Root, Vec<Der>) {
        let mut issuing = params("issuing");
        issuing.is_ca = rcgen::IsCa::Ca(path);
        let issuing =
            CertifiedIssuer::signed_by(issuing, KeyPair::generate().unwrap(), below).unwrap();
        let leaf = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &issuing);
        let chain = vec![leaf.unwrap().der().clone(), der(&issuing)];
        (issuing, chain)
    }

    #[test]
    fn who_has_the_issuing_key_makes_no_root_of_it() {
        let old = root("old");
        for path in [
            rcgen::BasicConstraints::Constrained(0),
            rcgen::BasicConstraints::Constrained(9),
            rcgen::BasicConstraints::Unconstrained,
        ] {
            let (issuing, chain) = server(&old, path);
            // Its own name and key, signed by itself, with the root's signature on them in the issuing certificate.
            let rogue = params("issuing").self_signed(issuing.key()).unwrap();
            let offered = [der(&issuing), rogue.der().clone()];
            let trusted = [der(&old)];
            for (own, server) in [(&chain[..], &[][..]), (&[][..], &chain[..])] {
                let known = Known {
                    own,
                    server,
                    ..at(SystemTime::now())
                };
                assert_eq!(follow(&trusted, &offered, known), None);
                assert_eq!(forget(&trusted, &offered, known), None);
            }
            if path != rcgen::BasicConstraints::Unconstrained {
                assert_eq!(follow(&trusted, &offered, at(SystemTime::now())), None);
            }
        }
    }

    #[test]
    fn a_successor_is_believed_under_its_cross_certificate_alone() {
        let now = SystemTime::now();
        let (old, new, other) = (root("old"), root("new"), root("other"));
        let trusted = [der(&old)];
        let believed = |offered: &[Der]| follow(&trusted, offered, at(now));
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
        assert_eq!(follow(&trusted, &[der(&new), by_old], at(late)), None);
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
        // Nobody goes in the look that brings others.
        let all = follow(&[der(&one)], &offered, at(now)).unwrap();
        assert_eq!(all, [der(&one), der(&two), der(&three)]);
        let (_, server) = server(&three, rcgen::BasicConstraints::Constrained(0));
        let known = Known {
            server: &server,
            ..at(now)
        };
        assert_eq!(follow(&all, &offered, known), None);
        let left = forget(&all, &offered, known).unwrap();
        assert_eq!(left, [der(&two), der(&three)]);
    }

    #[test]
    fn a_former_one_goes_with_its_successor_shown_and_never_the_other_way() {
        let (old, new) = (root("old"), root("new"));
        let both = [der(&old), der(&new)];
        let (_, of_old) = server(&old, rcgen::BasicConstraints::Constrained(0));
        let (_, of_new) = server(&new, rcgen::BasicConstraints::Constrained(0));
        let after = |server: &[Der], offered: &[Der]| {
            let known = Known {
                server,
                ..at(SystemTime::now())
            };
            forget(&both, offered, known)
        };
        assert_eq!(after(&of_new, &both), None);
        assert_eq!(after(&of_new, &[der(&new)]), Some(vec![der(&new)]));
        // By a server that the newer one does not vouch for: it would be a stranger then.
        assert_eq!(after(&of_old, &[der(&new)]), None);
        assert_eq!(after(&[], &[der(&new)]), None);
        // Whoever has the old one's key says that there is no other.
        assert_eq!(after(&of_old, &[der(&old)]), None);
        assert_eq!(after(&of_old, &[]), None);
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
        let followed = follow(&[first], &offered, at(SystemTime::now())).unwrap();
        assert_eq!(followed.len(), MOST);
    }
}
