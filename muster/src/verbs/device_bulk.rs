//! `muster device create --from FILE.csv --out DIR`: many devices, a few at a time, each by itself. A key is made here
//! and is on the disk before the server hears of it, and the certificate's file is written last: so a run that was cut
//! short is taken up where it was by saying the same again. What lies there is held against the server, and nothing is held in memory but the rows under way and a
//! number for each name.

use super::{
    client,
    device_files::{stem, write_firmware_root},
    device_rows::{Failure, Row, Rows},
    output,
};
use crate::{
    cli::{DeviceCreate, Global},
    client::{Client, Refused, encode},
};
use anyhow::{Context as _, bail};
use ca::{CertificateId, KeyPair, key_id};
use http::Method;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::json;
use std::{
    collections::{HashSet, hash_map::RandomState},
    fs::{File, OpenOptions, TryLockError},
    hash::BuildHasher as _,
    io::{IsTerminal as _, Read as _, Seek as _, Write as _},
    path::Path,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

/// Requests under way at once.
const WORKERS: usize = 8;
/// Rows read ahead of them.
const ROWS_AHEAD: usize = 64;
/// How often progress is said.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Where failures are listed; locked while a run is under way.
const REPORT: &str = "failures.csv";
/// Its first line, by which one that a run wrote is known from a file of the operator's own.
const HEADS: [&str; 5] = ["line", "name", "field", "value", "error"];

/// How far it is.
struct Progress {
    created: u64,
    present: u64,
    failed: u64,
    said: Instant,
    report: csv::Writer<File>,
    /// What was wrong with the report itself.
    unwritten: Option<csv::Error>,
}

enum Outcome {
    Created,
    Present,
}

pub(super) fn run(global: &Global, create: &DeviceCreate, file: &Path) -> anyhow::Result<ExitCode> {
    let out = create
        .out
        .clone()
        .context("--from writes many devices: name a directory with --out")?;
    let opened = File::open(file).with_context(|| format!("read {}", file.display()))?;
    let mut rows = Rows::open(opened).with_context(|| file.display().to_string())?;
    let client = client(global)?;
    std::fs::create_dir_all(&out).with_context(|| format!("make directory {}", out.display()))?;
    let report = out.join(REPORT);
    let mut writer = csv::Writer::from_writer(open_report(&report)?);
    writer.write_record(HEADS)?;
    // At once, so that one that is cut short is known too.
    writer
        .flush()
        .with_context(|| format!("write {}", report.display()))?;
    let progress = Mutex::new(Progress {
        created: 0,
        present: 0,
        failed: 0,
        said: Instant::now(),
        report: writer,
        unwritten: None,
    });
    let (sender, waiting) = sync_channel(ROWS_AHEAD);
    let waiting = Mutex::new(waiting);
    let (hasher, mut seen) = (RandomState::new(), HashSet::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| work(&client, &out, &waiting, &progress));
        }
        while let Some(read) = rows.next(create) {
            match read {
                // Two rows of one name would write one key over the other.
                Ok(row) if !seen.insert(hasher.hash_one(&row.name)) => {
                    let error = "an earlier row has this name already: leave one out";
                    let failure = Failure::new(row.line, "name", &row.name, error);
                    let name = row.name;
                    note(&progress, Err(Failure { name, ..failure }));
                }
                // It fails only when every worker is gone, which they are not while rows can come.
                Ok(row) => drop(sender.send(row)),
                Err(failure) => note(&progress, Err(failure)),
            }
        }
        drop(sender);
    });
    let done = progress
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    conclude(global, done, &report)
}

/// The report of the run before is written over; that of one under way is not, nor is a file that no run wrote.
fn open_report(path: &Path) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(
            "another run writes to {}: wait for it, or name another directory with --out",
            path.parent().unwrap_or(path).display()
        ),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("lock {}", path.display()));
        }
    }
    let heads = format!("{}\n", HEADS.join(","));
    let mut begins = Vec::new();
    (&mut file)
        .take(heads.len() as u64)
        .read_to_end(&mut begins)
        .with_context(|| format!("read {}", path.display()))?;
    if !begins.is_empty() && begins != heads.as_bytes() {
        bail!(
            "{} is no list of failures that a run wrote, and this run would write over it: move it away, or name another directory with --out",
            path.display()
        );
    }
    file.rewind()
        .and_then(|()| file.set_len(0))
        .with_context(|| format!("write {}", path.display()))?;
    Ok(file)
}

