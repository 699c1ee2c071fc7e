//! The verifier with a face of its own: a TUF client of any repository, without a server or an identity.
//! What is believed is `ota::tuf`'s to say; here are its transport and its files.

mod remote;
mod trusted;

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ota::tuf::{
    Client, Datastore as _, MAX_ROOT_BYTES, Target, TargetCheck, TufError, file_name, verify_root,
};

use crate::{AgentError, Identity};
use remote::Remote;
use trusted::{TEMPORARY, TrustedFiles, store, temporary_name};

/// Bytes of a target that are held at once.
const CHUNK: usize = 64 * 1024;

/// Which repository, and where what is trusted of it is kept.
#[derive(Debug)]
pub struct Source {
    /// Holds exactly the trusted metadata files.
    pub metadata_dir: PathBuf,
    /// The repository's metadata, `http://` or `https://`.
    pub metadata_url: String,
    /// PEM certificates that an `https://` repository's certificate must lead to.
    pub ca: Option<PathBuf>,
    /// Who asks, where the repository wants to know; its root certificate then stands in for `ca`.
    pub identity: Option<Identity>,
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
    let mut remote = Remote::new(&wanted.base_url, source)?;
    for name in &wanted.names {
        let target = client.target(name)?;
        let path = place(&wanted.dir, target.path()).ok_or_else(|| TufError::Store {
            why: format!("target `{name}` has no name that a file can have"),
        })?;
        if !is_there(&target, &path)? {
            fetch(&target, &mut remote, &path)?;
        }
        got(name, &path);
    }
    Ok(())
}

fn fresh(source: &Source, now: SystemTime) -> Result<Client<Remote, TrustedFiles>, AgentError> {
    let remote = Remote::new(&source.metadata_url, source)?;
    let files = TrustedFiles::open(&source.metadata_dir)?;
    let mut client = Client::open(remote, files, now)?;
    client.refresh()?;
    Ok(client)
}

/// Where a target is put in a directory as it is now. A path names one target and nothing else, so that a repository
/// may have both `a` and `a/b` (TUF 1.0 §4.5): whichever of them comes second lies in a file named by the whole path.
fn place(dir: &Path, path: &str) -> Option<PathBuf> {
    let local = dir.join(local_path(path)?);
    let below = local.ancestors().skip(1).take_while(|above| *above != dir);
    let taken = local.is_dir() || below.into_iter().any(Path::is_file);
    if taken {
        return encoded(path).map(|name| dir.join(name));
    }
    Some(local)
}

/// Where below the target directory a target is put: at its path, and where that would lead elsewhere, or to where
/// another's is, in a file named by the whole path, percent-encoded.
fn local_path(path: &str) -> Option<PathBuf> {
    if path.split('/').all(own) {
        return Some(PathBuf::from(path));
    }
    encoded(path)
}

/// Whether nothing else is called so: neither a path that is percent-encoded, nor what is being written.
fn own(part: &str) -> bool {
    plain(part) && !part.contains('%') && !part.starts_with(TEMPORARY)
}

/// A path percent-encoded as one name, which is not the path itself: where nothing in it must be encoded, its first
/// letter is.
fn encoded(path: &str) -> Option<PathBuf> {
    let name = file_name(path);
    let name = name.strip_suffix(".json").filter(|name| plain(name))?;
    if name != path {
        return Some(PathBuf::from(name));
    }
    let (first, rest) = path.as_bytes().split_first()?;
    let rest = std::str::from_utf8(rest).ok()?;
    Some(PathBuf::from(format!("%{first:02X}{rest}")))
}

/// Whether a file can be called so, in the directory that it is in.
fn plain(part: &str) -> bool {
    !["", ".", ".."].contains(&part) && !part.contains('\0')
}

/// Whether the target lies at `path` already, whole.
fn is_there(target: &Target, path: &Path) -> Result<bool, TufError> {
    if !fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == target.length()) {
        return Ok(false);
    }
    let Ok(mut file) = File::open(path) else {
        return Ok(false);
    };
    let mut check = target.check()?;
    let read = pump(&mut file, store(path), |bytes| check.update(bytes));
    Ok(read.is_ok() && check.finish().is_ok())
}

