//! `muster ca ceremony`: founds an authority by one reviewed file, without a server, and leaves a signed transcript.

use super::{
    ceremony_files::{Files, Placed},
    output, passphrase,
};
use crate::{
    cli::{Ceremony, Global},
    config::KeySettings,
    serve,
};
use ::ca::{
    Authority, CertificateFacts, CertificateId, IssuingPlan, KeyCustody, KeyKind, Made, Passphrase,
    Plan, PublicKey, RootPlan, SecretKey, cross_sign, key_id,
};
use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::json;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

/// Lives of the authority's certificates, in days.
const VALIDITY_DAYS: std::ops::RangeInclusive<u64> = 1..=36_525;
const DAY_SECONDS: u64 = 86_400;
/// Nothing that a ceremony makes names it; the server has its own.
const NO_PUBLIC_URL: &str = "http://localhost";

/// The file. Paths in it are seen from where it lies.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Where the transcript goes; its signature lies beside it.
    transcript: PathBuf,
    /// As the server's `--public-url`: there its lists will be found, and the issuing certificate says so.
    public_url: Option<String>,
    root: Root,
    issuing: Issuing,
    succeeds: Option<Succeeds>,
    /// As `[ca]` in the server's configuration.
    #[serde(default)]
    keys: KeySettings,
}

/// The root of a server that is there already, which the one that is made follows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Succeeds {
    certificate: PathBuf,
    private_key: PathBuf,
    /// Where the new root goes, signed with that key.
    cross: PathBuf,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Root {
    common_name: Option<String>,
    key: Option<Kind>,
    validity_days: Option<u64>,
    /// One that is there already.
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
    /// Where its key goes, encrypted; the authority is left without it.
    offline: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Issuing {
    common_name: Option<String>,
    key: Option<Kind>,
    validity_days: Option<u64>,
    #[serde(default)]
    permitted_dns: Vec<String>,
    /// Addresses and networks beside them; all others are excluded where there are such names.
    #[serde(default)]
    permitted_ip: Vec<String>,
    /// One that is there already, with what stands above it.
    certificate: Option<PathBuf>,
    private_key: Option<PathBuf>,
}

/// Kinds of keys that are made.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    P256,
    P384,
    /// RSA is made in tokens alone.
    Rsa3072,
    Rsa4096,
}

/// Reads files that the ceremony's file names.
struct Reader<'a> {
    dir: &'a Path,
    passphrase: Option<Passphrase>,
}

impl Reader<'_> {
    fn path(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }

    fn text(&self, path: &Path) -> anyhow::Result<String> {
        let path = self.path(path);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    fn key(&self, path: &Path) -> anyhow::Result<SecretKey> {
        let text = Zeroizing::new(self.text(path)?);
        SecretKey::from_pem(text.as_bytes(), self.passphrase.as_ref())
            .with_context(|| path.display().to_string())
    }
}