fn conclude(global: &Global, mut done: Progress, report: &Path) -> anyhow::Result<ExitCode> {
    if let Some(error) = done.unwritten {
        return Err(error).with_context(|| format!("write {}", report.display()));
    }
    done.report
        .flush()
        .with_context(|| format!("write {}", report.display()))?;
    if done.failed == 0 {
        std::fs::remove_file(report).with_context(|| format!("remove {}", report.display()))?;
    }
    let Progress {
        created,
        present,
        failed,
        ..
    } = done;
    let summary = json!({ "created": created, "present": present, "failed": failed });
    output::answer(global, &summary, |_| {
        let mut text = format!("{created} devices made, {present} there already, {failed} failed");
        if failed > 0 {
            text.push_str(&format!(
                "; {} says which and why: mend the file and say the same again",
                report.display()
            ));
        }
        text
    })?;
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn work(client: &Client, out: &Path, rows: &Mutex<Receiver<Row>>, progress: &Mutex<Progress>) {
    loop {
        let next = rows.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(row) = next else {
            return;
        };
        let outcome = one(client, &out.join(&row.name), &row).map_err(|error| {
            let sentence = error
                .downcast_ref::<Refused>()
                .map(|refused| refused.message.clone());
            let (field, value) = sentence.map(|text| row.at_fault(&text)).unwrap_or_default();
            let failure = Failure::new(row.line, &field, &value, format!("{error:#}"));
            let name = row.name.clone();
            Failure { name, ..failure }
        });
        note(progress, outcome);
    }
}

/// Makes one device, or finds that it is made.
fn one(client: &Client, directory: &Path, row: &Row) -> anyhow::Result<Outcome> {
    let name = &row.name;
    let file = |extension: &str| directory.join(format!("{}.{extension}", stem(name)));
    if file("crt").exists() && is_made(client, name, &file("crt"), &file("key"))? {
        return Ok(Outcome::Present);
    }
    let made_directory = !directory.exists();
    std::fs::create_dir_all(directory)
        .with_context(|| format!("make directory {}", directory.display()))?;
    if !made_directory {
        store::files::sweep(directory).with_context(|| format!("sweep {}", directory.display()))?;
    }
    let path = file("key");
    let (key, fresh) = match std::fs::read(&path) {
        Ok(text) => {
            let key = KeyPair::from_pem(&text).with_context(|| {
                format!(
                    "{} is no P-256 key that was made here: move it away",
                    path.display()
                )
            })?;
            (key, false)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate()?;
            write(&path, key.to_pem().as_bytes(), store::files::write_private)?;
            (key, true)
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let mut body = row.body.clone();
    body.insert(
        "certificateSigningRequest".into(),
        key.request(name)?.into(),
    );
    let answer = client
        .call(Method::POST, "/muster/v1/devices", Some(&body.into()))
        .inspect_err(|error| {
            // Only after a clear no to a key that nobody heard of before: any other may be a device's only one.
            if fresh && error.is::<Refused>() {
                // What stays behind harms nobody.
                let _ = std::fs::remove_file(&path);
                if made_directory {
                    let _ = std::fs::remove_dir(directory);
                }
            }
        })?;
    let text = |field: &str| output::field(&answer, field).as_bytes();
    write(
        &directory.join("root.crt"),
        text("rootPem"),
        store::files::write_public,
    )?;
    write_firmware_root(directory, &answer)?;
    write(
        &file("crt"),
        text("certificatePem"),
        store::files::write_public,
    )?;
    Ok(Outcome::Created)
}

/// Whether a device whose certificate lies here is there: its key beside it, and the server having it. One that the
/// server does not have is made again.
fn is_made(client: &Client, name: &str, certificate: &Path, key: &Path) -> anyhow::Result<bool> {
    let read = |path: &Path| match std::fs::read(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.with_context(|| format!("read {}", path.display())),
    };
    let pem = read(certificate)?;
    let pem = String::from_utf8_lossy(&pem);
    let unread = || {
        format!(
            "{} cannot be read: move it away, and a device that the server does not have is made again",
            certificate.display()
        )
    };
    let certified = key_id(&pem).with_context(unread)?;
    let own = CertificateDer::from_pem_slice(pem.as_bytes()).with_context(unread)?;
    let own = CertificateId::of(&own).to_string();
    let text = Zeroizing::new(read(key)?);
    let held = KeyPair::from_pem(&text).map(|key| CertificateId::of(key.public().der()));
    if held.is_none_or(|held| held.to_string() != certified) {
        bail!(
            "{} is not the key of {}: restore it from a backup, or give the device another with `muster device replace {name} --out DIR`, DIR being another directory, and put its files here",
            key.display(),
            certificate.display()
        );
    }
    let path = format!("/muster/v1/devices/{}?certificate={own}", encode(name));
    let device = match client.call(Method::GET, &path, None) {
        Ok(device) => device,
        Err(error)
            if error
                .downcast_ref::<Refused>()
                .is_some_and(|refused| refused.kind == "ResourceNotFoundException") =>
        {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let certificates = output::items(&device, "certificates");
    let here = certificates
        .iter()
        .find(|one| output::field(one, "certificateId") == own)
        .map(|one| output::field(one, "status"));
    // Another goes on for it where the device has renewed.
    if here == Some("ACTIVE") || !output::field(&device, "carriedOnBy").is_empty() {
        return Ok(true);
    }
    let mend = format!(
        "activate it (`muster device activate {name}`), or give it another (`muster device replace {name} --out DIR`, DIR being another directory, and put its files here)"
    );
    match here {
        Some(status) => {
            bail!("device {name} is there and its certificate that lies here is {status}: {mend}")
        }
        None => bail!(
            "device {name} is there with another certificate than the one that lies here, which was replaced or detached: {mend}"
        ),
    }
}

fn write(
    path: &Path,
    bytes: &[u8],
    how: fn(&Path, &[u8]) -> Result<(), store::StoreError>,
) -> anyhow::Result<()> {
    how(path, bytes).with_context(|| format!("write {}", path.display()))
}

fn note(progress: &Mutex<Progress>, outcome: Result<Outcome, Failure>) {
    let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
    match outcome {
        Ok(Outcome::Created) => progress.created += 1,
        Ok(Outcome::Present) => progress.present += 1,
        Err(failure) => {
            progress.failed += 1;
            let line = failure.line.to_string();
            let row = [
                &line,
                &failure.name,
                &failure.field,
                &failure.value,
                &failure.error,
            ];
            if let Err(error) = progress.report.write_record(row) {
                progress.unwritten.get_or_insert(error);
            }
        }
    }
    if std::io::stderr().is_terminal() && progress.said.elapsed() >= PROGRESS_INTERVAL {
        progress.said = Instant::now();
        let Progress {
            created,
            present,
            failed,
            ..
        } = &*progress;
        // Where standard error is gone nobody looks at progress.
        let _ = writeln!(
            std::io::stderr(),
            "{created} made, {present} there already, {failed} failed"
        );
    }
}
