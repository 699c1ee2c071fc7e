//! The package file: a plain tar of `manifest.json`, then `image`, then one `delta.N` for each delta that
//! the manifest names, from 0 in its order; streamed both ways. The manifest comes first so that a reader
//! can refuse before it has stored a byte of the image.

use std::io::{Read, Write};

use crate::image::{Content, ImageCheck};
use crate::manifest::{MAX_IMAGE_BYTES, MAX_MANIFEST_BYTES};
use crate::{Error, Manifest, ReleaseKey};

/// First member.
pub const MANIFEST_MEMBER: &str = "manifest.json";
/// Second member.
pub const IMAGE_MEMBER: &str = "image";
/// What the members after that are called, before their number.
const DELTA_MEMBER: &str = "delta.";
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
    write_with_deltas::<&[u8]>(out, manifest, image, size, Vec::new())
}

/// As [`write`], with the deltas that the manifest names, in its order, each with its size.
///
/// # Errors
/// As [`write`].
pub fn write_with_deltas<D: Read>(
    out: impl Write,
    manifest: &[u8],
    image: impl Read,
    size: u64,
    deltas: Vec<(D, u64)>,
) -> Result<(), Error> {
    let io = |source| Error::Io {
        what: "writing the package",
        source,
    };
    let mut builder = tar::Builder::new(out);
    builder
        .append(&header(MANIFEST_MEMBER, manifest.len() as u64)?, manifest)
        .map_err(io)?;
    append(&mut builder, IMAGE_MEMBER, image, size)?;
    for (number, (delta, size)) in deltas.into_iter().enumerate() {
        append(
            &mut builder,
            &format!("{DELTA_MEMBER}{number}"),
            delta,
            size,
        )?;
    }
    builder
        .into_inner()
        .and_then(|mut out| out.flush())
        .map_err(io)
}

/// Writes a package anew with further signatures of `keys` on its manifest, so that holders of release keys can sign one
/// after the other, each on their own machine. All else is as it was, and is held against the manifest: nobody signs for an
/// image that is not there.
///
/// # Errors
/// As [`read`] and [`write()`]; [`Error::Malformed`] where its manifest is none.
pub fn co_sign(from: impl Read, out: impl Write, keys: &[ReleaseKey]) -> Result<Manifest, Error> {
    let begin = |manifest: Vec<u8>, size, image: &mut dyn Read| {
        let stated = Manifest::stated(&manifest)?;
        let signed = crate::co_sign(&manifest, keys)?;
        let mut builder = tar::Builder::new(out);
        builder
            .append(&header(MANIFEST_MEMBER, signed.len() as u64)?, &signed[..])
            .map_err(|source| Error::Io {
                what: "writing the package",
                source,
            })?;
        let check = ImageCheck::new(&stated);
        pass_on(&mut builder, IMAGE_MEMBER, image, size, check)?;
        let deltas = stated.deltas.len();
        Ok(((builder, stated), deltas))
    };
    let (builder, manifest) =
        read_with_deltas(from, begin, |(builder, manifest), number, size, delta| {
            let source = manifest.deltas.get(number);
            let source = source.ok_or_else(|| refuse("it has more deltas than it names"))?;
            let check = ImageCheck::new(Content::delta(manifest, source));
            pass_on(
                builder,
                &format!("{DELTA_MEMBER}{number}"),
                delta,
                size,
                check,
            )
        })?;
    let io = |source| Error::Io {
        what: "writing the package",
        source,
    };
    builder
        .into_inner()
        .and_then(|mut out| out.flush())
        .map_err(io)?;
    Ok(manifest)
}

/// As [`append`], of what must pass a check.
fn pass_on(
    builder: &mut tar::Builder<impl Write>,
    name: &str,
    from: &mut dyn Read,
    size: u64,
    check: ImageCheck<'_>,
) -> Result<(), Error> {
    let mut checked = Checked {
        from,
        check,
        wrong: None,
    };
    let done = append(builder, name, &mut checked, size);
    match checked.wrong {
        Some(wrong) => Err(wrong),
        None => done.and_then(|()| checked.check.finish()),
    }
}

/// A stream that ends where it is not what was signed.
struct Checked<'r, 'm> {
    from: &'r mut dyn Read,
    check: ImageCheck<'m>,
    wrong: Option<Error>,
}

impl Read for Checked<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.from.read(buffer)?;
        let bytes = buffer.get(..read).unwrap_or_default();
        match self.check.update(bytes) {
            Ok(()) => Ok(read),
            Err(wrong) => {
                self.wrong = Some(wrong);
                Err(std::io::ErrorKind::InvalidData.into())
            }
        }
    }
}

