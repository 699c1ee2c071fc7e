//! What the authority does for a living: certificates, OCSP answers, revocation lists; each from the request to the answer
//! that may be given away, with the registry's rows durable.

use crate::{cpu, house};
use anyhow::Context as _;
use ca::{KeyPair, RevocationReason};
use fleet::{
    DeviceKey, Enrolment, Fleet, GroupName, ListName, RevocationFaces,
    mass::{Measure, Selection},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Instant, SystemTime},
};

/// Issues `count` certificates for requests made before, `at_once` at a time.
pub(crate) fn issue(data: &Path, count: u64, at_once: u64) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let round = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)?
        .as_nanos();
    let requests = (0..count)
        .map(|number| {
            let name = format!("issued-{round}-{number:07}");
            let request = KeyPair::generate()?.request(&name)?;
            Ok((name, request))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let next = AtomicU64::new(0);
    let (began, cpu_before) = (Instant::now(), cpu::of_process()?);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once)
            .map(|_| scope.spawn(|| sign_all(&fleet, &requests, &next)))
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| anyhow::bail!("a worker has panicked"))
        })
    })?;
    let (seconds, cpu) = (
        began.elapsed().as_secs_f64(),
        cpu::of_process()? - cpu_before,
    );
    store.close();
    Ok(json!({
        "certificates": count,
        "at_once": at_once,
        "per_s": count as f64 / seconds,
        "cpu_us": cpu.as_secs_f64() * 1e6 / count as f64,
    }))
}

fn sign_all(fleet: &Fleet, requests: &[(String, String)], next: &AtomicU64) -> anyhow::Result<()> {
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let Some((name, request)) = usize::try_from(number).ok().and_then(|n| requests.get(n))
        else {
            return Ok(());
        };
        let enrolment = Enrolment {
            thing: name.parse()?,
            policies: vec![fleet::DEVICE_DEFAULT.parse()?],
            groups: Vec::new(),
            attributes: BTreeMap::new(),
            key: DeviceKey::Csr(request.as_bytes()),
        };
        fleet.enrol(&enrolment, SystemTime::now())?;
    }
}

/// Revokes the certificates of the first halls until `count` are, and says how long each takes.
pub(crate) fn revoke(data: &Path, count: u64) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let (began, mut revoked) = (Instant::now(), 0);
    let now = SystemTime::now();
    for hall in 0.. {
        let group: GroupName = format!("hall-{hall:04}").parse()?;
        let selection = Selection::Group(group);
        let mut after = None;
        while revoked < count {
            let measure = Measure::Revoke(RevocationReason::Superseded);
            let done =
                fleet.change_certificates(&selection, measure, false, after.as_deref(), now)?;
            revoked += (done.changed.len() + done.untouched) as u64;
            after = done.next;
            if after.is_none() {
                break;
            }
        }
        if revoked >= count {
            break;
        }
    }
    store.close();
    Ok(json!({ "revoked": revoked, "seconds": began.elapsed().as_secs_f64() }))
}

/// Signs every list anew, as after a start; then one more certificate is revoked, and the lists are asked for again.
pub(crate) fn lists(data: &Path, things: u64) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let faces = RevocationFaces::open(&fleet)?;
    let sign_all = || -> anyhow::Result<(Vec<f64>, usize)> {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for name in faces.names().filter(|name| *name != ListName::Whole) {
            let began = Instant::now();
            let list = faces.list(name, SystemTime::now())?;
            bytes += list.with_context(|| format!("{name} is no list"))?.len();
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        Ok((times, bytes))
    };
    let (first, bytes) = sign_all()?;
    let last = house::device(things.saturating_sub(1)).parse()?;
    // One that was revoked before is as good.
    let _ = fleet.revoke_device(&last, RevocationReason::Superseded, SystemTime::now());
    let (again, _) = sign_all()?;
    let sum = |times: &[f64]| times.iter().sum::<f64>();
    let said = json!({
        "lists": first.len(),
        "bytes": bytes,
        "all_ms": sum(&first),
        "slowest_ms": first.last(),
        "after_one_more_ms": sum(&again),
        "peak_kib": cpu::memory_kib("VmHWM")?,
    });
    store.close();
    Ok(said)
}

/// Answers OCSP requests about devices at random, by the registry's rows.
pub(crate) fn ocsp(data: &Path, things: u64, count: u64) -> anyhow::Result<Value> {
    let (store, fleet) = house::open(data)?;
    let faces = RevocationFaces::open(&fleet)?;
    let mut random = fastrand::Rng::with_seed(2);
    let requests = (0..count.min(2_000))
        .map(|_| {
            let thing = house::device(random.u64(0..things)).parse()?;
            let id = *fleet
                .principals(&thing, None, 1)?
                .items
                .first()
                .context("a certificate")?;
            let certificate = fleet.certificate(&id)?;
            let issuer = fleet
                .authority()
                .issuer_named_by_pem(&certificate.pem)
                .context("ours")?;
            Ok(faces.ocsp_request(issuer, &[certificate.serial], SystemTime::now())?)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let (began, cpu_before) = (Instant::now(), cpu::of_thread()?);
    for request in requests.iter().cycle().take(usize::try_from(count)?) {
        faces.ocsp(request, SystemTime::now());
    }
    let (seconds, cpu) = (
        began.elapsed().as_secs_f64(),
        cpu::of_thread()? - cpu_before,
    );
    store.close();
    Ok(
        json!({ "answers": count, "per_s": count as f64 / seconds, "cpu_us": cpu.as_secs_f64() * 1e6 / count as f64 }),
    )
}
