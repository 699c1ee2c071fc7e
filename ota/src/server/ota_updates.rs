//! OTA updates as AWS IoT has them for FreeRTOS devices: a stream and a job in one request, whose document is the one
//! that AWS's OTA agents read. The files are images of the firmware repository; the signature for the device's own
//! check comes with the request.

use std::collections::BTreeMap;
use std::time::SystemTime;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::Stored;

use super::create_job::{CreateJob, TimeoutConfig};
use super::jobs::invalid;
use super::records::{Firmware, key};
use super::streams::{BUCKET, Location, MAX_STREAM_FILES, StreamBody, StreamFile};
use super::transaction::Transaction;
use super::{Ota, seconds};
use crate::job::config::{AbortConfig, AbortCriteria, PresignedUrlConfig, RolloutConfig};
use crate::{Error, JobId};

/// What the names of an update's stream and job begin with, as AWS's do.
pub(super) const PREFIX: &str = "AFR_OTA-";
/// Longest id, so that its job has one.
const MAX_ID_BYTES: usize = 64 - PREFIX.len();
/// Longest signature of a file.
const MAX_SIGNATURE_BYTES: usize = 4096;

/// How devices may get the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// As a stream.
    Mqtt,
    /// From this server's HTTPS, under the device's certificate.
    Http,
}

/// Where an update stands, in AWS's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OtaUpdateStatus {
    /// Its stream and job are being made.
    CreateInProgress,
    /// They are there.
    CreateComplete,
}

impl OtaUpdateStatus {
    /// AWS's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreateInProgress => "CREATE_IN_PROGRESS",
            Self::CreateComplete => "CREATE_COMPLETE",
        }
    }
}

/// The body of CreateOTAUpdate.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtaUpdateBody {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// ARNs of things and thing groups.
    pub targets: Vec<String>,
    /// How devices may get the files; MQTT where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Vec<Protocol>>,
    /// `SNAPSHOT`, the usual one, or `CONTINUOUS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_selection: Option<String>,
    /// How fast it goes out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_job_executions_rollout_config: Option<RolloutConfig>,
    /// How long devices may fetch the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws_job_presigned_url_config: Option<PresignedUrlConfig>,
    /// When it is given up.
    #[serde(default, skip_serializing)]
    pub aws_job_abort_config: Option<AwsJobAbortConfig>,
    /// How long a device may be at it.
    #[serde(default, skip_serializing)]
    pub aws_job_timeout_config: Option<TimeoutConfig>,
    /// What it brings.
    #[serde(rename(serialize = "otaUpdateFiles", deserialize = "files"))]
    pub files: Vec<OtaFile>,
    /// AWS's clients must name a role. Nothing here takes one on.
    #[serde(default, skip_serializing)]
    pub role_arn: Option<String>,
    /// Kept and shown.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub additional_parameters: BTreeMap<String, String>,
}

/// `awsJobAbortConfig`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsJobAbortConfig {
    /// Any of them aborts.
    pub abort_criteria_list: Vec<AbortCriteria>,
}

/// A file of an update.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OtaFile {
    /// Where the device puts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// What the device takes it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_type: Option<u8>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_version: Option<String>,
    /// Where it is.
    pub file_location: FileLocation,
    /// What the device checks it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_signing: Option<CodeSigning>,
    /// More for the device: fields of the file in the job's document.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// `fileLocation`: one of the two.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileLocation {
    /// A file of a stream that is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<InStream>,
    /// An image of the repository: bucket `firmware`, key `NAME/VERSION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub s3_location: Option<Location>,
}

/// A file of a stream.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InStream {
    /// The stream.
    pub stream_id: String,
    /// Which of its files.
    pub file_id: u8,
}

/// `codeSigning`: only a signature that was made already. AWS's signer is not there.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CodeSigning {
    /// The signature.
    pub custom_code_signing: CustomCodeSigning,
}

