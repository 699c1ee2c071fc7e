//! Keys that are known to others, as lists of them tell: those of Debian's broken generator
//! (CVE-2008-0166), and whatever else was found in firmware, test suites and leaks.
//!
//! A list is a file of the operator's, in one of two forms. The text has a fingerprint on each line:
//! the SHA-256 of a key's SubjectPublicKeyInfo (64 hexadecimal digits), or, as the Debian package
//! openssl-blacklist has them, the last 80 bits of the SHA-1 of what `openssl rsa -noout -modulus`
//! prints (20 digits). The other is the `blocklist.dat` of the badkeys project: sorted blocks of 16
//! octets, of which 15 are the SHA-256 of a key's one number. That one is read where it lies, a few
//! blocks for each key, because it has millions of them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use data_encoding::{HEXLOWER_PERMISSIVE, HEXUPPER};
use parking_lot::Mutex;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey as ParsedKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::public_key::PublicKey;

/// Octets of the longest text; it is kept in memory, at half its size.
const MAX_TEXT_BYTES: u64 = 128 * 1024 * 1024;
/// Octets of the longest list of blocks.
const MAX_BLOCKS_BYTES: u64 = 4 * 1024 * 1024 * 1024;
/// Octets by which the forms are told apart.
const LOOKED_AT_BYTES: usize = 4096;
const BLOCK_BYTES: usize = 16;
/// Octets of a block that are of the hash.
const HASH_BYTES: usize = 15;
const MODULUS_HASH_BYTES: usize = 10;

/// A list that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the list of blocked keys {}: {problem}", path.display())]
pub struct BlockedKeysError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, where, and what is expected.
    pub problem: String,
}

/// The lists, as they are now.
#[derive(Debug, Default)]
pub struct BlockedKeys {
    lists: Mutex<Vec<Listed>>,
}

#[derive(Debug)]
struct Listed {
    path: PathBuf,
    /// By which it is seen that the file is another.
    stamp: Stamp,
    list: Arc<List>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    length: u64,
    changed: (i64, i64),
}

#[derive(Debug)]
enum List {
    Text {
        /// Sorted.
        keys: Vec<[u8; 32]>,
        /// Sorted.
        moduli: Vec<[u8; MODULUS_HASH_BYTES]>,
    },
    Blocks {
        file: File,
        blocks: u64,
    },
}

impl BlockedKeys {
    /// Reads lists.
    ///
    /// # Errors
    /// [`BlockedKeysError`], naming file and line.
    pub fn open(paths: &[PathBuf]) -> Result<Self, BlockedKeysError> {
        let lists = paths
            .iter()
            .map(|path| read(path))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            lists: Mutex::new(lists),
        })
    }

    /// Reads again what has changed since. A list that cannot be read stays as it was.
    ///
    /// # Errors
    /// The first of those; all others were read.
    pub fn reload(&self) -> Result<(), BlockedKeysError> {
        let known: Vec<_> = {
            let lists = self.lists.lock();
            lists
                .iter()
                .map(|one| (one.path.clone(), one.stamp))
                .collect()
        };
        let mut first = Ok(());
        for (path, stamp) in known {
            let again = File::open(&path)
                .and_then(|file| stamp_of(&file))
                .map_err(|error| failed(&path, &error))
                .and_then(|now| (now != stamp).then(|| read(&path)).transpose());
            match again {
                Ok(None) => {}
                Ok(Some(fresh)) => {
                    let mut lists = self.lists.lock();
                    for one in lists.iter_mut().filter(|one| one.path == path) {
                        one.stamp = fresh.stamp;
                        one.list = Arc::clone(&fresh.list);
                    }
                }
                Err(error) => first = first.and(Err(error)),
            }
        }
        first
    }

    /// The list that has a key, if one has.
    ///
    /// # Errors
    /// [`BlockedKeysError`] where a list cannot be asked; then nothing is known of the key.
    pub fn find(&self, key: &PublicKey) -> Result<Option<PathBuf>, BlockedKeysError> {
        let lists: Vec<_> = {
            let lists = self.lists.lock();
            lists
                .iter()
                .map(|one| (one.path.clone(), Arc::clone(&one.list)))
                .collect()
        };
        if lists.is_empty() {
            return Ok(None);
        }
        let prints = Fingerprints::of(key);
        for (path, list) in lists {
            let has = list.has(&prints).map_err(|error| failed(&path, &error))?;
            if has {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }
}

/// What a key is called in lists.
struct Fingerprints {
    key: [u8; 32],
    /// Of RSA keys.
    modulus: Option<[u8; MODULUS_HASH_BYTES]>,
    number: [u8; HASH_BYTES],
}

impl Fingerprints {
    fn of(key: &PublicKey) -> Self {
        let (number, modulus) = number_of(key.der());
        Self {
            key: first(digest(&SHA256, key.der()).as_ref()),
            modulus: modulus.then(|| modulus_hash(&number)),
            number: first(digest(&SHA256, &number).as_ref()),
        }
    }
}

/// The last 80 bits of the SHA-1 of `Modulus=HEX` and a line's end.
fn modulus_hash(modulus: &[u8]) -> [u8; MODULUS_HASH_BYTES] {
    let printed = format!("Modulus={}\n", HEXUPPER.encode(modulus));
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, printed.as_bytes());
    let hash = hash.as_ref();
    first(
        hash.get(hash.len() - MODULUS_HASH_BYTES..)
            .unwrap_or_default(),
    )
}