pub(super) fn run(global: &Global, flags: &Ceremony) -> anyhow::Result<()> {
    let name = flags.file.display();
    let text = std::fs::read_to_string(&flags.file).with_context(|| format!("read {name}"))?;
    let file: File = toml::from_str(&text).with_context(|| name.to_string())?;
    let dir = flags.file.parent().unwrap_or(Path::new("."));
    let mut reader = Reader {
        dir,
        passphrase: passphrase::find(&flags.passphrase)?,
    };
    let mut files = Files::prepare(
        reader.path(&file.transcript),
        file.root.offline.as_deref().map(|path| reader.path(path)),
        file.succeeds.as_ref().map(|it| reader.path(&it.cross)),
    )?;
    let transcript = files.transcript.path.clone();
    let signature = files.signature.path.clone();
    let root = root(&file.root, &reader)?;
    let former = match &file.succeeds {
        Some(it) => {
            let (text, key) = (reader.text(&it.certificate)?, reader.key(&it.private_key)?);
            // Before anything is made.
            if key_id(&text)? != CertificateId::of(key.public().der()).to_string() {
                bail!("succeeds.private_key: it is not the key of succeeds.certificate");
            }
            Some((text, key))
        }
        None => None,
    };
    let issuing = issuing(&file.issuing, &reader)?;
    let sealing = match &files.offline {
        Some(_) if file.keys.custody == KeyCustody::Pkcs11 => {
            bail!("root.offline: a key in a token does not leave it; keep the token elsewhere")
        }
        Some(_) => match reader.passphrase.take() {
            Some(passphrase) => Some(passphrase),
            None => Some(passphrase::require(&flags.passphrase)?),
        },
        None => None,
    };
    let keyring = serve::keyring(&file.keys)?;
    let now = SystemTime::now();
    let public_url = file.public_url.as_deref().unwrap_or(NO_PUBLIC_URL);
    let public_url = ::ca::check_public_url(public_url).context("public_url")?;
    let place = global.data.join("ca");
    serve::lineage::check_place(&global.data, &place)?;
    let plan = Plan {
        root,
        issuing,
        root_leaves: sealing.is_some(),
        public_url: file.public_url.is_some().then(|| public_url.clone()),
    };
    let mut placed = Placed::default();
    let ((signer, der), unflushed) = Authority::found(
        &place,
        plan,
        &public_url,
        keyring,
        now,
        |authority| {
            let crossed = match former {
                Some((certificate, key)) => {
                    let root = authority.root_pem();
                    Some(cross_sign(&certificate, key, &root, now).context("succeeds")?)
                }
                None => None,
            };
            let kept = match (&mut files.offline, &sealing) {
                (Some(out), Some(passphrase)) => {
                    let sealed = authority.export_root_key(None, passphrase)?;
                    out.fill(sealed.as_bytes())?;
                    Some(out.read_back(passphrase)?)
                }
                _ => None,
            };
            let mut statement = statement(authority, &file, flags, &text, now)?;
            if let (Some(crossed), Some(cross)) = (&crossed, &mut files.cross) {
                writeln!(
                    statement,
                    "\nThe root, signed with the key of the root that it follows ({}):\n\n{crossed}",
                    cross.path.display()
                )?;
                cross.fill(crossed.as_bytes())?;
            }
            let (signed, signer) = authority.attest(&statement)?;
            files.transcript.fill(statement.as_bytes())?;
            files.signature.fill(&signed)?;
            if let Some(kept) = kept {
                authority.take_root_offline(&CertificateId::of(&kept).to_string(), now)?;
            }
            files.put(&mut placed)?;
            let der = match signer {
                "root" => authority.root_der(),
                _ => authority.issuing_der(),
            };
            Ok::<_, anyhow::Error>((signer, der))
        },
    )?;
    placed.keep();
    if let Some(error) = unflushed {
        output::warn(&format!(
            "the authority is in its place, but a power failure may undo that: {error}"
        ))?;
    }
    let hash = match PublicKey::of_certificate(&der).map(|key| key.kind()) {
        Ok(KeyKind::P384) => "sha384",
        _ => "sha256",
    };
    let (signer, place) = (format!("{signer}.crt"), place.display());
    let check = format!(
        "openssl dgst -{hash} -verify <(openssl x509 -in {place}/{signer} -noout -pubkey) -signature {} {}",
        signature.display(),
        transcript.display()
    );
    let done = json!({
        "authority": place.to_string(),
        "transcript": transcript.display().to_string(),
        "signature": signature.display().to_string(),
        "signedWith": signer,
        "check": check,
    });
    output::answer(global, &done, |_| {
        format!("the authority is in {place}; its transcript is checked with\n  {check}")
    })
}

fn root(file: &Root, reader: &Reader<'_>) -> anyhow::Result<RootPlan> {
    let Some(certificate) = &file.certificate else {
        if file.private_key.is_some() {
            bail!("root.private_key: a key comes with its root.certificate");
        }
        let made = made(
            "root",
            file.common_name.as_ref(),
            file.key,
            file.validity_days,
        )?;
        return Ok(RootPlan::Made(made));
    };
    if file.common_name.is_some() || file.key.is_some() || file.validity_days.is_some() {
        bail!("root: a certificate that is there already has its name, key and life");
    }
    if file.offline.is_some() && file.private_key.is_none() {
        bail!("root.offline: the root's key is not here, and so it is offline already");
    }
    Ok(RootPlan::Existing {
        certificate: reader.text(certificate)?,
        key: file
            .private_key
            .as_deref()
            .map(|path| reader.key(path))
            .transpose()?,
    })
}

