//! What is trusted and what signs, as of one moment.

use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use super::Authority;
use super::constraints::Permitted;
use super::issuer::{Issuer, IssuerNumber};
use super::root::{self, Root, RootNumber};
use super::root_list::RootList;
use crate::error::CaError;
use crate::pem;

/// What is trusted and what signs, as of one moment.
#[derive(Clone)]
pub(super) struct State {
    /// Oldest first.
    pub(super) roots: Vec<Arc<Root>>,
    /// The newest.
    pub(super) root: Arc<Root>,
    /// Oldest first.
    pub(super) issuers: Vec<Arc<Issuer>>,
    /// The newest.
    pub(super) newest: Arc<Issuer>,
    /// The one that signs: the newest, unless its life has not begun.
    pub(super) current: Arc<Issuer>,
}

/// Takes what client certificates lead to.
pub(super) type TakeAnchors = Box<dyn Fn(&[CertificateDer<'static>]) + Send>;

/// Takes what the authority is made of.
type TakeLineage = Box<dyn Fn(&[String]) + Send>;

/// What whoever changes the state holds.
#[derive(Default)]
pub(super) struct Change {
    /// SHA-256 of a root's key as it was given out last, and whose it is.
    pub(super) exported: Option<(RootNumber, String)>,
    listeners: Vec<TakeAnchors>,
    recorders: Vec<TakeLineage>,
}

impl Change {
    /// Tells whoever asked for it what is so from now on.
    pub(super) fn tell(&self, state: &State) {
        // What is written down first: a crash after it finds nothing that is not known.
        let lineage = state.lineage();
        self.recorders.iter().for_each(|take| take(&lineage));
        let anchors = state.anchors();
        self.listeners.iter().for_each(|take| take(&anchors));
    }
}

/// What is to be known of one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootState {
    /// Which.
    pub number: RootNumber,
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// Whether it is trusted no more.
    pub retired: bool,
    /// Whether its key is with the server.
    pub has_key: bool,
    /// The same name and key signed by the root before, if there is one.
    pub by_former: Option<CertificateDer<'static>>,
    /// Which of the certificates that it signed are withdrawn.
    pub list: Option<Arc<RootList>>,
}

impl State {
    /// # Errors
    /// [`CaError::Unreadable`] where there is no root or no issuing certificate.
    pub(super) fn new(
        roots: Vec<Arc<Root>>,
        issuers: Vec<Arc<Issuer>>,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let nothing = || crate::facts::unreadable("there is no root and issuing certificate");
        let newest = issuers.last().ok_or_else(nothing)?;
        let mut state = Self {
            root: Arc::clone(roots.last().ok_or_else(nothing)?),
            newest: Arc::clone(newest),
            current: Arc::clone(newest),
            roots,
            issuers,
        };
        state.current = state.signing(now);
        Ok(state)
    }

    /// The newest whose life has begun: one that was made while the clock stood ahead waits, and those before it, which
    /// are good, go on. One that has ended is not gone behind: what followed it may have had a reason.
    pub(super) fn signing(&self, now: SystemTime) -> Arc<Issuer> {
        let mut trusted = self.trusted_issuers().rev();
        let begun = trusted.find(|issuer| issuer.facts.not_before <= now);
        Arc::clone(begun.unwrap_or(&self.newest))
    }

    fn trusted_roots(&self) -> impl Iterator<Item = &Arc<Root>> {
        self.roots.iter().filter(|root| !root.retired)
    }

    fn trusted_issuers(&self) -> impl DoubleEndedIterator<Item = &Arc<Issuer>> {
        let trusts = |number| {
            let mut roots = self.roots.iter();
            roots.any(|root| root.number == number && !root.retired)
        };
        self.issuers
            .iter()
            .filter(move |issuer| trusts(issuer.root))
    }

    pub(super) fn anchors(&self) -> Vec<CertificateDer<'static>> {
        let roots = self.trusted_roots().map(|root| root.der.clone());
        let issuing = self.trusted_issuers().map(|issuer| issuer.der.clone());
        roots.chain(issuing).collect()
    }

    fn lineage(&self) -> Vec<String> {
        let issuers = self.issuers.iter();
        let mut lines: Vec<_> = issuers
            .map(|one| format!("{} issuing {}", one.facts.id, one.number))
            .collect();
        for root in &self.roots {
            let line = format!("{} root {}", root.facts.id, root.number);
            let retired = root.retired.then(|| format!("{line} retired"));
            lines.extend([line].into_iter().chain(retired));
        }
        lines
    }

    pub(super) fn issuer(&self, number: IssuerNumber) -> Option<&Arc<Issuer>> {
        self.issuers.iter().find(|issuer| issuer.number == number)
    }

    /// What leads from a root to those before it that may be followed at this time, newest first.
    pub(super) fn crosses(
        &self,
        from: RootNumber,
        now: SystemTime,
    ) -> Vec<CertificateDer<'static>> {
        let mut crosses = Vec::new();
        for pair in self.roots.windows(2).rev() {
            if let [former, root] = pair
                && root.number <= from
            {
                match &root.by_former {
                    Some(cross) if former.is_live(now) => crosses.push(cross.clone()),
                    _ => break,
                }
            }
        }
        crosses
    }
}

