//! Targets documents, made offline: whom the release team leaves which images to, and what is listed.

use super::firmware_offline::{bytes, day, keys, public};
use super::output;
use super::release_files::check_out;
use crate::cli::{FirmwareDelegate, FirmwareIndex, FirmwareTargets, Global};
use anyhow::{Context as _, bail};
use ota::manifest::DEFAULT_VALIDITY_SECONDS;
use ota::targets::{Delegate, Scope, missing};
use ota::{Manifest, ReleaseKey, RoleName, Root, Targets, TargetsSpec, package};
use serde_json::json;
use std::{
    fs::File,
    io::BufReader,
    path::Path,
    time::{Duration, SystemTime},
};

pub(super) fn delegate(global: &Global, flags: &FirmwareDelegate) -> anyhow::Result<()> {
    let root = root(&flags.signed)?;
    let name = role(&flags.delegate)?;
    let mut spec = following(&flags.signed, |known| Ok(Targets::read(known, &root)?))?;
    if flags.withdraw {
        spec.withdraw(&name)?;
    } else {
        let publics: Vec<_> = flags
            .publics
            .iter()
            .map(|file| public(file))
            .collect::<Result<_, _>>()?;
        let scopes = scopes(&flags.hardware, &flags.product)?;
        spec.delegate(Delegate::new(name, &publics, flags.threshold, scopes)?);
    }
    write(global, &flags.signed, &spec, &root, None)
}

pub(super) fn index(global: &Global, flags: &FirmwareIndex) -> anyhow::Result<()> {
    let root = root(&flags.signed)?;
    let top = flags
        .delegations
        .as_deref()
        .map(|file| {
            Targets::read(&bytes(file)?, &root)
                .with_context(|| format!("targets document {}", file.display()))
        })
        .transpose()?;
    let delegate = flags.delegate.as_deref().map(role).transpose()?;
    let acting = top.as_ref().zip(delegate.as_ref());
    let mut spec = following(&flags.signed, |known| {
        Ok(match acting {
            Some((top, role)) => top.read_delegated(role, known)?,
            None => Targets::read(known, &root)?,
        })
    })?;
    let now = SystemTime::now();
    for file in &flags.packages {
        let manifest = listed(file, &root, top.as_ref(), delegate.as_ref(), now)
            .with_context(|| format!("package {}", file.display()))?;
        spec.list(&manifest);
    }
    for gone in &flags.dropped {
        let (name, version) = gone
            .split_once('/')
            .with_context(|| format!("--drop {gone:?}: write it as NAME/VERSION"))?;
        spec.drop_listed(name, version)?;
    }
    write(global, &flags.signed, &spec, &root, acting)
}

/// The manifest of a package, which the role that lists it must have signed itself.
fn listed(
    file: &Path,
    root: &Root,
    top: Option<&Targets>,
    acting: Option<&RoleName>,
    now: SystemTime,
) -> anyhow::Result<Manifest> {
    let package = BufReader::new(File::open(file)?);
    let (manifest, signer) = package::read(package, |signed, size, image| {
        let found = Manifest::verify_under(&signed, root, top, now)?;
        let mut check = ota::ImageCheck::new(&found.0);
        let mut buffer = vec![0; 64 * 1024];
        let mut left = size;
        while left > 0 {
            let read = image.read(&mut buffer).map_err(|source| ota::Error::Io {
                what: "reading the package",
                source,
            })?;
            if read == 0 {
                break;
            }
            check.update(buffer.get(..read).unwrap_or_default())?;
            left = left.saturating_sub(read as u64);
        }
        check.finish()?;
        Ok(found)
    })?;
    if signer.as_ref() != acting {
        let who = |role: Option<&RoleName>| {
            role.map_or_else(
                || "the release team".to_owned(),
                |role| format!("delegate {role}"),
            )
        };
        bail!(
            "{} is signed by {}, not by {}: list it with the keys that signed it (--as)",
            manifest.title(),
            who(signer.as_ref()),
            who(acting)
        );
    }
    Ok(manifest)
}

fn write(
    global: &Global,
    flags: &FirmwareTargets,
    spec: &TargetsSpec,
    root: &Root,
    acting: Option<(&Targets, &RoleName)>,
) -> anyhow::Result<()> {
    check_out(&flags.out, flags.previous.as_deref())?;
    let signers: Vec<ReleaseKey> = keys(&flags.keys)?;
    let signed = spec.sign(&signers)?;
    let lacks = missing(&signed, root, acting)?;
    // What nobody would believe for what it says is not written either.
    if lacks == 0 {
        match acting {
            Some((top, role)) => top.read_delegated(role, &signed)?,
            None => Targets::read(&signed, root)?,
        };
    }
    store::files::write_public(&flags.out, &signed)?;
    let role = acting.map_or("targets", |(_, role)| role.as_str());
    let shown = json!({
        "targets": flags.out, "role": role, "version": spec.version(), "missing": lacks,
    });
    output::answer(global, &shown, |_| {
        let mut text = format!(
            "targets document of role {role}, version {}, in {}",
            spec.version(),
            flags.out.display()
        );
        if lacks > 0 {
            text += &format!(
                "\nnot valid yet: it lacks {lacks} signature(s) of its role's keys; add them with `muster firmware cosign {} --key K`",
                flags.out.display()
            );
        }
        text
    })
}

/// The successor of the document given, or a first one.
fn following(
    flags: &FirmwareTargets,
    read: impl FnOnce(&[u8]) -> anyhow::Result<Targets>,
) -> anyhow::Result<TargetsSpec> {
    let expires = match &flags.expires {
        Some(text) => day("--expires", text)?,
        None => SystemTime::now() + Duration::from_secs(DEFAULT_VALIDITY_SECONDS),
    };
    let previous = flags
        .previous
        .as_deref()
        .map(|file| {
            read(&bytes(file)?).with_context(|| format!("targets document {}", file.display()))
        })
        .transpose()?;
    Ok(TargetsSpec::following(previous.as_ref(), expires))
}

fn root(flags: &FirmwareTargets) -> anyhow::Result<Root> {
    Root::read(&bytes(&flags.root)?).with_context(|| format!("trust root {}", flags.root.display()))
}

fn role(text: &str) -> anyhow::Result<RoleName> {
    text.parse().with_context(|| format!("delegate {text:?}"))
}

/// Each hardware with each product; what is not said is any.
fn scopes(
    hardware: &[String],
    products: &[String],
) -> anyhow::Result<std::collections::BTreeSet<Scope>> {
    if hardware.is_empty() && products.is_empty() {
        bail!(
            "say what the delegate may sign: --hardware, --product or both; for everything, make it a release key with `muster firmware root`"
        );
    }
    let mut boards = Vec::new();
    for id in hardware {
        boards.push(Some(
            id.parse().with_context(|| format!("--hardware {id:?}"))?,
        ));
    }
    let mut names = Vec::new();
    for name in products {
        names.push(Some(
            name.parse()
                .with_context(|| format!("--product {name:?}"))?,
        ));
    }
    if boards.is_empty() {
        boards.push(None);
    }
    if names.is_empty() {
        names.push(None);
    }
    let pairs = boards.iter().flat_map(|hardware| {
        names.iter().map(|name| Scope {
            hardware: hardware.clone(),
            name: name.clone(),
        })
    });
    Ok(pairs.collect())
}