fn issuing(file: &Issuing, reader: &Reader<'_>) -> anyhow::Result<IssuingPlan> {
    match (&file.certificate, &file.private_key) {
        (None, None) => Ok(IssuingPlan::Made {
            certificate: made(
                "issuing",
                file.common_name.as_ref(),
                file.key,
                file.validity_days,
            )?,
            permitted_dns: file.permitted_dns.clone(),
            permitted_ip: file.permitted_ip.clone(),
        }),
        (Some(certificate), Some(key)) => {
            let of_made = [file.common_name.is_some(), file.key.is_some()];
            if of_made.contains(&true)
                || file.validity_days.is_some()
                || !file.permitted_dns.is_empty()
                || !file.permitted_ip.is_empty()
            {
                bail!(
                    "issuing: a certificate that is there already has its name, key, life and names"
                );
            }
            Ok(IssuingPlan::Existing {
                chain: reader.text(certificate)?,
                key: reader.key(key)?,
            })
        }
        _ => bail!("issuing: certificate and private_key come together"),
    }
}

fn made(
    table: &str,
    common_name: Option<&String>,
    key: Option<Kind>,
    days: Option<u64>,
) -> anyhow::Result<Made> {
    let missing =
        |key: &str| format!("{table}.{key} is missing: a ceremony leaves nothing to defaults");
    let days = days.with_context(|| missing("validity_days"))?;
    if !VALIDITY_DAYS.contains(&days) {
        bail!("{table}.validity_days = {days}: 1 to 36525 days");
    }
    Ok(Made {
        common_name: common_name.with_context(|| missing("common_name"))?.clone(),
        key: match key.with_context(|| missing("key"))? {
            Kind::P256 => KeyKind::P256,
            Kind::P384 => KeyKind::P384,
            Kind::Rsa3072 => KeyKind::Rsa(3072),
            Kind::Rsa4096 => KeyKind::Rsa(4096),
        },
        validity: Duration::from_secs(days * DAY_SECONDS),
    })
}

/// What was done, for those who were not there.
fn statement(
    authority: &Authority,
    file: &File,
    flags: &Ceremony,
    reviewed: &str,
    now: SystemTime,
) -> anyhow::Result<String> {
    let mut text = format!("Muster key ceremony, {}\n\n", time(now)?);
    let mut line = |what: &str, value: &str| writeln!(text, "{what}: {value}");
    line("program", concat!("muster ", env!("CARGO_PKG_VERSION")))?;
    let digest = CertificateId::of(reviewed.as_bytes());
    line(
        "reviewed file",
        &format!("{}, SHA-256 {digest}", flags.file.display()),
    )?;
    let custody = match file.keys.custody {
        KeyCustody::File => "file",
        KeyCustody::EncryptedFile => "encrypted-file",
        KeyCustody::Pkcs11 => "pkcs11",
    };
    line("custody of keys", custody)?;
    let root_key = match (&file.root.offline, authority.has_root_key()?) {
        (Some(out), _) => format!("offline, encrypted in {}", out.display()),
        (None, true) => "with the authority".to_owned(),
        (None, false) => "elsewhere, not seen".to_owned(),
    };
    line("root's key", &root_key)?;
    for (what, der, brought) in [
        (
            "root",
            authority.root_der(),
            file.root.certificate.is_some(),
        ),
        (
            "issuing",
            authority.issuing_der(),
            file.issuing.certificate.is_some(),
        ),
    ] {
        let facts = CertificateFacts::read(&der)?;
        let kind = PublicKey::of_certificate(&der)?.kind();
        let origin = if brought { "brought" } else { "made" };
        line(
            what,
            &format!(
                "{}, {kind:?}, {origin}, from {} to {}, SHA-256 {}",
                facts.subject_common_names.join(", "),
                time(facts.not_before)?,
                time(facts.not_after)?,
                facts.id
            ),
        )?;
    }
    if let Some(list) = authority.newest_root_list() {
        let place = match (&file.public_url, &file.issuing.certificate) {
            (Some(_), None) => {
                let [url, _] = authority.newest_root_list_urls();
                format!(", found at {url}")
            }
            _ => String::new(),
        };
        let until = time(list.next_update)?;
        line(
            "root's revocation list",
            &format!("number {}, until {until}{place}", list.number),
        )?;
    }
    let permitted = authority.permitted_names()?;
    if !permitted.is_empty() {
        line("servers' names", &permitted.join(", "))?;
    }
    writeln!(
        text,
        "\n{}{}",
        authority.root_pem(),
        authority.issuing_pem()
    )?;
    writeln!(text, "The reviewed file:\n\n{reviewed}")?;
    Ok(text)
}

fn time(at: SystemTime) -> anyhow::Result<jiff::Timestamp> {
    let at = jiff::Timestamp::try_from(at).context("the clock's time")?;
    Ok(at.round(jiff::Unit::Second)?)
}
