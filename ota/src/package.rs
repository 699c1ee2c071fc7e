//! The package file: a plain tar of exactly two members, `manifest.json` then `image`, streamed both ways.
//! The manifest comes first so that a reader can refuse before it has stored a byte of the image.

use std::io::{Read, Write};

use crate::Error;
use crate::manifest::{MAX_IMAGE_BYTES, MAX_MANIFEST_BYTES};

/// First member.
pub const MANIFEST_MEMBER: &str = "manifest.json";
/// Second member.
pub const IMAGE_MEMBER: &str = "image";
/// Zero bytes that may follow the archive's first end block (tar pads to records of 10 KiB).
pub const MAX_PADDING_BYTES: u64 = 20 * 1024;

fn refuse(why: impl Into<String>) -> Error {
    Error::Package { why: why.into() }
}

/// Writes a package of a signed manifest and its image of `size` bytes.
///
/// # Errors
/// [`Error::Io`]; [`Error::Package`] where the image has another size by now.
pub fn write(out: impl Write, manifest: &[u8], image: impl Read, size: u64) -> Result<(), Error> {
    let io = |source| Error::Io {
        what: "writing the package",
        source,
    };
    let mut builder = tar::Builder::new(out);
    builder
        .append(&header(MANIFEST_MEMBER, manifest.len() as u64)?, manifest)
        .map_err(io)?;
    let mut counted = Counted {
        from: image.take(size),
        read: 0,
    };
    builder
        .append(&header(IMAGE_MEMBER, size)?, &mut counted)
        .map_err(io)?;
    if counted.read != size {
        return Err(refuse(format!(
            "the image ended after {} of {size} bytes while it was written",
            counted.read
        )));
    }
    builder
        .into_inner()
        .and_then(|mut out| out.flush())
        .map_err(io)
}

fn header(path: &str, size: u64) -> Result<tar::Header, Error> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).map_err(|source| Error::Io {
        what: "writing the package",
        source,
    })?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    Ok(header)
}

struct Counted<R> {
    from: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// Reads a package as it streams in: `take` gets the manifest's bytes, the image's size and the image.
/// What it returns counts only if the whole file was as it should be, so `take` must not make anything
/// lasting before [`read`] has returned.
///
/// # Errors
/// [`Error::Package`] for anything that is not exactly two members in order; what `take` says.
pub fn read<T>(
    from: impl Read,
    take: impl FnOnce(Vec<u8>, u64, &mut dyn Read) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut archive = tar::Archive::new(from);
    // Raw entries: the extensions of tar (long names, pax, sparse) are members like others here, and
    // refused like others.
    let mut entries = archive.entries().map_err(not_tar)?.raw(true);

    let mut first = member(entries.next(), MANIFEST_MEMBER, MAX_MANIFEST_BYTES as u64)?;
    let length = first.size();
    let mut manifest = Vec::new();
    first.read_to_end(&mut manifest).map_err(not_tar)?;
    if manifest.len() as u64 != length {
        return Err(refuse(format!("it ends within `{MANIFEST_MEMBER}`")));
    }

    let mut second = member(entries.next(), IMAGE_MEMBER, MAX_IMAGE_BYTES)?;
    let size = second.size();
    let taken = take(manifest, size, &mut second)?;
    std::io::copy(&mut second, &mut std::io::sink()).map_err(not_tar)?;

    if let Some(extra) = entries.next() {
        let extra = extra.map_err(not_tar)?;
        return Err(refuse(format!(
            "it holds a third member `{}`",
            shown(&extra.path_bytes())
        )));
    }
    let mut rest = archive.into_inner().take(MAX_PADDING_BYTES + 1);
    let mut buffer = vec![0; 4096];
    let mut padding = 0;
    loop {
        let read = crate::image::read_some(&mut rest, &mut buffer)?;
        if read.is_empty() {
            return Ok(taken);
        }
        padding += read.len() as u64;
        if padding > MAX_PADDING_BYTES || read.iter().any(|byte| *byte != 0) {
            return Err(refuse("something follows the end of the archive"));
        }
    }
}

fn member<'a, R: Read>(
    entry: Option<std::io::Result<tar::Entry<'a, R>>>,
    name: &'static str,
    bound: u64,
) -> Result<tar::Entry<'a, R>, Error> {
    let entry = entry
        .ok_or_else(|| refuse(format!("it has no member `{name}`")))?
        .map_err(not_tar)?;
    let path = entry.path_bytes();
    if *path != *name.as_bytes() {
        return Err(refuse(format!(
            "its member is `{}` where `{name}` should be",
            shown(&path)
        )));
    }
    drop(path);
    if entry.header().entry_type() != tar::EntryType::Regular {
        return Err(refuse(format!("its member `{name}` is not a plain file")));
    }
    let bytes = entry.size();
    if bytes > bound {
        return Err(Error::TooLarge {
            what: name,
            bytes,
            bound,
        });
    }
    Ok(entry)
}

