//! The documents of jobs: checked when a job is made, filled in when a device gets one. A file's placeholder
//! becomes its address on this server, and for as long as the job says the device may fetch it there, under its
//! own certificate.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::Stored;

use super::executions::Changes;
use super::jobs::invalid;
use super::records::{Execution, Job, key};
use super::{Ota, seconds};
use crate::job::placeholder::{Placeholder, fill};
use crate::job::{Document, INSTALL_OPERATION, MAX_DOCUMENT_BYTES};
use crate::{Error, FirmwareName, FirmwareVersion, JobId};

/// How long a device may fetch what its document names, where the job does not say (AWS IoT: 3600 s).
const USUAL_SECONDS: u64 = 3600;
/// Most parameters of a job, and their longest name and value (AWS IoT's values).
const MAX_PARAMETERS: usize = 30;
const MAX_PARAMETER_NAME_BYTES: usize = 128;
const MAX_PARAMETER_BYTES: usize = 30_720;

/// A device may fetch a file that its job's document names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handed {
    job: JobId,
    until: u64,
}
impl Stored for Handed {}

/// Refuses what is no document, and what it may not say.
pub(super) fn check(document: &str) -> Result<(), Error> {
    if document.len() > MAX_DOCUMENT_BYTES {
        return invalid(
            "document",
            format!(
                "it has {} bytes; at most {MAX_DOCUMENT_BYTES} are possible",
                document.len()
            ),
        );
    }
    let value: Value = match serde_json::from_str(document) {
        Ok(value) => value,
        Err(error) => return invalid("document", format!("it is not JSON: {error}")),
    };
    no_installation(&value, "document")
}

/// A document that was checked, or made of one.
fn value(document: &str) -> Result<Value, Error> {
    serde_json::from_str(document).map_err(|error| Error::Malformed {
        what: "job document",
        why: error.to_string(),
    })
}

/// Whether a document makes a device install firmware.
fn installs(document: &Value) -> bool {
    document.get("operation").and_then(Value::as_str) == Some(INSTALL_OPERATION)
}

/// Refuses what makes a device install firmware past every rollout.
fn no_installation(document: &Value, field: &'static str) -> Result<(), Error> {
    if installs(document) {
        return invalid(
            field,
            "firmware is installed by a rollout, which can be stopped and undone: `muster rollout start`",
        );
    }
    Ok(())
}

pub(super) fn check_parameters(parameters: &BTreeMap<String, String>) -> Result<(), Error> {
    if parameters.len() > MAX_PARAMETERS {
        return invalid(
            "documentParameters",
            format!("at most {MAX_PARAMETERS} are possible"),
        );
    }
    for (name, value) in parameters {
        if name.len() > MAX_PARAMETER_NAME_BYTES || value.len() > MAX_PARAMETER_BYTES {
            return invalid(
                "documentParameters",
                format!(
                    "a name has at most {MAX_PARAMETER_NAME_BYTES} bytes, a value {MAX_PARAMETER_BYTES}"
                ),
            );
        }
    }
    Ok(())
}

impl Job {
    /// Its document with its parameters filled in; files stay what they are called.
    ///
    /// # Errors
    /// Where the stored document cannot be read.
    pub fn filled_document(&self) -> Result<String, Error> {
        if self.parameters.is_empty() {
            return Ok(self.document.clone());
        }
        fill(&self.document, &mut |placeholder| {
            Ok(match placeholder {
                Placeholder::Parameter(name) => self.parameters.get(name).cloned(),
                Placeholder::File(..) => None,
            })
        })
    }
}

impl Ota {
    /// The address under which devices reach this server's HTTPS, `https://HOST:PORT`; set once.
    pub fn hand_out_at(&self, address: String) {
        if self.inner.address.set(address).is_err() {
            tracing::error!("the address of files in job documents is set already");
        }
    }

    /// Refuses a document whose placeholders mean nothing, parameters that are not all there, and those that make it
    /// install firmware.
    pub(super) fn check_placeholders(
        &self,
        document: &str,
        parameters: Option<&BTreeMap<String, String>>,
    ) -> Result<(), Error> {
        let filled = fill(document, &mut |placeholder| match placeholder {
            Placeholder::File(name, version) => self.firmware(name, version).map(|_| None),
            Placeholder::Parameter(name) => {
                match (parameters, parameters.and_then(|all| all.get(name))) {
                    (Some(_), None) => invalid(
                        "documentParameters",
                        format!(
                            "`{}`, which the document asks for, is missing",
                            name.escape_debug()
                        ),
                    ),
                    (_, value) => Ok(value.cloned()),
                }
            }
        })?;
        // As devices will read it: a parameter can say what the document must not.
        no_installation(&value(&filled)?, "documentParameters")
    }

    /// Whether `thing` may fetch this firmware because a document it was given names it.
    pub(super) fn was_handed(
        &self,
        thing: &str,
        name: &FirmwareName,
        version: &FirmwareVersion,
        now: SystemTime,
    ) -> Result<bool, Error> {
        let table = &self.inner.table;
        let Some(handed) = table.get_as::<Handed>(&key::handed(thing, name, version))? else {
            return Ok(false);
        };
        if handed.value.until <= seconds(now) {
            return Ok(false);
        }
        let execution = table.get_as::<Execution>(&key::execution(&handed.value.job, thing))?;
        Ok(execution.is_some_and(|row| !row.value.status.is_terminal()))
    }
}

impl Changes<'_> {
    /// The document of an execution as its device gets it.
    pub(super) fn document(&mut self, execution: &Execution) -> Result<Option<Document>, Error> {
        let Some(job) = self.job(&execution.job)? else {
            return Ok(None);
        };
        let presigned = job.config.presigned_url_config.as_ref();
        let lives = presigned.and_then(|config| config.expires_in_sec);
        let handed = Handed {
            job: job.id.clone(),
            until: self.now.seconds + lives.unwrap_or(USUAL_SECONDS),
        };
        let mut document = fill(&job.document, &mut |placeholder| {
            Ok(match placeholder {
                Placeholder::Parameter(name) => job.parameters.get(name).cloned(),
                Placeholder::File(name, version) => {
                    let row = key::handed(&execution.thing, name, version);
                    self.rows.put(row, &handed)?;
                    Some(format!("{}/firmware/{name}/{version}/image", self.address))
                }
            })
        })?;
        if job.install.is_none() && installs(&value(&document)?) {
            tracing::error!(job = %job.id, "not handed out: its document installs firmware, and no rollout made it");
            return Ok(None);
        }
        if let (Some(until), Some(_)) = (execution.until, &job.install) {
            let mut windowed = value(&document)?;
            if let Some(fields) = windowed.as_object_mut() {
                fields.insert("until".into(), until.into());
            }
            document = windowed.to_string();
        }
        Document::of(document).map(Some)
    }
}
