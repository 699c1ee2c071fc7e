//! What a release engineer does without any server: keys, trust roots, signatures.

use super::release_files::{NewFile, check_out};
use super::{firmware_token::Place, output};
use crate::cli::{FirmwareRoot, FirmwareSign, Global};
use anyhow::{Context as _, bail};
use ota::{
    Components, DeltaSource, FirmwareVersion, ImageFacts, Manifest, PublicKey, ReleaseKey, Root,
    RootSpec, co_sign, delta::MAX_DELTA_IMAGE_BYTES, manifest::DEFAULT_VALIDITY_SECONDS,
};
use serde_json::json;
use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufReader, BufWriter, Read as _, Seek as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Largest security counter that is signed: what any JSON reader reads exactly, and far from where there is none above.
const MAX_COUNTER: u64 = (1 << 53) - 1;
/// How long a trust root is believed unless the signer says otherwise.
const ROOT_VALIDITY: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) fn keygen(global: &Global, out: &Path, held: Option<&Place>) -> anyhow::Result<()> {
    let (private, public) = (out.join("release.key"), out.join("release.pub"));
    if private.exists() {
        bail!(
            "{} exists already: a release key that is lost cannot be had back; name another directory with --out",
            private.display()
        );
    }
    std::fs::create_dir_all(out).with_context(|| format!("make directory {}", out.display()))?;
    let key = match held {
        Some(place) => {
            let (key, reference) = place.generate()?;
            store::files::write_private(&private, reference.as_bytes())?;
            key
        }
        None => {
            let key = ReleaseKey::generate()?;
            store::files::write_private(&private, key.to_pem()?.as_bytes())?;
            key
        }
    };
    store::files::write_public(&public, key.public().to_pem()?.as_bytes())?;
    let shown =
        json!({ "key": private, "public": public, "keyId": key.public().id()?.to_string() });
    output::answer(global, &shown, |_| match held {
        Some(place) => format!(
            "release key in {place}; {} says where, for --key\nits public half in {}",
            private.display(),
            public.display()
        ),
        None => format!(
            "release key in {}: keep it off every server, and back it up\nits public half in {}",
            private.display(),
            public.display()
        ),
    })
}

/// Refuses a threshold that no signatures of these keys would ever meet, or that nobody has to.
fn can_be_met(threshold: u32, keys: &[PublicKey]) -> anyhow::Result<()> {
    let ids = keys.iter().map(PublicKey::id);
    let different = ids.collect::<Result<BTreeSet<_>, _>>()?.len();
    let enough = usize::try_from(threshold).is_ok_and(|needed| (1..=different).contains(&needed));
    if !enough {
        bail!(
            "--threshold {threshold}: write 1 to {different}, which is how many different release keys --key and --pub name"
        );
    }
    Ok(())
}

pub(super) fn root(global: &Global, flags: &FirmwareRoot) -> anyhow::Result<()> {
    check_out(&flags.out, flags.previous.as_deref())?;
    let keys = keys(&flags.keys)?;
    let retired = self::keys(&flags.retire)?;
    let mut release_keys: Vec<PublicKey> = keys.iter().map(ReleaseKey::public).collect();
    for file in &flags.publics {
        release_keys.push(public(file)?);
    }
    let online = flags.online.as_deref().map(public).transpose()?;
    let previous = flags
        .previous
        .as_deref()
        .map(|file| {
            Root::read(&bytes(file)?).with_context(|| format!("--previous {}", file.display()))
        })
        .transpose()?;
    can_be_met(flags.threshold, &release_keys)?;
    let now = SystemTime::now();
    let expires = match &flags.expires {
        Some(text) => day("--expires", text)?,
        None => now + ROOT_VALIDITY,
    };
    let spec = RootSpec {
        release_keys,
        threshold: flags.threshold,
        online,
        expires,
        previous: previous.as_ref(),
    };
    let signers: Vec<ReleaseKey> = keys.into_iter().chain(retired).collect();
    let draft = spec.sign(&signers)?;
    store::files::write_public(&flags.out, &draft.bytes)?;
    let shown = json!({
        "root": flags.out, "version": draft.version,
        "missing": draft.missing, "missingOfPrevious": draft.missing_of_previous,
    });
    output::answer(global, &shown, |_| {
        let mut text = format!(
            "trust root version {} in {}",
            draft.version,
            flags.out.display()
        );
        text += &over(expires, now);
        for (count, whose) in [
            (draft.missing, "its own keys"),
            (draft.missing_of_previous, "the previous root's keys"),
        ] {
            if count > 0 {
                text += &format!(
                    "\nnot valid yet: it lacks {count} signature(s) of {whose}; add them with `muster firmware cosign {} --key K`",
                    flags.out.display()
                );
            }
        }
        text
    })
}