/// `customCodeSigning`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CustomCodeSigning {
    /// The signature.
    pub signature: Signature,
    /// Whose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_chain: Option<CertificateChain>,
    /// `SHA1` or `SHA256`, which the device uses.
    pub hash_algorithm: String,
    /// `RSA` or `ECDSA`, which the device uses.
    pub signature_algorithm: String,
}

/// `signature`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Signature {
    /// In base64.
    pub inline_document: String,
}

/// `certificateChain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateChain {
    /// Where the device has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_name: Option<String>,
    /// The certificates themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline_document: Option<String>,
}

/// An OTA update.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OtaUpdate {
    /// Its id.
    pub id: String,
    /// Its job.
    pub job: JobId,
    /// The stream that was made for it, where one was.
    pub stream: Option<String>,
    /// Where it stands.
    pub status: OtaUpdateStatus,
    /// When it was made (seconds since 1970).
    pub created_at: u64,
    /// When it last changed (seconds since 1970).
    pub last_updated_at: u64,
    /// What was asked for, as GetOTAUpdate shows it.
    pub shown: Value,
}
impl Stored for OtaUpdate {}

fn missing(id: &str) -> Error {
    Error::NotFound {
        kind: "OTA update",
        name: id.chars().take(MAX_ID_BYTES).collect(),
    }
}

impl CustomCodeSigning {
    /// The field by which a device knows the signature: `sig-sha256-ecdsa`.
    fn field(&self) -> Result<String, Error> {
        let hash = match &*self.hash_algorithm {
            "SHA256" => "sha256",
            "SHA1" => "sha1",
            _ => return invalid("hashAlgorithm", "SHA256 and SHA1 are possible"),
        };
        let by = match &*self.signature_algorithm {
            "ECDSA" => "ecdsa",
            "RSA" => "rsa",
            _ => return invalid("signatureAlgorithm", "ECDSA and RSA are possible"),
        };
        let signature = BASE64.decode(self.signature.inline_document.as_bytes());
        if signature.is_err() || self.signature.inline_document.len() > MAX_SIGNATURE_BYTES {
            return invalid(
                "inlineDocument",
                format!("a signature is base64 of at most {MAX_SIGNATURE_BYTES} bytes"),
            );
        }
        Ok(format!("sig-{hash}-{by}"))
    }
}