fn append(
    builder: &mut tar::Builder<impl Write>,
    name: &str,
    from: impl Read,
    size: u64,
) -> Result<(), Error> {
    let mut counted = Counted {
        from: from.take(size),
        read: 0,
    };
    builder
        .append(&header(name, size)?, &mut counted)
        .map_err(|source| Error::Io {
            what: "writing the package",
            source,
        })?;
    if counted.read != size {
        return Err(refuse(format!(
            "the {name} ended after {} of {size} bytes while it was written",
            counted.read
        )));
    }
    Ok(())
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

/// Reads a package without deltas as it streams in: `take` gets the manifest's bytes, the image's size and the image.
/// What it returns counts only if the whole file was as it should be, so `take` must not make anything
/// lasting before [`read`] has returned.
///
/// # Errors
/// [`Error::Package`] for anything that is not exactly two members in order; what `take` says.
pub fn read<T>(
    from: impl Read,
    take: impl FnOnce(Vec<u8>, u64, &mut dyn Read) -> Result<T, Error>,
) -> Result<T, Error> {
    let take = |manifest, size, image: &mut dyn Read| Ok((take(manifest, size, image)?, 0));
    read_with_deltas(from, take, |_, _, _, _| Ok(()))
}

/// As [`read`]; `take` also says how many deltas the manifest names, and `delta` gets each: what `take`
/// made, the delta's number, its size and its bytes.
///
/// # Errors
/// As [`read`]; what `delta` says.
pub fn read_with_deltas<T>(
    from: impl Read,
    take: impl FnOnce(Vec<u8>, u64, &mut dyn Read) -> Result<(T, usize), Error>,
    mut delta: impl FnMut(&mut T, usize, u64, &mut dyn Read) -> Result<(), Error>,
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
    let (mut taken, deltas) = take(manifest, size, &mut second)?;
    std::io::copy(&mut second, &mut std::io::sink()).map_err(not_tar)?;

    for number in 0..deltas {
        let name = format!("{DELTA_MEMBER}{number}");
        let mut next = member(entries.next(), &name, MAX_IMAGE_BYTES)?;
        let size = next.size();
        delta(&mut taken, number, size, &mut next)?;
        std::io::copy(&mut next, &mut std::io::sink()).map_err(not_tar)?;
    }
    if let Some(extra) = entries.next() {
        let extra = extra.map_err(not_tar)?;
        return Err(refuse(format!(
            "it holds a member `{}` that its manifest does not name",
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
    name: &str,
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
        let what = if name == MANIFEST_MEMBER {
            MANIFEST_MEMBER
        } else {
            IMAGE_MEMBER
        };
        return Err(Error::TooLarge { what, bytes, bound });
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
        // In tar's own words stands what it read, which may be any file at all.
        return refuse("it is no archive as `muster firmware sign` writes it");
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
            .contains("a member `sub/evil` that its manifest does not name")
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
    fn deltas_follow_in_the_order_of_their_numbers() {
        let with = |deltas: Vec<(&[u8], u64)>| {
            let mut bytes = Vec::new();
            write_with_deltas(&mut bytes, b"{}", &b"x"[..], 1, deltas).unwrap();
            bytes
        };
        let open = |bytes: &[u8], count: usize| {
            read_with_deltas(
                bytes,
                |_, _, _| Ok((Vec::new(), count)),
                |found, number, size, delta| {
                    let mut bytes = Vec::new();
                    delta.read_to_end(&mut bytes).map_err(not_tar)?;
                    found.push((number, size, bytes));
                    Ok(())
                },
            )
        };
        assert_eq!(with(Vec::new()), package(b"{}", b"x"), "the same bytes");
        let two = with(vec![(b"one", 3), (b"2", 1)]);
        assert_eq!(
            open(&two, 2).unwrap(),
            [(0, 3, b"one".to_vec()), (1, 1, b"2".to_vec())]
        );
        let said = open(&two, 3).unwrap_err().to_string();
        assert!(said.contains("no member `delta.2`"), "{said}");
        let said = open(&two, 1).unwrap_err().to_string();
        assert!(said.contains("`delta.1` that its manifest"), "{said}");
        let turned = tar_of(&[("manifest.json", b"{}"), ("image", b"x"), ("delta.1", b"x")]);
        let said = open(&turned, 1).unwrap_err().to_string();
        assert!(said.contains("`delta.1` where `delta.0`"), "{said}");
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