/// Gets the target beside its place and moves it there when all of it is right.
fn fetch(target: &Target, remote: &mut Remote, path: &Path) -> Result<(), TufError> {
    let check = target.check()?;
    let mut body = remote.target(&target.remote_path())?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(store(parent))?;
    }
    let part = path.with_file_name(temporary_name(target.path()));
    let done = write(target, &mut body, check, &part)
        .and_then(|()| fs::rename(&part, path).map_err(store(path)));
    if done.is_err() {
        let _ = fs::remove_file(&part);
    }
    done
}

fn write(
    target: &Target,
    body: &mut dyn Read,
    mut check: TargetCheck,
    part: &Path,
) -> Result<(), TufError> {
    let broken = |error: io::Error| TufError::Fetch {
        why: format!("target `{}`: {error}", target.path()),
    };
    let mut file = File::create(part).map_err(store(part))?;
    pump(body, broken, |bytes| {
        check.update(bytes)?;
        file.write_all(bytes).map_err(store(part))
    })?;
    check.finish()?;
    file.sync_all().map_err(store(part))
}

/// Gives all that is read to `to`; a failed read becomes `fault`.
fn pump(
    from: &mut dyn Read,
    fault: impl Fn(io::Error) -> TufError,
    mut to: impl FnMut(&[u8]) -> Result<(), TufError>,
) -> Result<(), TufError> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to(buffer.get(..count).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(fault(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

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
            ("a\0", "a%00"),
            // What others could be called.
            ("a%2Fb", "a%252Fb"),
            ("%2Fetc%2Fpasswd", "%252Fetc%252Fpasswd"),
            ("100%/b", "100%25%2Fb"),
            (".part-00", "%2Epart-00"),
            ("a/.part-00", "a%2F.part-00"),
            (".parts/a", ".parts/a"),
        ] {
            assert_eq!(local_path(path).unwrap(), Path::new(local), "{path}");
        }
        for path in ["", ".", ".."] {
            assert_eq!(local_path(path), None, "{path}");
        }
    }

    #[test]
    fn a_file_and_a_directory_of_one_name_lie_beside_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| place(dir.path(), path).unwrap();
        assert_eq!(at("a"), dir.path().join("a"));
        fs::write(at("a"), "file").unwrap();
        assert_eq!(at("a"), dir.path().join("a"), "where it lies it stays");
        assert_eq!(at("a/b"), dir.path().join("a%2Fb"));
        assert_eq!(at("a/b/c"), dir.path().join("a%2Fb%2Fc"));
        fs::create_dir(dir.path().join("d")).unwrap();
        assert_eq!(at("d/e"), dir.path().join("d/e"));
        assert_eq!(at("d"), dir.path().join("%64"));
        fs::create_dir(dir.path().join("d/e")).unwrap();
        assert_eq!(at("d/e"), dir.path().join("d%2Fe"));
    }

    #[test]
    fn a_name_being_written_is_short_and_its_own() {
        let long = "n".repeat(250);
        let names: Vec<String> = ["a", "a/b", &long].map(temporary_name).into();
        assert!(names.iter().all(|name| name.len() < 30), "{names:?}");
        assert!(names[0] != names[1] && names[1] != names[2]);
        assert_eq!(temporary_name("a"), names[0]);
    }

    proptest! {
        #[test]
        fn no_two_targets_lie_in_one_file(
            one in "[a%2F./]{1,8}|(%2F|%252F|\\.part-|[a/.]){1,5}",
            other in "[a%2F./]{1,8}|(%2F|%252F|\\.part-|[a/.]){1,5}",
        ) {
            let places = |path: &str| {
                let own = [local_path(path), encoded(path)];
                own.into_iter().flatten().collect::<Vec<_>>()
            };
            if one != other {
                for place in places(&one) {
                    prop_assert!(!places(&other).contains(&place), "{place:?}");
                }
            }
        }

        #[test]
        fn no_target_leaves_its_directory(path in "[a./\\\\%\0]{0,12}|.{0,12}") {
            for local in [local_path(&path), encoded(&path)].into_iter().flatten() {
                prop_assert!(local.components().next().is_some(), "{local:?}");
                prop_assert!(local.components().all(|part| matches!(part, Component::Normal(_))), "{local:?}");
            }
        }
    }
}
