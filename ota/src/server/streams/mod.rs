//! Streams: files handed out over MQTT, block by block. The files are images of the firmware repository,
//! named as `bucket` `firmware`, `key` `NAME/VERSION`, or deltas, `NAME/VERSION/delta/FROM`; a thing gets one only while it has a job for it.

mod desk;
mod message;

use std::fs::File;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use store::Stored;

use super::jobs::invalid;
use super::records::{Kept, key};
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::{Error, FirmwareName, FirmwareVersion};

pub use desk::{StreamDesk, StreamRequest};
pub(in crate::server) use message::is_ours;

/// Most files of a stream (AWS IoT: 50).
pub const MAX_STREAM_FILES: usize = 50;
/// Longest stream id (AWS IoT: 128 of `[a-zA-Z0-9_-]`).
const MAX_ID_BYTES: usize = 128;
/// Longest description (AWS IoT: 2028 characters).
const MAX_DESCRIPTION_CHARS: usize = 2028;
/// The only bucket there is.
pub(in crate::server) const BUCKET: &str = "firmware";

/// A stream. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    /// Its id.
    pub id: String,
    /// Counts its changes, from 0.
    pub version: u64,
    /// For people.
    pub description: Option<String>,
    /// Its files.
    pub files: Vec<StreamFile>,
    /// When it was made.
    pub created_at: u64,
    /// When it last changed.
    pub last_updated_at: u64,
}
impl Stored for Stream {}

/// A file of a stream, as AWS IoT's API names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamFile {
    /// 0 to 255.
    pub file_id: u8,
    /// Where it is.
    pub s3_location: Location,
}

/// `s3Location`: `bucket` is `firmware`, `key` a firmware's `NAME/VERSION` or `NAME/VERSION/delta/FROM`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// `firmware`.
    pub bucket: String,
    /// `NAME/VERSION` for the image, `NAME/VERSION/delta/FROM` for what makes it out of version FROM's.
    pub key: String,
}

/// The body of CreateStream and UpdateStream.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamBody {
    /// For people.
    pub description: Option<String>,
    /// Its files; those it has where an update names none.
    pub files: Option<Vec<StreamFile>>,
    /// AWS's clients must name a role. Nothing here takes one on.
    pub role_arn: Option<String>,
}

/// What a file of a stream is.
pub(in crate::server) struct Source {
    /// The firmware.
    pub(in crate::server) name: FirmwareName,
    /// Its version.
    pub(in crate::server) version: FirmwareVersion,
    /// The version the patch is applied to; `None` for the image.
    pub(in crate::server) from: Option<FirmwareVersion>,
}

impl StreamFile {
    /// What it is.
    pub(in crate::server) fn source(&self) -> Result<Source, Error> {
        let Location { bucket, key } = &self.s3_location;
        if bucket != BUCKET {
            return invalid(
                "bucket",
                format!("files lie in the bucket `{BUCKET}`, the server's firmware"),
            );
        }
        let parts: Vec<&str> = key.split('/').collect();
        let (name, version, from) = match parts[..] {
            [name, version] => (name, version, None),
            [name, version, "delta", from] => (name, version, Some(from.parse()?)),
            _ => {
                return invalid(
                    "key",
                    "write it as NAME/VERSION of a firmware, or NAME/VERSION/delta/FROM",
                );
            }
        };
        Ok(Source {
            name: name.parse()?,
            version: version.parse()?,
            from,
        })
    }
}

fn missing(id: &str) -> Error {
    Error::NotFound {
        kind: "stream",
        name: id.chars().take(MAX_ID_BYTES).collect(),
    }
}