fn shown(path: &[u8]) -> String {
    path.escape_ascii().to_string().chars().take(100).collect()
}

fn not_tar(error: std::io::Error) -> Error {
    // An error of the stream below (a dropped upload) is that; tar's own complaints are of kind Other.
    if matches!(
        error.kind(),
        std::io::ErrorKind::Other | std::io::ErrorKind::InvalidData
    ) {
        return refuse(error.to_string());
    }
    Error::Io {
        what: "reading the package",
        source: error,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn package(manifest: &[u8], image: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut bytes, manifest, image, image.len() as u64).unwrap();
        bytes
    }

    fn tar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            builder
                .append(&header(name, bytes.len() as u64).unwrap(), *bytes)
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn open(bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Error> {
        read(bytes, |manifest, size, image| {
            let mut whole = Vec::new();
            image.read_to_end(&mut whole).map_err(not_tar)?;
            assert!(whole.len() as u64 <= size);
            Ok((manifest, whole))
        })
    }

    fn words(bytes: &[u8]) -> String {
        open(bytes).unwrap_err().to_string()
    }

    #[test]
    fn what_was_written_is_read() {
        let (manifest, image) = open(&package(b"{}", b"binary")).unwrap();
        assert_eq!(
            (manifest.as_slice(), image.as_slice()),
            (&b"{}"[..], &b"binary"[..])
        );
    }

    #[test]
    fn order_names_and_number_of_members_are_checked() {
        assert!(
            words(&tar_of(&[("image", b"x"), ("manifest.json", b"{}")]))
                .contains("`image` where `manifest.json`")
        );
        assert!(words(&tar_of(&[("manifest.json", b"{}")])).contains("no member `image`"));
        assert!(
            words(&tar_of(&[
                ("manifest.json", b"{}"),
                ("image", b"x"),
                ("sub/evil", b"x")
            ]))
            .contains("third member `sub/evil`")
        );
        assert!(words(b"").contains("no member `manifest.json`"));
        assert!(words(b"#!/bin/sh\necho this is no archive").contains("not a firmware package"));
    }

    #[test]
    fn links_and_extensions_are_no_members() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut link = header("manifest.json", 0).unwrap();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_link_name("/etc/passwd").unwrap();
        link.set_cksum();
        builder.append(&link, std::io::empty()).unwrap();
        assert!(words(&builder.into_inner().unwrap()).contains("not a plain file"));
    }

    #[test]
    fn sizes_past_the_bound_are_refused_before_they_are_read() {
        let huge = header("manifest.json", MAX_MANIFEST_BYTES as u64 + 1).unwrap();
        assert!(words(huge.as_bytes()).contains("at most 1048576"));
        let at_bound = vec![b' '; MAX_MANIFEST_BYTES];
        assert!(open(&package(&at_bound, b"x")).is_ok());
        let mut bytes = package(b"{}", b"x");
        bytes.truncate(1024);
        bytes.extend_from_slice(header("image", MAX_IMAGE_BYTES + 1).unwrap().as_bytes());
        assert!(words(&bytes).contains("at most 4294967296"));
    }

    #[test]
    fn nothing_may_follow_but_zeros() {
        let mut bytes = package(b"{}", b"x");
        // The writer gave two end blocks; the second is padding already.
        bytes.extend(vec![0; MAX_PADDING_BYTES as usize - 512]);
        assert!(open(&bytes).is_ok());
        bytes.push(0);
        assert!(words(&bytes).contains("follows the end"));
        let mut bytes = package(b"{}", b"x");
        bytes.push(1);
        assert!(words(&bytes).contains("follows the end"));
    }

    #[test]
    fn an_image_that_shrank_is_not_packed() {
        let error = write(Vec::new(), b"{}", &b"abc"[..], 4)
            .unwrap_err()
            .to_string();
        assert!(error.contains("ended after 3 of 4"), "{error}");
    }

    proptest! {
        #[test]
        fn mutated_packages_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = package(b"{\"signed\":{}}", b"some image");
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
            let _ = open(&bytes);
        }
    }
}