/// What every document in JSON begins with, and no archive.
const JSON_BEGINS: u8 = b'{';

pub(super) fn cosign(global: &Global, document: &Path, keys: &[PathBuf]) -> anyhow::Result<()> {
    let keys = self::keys(keys)?;
    let mut first = Vec::new();
    File::open(document)
        .and_then(|file| file.take(1).read_to_end(&mut first))
        .with_context(|| format!("read {}", document.display()))?;
    if first.first().is_some_and(|first| *first != JSON_BEGINS) {
        return cosign_package(global, document, &keys);
    }
    let signed = co_sign(&bytes(document)?, &keys)
        .with_context(|| format!("sign {}", document.display()))?;
    store::files::write_public(document, &signed)?;
    let strange = strangers(&signed, &keys)?;
    let shown = json!({ "signed": document, "notNamed": strange });
    output::answer(global, &shown, |_| {
        let mut text = format!("signature added to {}", document.display());
        for id in &strange {
            text += &format!(
                "\nthe root does not name key {id}: its signature counts only if the root before it does"
            );
        }
        text
    })
}

/// A package is written anew beside the old one, and takes its place once it is whole.
fn cosign_package(global: &Global, package: &Path, keys: &[ReleaseKey]) -> anyhow::Result<()> {
    let whose = || format!("sign {}", package.display());
    let mut name = package.file_name().unwrap_or_default().to_owned();
    name.push(".signing");
    let beside = package.with_file_name(name);
    let from = BufReader::new(File::open(package).with_context(whose)?);
    let (fresh, out) = NewFile::create(&beside)?;
    let mut out = BufWriter::new(out);
    let manifest = ota::package::co_sign(from, &mut out, keys).with_context(whose)?;
    let out = out.into_inner().with_context(whose)?;
    out.sync_all().with_context(whose)?;
    std::fs::rename(&beside, package).with_context(whose)?;
    fresh.keep();
    let shown = json!({
        "signed": package, "name": manifest.name.to_string(), "version": manifest.version.to_string(),
    });
    output::answer(global, &shown, |_| {
        format!(
            "signature added to {} in {}",
            manifest.title(),
            package.display()
        )
    })
}

/// The ids of keys that have signed a trust root and are none of those it names.
fn strangers(document: &[u8], keys: &[ReleaseKey]) -> anyhow::Result<Vec<String>> {
    let read: serde_json::Value = serde_json::from_slice(document)?;
    let Some(named) = read.pointer("/signed/keys").filter(|_| {
        read.pointer("/signed/_type")
            .is_some_and(|kind| kind == "root")
    }) else {
        return Ok(Vec::new());
    };
    let ids: Vec<String> = keys
        .iter()
        .map(|key| Ok(key.public().id()?.to_string()))
        .collect::<anyhow::Result<_>>()?;
    Ok(ids
        .into_iter()
        .filter(|id| named.get(id).is_none())
        .collect())
}

