//! What no list needs any more. An entry stays until it has been on a list that was issued after its certificate's end
//! (RFC 5280 §3.3); then its rows go, so that lists and registry do not grow for ever with what anybody who has a claim can
//! make. A turn goes through so many rows and no more, and what a crash leaves undone is found the next time round.

use super::{ListName, RevocationFaces, lists::LIST_LIFE};
use crate::{
    FleetError, LIST_LIMIT_ITEMS,
    issued::{RevokedRow, forget},
    keys,
};
use ca::{CertificateId, IssuerNumber};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel},
    time::{Duration, SystemTime},
};
use store::Stored;

/// How often there is a turn.
const TURN: Duration = Duration::from_secs(60);
/// Pages of rows looked at in a turn.
const PAGES_PER_TURN: usize = 8;
/// Lists that a turn has signed because nobody has fetched them since an end.
const LISTS_PER_TURN: usize = 4;
/// How far a turn moves the moment up to which ends count. A clock that runs far ahead for an hour, as one does that lost
/// its battery, is not to forget what was revoked and is good for years.
const STEP: Duration = Duration::from_secs(60 * 60);

/// Up to when ends count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Reached {
    at: SystemTime,
}

impl Stored for Reached {}

/// Where the next turn begins.
#[derive(Debug, Default)]
pub(super) struct Progress {
    after: Option<String>,
}

/// Ends the turns when dropped.
#[derive(Debug)]
pub struct ListSweeper {
    _end: SyncSender<()>,
}

impl RevocationFaces {
    /// Starts the thread that takes its turns.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start_sweeping(&self) -> std::io::Result<ListSweeper> {
        let (end, ended) = sync_channel(0);
        let faces = self.clone();
        std::thread::Builder::new()
            .name("list-sweep".into())
            .spawn(move || {
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(TURN) {
                    match faces.sweep(SystemTime::now()) {
                        Ok(0) => {}
                        Ok(swept) => tracing::info!(
                            swept,
                            "revocations of certificates that have ended were taken off their lists"
                        ),
                        Err(error) => {
                            tracing::error!(%error, "revocation lists cannot be swept; trying again");
                        }
                    }
                }
            })?;
        Ok(ListSweeper { _end: end })
    }

    /// One turn: how many entries have gone for good.
    ///
    /// # Errors
    /// When the store fails.
    pub fn sweep(&self, now: SystemTime) -> Result<usize, FleetError> {
        let mut progress = self.inner.sweeping.lock();
        let reached = self.reach(now)?;
        let (mut issued, mut to_sign) = (HashMap::new(), LISTS_PER_TURN);
        let mut swept = 0;
        for _ in 0..PAGES_PER_TURN {
            let page = self
                .inner
                .fleet
                .page_of_rows::<RevokedRow>(keys::REVOKED, progress.after.as_deref())?;
            let mut due = Vec::with_capacity(LIST_LIMIT_ITEMS);
            for (id, row) in &page.items {
                if row.not_after >= reached
                    || !self.was_listed(row, &mut issued, &mut to_sign, now)?
                {
                    continue;
                }
                if let Ok(id) = id.parse::<CertificateId>() {
                    due.push((id, row));
                }
            }
            if !due.is_empty() {
                let fleet = &self.inner.fleet;
                swept += fleet.transact(|t| {
                    let mut gone = 0;
                    for (id, row) in &due {
                        gone += usize::from(forget(t, id, row)?);
                    }
                    Ok(gone)
                })?;
            }
            progress.after = page.next;
            if progress.after.is_none() {
                break;
            }
        }
        Ok(swept)
    }

    /// Moves on the moment up to which ends count.
    fn reach(&self, now: SystemTime) -> Result<SystemTime, FleetError> {
        // A list that is this old is made anew when it is asked for.
        let most = now.checked_sub(LIST_LIFE).unwrap_or(SystemTime::UNIX_EPOCH);
        self.inner.fleet.transact(|t| {
            let before: Option<Reached> = t.get(keys::LISTS_SWEPT)?;
            let at = before.map_or(most, |before| most.min(before.at + STEP));
            // Not each turn a write: only what was gained counts.
            if before.is_none_or(|before| at >= before.at + STEP) {
                t.put(keys::LISTS_SWEPT.to_owned(), &Reached { at })?;
            }
            Ok(at)
        })
    }

    /// Whether every list that speaks of a certificate was issued since its end. A list that nobody has fetched since is
    /// signed for it.
    fn was_listed(
        &self,
        row: &RevokedRow,
        issued: &mut HashMap<ListName, Option<SystemTime>>,
        to_sign: &mut usize,
        now: SystemTime,
    ) -> Result<bool, FleetError> {
        let shards = self.inner.counts.iter();
        let shards = shards.map(|shards| ListName::Shard(shards.of(&row.serial).by(row.issuer)));
        let whole = (row.issuer == IssuerNumber::FIRST).then_some(ListName::Whole);
        for name in shards.chain(whole) {
            if !self.exists(name) {
                continue;
            }
            let last = match issued.get(&name) {
                Some(last) => *last,
                None => *issued.entry(name).or_insert(self.issued_at(name)?),
            };
            if last.is_some_and(|last| last > row.not_after) {
                continue;
            }
            if *to_sign == 0 {
                return Ok(false);
            }
            *to_sign -= 1;
            // Without the key that signs, what is listed stays.
            if let Err(error) = self.list(name, now) {
                tracing::debug!(%name, %error, "a list could not be signed to be swept");
                *to_sign = 0;
                return Ok(false);
            }
            let last = self.issued_at(name)?;
            issued.insert(name, last);
            if last.is_none_or(|last| last <= row.not_after) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