/// The number that tells a key, without leading zeros, and whether it is an RSA modulus: of others it
/// is the point's first coordinate, or the octets of an Ed25519 key.
fn number_of(der: &[u8]) -> (Vec<u8>, bool) {
    let Ok((_, info)) = SubjectPublicKeyInfo::from_der(der) else {
        return (Vec::new(), false);
    };
    let octets: &[u8] = &info.subject_public_key.data;
    let (number, rsa) = match info.parsed() {
        Ok(ParsedKey::RSA(rsa)) => (rsa.modulus.to_vec(), true),
        Ok(ParsedKey::EC(_)) => {
            let both = octets.get(1..).unwrap_or_default();
            (
                both.get(..both.len() / 2).unwrap_or_default().to_vec(),
                false,
            )
        }
        _ => (octets.to_vec(), false),
    };
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    (number.get(zeros..).unwrap_or_default().to_vec(), rsa)
}

/// The first octets; zeros where there are fewer, which no caller has.
fn first<const N: usize>(octets: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    for (to, from) in out.iter_mut().zip(octets) {
        *to = *from;
    }
    out
}

impl List {
    fn has(&self, prints: &Fingerprints) -> std::io::Result<bool> {
        match self {
            Self::Text { keys, moduli } => Ok(keys.binary_search(&prints.key).is_ok()
                || prints
                    .modulus
                    .is_some_and(|modulus| moduli.binary_search(&modulus).is_ok())),
            Self::Blocks { file, blocks } => {
                let (mut low, mut high) = (0, *blocks);
                while low < high {
                    let middle = low + (high - low) / 2;
                    let mut block = [0; BLOCK_BYTES];
                    file.read_exact_at(&mut block, middle * BLOCK_BYTES as u64)?;
                    let found: [u8; HASH_BYTES] = first(&block);
                    match found.cmp(&prints.number) {
                        std::cmp::Ordering::Equal => return Ok(true),
                        std::cmp::Ordering::Less => low = middle + 1,
                        std::cmp::Ordering::Greater => high = middle,
                    }
                }
                Ok(false)
            }
        }
    }
}

