//! Delta images: what turns the image a device has into the next one, made offline and applied as a
//! stream. The patch is bsdiff's (control, difference and extra bytes of one record after the other, as
//! Matthew Endsley orders them) under zlib, so that applying it needs the old image by seeks and a fixed
//! amount of memory, however large either image is.
//!
//! Nothing here is trusted: a patch is fetched against signed hashes, and what it makes is checked
//! against the signed image like any other.

use std::io::{self, Read, Seek, SeekFrom, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use crate::Error;

/// Largest image, old or new, that a patch is made of: making one takes about 18 times the old image's
/// bytes of memory. Larger images are sent whole.
pub const MAX_DELTA_IMAGE_BYTES: u64 = 512 * 1024 * 1024;

/// What a patch begins with.
const MAGIC: &[u8; 8] = b"MSTRDLT1";
/// A record's head: bytes to add to the old image's, bytes to take as they are, bytes to skip in the old
/// image; each little-endian with its sign in the top bit.
const CONTROL_BYTES: usize = 24;
/// Bytes worked on at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Writes the patch that makes `new` out of `old`.
///
/// # Errors
/// [`Error::TooLarge`] past [`MAX_DELTA_IMAGE_BYTES`], [`Error::Io`] where `out` fails.
pub fn make(old: &[u8], new: &[u8], mut out: impl Write) -> Result<(), Error> {
    for (what, image) in [("old image of a delta", old), ("new image of a delta", new)] {
        if image.len() as u64 > MAX_DELTA_IMAGE_BYTES {
            return Err(Error::TooLarge {
                what,
                bytes: image.len() as u64,
                bound: MAX_DELTA_IMAGE_BYTES,
            });
        }
    }
    let write = |source| Error::Io {
        what: "writing a delta",
        source,
    };
    out.write_all(MAGIC).map_err(write)?;
    let mut packed = ZlibEncoder::new(out, Compression::best());
    bsdiff::diff(old, new, &mut packed).map_err(write)?;
    packed
        .finish()
        .and_then(|mut out| out.flush())
        .map_err(write)
}

/// Applies a patch: reads `old` where the patch says, and gives `take` the `size` bytes of the new image
/// in order. Stops at the byte of which `size` is the last, whatever else the patch holds.
///
/// # Errors
/// [`Error::Delta`] where the patch is damaged, reads outside `old`, or makes more or fewer bytes;
/// [`Error::Io`] where `old` cannot be read; what `take` says.
pub fn apply<E: From<Error>>(
    mut patch: impl Read,
    mut old: impl Read + Seek,
    size: u64,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut magic = [0; MAGIC.len()];
    patch.read_exact(&mut magic).map_err(damaged)?;
    if &magic != MAGIC {
        return Err(refuse("it is no delta that this release can read").into());
    }
    let old_size = old.seek(SeekFrom::End(0)).map_err(unreadable)?;
    let mut records = ZlibDecoder::new(patch);
    let mut piece = [0; PIECE_BYTES];
    let mut before = [0; PIECE_BYTES];
    let (mut made, mut at, mut count) = (0, 0_i64, 0);
    while made < size {
        let mut control = [0; CONTROL_BYTES];
        records.read_exact(&mut control).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                return refuse(format!("it ends after {made} of {size} bytes"));
            }
            damaged(error)
        })?;
        let (add, copy, skip) = read_control(&control)?;
        // A record may make nothing: the first only says where to begin, and others where the match before
        // them was extended as far as they reach. Each is of another byte of the image, though; more would
        // be work without an end.
        count += 1;
        if count > size.saturating_add(1) {
            return Err(refuse("its records make nothing").into());
        }
        let length = add.saturating_add(copy);
        if length > size - made {
            return Err(refuse(format!(
                "it makes more than the {size} bytes that were signed"
            ))
            .into());
        }
        if add > 0 {
            let from = u64::try_from(at).unwrap_or(u64::MAX);
            if from.saturating_add(add) > old_size {
                return Err(refuse(format!(
                    "it reads {add} bytes at byte {at} of the old image, which has {old_size}"
                ))
                .into());
            }
            old.seek(SeekFrom::Start(from)).map_err(unreadable)?;
        }
        let mut left = length;
        while left > 0 {
            let adding = add.saturating_sub(length - left);
            let most = if adding > 0 { adding } else { left };
            let count = usize::try_from(most)
                .unwrap_or(PIECE_BYTES)
                .min(PIECE_BYTES);
            let (piece, before) = (
                piece.get_mut(..count).unwrap_or_default(),
                before.get_mut(..count).unwrap_or_default(),
            );
            records.read_exact(piece).map_err(damaged)?;
            if adding > 0 {
                old.read_exact(before).map_err(unreadable)?;
                for (byte, old) in piece.iter_mut().zip(before) {
                    *byte = byte.wrapping_add(*old);
                }
            }
            take(piece)?;
            left -= count as u64;
        }
        made += length;
        at = i64::try_from(add)
            .ok()
            .and_then(|add| at.checked_add(add)?.checked_add(skip))
            .ok_or_else(|| refuse("it leaves the old image"))?;
    }
    Ok(())
}

fn read_control(bytes: &[u8; CONTROL_BYTES]) -> Result<(u64, u64, i64), Error> {
    let mut numbers = bytes.chunks_exact(8).map(|bytes| {
        let number = bytes
            .iter()
            .rev()
            .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        // Below 2^63 once the sign is off.
        let size = i64::try_from(number & (u64::MAX >> 1)).unwrap_or(i64::MAX);
        if number >> 63 == 1 { -size } else { size }
    });
    let mut next = || numbers.next().unwrap_or_default();
    let (add, copy, skip) = (next(), next(), next());
    let length = |number: i64| {
        u64::try_from(number).map_err(|_| refuse("one of its records has a length below 0"))
    };
    Ok((length(add)?, length(copy)?, skip))
}

fn refuse(why: impl Into<String>) -> Error {
    Error::Delta { why: why.into() }
}

fn damaged(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            refuse(format!("it is damaged ({error})"))
        }
        _ => Error::Io {
            what: "reading a delta",
            source: error,
        },
    }
}

fn unreadable(source: io::Error) -> Error {
    Error::Io {
        what: "reading the old image",
        source,
    }
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
