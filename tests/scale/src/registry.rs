//! What the registry is asked most: who a certificate is, pages of its lists, searches. Each with the time and the CPU it
//! takes, in a registry that `fill` has made.

use crate::{cpu, house};
use anyhow::Context as _;
use ca::CertificateId;
use fleet::{Fleet, GroupName, LIST_LIMIT_ITEMS, ThingName};
use serde_json::{Value, json};
use std::{
    path::Path,
    time::{Duration, Instant},
};

/// How often each page is read.
const PAGE_READS: u32 = 200;
/// Certificates that are looked up over and over, so that the disk's share is seen apart.
const HOT_ITEMS: u64 = 1_000;

/// Opens the registry, and says what that takes.
pub(crate) fn open(data: &Path) -> anyhow::Result<Value> {
    let began = Instant::now();
    let (store, _fleet) = house::open(data)?;
    let said = json!({
        "seconds": began.elapsed().as_secs_f64(),
        "rss_kib": cpu::memory_kib("VmRSS")?,
        "peak_kib": cpu::memory_kib("VmHWM")?,
    });
    store.close();
    Ok(said)
}

/// Packs what connects ask, as the server does by itself where many devices come that were not here lately.
pub(crate) fn pack(data: &Path) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let (began, cpu_before) = (Instant::now(), cpu::of_thread()?);
    let cards = fleet.pack_cards()?;
    let said = json!({
        "cards": cards,
        "seconds": began.elapsed().as_secs_f64(),
        "cpu_seconds": (cpu::of_thread()? - cpu_before).as_secs_f64(),
        "rss_kib": cpu::memory_kib("VmRSS")?,
    });
    store.close();
    Ok(said)
}

/// Looks up who certificates are that nobody is connected with, as each connect does: `count` of `things`, at random, then
/// a thousand of them again and again.
pub(crate) fn lookup(data: &Path, things: u64, count: u64) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let mut random = fastrand::Rng::with_seed(1);
    let ids = (0..count)
        .map(|_| certificate_of(&fleet, random.u64(0..things)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let hot: Vec<_> = ids.iter().take(HOT_ITEMS as usize).collect();
    let cold = timed(&fleet, ids.iter())?;
    timed(&fleet, hot.iter().copied())?;
    let rounds = (count / HOT_ITEMS).max(1) as usize;
    let warm = timed(&fleet, (0..rounds).flat_map(|_| hot.iter().copied()))?;
    let said = json!({
        "lookups": count,
        "anywhere": { "us": cold.0, "cpu_us": cold.1 },
        "hot": { "us": warm.0, "cpu_us": warm.1 },
        "rss_kib": cpu::memory_kib("VmRSS")?,
    });
    store.close();
    Ok(said)
}

/// Microseconds, of the clock and of the CPU, of one lookup.
fn timed<'a>(
    fleet: &Fleet,
    ids: impl Iterator<Item = &'a CertificateId>,
) -> anyhow::Result<(f64, f64)> {
    let (began, cpu_before, mut done) = (Instant::now(), cpu::of_thread()?, 0_u32);
    for id in ids {
        let standing = fleet.standing(id)?;
        anyhow::ensure!(!standing.now().policies.is_empty(), "{id} has no policy");
        done += 1;
    }
    let each = |all: Duration| all.as_secs_f64() * 1e6 / f64::from(done.max(1));
    Ok((each(began.elapsed()), each(cpu::of_thread()? - cpu_before)))
}

fn certificate_of(fleet: &Fleet, number: u64) -> anyhow::Result<CertificateId> {
    let thing: ThingName = house::device(number).parse()?;
    let ids = fleet.principals(&thing, None, 1)?.items;
    ids.first()
        .copied()
        .with_context(|| format!("{thing} has no certificate"))
}

/// Reads pages at the beginning, in the middle and near the end of the long lists.
pub(crate) fn pages(data: &Path, things: u64) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let first: GroupName = "first".parse()?;
    let members = things.min(crate::fill::FIRST_ITEMS);
    let page = LIST_LIMIT_ITEMS as u64;
    let mut said = serde_json::Map::new();
    let mut note = |name: &str,
                    read: &dyn Fn(u64) -> anyhow::Result<usize>|
     -> anyhow::Result<()> {
        let places = [("first", 0), ("middle", 50), ("last", 99)]
            .map(|(place, percent)| Ok::<_, anyhow::Error>((place, page_time(&|| read(percent))?)));
        let places = places.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
        said.insert(
            name.to_owned(),
            places
                .into_iter()
                .map(|(place, us)| (place.to_owned(), json!(us)))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        );
        Ok(())
    };
    let after = |percent: u64, of: u64| {
        let number = (of * percent / 100).min(of.saturating_sub(page + 1));
        (percent > 0).then(|| house::device(number))
    };
    note("things", &|percent| {
        Ok(fleet
            .things(after(percent, things).as_deref(), LIST_LIMIT_ITEMS)?
            .items
            .len())
    })?;
    note("certificates", &|percent| {
        // Ids are digests: spread evenly.
        let from = (percent > 0).then(|| format!("{:02x}", percent * 250 / 100));
        Ok(fleet
            .certificates(from.as_deref(), LIST_LIMIT_ITEMS)?
            .items
            .len())
    })?;
    note("members of a group of 100,000", &|percent| {
        Ok(fleet
            .members(&first, after(percent, members).as_deref(), LIST_LIMIT_ITEMS)?
            .items
            .len())
    })?;
    store.close();
    Ok(said.into())
}

/// Microseconds of the middle one.
fn page_time(read: &dyn Fn() -> anyhow::Result<usize>) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..PAGE_READS {
        let began = Instant::now();
        let items = read()?;
        times.push(began.elapsed());
        anyhow::ensure!(items == LIST_LIMIT_ITEMS, "a page has {items} items");
    }
    times.sort_unstable();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    Ok(middle.as_secs_f64() * 1e6)
}

/// Searches to their ends.
pub(crate) fn search(data: &Path, things: u64) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let last = things.saturating_sub(1);
    let mut said = serde_json::Map::new();
    for query in [
        format!("thingName:{}", house::device(last)),
        format!("thingName:{}*", &house::device(last)[..9]),
        format!("thingGroupNames:hall-{:04}", last / 1_000),
        format!("attributes.serial:sn-{last:012}"),
    ] {
        let parsed = query.parse()?;
        let (began, mut found, mut pages, mut after) = (Instant::now(), 0, 0, None::<String>);
        loop {
            let page = fleet.search(&parsed, after.as_deref(), LIST_LIMIT_ITEMS)?;
            found += page.items.len();
            pages += 1;
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let figures =
            json!({ "found": found, "pages": pages, "ms": began.elapsed().as_secs_f64() * 1e3 });
        said.insert(query, figures);
    }
    said.insert("peak_kib".to_owned(), cpu::memory_kib("VmHWM")?.into());
    store.close();
    Ok(said.into())
}