impl Ota {
    /// An OTA update.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn ota_update(&self, id: &str) -> Result<OtaUpdate, Error> {
        let row = self.inner.table.get_as::<OtaUpdate>(&key::ota_update(id))?;
        row.map(|row| row.value).ok_or_else(|| missing(id))
    }

    /// OTA updates in the order of their ids, at most `limit` after the one named `after`.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn ota_updates(&self, after: Option<&str>, limit: usize) -> Result<Vec<OtaUpdate>, Error> {
        let after = after.map(key::ota_update);
        let table = &self.inner.table;
        let rows = table.scan_as::<OtaUpdate>(key::OTA_UPDATES, after.as_deref(), limit)?;
        Ok(rows.into_iter().map(|(_, row)| row.value).collect())
    }

    /// Makes a stream of the files, where they are not in one, and a job that tells devices of them.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field, [`Error::NotFound`] for a file or target, [`Error::AlreadyExists`],
    /// and those of [`crate::Manifest::verify`] for an image that devices would refuse by now.
    pub fn create_ota_update(
        &self,
        id: &str,
        body: &OtaUpdateBody,
        at: SystemTime,
    ) -> Result<OtaUpdate, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if !(1..=MAX_ID_BYTES).contains(&id.len()) || !id.bytes().all(plain) {
            return invalid(
                "otaUpdateId",
                format!("1 to {MAX_ID_BYTES} of a-z, A-Z, 0-9, _ and - are possible"),
            );
        }
        if body.files.is_empty() || body.files.len() > MAX_STREAM_FILES {
            return invalid("files", format!("1 to {MAX_STREAM_FILES} are possible"));
        }
        let name = format!("{PREFIX}{id}");
        let job: JobId = name.parse()?;
        let (stream, made) = self.stream_of(&name, &body.files)?;
        let document = self.ota_document(body, &stream, seconds(at))?;
        let shown = serde_json::to_value(body).map_err(|error| Error::Malformed {
            what: "OTA update",
            why: error.to_string(),
        })?;
        let mut update = OtaUpdate {
            id: id.to_owned(),
            job: job.clone(),
            stream: made.is_some().then(|| name.clone()),
            status: OtaUpdateStatus::CreateInProgress,
            created_at: seconds(at),
            last_updated_at: seconds(at),
            shown,
        };
        self.put_ota_update(&update, true)?;
        let request = CreateJob {
            targets: body.targets.clone(),
            document: Some(document.to_string()),
            document_source: None,
            description: body.description.clone(),
            target_selection: body.target_selection.clone(),
            job_executions_rollout_config: body.aws_job_executions_rollout_config.clone(),
            abort_config: body.aws_job_abort_config.as_ref().map(|abort| AbortConfig {
                criteria_list: abort.abort_criteria_list.clone(),
            }),
            job_executions_retry_config: None,
            scheduling_config: None,
            timeout_config: body.aws_job_timeout_config.clone(),
            presigned_url_config: body.aws_job_presigned_url_config.clone(),
            document_parameters: BTreeMap::new(),
            job_template_arn: None,
            namespace_id: None,
            destination_package_versions: None,
            tags: None,
            unsupported: BTreeMap::new(),
        };
        let has_stream = made.is_some();
        let streamed = made.map_or(Ok(()), |files| {
            let body = StreamBody {
                description: None,
                files: Some(files),
                role_arn: None,
            };
            self.create_stream(&name, body, at).map(drop)
        });
        let done = streamed.and_then(|()| {
            self.make_job(&job, &request, at).map(drop).inspect_err(|_| {
                if has_stream && let Err(error) = self.delete_stream(&name) {
                    tracing::warn!(%error, "the stream of an OTA update that came to nothing stays");
                }
            })
        });
        if let Err(error) = done {
            self.forget_ota_update(id)?;
            return Err(error);
        }
        update.status = OtaUpdateStatus::CreateComplete;
        self.put_ota_update(&update, false)?;
        Ok(update)
    }

    /// Deletes an OTA update and its job (one that is not over only by `force`), and where asked for the stream that
    /// was made for it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::JobState`] where its job is not over.
    pub fn delete_ota_update(
        &self,
        id: &str,
        with_stream: bool,
        force: bool,
        at: SystemTime,
    ) -> Result<(), Error> {
        let update = self.ota_update(id)?;
        match self.delete_job(&update.job, force, at) {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        if let Some(stream) = update.stream.filter(|_| with_stream) {
            match self.delete_stream(&stream) {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.forget_ota_update(id)
    }

    /// The stream that has the files, and the files of one that must be made for it.
    fn stream_of(
        &self,
        name: &str,
        files: &[OtaFile],
    ) -> Result<(String, Option<Vec<StreamFile>>), Error> {
        let mut made = Vec::new();
        let mut known: Option<&str> = None;
        for (index, file) in files.iter().enumerate() {
            match (&file.file_location.s3_location, &file.file_location.stream) {
                (Some(location), None) => made.push(StreamFile {
                    file_id: u8::try_from(index).unwrap_or(u8::MAX),
                    s3_location: location.clone(),
                }),
                (None, Some(stream)) if known.is_none_or(|known| known == stream.stream_id) => {
                    known = Some(&stream.stream_id);
                }
                (None, Some(_)) => {
                    return invalid("fileLocation", "all files of an update lie in one stream");
                }
                _ => return invalid("fileLocation", "name stream or s3Location, one of them"),
            }
        }
        match known {
            None => Ok((name.to_owned(), Some(made))),
            Some(known) if made.is_empty() => Ok((known.to_owned(), None)),
            Some(_) => invalid(
                "fileLocation",
                "either all files lie in a stream, or none does",
            ),
        }
    }

    /// What AWS's OTA agents read.
    fn ota_document(&self, body: &OtaUpdateBody, stream: &str, now: u64) -> Result<Value, Error> {
        let protocols = body.protocols.clone().unwrap_or(vec![Protocol::Mqtt]);
        if protocols.is_empty() {
            return invalid("protocols", "MQTT and HTTP are possible");
        }
        let mut files = Vec::new();
        for (index, file) in body.files.iter().enumerate() {
            let (id, firmware) = self.ota_file(index, file, now)?;
            let mut told = json!({
                "filepath": file.file_name.clone().unwrap_or_default(),
                "filesize": firmware.size,
                "fileid": id,
            });
            let mut add = |name: &str, value: Value| {
                if let Some(fields) = told.as_object_mut() {
                    fields.insert(name.to_owned(), value);
                }
            };
            for (name, value) in &file.attributes {
                add(name, value.clone().into());
            }
            if let Some(kind) = file.file_type {
                add("fileType", kind.into());
            }
            if let Some(signing) = &file.code_signing {
                let signing = &signing.custom_code_signing;
                let chain = signing.certificate_chain.as_ref();
                let name = chain.and_then(|chain| chain.certificate_name.clone());
                add("certfile", name.unwrap_or_default().into());
                let signature = signing.signature.inline_document.clone();
                add(&signing.field()?, signature.into());
            }
            if protocols.contains(&Protocol::Http) {
                let (name, version) = (&firmware.name, &firmware.version);
                let url = format!("https://s3.amazonaws.com/{BUCKET}/{name}/{version}");
                add(
                    "update_data_url",
                    format!("${{aws:iot:s3-presigned-url:{url}}}").into(),
                );
                add("auth_scheme", "aws.s3.presigned".into());
            }
            files.push(told);
        }
        Ok(json!({"afr_ota": {"protocols": protocols, "streamname": stream, "files": files}}))
    }

    fn ota_file(&self, index: usize, file: &OtaFile, now: u64) -> Result<(u8, Firmware), Error> {
        let file = match &file.file_location.stream {
            None => StreamFile {
                file_id: u8::try_from(index).unwrap_or(u8::MAX),
                s3_location: file.file_location.s3_location.clone().ok_or_else(|| {
                    Error::Invalid {
                        field: "fileLocation".into(),
                        why: "name stream or s3Location".into(),
                    }
                })?,
            },
            Some(named) => {
                let stream = self.stream(&named.stream_id)?;
                let mut files = stream.files.into_iter();
                let found = files.find(|file| file.file_id == named.file_id);
                found.ok_or_else(|| Error::NotFound {
                    kind: "file of the stream",
                    name: format!("{} {}", named.stream_id, named.file_id),
                })?
            }
        };
        let source = file.source()?;
        if source.from.is_some() {
            // Its devices check one file against one signature; ours know deltas from the manifest.
            return super::jobs::invalid("key", "an OTA update names images, not deltas");
        }
        let firmware = self.still_good(&source.name, &source.version, now)?;
        Ok((file.file_id, firmware))
    }

    fn put_ota_update(&self, update: &OtaUpdate, new: bool) -> Result<(), Error> {
        let _turn = self.turn();
        let mut rows = Transaction::new(&self.inner.table);
        let row = key::ota_update(&update.id);
        if new && rows.get::<OtaUpdate>(&row)?.is_some() {
            return Err(Error::AlreadyExists {
                kind: "OTA update",
                name: update.id.clone(),
                hint: "",
            });
        }
        rows.put(row, update)?;
        rows.commit()
    }

    fn forget_ota_update(&self, id: &str) -> Result<(), Error> {
        let _turn = self.turn();
        let mut rows = Transaction::new(&self.inner.table);
        rows.delete(key::ota_update(id));
        rows.commit()
    }
}