pub(super) fn sign(global: &Global, flags: &FirmwareSign) -> anyhow::Result<()> {
    check_out(&flags.out, None)?;
    if flags.counter > MAX_COUNTER {
        bail!(
            "--counter {}: at most {MAX_COUNTER}; a device that has confirmed an image takes none with a lower one any more, so leave room",
            flags.counter
        );
    }
    let keys = keys(&flags.keys)?;
    let mut image =
        File::open(&flags.file).with_context(|| format!("open image {}", flags.file.display()))?;
    let facts = ImageFacts::measure(&mut image)
        .with_context(|| format!("image {}", flags.file.display()))?;
    let mut hardware = std::collections::BTreeSet::new();
    for id in &flags.hardware {
        hardware.insert(id.parse().with_context(|| format!("--hardware {id:?}"))?);
    }
    let (requires, components) = required(&flags.requires)?;
    let expires = match &flags.expires {
        Some(text) => day("--expires", text)?,
        None => SystemTime::now() + Duration::from_secs(DEFAULT_VALIDITY_SECONDS),
    };
    let made = flags
        .deltas
        .iter()
        .map(|text| delta(text, &flags.file, &facts))
        .collect::<anyhow::Result<Vec<_>>>()?;
    // One that is no smaller than the image is of no use to anybody.
    let (used, useless): (Vec<_>, Vec<_>) = made
        .into_iter()
        .partition(|(source, _)| source.size < facts.size);
    let skipped: Vec<String> = useless
        .iter()
        .map(|(source, _)| source.from.to_string())
        .collect();
    let (deltas, patches): (Vec<DeltaSource>, Vec<File>) = used.into_iter().unzip();
    let manifest = Manifest {
        name: flags
            .name
            .parse()
            .with_context(|| format!("--name {:?}", flags.name))?,
        version: flags
            .firmware_version
            .parse()
            .with_context(|| format!("--version {:?}", flags.firmware_version))?,
        hardware,
        requires,
        components,
        size: facts.size,
        sha256: facts.sha256,
        chunks: facts.chunks,
        counter: flags.counter,
        expires,
        notes: flags.notes.clone(),
        deltas,
    };
    let signed = manifest.sign(&keys)?;
    image
        .rewind()
        .with_context(|| format!("read image {} again", flags.file.display()))?;
    let (whole, out) = NewFile::create(&flags.out)?;
    let mut out = BufWriter::new(out);
    let patches = patches
        .into_iter()
        .zip(&manifest.deltas)
        .map(|(patch, source)| (BufReader::new(patch), source.size))
        .collect();
    let image = BufReader::new(image);
    ota::package::write_with_deltas(&mut out, &signed, image, facts.size, patches)
        .with_context(|| format!("package {}", flags.out.display()))?;
    let out = out
        .into_inner()
        .with_context(|| format!("write package {}", flags.out.display()))?;
    out.sync_all()
        .with_context(|| format!("write package {}", flags.out.display()))?;
    whole.keep();
    let shown = json!({
        "package": flags.out, "name": flags.name, "version": flags.firmware_version,
        "size": facts.size, "sha256": facts.sha256.to_string(), "signatures": keys.len(),
        "deltas": manifest.deltas.iter().map(|delta| json!({
            "from": delta.from.to_string(), "size": delta.size,
        })).collect::<Vec<_>>(),
        "skippedDeltas": skipped,
    });
    output::answer(global, &shown, |_| {
        let mut text = format!(
            "{} {} signed by {} key(s) in {}",
            flags.name,
            flags.firmware_version,
            keys.len(),
            flags.out.display()
        );
        text += &over(expires, SystemTime::now());
        for delta in &manifest.deltas {
            text += &format!(
                "\ndelta from {}: {} bytes in the place of {}",
                delta.from, delta.size, facts.size
            );
        }
        for from in &skipped {
            text +=
                &format!("\nno delta from {from}: it would be no smaller than the image itself");
        }
        text
    })
}

/// Makes the delta that `VERSION=IMAGE` asks for, in a file that goes away by itself.
/// What `--requires` asks of the firmware itself, and of others.
fn required(flags: &[String]) -> anyhow::Result<(Option<FirmwareVersion>, Components)> {
    let (mut own, mut others) = (None, Components::new());
    for text in flags {
        let flag = || format!("--requires {text:?}");
        let twice = match text.split_once('=') {
            Some((name, version)) => {
                let name = name.parse().with_context(flag)?;
                others
                    .insert(name, version.parse().with_context(flag)?)
                    .is_some()
            }
            None => own.replace(text.parse().with_context(flag)?).is_some(),
        };
        if twice {
            bail!("{}: what it speaks of stands there twice", flag());
        }
    }
    Ok((own, others))
}