impl Ota {
    /// A stream.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn stream(&self, id: &str) -> Result<Stream, Error> {
        let row = self.inner.table.get_as::<Stream>(&key::stream(id))?;
        row.map(|row| row.value).ok_or_else(|| missing(id))
    }

    /// Streams in the order of their ids, at most `limit` after the one named `after`.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn streams(&self, after: Option<&str>, limit: usize) -> Result<Vec<Stream>, Error> {
        let after = after.map(key::stream);
        let rows = self
            .inner
            .table
            .scan_as::<Stream>(key::STREAMS, after.as_deref(), limit)?;
        Ok(rows.into_iter().map(|(_, row)| row.value).collect())
    }

    /// Makes a stream.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field, [`Error::NotFound`] for a firmware, [`Error::AlreadyExists`].
    pub fn create_stream(
        &self,
        id: &str,
        body: StreamBody,
        at: SystemTime,
    ) -> Result<Stream, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !(1..=MAX_ID_BYTES).contains(&id.len()) || !id.bytes().all(plain) {
            return invalid(
                "streamId",
                format!("1 to {MAX_ID_BYTES} of a-z, A-Z, 0-9, _ and - are possible"),
            );
        }
        let Some(files) = body.files else {
            return invalid("files", "a stream needs some");
        };
        self.check_stream(&files, body.description.as_deref())?;
        let stream = Stream {
            id: id.to_owned(),
            version: 0,
            description: body.description,
            files,
            created_at: seconds(at),
            last_updated_at: seconds(at),
        };
        self.put_stream(&stream, |known| match known {
            Some(_) => Err(Error::AlreadyExists {
                kind: "stream",
                name: id.to_owned(),
                hint: "",
            }),
            None => Ok(stream.clone()),
        })
    }

    /// Changes a stream, counting its version up: a device that asks for the old one is told so.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field, [`Error::NotFound`].
    pub fn update_stream(
        &self,
        id: &str,
        body: StreamBody,
        at: SystemTime,
    ) -> Result<Stream, Error> {
        let known = self.stream(id)?;
        let files = body.files.unwrap_or_else(|| known.files.clone());
        self.check_stream(&files, body.description.as_deref())?;
        self.put_stream(&known, |known| {
            let mut stream = known.ok_or_else(|| missing(id))?;
            stream.version += 1;
            stream.description = body.description.or(stream.description);
            stream.files = files;
            stream.last_updated_at = seconds(at);
            Ok(stream)
        })
    }

    /// Deletes a stream.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn delete_stream(&self, id: &str) -> Result<(), Error> {
        let _turn = self.turn();
        let mut rows = Transaction::new(&self.inner.table);
        rows.get::<Stream>(&key::stream(id))?
            .ok_or_else(|| missing(id))?;
        rows.delete(key::stream(id));
        rows.commit()
    }

    fn put_stream(
        &self,
        of: &Stream,
        change: impl FnOnce(Option<Stream>) -> Result<Stream, Error>,
    ) -> Result<Stream, Error> {
        let _turn = self.turn();
        let mut rows = Transaction::new(&self.inner.table);
        let key = key::stream(&of.id);
        let stream = change(rows.get(&key)?)?;
        rows.put(key, &stream)?;
        rows.commit()?;
        Ok(stream)
    }

    fn open_source(&self, source: &Source) -> Result<(File, Kept), Error> {
        match &source.from {
            Some(from) => self.open_delta(&source.name, &source.version, from),
            None => self
                .open_image(&source.name, &source.version)
                .map(|(file, firmware)| (file, firmware.image())),
        }
    }

    fn check_stream(&self, files: &[StreamFile], description: Option<&str>) -> Result<(), Error> {
        if description.is_some_and(|text| text.chars().count() > MAX_DESCRIPTION_CHARS) {
            return invalid(
                "description",
                format!("at most {MAX_DESCRIPTION_CHARS} characters are possible"),
            );
        }
        if files.is_empty() || files.len() > MAX_STREAM_FILES {
            return invalid("files", format!("1 to {MAX_STREAM_FILES} are possible"));
        }
        for (index, file) in files.iter().enumerate() {
            if files
                .iter()
                .take(index)
                .any(|other| other.file_id == file.file_id)
            {
                return invalid("fileId", format!("{} is given twice", file.file_id));
            }
            self.open_source(&file.source()?)?;
        }
        Ok(())
    }
}