fn wrong(path: &Path, problem: impl Into<String>) -> BlockedKeysError {
    BlockedKeysError {
        path: path.to_owned(),
        problem: problem.into(),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> BlockedKeysError {
    wrong(path, error.to_string())
}

fn stamp_of(file: &File) -> std::io::Result<Stamp> {
    let facts = file.metadata()?;
    Ok(Stamp {
        inode: facts.ino(),
        length: facts.len(),
        changed: (facts.mtime(), facts.mtime_nsec()),
    })
}

fn read(path: &Path) -> Result<Listed, BlockedKeysError> {
    let io = |error: std::io::Error| failed(path, &error);
    let file = File::open(path).map_err(io)?;
    let stamp = stamp_of(&file).map_err(io)?;
    let mut begin = Vec::new();
    let mut beginning = (&file).take(LOOKED_AT_BYTES as u64);
    beginning.read_to_end(&mut begin).map_err(io)?;
    let is_text = begin
        .iter()
        .all(|octet| octet.is_ascii_graphic() || octet.is_ascii_whitespace());
    let whole = File::open(path).map_err(io)?;
    let list = if is_text {
        if stamp.length > MAX_TEXT_BYTES {
            return Err(wrong(
                path,
                format!(
                    "it has {} octets, at most {MAX_TEXT_BYTES} are read",
                    stamp.length
                ),
            ));
        }
        text(path, whole)?
    } else {
        blocks(path, whole, stamp.length)?
    };
    Ok(Listed {
        path: path.to_owned(),
        stamp,
        list: Arc::new(list),
    })
}

fn text(path: &Path, file: File) -> Result<List, BlockedKeysError> {
    let mut content = String::new();
    file.take(MAX_TEXT_BYTES)
        .read_to_string(&mut content)
        .map_err(|error| failed(path, &error))?;
    let (mut keys, mut moduli) = (Vec::new(), Vec::new());
    for (number, line) in content.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let octets = HEXLOWER_PERMISSIVE.decode(line.as_bytes());
        match octets.as_deref() {
            Ok(octets) if octets.len() == 32 => keys.push(first(octets)),
            Ok(octets) if octets.len() == MODULUS_HASH_BYTES => moduli.push(first(octets)),
            _ => {
                let shown: String = line.chars().take(70).collect();
                return Err(wrong(
                    path,
                    format!(
                        "line {}: {shown:?} is neither the SHA-256 of a SubjectPublicKeyInfo (64 hexadecimal digits) nor a line of openssl-blacklist (20)",
                        number + 1
                    ),
                ));
            }
        }
    }
    if keys.is_empty() && moduli.is_empty() {
        return Err(wrong(
            path,
            "it has no fingerprint: leave the file out where nothing is blocked",
        ));
    }
    keys.sort_unstable();
    moduli.sort_unstable();
    Ok(List::Text { keys, moduli })
}

/// Blocks that are not sorted would be found or not by chance.
fn blocks(path: &Path, file: File, length: u64) -> Result<List, BlockedKeysError> {
    if length == 0 || length > MAX_BLOCKS_BYTES || !length.is_multiple_of(BLOCK_BYTES as u64) {
        return Err(wrong(
            path,
            format!(
                "it has {length} octets, and is neither text nor blocks of {BLOCK_BYTES} octets (badkeys' blocklist.dat, unpacked)"
            ),
        ));
    }
    let blocks = length / BLOCK_BYTES as u64;
    let mut reader = BufReader::with_capacity(1024 * 1024, &file);
    let (mut block, mut before) = ([0; BLOCK_BYTES], [0; BLOCK_BYTES]);
    for number in 0..blocks {
        reader
            .read_exact(&mut block)
            .map_err(|error| failed(path, &error))?;
        if block < before {
            return Err(wrong(
                path,
                format!(
                    "block {} comes before the one before it: it is not sorted, as badkeys' blocklist.dat is",
                    number + 1
                ),
            ));
        }
        before = block;
    }
    drop(reader);
    Ok(List::Blocks { file, blocks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyPair;
    use data_encoding::{BASE64, HEXLOWER};
    use std::io::Write as _;

    /// RSA 2048, made on a system with CVE-2008-0166 (badkeys' `rsa-debianweak.key`).
    const WEAK: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwJZTDExKND/DiP+LbhTIi2F0hZZt0PdX897LLwPf3+b1GOCUj1OHBZvVqhJPJtOPE53W68I0NgVhaJdY6bFOA/cUUIFnN0y/ZOJOJsPNle1aXQTjxAS+FXu4CQ6a2pzcU+9+gGwed7XxAkIVCiTprfmRCI2vIKdb61S8kf5D3YdVRH/Tq977nxyYeosEGYJFBOIT+N0mqca37S8hA9hCJyD3p0AM40dD5M5ARAxpAT7+oqOXkPzfzLtCTaHYJK3+WAce121Br4NuQJPqYPVxniUPohT4YxFTqB7vwX2C4/gZ2ldpHtlgJVAHT96nOsnlz+EPa5GtwxtALD43CwOlWQIDAQAB";

    fn weak() -> PublicKey {
        PublicKey::from_der(&BASE64.decode(WEAK.as_bytes()).unwrap()).unwrap()
    }

    fn list(
        content: &[u8],
    ) -> (
        tempfile::NamedTempFile,
        Result<BlockedKeys, BlockedKeysError>,
    ) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let opened = BlockedKeys::open(&[file.path().to_owned()]);
        (file, opened)
    }

    fn has(content: &[u8], key: &PublicKey) -> bool {
        list(content).1.unwrap().find(key).unwrap().is_some()
    }

    fn sorted(keys: &[&PublicKey]) -> Vec<u8> {
        let mut blocks: Vec<[u8; BLOCK_BYTES]> = keys
            .iter()
            .map(|key| {
                let mut block = [3; BLOCK_BYTES];
                let number = Fingerprints::of(key).number;
                block
                    .iter_mut()
                    .zip(number)
                    .for_each(|(to, from)| *to = from);
                block
            })
            .collect();
        blocks.extend((0..=255).map(|octet| [octet; BLOCK_BYTES]));
        blocks.sort_unstable();
        blocks.concat()
    }

    #[test]
    fn a_weak_key_is_found_by_each_of_its_names_and_no_other_is() {
        let (weak, good) = (weak(), KeyPair::generate().unwrap().public().clone());
        let spki = HEXLOWER.encode(digest(&SHA256, weak.der()).as_ref());
        // As `openssl rsa -pubin -noout -modulus | sha1sum | cut -c 21-40` says it.
        let debian = "b7ead9492dfd921fc4f9";
        for text in [
            spki.clone(),
            spki.to_uppercase(),
            format!("# known\n\n  {debian}  \r\n"),
            format!("{}\n{debian}\n{spki}", "0".repeat(64)),
        ] {
            assert!(has(text.as_bytes(), &weak), "{text}");
            assert!(!has(text.as_bytes(), &good));
        }
        assert!(!has("0".repeat(20).as_bytes(), &weak));
        let blocks = sorted(&[&weak]);
        assert!(has(&blocks, &weak) && !has(&blocks, &good));
        let blocks = sorted(&[&good]);
        assert!(!has(&blocks, &weak) && has(&blocks, &good));
    }

    #[test]
    fn what_is_no_list_is_named_with_its_line() {
        for (content, said) in [
            (&b""[..], "no fingerprint"),
            (b"# nothing\n", "no fingerprint"),
            (b"# x\nabcd\n", "line 2: \"abcd\""),
            (b"00112233445566778899\nzz112233445566778899\n", "line 2"),
            (&[0xff; 17], "blocks of 16"),
            (&[[9; 16], [8; 16]].concat(), "block 2"),
        ] {
            let error = list(content).1.unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let missing = BlockedKeys::open(&["/no/such/list".into()]).unwrap_err();
        assert!(missing.to_string().contains("/no/such/list"));
    }

    #[test]
    fn a_list_that_changed_is_read_again_and_one_that_broke_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("list");
        let replace = |content: &str| {
            let next = dir.path().join("next");
            std::fs::write(&next, content).unwrap();
            std::fs::rename(&next, &path).unwrap();
        };
        let weak = weak();
        let spki = HEXLOWER.encode(digest(&SHA256, weak.der()).as_ref());
        replace(&"0".repeat(64));
        let blocked = BlockedKeys::open(std::slice::from_ref(&path)).unwrap();
        assert_eq!(blocked.find(&weak).unwrap(), None);
        replace(&spki);
        blocked.reload().unwrap();
        assert_eq!(blocked.find(&weak).unwrap(), Some(path.clone()));
        replace("broken");
        assert!(blocked.reload().is_err());
        assert_eq!(blocked.find(&weak).unwrap(), Some(path.clone()));
        std::fs::remove_file(&path).unwrap();
        assert!(blocked.reload().is_err());
        assert_eq!(blocked.find(&weak).unwrap(), Some(path.clone()));
    }
}
