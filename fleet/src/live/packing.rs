//! Packing: the cards of all devices are put into a new pack, one after the other, while everything goes on.

use super::{
    card::{Card, PackedCard},
    cards::{Cards, CountsRow},
};
use crate::{Binding, Fleet, FleetError, LIST_LIMIT_ITEMS, Page, ThingName, keys, registry::Inner};
use ca::CertificateId;
use std::{
    sync::{Arc, Weak, mpsc},
    time::{Duration, Instant},
};
use store::{Pack, PackValues};

/// Who packs in the background rests so many times as long as it has worked.
const REST: u32 = 3;
/// How long nothing is packed after it failed, for want of room most likely; twice as long after each further time, up to
/// the second of these. Each begins anew with all that is registered.
const PAUSE: Duration = Duration::from_secs(600);
const PAUSE_MAX: Duration = Duration::from_secs(6 * 3600);

impl Fleet {
    /// Packs what is asked at a connect of every device that belongs to a thing, so that it is found by one read; says
    /// how many there are. The registry does so by itself where many were looked up otherwise; this is for who wants it
    /// done now. Other operations go on meanwhile.
    ///
    /// # Errors
    /// When the store fails; what was packed before counts on.
    pub fn pack_cards(&self) -> Result<u64, FleetError> {
        let fleet = self.clone();
        let packed = pack(&|| Some(fleet.clone()), &|_| {})?;
        Ok(packed.unwrap_or_default())
    }

    /// From now on the registry packs by itself.
    pub(crate) fn pack_when_due(&self) -> Result<(), FleetError> {
        let (wake, due) = mpsc::sync_channel(1);
        let weak = Arc::downgrade(&self.inner);
        std::thread::Builder::new()
            .name("fleet-cards".into())
            .spawn(move || pack_by_itself(&weak, &due))
            .map_err(FleetError::Thread)?;
        *self.inner.live.cards().wake.lock() = Some(wake);
        Ok(())
    }

    /// After a start: removes what a crash left.
    pub(crate) fn tidy_cards(&self) -> Result<(), FleetError> {
        Ok(self.inner.live.cards().tidy(&self.inner.table)?)
    }

    /// One page of devices; where the next begins.
    fn pack_page(
        &self,
        packing: &mut Packing,
        after: Option<&str>,
    ) -> Result<Option<String>, FleetError> {
        let page = self.page_of_rows::<Binding>(keys::BOUND, after)?;
        for (id, bound) in &page.items {
            // No release wrote another.
            let Ok(id) = id.parse::<CertificateId>() else {
                continue;
            };
            self.pack_one(packing, &id, &bound.thing)?;
        }
        Ok(page.next)
    }

