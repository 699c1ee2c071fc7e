//! Whose certificates the connections show: one for all, numbered ones, or those of a directory.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::BenchError;
use crate::template::{self, Values};

/// A certificate with its chain and key.
#[derive(Debug)]
pub(crate) struct Certificate {
    /// Its file's name without `.crt`.
    pub(crate) name: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// Reads up to `wanted` certificates; at least one.
///
/// # Errors
/// When there is none, or one cannot be read.
pub(crate) fn read(
    certificate: &Path,
    key: Option<&Path>,
    wanted: u32,
) -> Result<Vec<Certificate>, BenchError> {
    files(certificate, key, wanted as usize)?
        .into_iter()
        .map(|(certificate, key)| {
            let name = certificate.file_stem().unwrap_or_default();
            Ok(Certificate {
                name: name.to_string_lossy().into_owned(),
                chain: chain(&certificate)?,
                key: PrivateKeyDer::from_pem_file(&key).map_err(|cause| file(&key, &cause))?,
            })
        })
        .collect()
}

/// The certificates of a PEM file; at least one.
///
/// # Errors
/// [`BenchError::File`].
pub(crate) fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, BenchError> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|cause| file(path, &cause))?;
    if chain.is_empty() {
        return Err(file(path, &"there is no certificate in it"));
    }
    Ok(chain)
}

fn files(
    certificate: &Path,
    key: Option<&Path>,
    wanted: usize,
) -> Result<Vec<(PathBuf, PathBuf)>, BenchError> {
    let text = certificate.to_string_lossy();
    let refused = |mend: String| BenchError::Flag {
        flag: "--cert",
        value: text.clone().into_owned(),
        mend,
    };
    if certificate.is_dir() {
        if key.is_some() {
            return Err(refused(
                "a directory has its keys beside the certificates: leave --key away".into(),
            ));
        }
        let mut pairs = pairs_in(certificate, true)?;
        pairs.sort();
        pairs.truncate(wanted);
        if pairs.is_empty() {
            return Err(refused(
                "the directory has no NAME.crt with its NAME.key, nor has one right below it"
                    .into(),
            ));
        }
        return Ok(pairs);
    }
    let Some(key) = key else {
        return Err(refused("give its key with --key".into()));
    };
    let key_text = key.to_string_lossy();
    if !text.contains("%i") {
        return Ok(vec![(certificate.to_owned(), key.to_owned())]);
    }
    if !key_text.contains("%i") {
        return Err(refused("where --cert has %i, --key needs it too".into()));
    }
    let numbered = |number: usize| {
        let number = number.to_string();
        let values = Values {
            number: &number,
            role: "%r",
            name: "%n",
        };
        let certificate = template::fill("--cert", &text, values)?;
        let key = template::fill("--key", &key_text, values)?;
        Ok((PathBuf::from(certificate), PathBuf::from(key)))
    };
    let mut pairs = Vec::new();
    let from = usize::from(!numbered(0)?.0.exists());
    while pairs.len() < wanted {
        let pair: (PathBuf, PathBuf) = numbered(from + pairs.len())?;
        if !pair.0.exists() {
            break;
        }
        pairs.push(pair);
    }
    if pairs.is_empty() {
        return Err(refused("no such file, numbered from 0 or from 1".into()));
    }
    Ok(pairs)
}

/// Every `NAME.crt` with its `NAME.key`, in the directory or, where `deeper`, in one right below it.
fn pairs_in(directory: &Path, deeper: bool) -> Result<Vec<(PathBuf, PathBuf)>, BenchError> {
    let entries = fs::read_dir(directory).map_err(|cause| file(directory, &cause))?;
    let mut pairs = Vec::new();
    for entry in entries {
        let path = entry.map_err(|cause| file(directory, &cause))?.path();
        if path.is_dir() {
            if deeper {
                pairs.extend(pairs_in(&path, false)?);
            }
            continue;
        }
        let key = path.with_extension("key");
        if path.extension().is_some_and(|extension| extension == "crt") && key.exists() {
            pairs.push((path, key));
        }
    }
    Ok(pairs)
}

fn file(path: &Path, cause: &impl std::fmt::Display) -> BenchError {
    BenchError::File {
        path: path.to_owned(),
        cause: cause.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(directory: &Path, names: &[&str]) {
        for name in names {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    fn names(certificate: PathBuf, key: Option<PathBuf>, wanted: usize) -> Vec<String> {
        let found = files(&certificate, key.as_deref(), wanted).unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        found
            .iter()
            .map(|(crt, key)| format!("{} {}", name(crt), name(key)))
            .collect()
    }

    #[test]
    fn a_directory_gives_every_certificate_that_has_its_key() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        touch(
            place,
            &[
                "b.crt",
                "b.key",
                "root.crt",
                "a/a.crt",
                "a/a.key",
                "a/root.crt",
                "notes",
            ],
        );
        assert_eq!(names(place.into(), None, 9), ["a.crt a.key", "b.crt b.key"]);
        assert_eq!(names(place.into(), None, 1), ["a.crt a.key"]);
        let error = files(place, Some(Path::new("k")), 1).unwrap_err();
        assert!(error.to_string().contains("leave --key away"), "{error}");
        let empty = tempfile::tempdir().unwrap();
        let error = files(empty.path(), None, 1).unwrap_err().to_string();
        assert!(error.contains("NAME.crt"), "{error}");
    }

    #[test]
    fn numbered_files_begin_at_0_or_1_and_end_where_one_is_missing() {
        for (first, expected) in [
            (0, ["0.crt 0.key", "1.crt 1.key", "2.crt 2.key"]),
            (1, ["1.crt 1.key", "2.crt 2.key", "3.crt 3.key"]),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let place = directory.path();
            for number in (first..first + 3).chain([7]) {
                touch(place, &[&format!("{number}.crt"), &format!("{number}.key")]);
            }
            let (crt, key) = (place.join("%i.crt"), place.join("%i.key"));
            assert_eq!(names(crt.clone(), Some(key.clone()), 9), expected);
            assert_eq!(names(crt, Some(key), 2), expected[..2]);
        }
    }

    #[test]
    fn what_does_not_go_is_said_with_what_would() {
        for (crt, key, said) in [
            ("/nowhere/a.crt", None, "--key"),
            (
                "/nowhere/%i.crt",
                Some("/nowhere/a.key"),
                "--key needs it too",
            ),
            (
                "/nowhere/%i.crt",
                Some("/nowhere/%i.key"),
                "from 0 or from 1",
            ),
        ] {
            let error = files(Path::new(crt), key.map(Path::new), 3).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        let error = read(Path::new("/nowhere/a.crt"), Some(Path::new("/a.key")), 1).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/a.crt: "), "{error}");
    }
}
