//! Images as streams: measured once by the signer, checked chunk by chunk wherever they arrive. An image
//! is never held in memory as a whole.

use std::io::Read;

use crate::digest::{Hasher, Sha256};
use crate::manifest::{CHUNK_BYTES, MAX_IMAGE_BYTES};
use crate::{DeltaSource, Error, Manifest};

const COPY_BYTES: usize = 64 * 1024;

/// Cuts a stream into chunks and hashes the whole and each of them.
#[derive(Clone, Default)]
struct Meter {
    whole: Hasher,
    chunk: Hasher,
    size: u64,
}

impl Meter {
    /// Takes `bytes`, giving each finished chunk to `done` with its index.
    fn update(
        &mut self,
        mut bytes: &[u8],
        mut done: impl FnMut(u64, Sha256) -> Result<(), Error>,
    ) -> Result<(), Error> {
        while !bytes.is_empty() {
            let room = usize::try_from(CHUNK_BYTES - self.size % CHUNK_BYTES).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.whole.update(now);
            self.chunk.update(now);
            self.size += now.len() as u64;
            if self.size.is_multiple_of(CHUNK_BYTES) {
                done(
                    self.size / CHUNK_BYTES - 1,
                    std::mem::take(&mut self.chunk).finish(),
                )?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// The last, shorter chunk, if there is one.
    fn rest(&mut self) -> Option<(u64, Sha256)> {
        (!self.size.is_multiple_of(CHUNK_BYTES)).then(|| {
            (
                self.size / CHUNK_BYTES,
                std::mem::take(&mut self.chunk).finish(),
            )
        })
    }
}

/// What the signer writes about an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFacts {
    /// Bytes.
    pub size: u64,
    /// Hash of the whole.
    pub sha256: Sha256,
    /// Hash of each chunk of [`CHUNK_BYTES`].
    pub chunks: Vec<Sha256>,
}

impl ImageFacts {
    /// Reads an image to its end and measures it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::TooLarge`] past [`MAX_IMAGE_BYTES`].
    pub fn measure(mut image: impl Read) -> Result<Self, Error> {
        let mut meter = Meter::default();
        let mut chunks = Vec::new();
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let read = read_some(&mut image, &mut buffer)?;
            if read.is_empty() {
                break;
            }
            meter.update(read, |_, hash| {
                chunks.push(hash);
                Ok(())
            })?;
            if meter.size > MAX_IMAGE_BYTES {
                return Err(Error::TooLarge {
                    what: "image",
                    bytes: meter.size,
                    bound: MAX_IMAGE_BYTES,
                });
            }
        }
        chunks.extend(meter.rest().map(|(_, hash)| hash));
        Ok(Self {
            size: meter.size,
            sha256: meter.whole.finish(),
            chunks,
        })
    }
}

/// Reads once, retrying an interrupted call; empty at the end.
pub(crate) fn read_some<'b>(from: &mut impl Read, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
    loop {
        match from.read(buffer) {
            Ok(read) => return Ok(buffer.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(Error::Io {
                    what: "reading the image",
                    source,
                });
            }
        }
    }
}

/// A stream of bytes as a manifest describes it: the image, or one of its deltas.
#[derive(Clone, Copy, Debug)]
pub struct Content<'m> {
    manifest: &'m Manifest,
    delta: Option<&'m DeltaSource>,
}

impl<'m> Content<'m> {
    /// The image of `manifest`.
    #[must_use]
    pub const fn image(manifest: &'m Manifest) -> Self {
        Self {
            manifest,
            delta: None,
        }
    }

    /// A delta of `manifest`.
    #[must_use]
    pub const fn delta(manifest: &'m Manifest, delta: &'m DeltaSource) -> Self {
        Self {
            manifest,
            delta: Some(delta),
        }
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.delta.map_or(self.manifest.size, |delta| delta.size)
    }

    /// Hash of the whole.
    #[must_use]
    pub fn sha256(&self) -> Sha256 {
        self.delta
            .map_or(self.manifest.sha256, |delta| delta.sha256)
    }

    fn chunks(&self) -> &'m [Sha256] {
        self.delta
            .map_or(&self.manifest.chunks, |delta| &delta.chunks)
    }

    pub(crate) fn refuse(&self, why: String) -> Error {
        let title = self.manifest.title();
        match self.delta {
            None => Error::Image {
                firmware: title,
                why,
            },
            Some(delta) => Error::Patch {
                firmware: title,
                from: delta.from.to_string(),
                why,
            },
        }
    }
}

impl<'m> From<&'m Manifest> for Content<'m> {
    fn from(manifest: &'m Manifest) -> Self {
        Self::image(manifest)
    }
}

/// Checks an arriving image or delta against its manifest: a wrong chunk is found at its end, a byte too many at
/// once. To resume a download, feed it what is on disk already; [`ImageCheck::verified`] tells how far
/// what was fed can be kept.
#[derive(Clone)]
pub struct ImageCheck<'m> {
    content: Content<'m>,
    meter: Meter,
    verified: u64,
}