    fn pack_one(
        &self,
        packing: &mut Packing,
        id: &CertificateId,
        thing: &ThingName,
    ) -> Result<(), FleetError> {
        let before = packing.card_before(id);
        if let Some(bytes) = before
            && self.inner.live.cards().is_good(id, thing)
        {
            return Ok(packing.writer.put_bytes(id.as_bytes(), &bytes)?);
        }
        match Card::read(&self.inner.table, id, None) {
            Ok(Some(card)) => {
                if let Some(card) = PackedCard::of(id, &card) {
                    packing.writer.put(id.as_bytes(), &card)?;
                }
                Ok(())
            }
            Ok(None) => Ok(()),
            // Who cannot be read is refused when it comes, by its rows.
            Err(error @ (store::StoreError::Decode { .. } | store::StoreError::Newer { .. })) => {
                tracing::error!(certificate = %id, %error, "a principal cannot be packed");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn count_pack(&self, generation: u64, pack: Pack) -> Result<(), FleetError> {
        let row = CountsRow::of(generation, &pack);
        let cards = self.inner.live.cards();
        self.transact_alone_then(
            |t| t.put(keys::PACKED.to_owned(), &row),
            || {
                cards.count(generation, pack);
                Ok(())
            },
        )?;
        Ok(cards.tidy(&self.inner.table)?)
    }
}

/// A pack under way.
struct Packing {
    writer: store::PackWriter,
    /// The cards of the pack before, in the order of their ids.
    before: Option<PackValues>,
    next: Option<(store::PackId, Vec<u8>)>,
}

impl Packing {
    fn begin(cards: &Cards, expected: u64) -> Result<Packing, FleetError> {
        Ok(Packing {
            writer: cards.packs.create(expected)?,
            before: cards.pack().map(|pack| pack.values()),
            next: None,
        })
    }

    /// What the pack before has of this one. They are asked for in order.
    fn card_before(&mut self, id: &CertificateId) -> Option<Vec<u8>> {
        while self
            .next
            .as_ref()
            .is_none_or(|(next, _)| next < id.as_bytes())
        {
            match self.before.as_mut()?.next()? {
                Ok(next) => self.next = Some(next),
                Err(error) => {
                    tracing::error!(%error, "the pack of cards is damaged and is made anew");
                    self.before = None;
                }
            }
        }
        let (next, bytes) = self.next.take()?;
        if next == *id.as_bytes() {
            return Some(bytes);
        }
        self.next = Some((next, bytes));
        None
    }
}

/// Packs whenever it is due. Ends when the registry goes.
fn pack_by_itself(weak: &Weak<Inner>, due: &mpsc::Receiver<()>) {
    let fleet = || {
        let inner = weak.upgrade()?;
        Some(Fleet {
            inner,
            acting: None,
        })
    };
    whenever_due(due, PAUSE, || {
        let began = Instant::now();
        match pack(&fleet, &|worked| std::thread::sleep(worked * REST)) {
            Ok(Some(cards)) => {
                let seconds = began.elapsed().as_secs();
                tracing::info!(cards, seconds, "what connects ask of devices is packed");
            }
            // The registry has gone, and with it who says that it is due.
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%error, "what connects ask of devices could not be packed");
                return false;
            }
        }
        true
    });
}

/// Does it whenever it is due, and where that fails again and again, with pauses, the first of which is `pause`: whoever
/// says meanwhile that it is due starts no other. Ends when nobody is left who could say so.
fn whenever_due(due: &mpsc::Receiver<()>, pause: Duration, mut work: impl FnMut() -> bool) {
    while due.recv().is_ok() {
        let mut pause = pause;
        while !work() {
            let until = Instant::now() + pause;
            pause = (pause * 2).min(PAUSE_MAX);
            loop {
                match due.recv_timeout(until.saturating_duration_since(Instant::now())) {
                    Ok(()) => {}
                    Err(mpsc::RecvTimeoutError::Timeout) => break,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                }
            }
        }
    }
}

/// Packs; calls `rest` after each page with how long that took. `None` where the registry has gone meanwhile.
pub(super) fn pack(
    fleet: &dyn Fn() -> Option<Fleet>,
    rest: &dyn Fn(Duration),
) -> Result<Option<u64>, FleetError> {
    let Some(packing) = fleet().map(|fleet| fleet.inner.live.cards().packing()) else {
        return Ok(None);
    };
    let _one_at_a_time = packing.lock();
    let generation = match fleet() {
        Some(fleet) => {
            let _alone = fleet.inner.structure.write();
            fleet.inner.live.cards().begin()
        }
        None => return Ok(None),
    };
    let written = write(fleet, rest);
    let Some(fleet) = fleet() else {
        return Ok(None);
    };
    match written {
        Ok(Some(pack)) => {
            let cards = pack.items();
            fleet.count_pack(generation, pack)?;
            Ok(Some(cards))
        }
        other => {
            let _alone = fleet.inner.structure.write();
            fleet.inner.live.cards().give_up();
            other.map(|_| None)
        }
    }
}

fn write(
    fleet: &dyn Fn() -> Option<Fleet>,
    rest: &dyn Fn(Duration),
) -> Result<Option<Pack>, FleetError> {
    let Some(expected) = expected(fleet, rest)? else {
        return Ok(None);
    };
    let mut packing = match fleet() {
        Some(fleet) => Packing::begin(fleet.inner.live.cards(), expected)?,
        None => return Ok(None),
    };
    let mut after: Option<String> = None;
    loop {
        let Some(fleet) = fleet() else {
            return Ok(None);
        };
        let began = Instant::now();
        after = fleet.pack_page(&mut packing, after.as_deref())?;
        drop(fleet);
        if after.is_none() {
            return Ok(Some(packing.writer.finish()?));
        }
        rest(began.elapsed());
    }
}

/// About how many cards there will be.
fn expected(
    fleet: &dyn Fn() -> Option<Fleet>,
    rest: &dyn Fn(Duration),
) -> Result<Option<u64>, FleetError> {
    let (mut count, mut after) = (0, None::<String>);
    loop {
        let Some(fleet) = fleet() else {
            return Ok(None);
        };
        if let Some(before) = fleet.inner.live.cards().pack() {
            return Ok(Some(before.items()));
        }
        let began = Instant::now();
        let page: Page<CertificateId> =
            fleet.page_of_names(keys::BOUND, after.as_deref(), LIST_LIMIT_ITEMS)?;
        drop(fleet);
        count += page.items.len() as u64;
        after = page.next;
        if after.is_none() {
            return Ok(Some(count));
        }
        rest(began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_not_tried_again_at_every_change() {
        let tries = |pause, succeeds: &[bool]| {
            let (wake, due) = mpsc::channel();
            (0..3).for_each(|_| wake.send(()).unwrap());
            // Kept until enough has been tried: with it the last who could wake goes.
            let mut wake = Some(wake);
            let mut tries = 0;
            whenever_due(&due, pause, || {
                tries += 1;
                if tries >= succeeds.len() {
                    wake = None;
                }
                succeeds.get(tries - 1).copied().unwrap_or(true)
            });
            tries
        };
        assert_eq!(tries(PAUSE, &[true, true, true]), 3);
        assert_eq!(tries(PAUSE, &[false]), 1);
        assert_eq!(tries(PAUSE, &[true, false]), 2);
        // By itself, once the pause is over.
        assert_eq!(tries(Duration::from_nanos(1), &[false, false, true]), 3);
    }
}
