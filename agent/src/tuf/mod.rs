//! The verifier with a face of its own: a TUF client of any repository, without a server or an identity.
//! What is believed is `ota::tuf`'s to say; here are its transport and its files.

mod remote;
mod trusted;

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use ota::tuf::{Client, Datastore as _, MAX_ROOT_BYTES, Target, TufError, file_name, verify_root};

use crate::AgentError;
use remote::Remote;
use trusted::TrustedFiles;

/// Bytes of a target that are held at once.
const CHUNK: usize = 64 * 1024;

/// Which repository, and where what is trusted of it is kept.
#[derive(Clone, Debug)]
pub struct Source {
    /// Holds exactly the trusted metadata files.
    pub metadata_dir: PathBuf,
    /// The repository's metadata, `http://` or `https://`.
    pub metadata_url: String,
    /// PEM certificates that an `https://` repository's certificate must lead to.
    pub ca: Option<PathBuf>,
}

/// Which targets to get, from where and into what directory.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Paths as the targets metadata has them.
    pub names: Vec<String>,
    /// The repository's targets, `http://` or `https://`.
    pub base_url: String,
    /// Where they are put, in sub-directories as their paths say.
    pub dir: PathBuf,
}

/// Trusts the root metadata in file `root` from now on. Asks nobody.
///
/// # Errors
/// [`AgentError`] where it is not root metadata signed by itself, or where `dir` trusts another root.
pub fn init(dir: &Path, root: &Path) -> Result<(), AgentError> {
    let fault = |what: String| AgentError::TrustRoot {
        path: root.to_path_buf(),
        what,
    };
    let given = trusted::read(root, MAX_ROOT_BYTES)
        .map_err(|error| fault(error.to_string()))?
        .ok_or_else(|| fault("there is no such file".into()))?;
    let version = verify_root(&given).map_err(|error| fault(error.to_string()))?;
    let mut files = TrustedFiles::open(dir)?;
    let name = file_name("root");
    let Some(kept) = files.load(&name, MAX_ROOT_BYTES)? else {
        return Ok(files.keep(&name, &given)?);
    };
    if kept == given {
        return Ok(());
    }
    let trusted = verify_root(&kept)?;
    if version < trusted {
        tracing::warn!(
            "{} trusts root version {trusted} already; version {version} changes nothing",
            dir.display()
        );
        return Ok(());
    }
    Err(fault(format!(
        "{} trusts another root (version {trusted}): its successors come by `refresh`; to begin anew, empty the directory",
        dir.display()
    )))
}

/// Brings the top-level metadata up to date (TUF 1.0 §5.3 to §5.6).
///
/// # Errors
/// [`AgentError`]; what was verified before stays.
pub fn refresh(source: &Source, now: SystemTime) -> Result<(), AgentError> {
    fresh(source, now).map(|_| ())
}

/// Brings metadata up to date and gets targets (TUF 1.0 §5.7), one after the other, until one cannot be
/// had. One that is there already is not fetched again. Says where each lies.
///
/// # Errors
/// [`AgentError`]; what was verified before stays.
pub fn download(
    source: &Source,
    wanted: &Wanted,
    now: SystemTime,
    mut got: impl FnMut(&str, &Path),
) -> Result<(), AgentError> {
    let mut client = fresh(source, now)?;
    let mut remote = Remote::new(&wanted.base_url, source.ca.as_deref())?;
    for name in &wanted.names {
        let target = client.target(name)?;
        let path = wanted.dir.join(local_path(target.path()));
        if !is_there(&target, &path)? {
            fetch(&target, &mut remote, &path)?;
        }
        got(name, &path);
    }
    Ok(())
}

fn fresh(source: &Source, now: SystemTime) -> Result<Client<Remote, TrustedFiles>, AgentError> {
    let remote = Remote::new(&source.metadata_url, source.ca.as_deref())?;
    let files = TrustedFiles::open(&source.metadata_dir)?;
    let mut client = Client::open(remote, files, now)?;
    client.refresh()?;
    Ok(client)
}

/// Where below the target directory a target is put: at its path, and where that would lead elsewhere, in
/// a file named by the whole path, percent-encoded.
fn local_path(path: &str) -> PathBuf {
    let plain = |part: &str| {
        let mut components = Path::new(part).components();
        matches!(components.next(), Some(Component::Normal(name)) if name == part)
            && components.next().is_none()
            && !part.contains('\0')
    };
    if path.split('/').all(plain) {
        return PathBuf::from(path);
    }
    let encoded = file_name(path);
    PathBuf::from(encoded.strip_suffix(".json").unwrap_or(&encoded))
}

/// Whether the target lies at `path` already, whole.
fn is_there(target: &Target, path: &Path) -> Result<bool, TufError> {
    if !fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == target.length()) {
        return Ok(false);
    }
    let mut check = target.check()?;
    let read = File::open(path).and_then(|mut file| {
        pump(&mut file, |bytes| check.update(bytes).map_err(io::Error::other))
    });
    Ok(read.is_ok() && check.finish().is_ok())
}

/// Gets the target beside its place and moves it there when all of it is right.
fn fetch(target: &Target, remote: &mut Remote, path: &Path) -> Result<(), TufError> {
    let store = |error: io::Error| TufError::Store {
        why: format!("{}: {error}", path.display()),
    };
    let mut check = target.check()?;
    let mut body = remote.target(&target.remote_path())?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(store)?;
    }
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".part");
    let part = path.with_file_name(name);
    let mut fault = None;
    let written = File::create(&part).and_then(|mut file| {
        pump(&mut body, |bytes| {
            check.update(bytes).map_err(|error| {
                fault = Some(error);
                io::Error::other("not what was signed")
            })?;
            file.write_all(bytes)
        })?;
        file.sync_all()
    });
    let done = match (fault, written) {
        (Some(error), _) => Err(error),
        (None, Err(error)) => Err(store(error)),
        (None, Ok(())) => check
            .finish()
            .and_then(|()| fs::rename(&part, path).map_err(store)),
    };
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done
}

fn pump(from: &mut dyn Read, mut to: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_target_lies_at_its_path_or_under_its_name() {
        for (path, local) in [
            ("firmware.bin", "firmware.bin"),
            ("path/to/a/file.txt", "path/to/a/file.txt"),
            ("..hidden/a..b", "..hidden/a..b"),
            ("../up", "..%2Fup"),
            ("a/../../up", "a%2F..%2F..%2Fup"),
            ("/etc/passwd", "%2Fetc%2Fpasswd"),
            ("a//b", "a%2F%2Fb"),
            ("./a", ".%2Fa"),
            ("a/", "a%2F"),
            ("", ""),
        ] {
            assert_eq!(local_path(path), Path::new(local), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_target_leaves_its_directory(path in "[a./\\\\%\0]{0,12}|.{0,12}") {
            let local = local_path(&path);
            prop_assert!(local.components().all(|part| matches!(part, Component::Normal(_))) || local == Path::new(".") || local == Path::new(".."), "{local:?}");
            prop_assert!(!local.is_absolute());
        }
    }
}