impl<'m> ImageCheck<'m> {
    /// Expects `content`, from its first byte.
    #[must_use]
    pub fn new(content: impl Into<Content<'m>>) -> Self {
        Self {
            content: content.into(),
            meter: Meter::default(),
            verified: 0,
        }
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`Error::Image`] at the first chunk that is not the signed one, or past the signed size.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let content = self.content;
        let size = self.meter.size.saturating_add(bytes.len() as u64);
        if size > content.size() {
            return Err(content.refuse(format!(
                "it goes on past the {} bytes that were signed",
                content.size()
            )));
        }
        let verified = &mut self.verified;
        self.meter.update(bytes, |index, hash| {
            check_chunk(content, index, hash)?;
            *verified = (index + 1) * CHUNK_BYTES;
            Ok(())
        })
    }

    /// Bytes from the start whose chunks are known to be the signed ones.
    #[must_use]
    pub const fn verified(&self) -> u64 {
        self.verified
    }

    /// Bytes taken so far.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.meter.size
    }

    /// The end of the image has come.
    ///
    /// # Errors
    /// [`Error::Image`] where it is too short or its hash is not the signed one.
    pub fn finish(mut self) -> Result<(), Error> {
        let content = self.content;
        if self.meter.size != content.size() {
            return Err(content.refuse(format!(
                "it ends after {} of {} bytes",
                self.meter.size,
                content.size()
            )));
        }
        if let Some((index, hash)) = self.meter.rest() {
            check_chunk(content, index, hash)?;
        }
        let sha256 = self.meter.whole.finish();
        if sha256 != content.sha256() {
            return Err(content.refuse(format!(
                "its SHA-256 is {sha256}, signed was {}",
                content.sha256()
            )));
        }
        Ok(())
    }
}

fn check_chunk(content: Content<'_>, index: u64, hash: Sha256) -> Result<(), Error> {
    let signed = usize::try_from(index)
        .ok()
        .and_then(|index| content.chunks().get(index));
    if signed == Some(&hash) {
        return Ok(());
    }
    let (first, last) = (
        index * CHUNK_BYTES,
        ((index + 1) * CHUNK_BYTES).min(content.size()),
    );
    Err(content.refuse(format!(
        "chunk {index} (bytes {first} to {last}) has another SHA-256 than was signed"
    )))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::tests::manifest_of;

    #[test]
    fn the_signed_image_passes_in_any_cut() {
        let image: Vec<u8> = (0..CHUNK_BYTES * 2 + 77).map(|i| (i % 251) as u8).collect();
        let manifest = manifest_of(&image);
        assert_eq!(manifest.chunks.len(), 3);
        for cut in [1021, COPY_BYTES, CHUNK_BYTES as usize, image.len()] {
            let mut check = ImageCheck::new(&manifest);
            for part in image.chunks(cut) {
                check.update(part).unwrap();
            }
            assert_eq!(check.verified(), CHUNK_BYTES * 2);
            check.finish().unwrap();
        }
    }

    #[test]
    fn an_image_of_whole_chunks_passes() {
        let image = vec![7; CHUNK_BYTES as usize];
        let manifest = manifest_of(&image);
        let mut check = ImageCheck::new(&manifest);
        check.update(&image).unwrap();
        check.finish().unwrap();
    }

    #[test]
    fn a_flipped_bit_is_found_in_its_chunk() {
        let mut image = vec![7; CHUNK_BYTES as usize * 2];
        let manifest = manifest_of(&image);
        image[CHUNK_BYTES as usize + 5] ^= 1;
        let mut check = ImageCheck::new(&manifest);
        let error = check.update(&image).unwrap_err().to_string();
        assert!(
            error.contains("chunk 1 (bytes 1048576 to 2097152)"),
            "{error}"
        );
        assert_eq!(
            check.verified(),
            CHUNK_BYTES,
            "what came before can be kept"
        );
    }

    #[test]
    fn endless_and_truncated_data_are_told_apart() {
        let manifest = manifest_of(b"firmware");
        let mut check = ImageCheck::new(&manifest);
        check.update(b"firmware").unwrap();
        assert!(
            check
                .update(b"!")
                .unwrap_err()
                .to_string()
                .contains("goes on past the 8 bytes")
        );
        let mut check = ImageCheck::new(&manifest);
        check.update(b"firm").unwrap();
        assert!(
            check
                .finish()
                .unwrap_err()
                .to_string()
                .contains("ends after 4 of 8 bytes")
        );
    }

    proptest! {
        #[test]
        fn any_change_is_refused(image in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let manifest = manifest_of(&image);
            let mut changed = image.clone();
            let at = at.index(changed.len());
            changed[at] ^= 1 << bit;
            let mut check = ImageCheck::new(&manifest);
            prop_assert!(check.update(&changed).and_then(|()| check.finish()).is_err());
        }
    }
}