impl Authority {
    /// The newest root as DER: what issuing certificates are signed by now.
    #[must_use]
    pub fn root_der(&self) -> CertificateDer<'static> {
        self.state.load().root.der.clone()
    }

    /// The issuing certificate of now as DER.
    #[must_use]
    pub fn issuing_der(&self) -> CertificateDer<'static> {
        self.state.load().current.der.clone()
    }

    /// The issuing certificate with this number as DER.
    #[must_use]
    pub fn issuing_der_of(&self, issuer: IssuerNumber) -> Option<CertificateDer<'static>> {
        let state = self.state.load();
        state.issuer(issuer).map(|issuer| issuer.der.clone())
    }

    /// What stands between a certificate of this issuer and the root, as PEM, the issuing certificate first.
    #[must_use]
    pub fn chain_pem_of(&self, issuer: IssuerNumber) -> Option<String> {
        let state = self.state.load();
        state.issuer(issuer).map(|issuer| issuer.chain_pem())
    }

    /// The DNS names, and the addresses and networks, that the next issuing certificate permits servers to have: those of
    /// the one of now. None for any.
    ///
    /// # Errors
    /// [`CaError::Unreadable`], which an open authority does not have.
    pub fn permitted_names(&self) -> Result<Vec<String>, CaError> {
        Ok(self.permitted_next(&self.state.load().current)?.names())
    }

    pub(super) fn permitted_next(&self, issuer: &Issuer) -> Result<Permitted, CaError> {
        Ok(Permitted::read(&issuer.der)?.next(&self.server_names.load()))
    }

    /// Which issuing certificates there are, oldest first.
    #[must_use]
    pub fn issuers(&self) -> Vec<IssuerNumber> {
        let state = self.state.load();
        state.issuers.iter().map(|issuer| issuer.number).collect()
    }

    /// The issuing certificate that signs: the newest whose life has begun.
    #[must_use]
    pub fn signing(&self) -> IssuerNumber {
        self.state.load().current.number
    }

    /// The newest issuing certificate and when its life begins, where that is after `now` and one before it signs: it was
    /// made while the clock stood ahead, or the clock is behind.
    #[must_use]
    pub fn waiting(&self, now: SystemTime) -> Option<(IssuerNumber, SystemTime)> {
        let state = self.state.load();
        let newest = &state.newest;
        let waits = state.signing(now).number != newest.number;
        waits.then_some((newest.number, newest.facts.not_before))
    }

    /// The issuing certificate that signs at this time, which may be another than at the last look.
    pub(crate) fn issuer_now(&self, now: SystemTime) -> Arc<Issuer> {
        let state = self.state.load();
        let signing = state.signing(now);
        // Who changes the state looks by itself.
        if signing.number != state.current.number
            && let Some(_change) = self.change.try_lock()
        {
            let state = self.state.load();
            self.state.store(Arc::new(State {
                current: state.signing(now),
                ..state.as_ref().clone()
            }));
        }
        signing
    }

    /// What a device that has one of the roots needs to follow any certificate to it and to learn of
    /// the others, as DER: the roots, the newest first, the issuing certificates, the current one
    /// first, what stands between, and the cross-certificates between roots (RFC 7030 §4.1.3).
    /// What has ended, was retired or is revoked is left out.
    #[must_use]
    pub fn certificates(&self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let state = self.state.load();
        let live = |root: &&Arc<Root>| root.is_live(now);
        let mut all: Vec<_> = state.roots.iter().rev().filter(live).collect::<Vec<_>>();
        if all.is_empty() {
            all.push(&state.root);
        }
        let mut all: Vec<_> = all.into_iter().map(|root| root.der.clone()).collect();
        let issuers = state.trusted_issuers().rev();
        let issuing = issuers
            .filter(|issuer| now <= issuer.facts.not_after && state.revoked(issuer).is_none());
        let issuing = issuing.flat_map(|issuer| issuer.chain().cloned());
        let back = state.roots.windows(2).filter_map(|pair| match pair {
            [former, root] if former.is_live(now) => root.of_former.clone(),
            _ => None,
        });
        let crosses = state.crosses(state.root.number, now);
        for der in issuing.chain(crosses).chain(back) {
            if !all.contains(&der) {
                all.push(der);
            }
        }
        all
    }

    /// What a client's certificate may lead to, as DER: every root and issuing certificate
    /// that is trusted, the latter for clients that send no chain.
    #[must_use]
    pub fn anchors(&self) -> Vec<CertificateDer<'static>> {
        self.state.load().anchors()
    }

    /// Every root and issuing certificate there is, as DER, also what is trusted no more.
    #[must_use]
    pub fn every_authority(&self) -> Vec<CertificateDer<'static>> {
        let state = self.state.load();
        let roots = state.roots.iter().map(|root| root.der.clone());
        let issuing = state.issuers.iter().map(|issuer| issuer.der.clone());
        roots.chain(issuing).collect()
    }

    /// The roots that are trusted, as DER, oldest first.
    #[must_use]
    pub fn trusted_roots(&self) -> Vec<CertificateDer<'static>> {
        let state = self.state.load();
        state.trusted_roots().map(|root| root.der.clone()).collect()
    }

    /// The roots that are trusted, as PEM, oldest first: what devices are given.
    #[must_use]
    pub fn trust_pem(&self) -> String {
        root::trusted_pem(&self.state.load().roots)
    }

    /// Every root, oldest first; the last signs.
    ///
    /// # Errors
    /// [`CaError::File`].
    pub fn roots(&self) -> Result<Vec<RootState>, CaError> {
        let state = self.state.load();
        let told = state.roots.iter().map(|root| {
            Ok(RootState {
                number: root.number,
                der: root.der.clone(),
                retired: root.retired,
                has_key: Self::key_is_here(root)?,
                by_former: root.by_former.clone(),
                list: root.list.clone(),
            })
        });
        told.collect()
    }

    /// What leads from this root to those before it that may be followed at this time.
    pub(crate) fn crosses(
        &self,
        from: RootNumber,
        now: SystemTime,
    ) -> Vec<CertificateDer<'static>> {
        self.state.load().crosses(from, now)
    }

    /// The root above the issuing certificate that signs now, as DER: the server's own certificate leads to it. A newer one
    /// that has no issuing certificate yet, because a crash came between, is followed by nobody.
    #[must_use]
    pub fn root_der_of_issuing(&self) -> CertificateDer<'static> {
        let state = self.state.load();
        let mut roots = state.roots.iter();
        let above = roots.find(|root| root.number == state.current.root);
        above.unwrap_or(&state.root).der.clone()
    }

    /// The root above the issuing certificate that signs now.
    #[must_use]
    pub fn root_of_issuing(&self) -> Option<RootNumber> {
        Some(self.state.load().current.root)
    }

    /// The root that certificates of this issuer lead to.
    #[must_use]
    pub fn root_of(&self, issuer: IssuerNumber) -> Option<RootNumber> {
        Some(self.state.load().issuer(issuer)?.root)
    }

    /// What the authority is made of, a line each: the SHA-256 of a certificate, `issuing` or `root` with its number, and of
    /// a root that is retired a second line with `retired` behind. The first is the issuing certificate it was founded with.
    #[must_use]
    pub fn lineage(&self) -> Vec<String> {
        self.state.load().lineage()
    }

    /// Hands [`Self::lineage`] to `take` now and whenever it has become longer, before anything is issued under what is new.
    pub fn tell_lineage(&self, take: impl Fn(&[String]) + Send + 'static) {
        let mut change = self.change.lock();
        take(&self.lineage());
        change.recorders.push(Box::new(take));
    }

    /// Hands [`Self::anchors`] to `take` now and whenever they have changed, before anything is
    /// issued under a new one.
    pub fn tell_anchors(&self, take: impl Fn(&[CertificateDer<'static>]) + Send + 'static) {
        let mut change = self.change.lock();
        take(&self.anchors());
        change.listeners.push(Box::new(take));
    }

    /// The newest root as PEM.
    #[must_use]
    pub fn root_pem(&self) -> String {
        pem::certificate(&self.root_der())
    }

    /// The issuing certificate of now as PEM.
    #[must_use]
    pub fn issuing_pem(&self) -> String {
        pem::certificate(&self.issuing_der())
    }
}