fn delta(text: &str, image: &Path, new: &ImageFacts) -> anyhow::Result<(DeltaSource, File)> {
    let flag = || format!("--delta-from {text:?}");
    let (version, old) = text
        .split_once('=')
        .with_context(|| format!("{}: write it as VERSION=IMAGE", flag()))?;
    let from = version.parse().with_context(flag)?;
    let old = Path::new(old);
    for (file, bytes) in [(old, size(old)?), (image, new.size)] {
        if bytes > MAX_DELTA_IMAGE_BYTES {
            bail!(
                "{}: {} has {bytes} bytes; deltas are made of images of at most {MAX_DELTA_IMAGE_BYTES}: leave this one out, the whole image is sent then",
                flag(),
                file.display()
            );
        }
    }
    let (old, new) = (bytes(old)?, bytes(image)?);
    let mut patch = tempfile::tempfile().context("make a temporary file for the delta")?;
    ota::delta::make(&old, &new, BufWriter::new(&mut patch)).with_context(flag)?;
    patch.rewind().with_context(flag)?;
    let facts = ImageFacts::measure(&mut patch).with_context(flag)?;
    patch.rewind().with_context(flag)?;
    let source = DeltaSource {
        from,
        from_sha256: ota::sha256(&old),
        size: facts.size,
        sha256: facts.sha256,
        chunks: facts.chunks,
    };
    Ok((source, patch))
}

fn size(file: &Path) -> anyhow::Result<u64> {
    let facts = std::fs::metadata(file).with_context(|| format!("read {}", file.display()))?;
    Ok(facts.len())
}

pub(super) fn keys(files: &[PathBuf]) -> anyhow::Result<Vec<ReleaseKey>> {
    let load = |file: &PathBuf| {
        let text = zeroize::Zeroizing::new(
            std::fs::read_to_string(file)
                .with_context(|| format!("read release key {}", file.display()))?,
        );
        if let Some(place) = Place::read(&text) {
            return place
                .open(&text)
                .with_context(|| format!("release key {}", file.display()));
        }
        ReleaseKey::from_pem(&text).with_context(|| format!("release key {}", file.display()))
    };
    files.iter().map(load).collect()
}

pub(super) fn public(file: &Path) -> anyhow::Result<PublicKey> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("read public key {}", file.display()))?;
    PublicKey::from_pem(&text).with_context(|| format!("public key {}", file.display()))
}

pub(super) fn bytes(file: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(file).with_context(|| format!("read {}", file.display()))
}

/// What is said of a document that nobody believes any more from its first moment on.
pub(super) fn over(expires: SystemTime, now: SystemTime) -> String {
    if expires > now {
        return String::new();
    }
    "\nit has expired already, so nobody takes it: sign it with a later --expires".to_owned()
}

/// A day (its end, UTC) or an RFC 3339 moment.
pub(super) fn day(flag: &str, text: &str) -> anyhow::Result<SystemTime> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(moment.into());
    }
    let date: jiff::civil::Date = text.parse().with_context(|| {
        format!("{flag} {text:?}: write it as 2027-01-31 or 2027-01-31T12:00:00Z")
    })?;
    let end = date
        .at(23, 59, 59, 0)
        .to_zoned(jiff::tz::TimeZone::UTC)
        .with_context(|| format!("{flag} {text:?}"))?;
    Ok(end.timestamp().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_its_last_second() {
        let end = day("--expires", "2027-01-31").unwrap();
        assert_eq!(end, day("--expires", "2027-01-31T23:59:59Z").unwrap());
        let error = day("--expires", "soon").unwrap_err().to_string();
        assert!(
            error.contains("--expires \"soon\"") && error.contains("2027-01-31"),
            "{error}"
        );
    }
}
