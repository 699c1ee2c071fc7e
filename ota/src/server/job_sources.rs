//! Job documents that a request names instead of carrying (`documentSource`). Where AWS has a bucket, here is
//! a directory: `https://s3.amazonaws.com/BUCKET/KEY` is the file `DIR/documents/BUCKET/KEY`, put there by the
//! operator. It is read once, when the job is made; the job keeps what it said.

use std::fs::File;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;

use super::Ota;
use super::create_job::CreateJob;
use super::jobs::invalid;
use crate::Error;
use crate::job::MAX_DOCUMENT_BYTES;

const FIELD: &str = "documentSource";
/// Longest address (AWS IoT's value).
const MAX_SOURCE_CHARS: usize = 1350;

/// Bucket and key of an address as AWS's tools write it.
fn bucket_and_key(source: &str) -> Option<(String, String)> {
    let (host, path) = match source.strip_prefix("s3://") {
        Some(rest) => ("s3.amazonaws.com", rest),
        None => source.strip_prefix("https://")?.split_once('/')?,
    };
    let host = host.strip_suffix(".amazonaws.com")?;
    let is_s3 = |name: &str| name == "s3" || name.starts_with("s3.") || name.starts_with("s3-");
    let (bucket, key) = if is_s3(host) {
        path.split_once('/')?
    } else {
        let (bucket, service) = host.rsplit_once(".s3")?;
        if !service.is_empty() && !service.starts_with(['.', '-']) {
            return None;
        }
        (bucket, path)
    };
    let decoded = |text| {
        percent_decode_str(text)
            .decode_utf8()
            .ok()
            .map(String::from)
    };
    Some((decoded(bucket)?, decoded(key)?))
}

/// The file meant, which is below `directory` whatever its address says.
fn file_of(directory: &Path, source: &str) -> Option<PathBuf> {
    if source.chars().count() > MAX_SOURCE_CHARS || source.contains(['?', '#', '\0']) {
        return None;
    }
    let (bucket, key) = bucket_and_key(source)?;
    let relative = Path::new(&bucket).join(&key);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let fits = !bucket.is_empty() && !key.is_empty() && !key.contains('\0');
    (fits && relative.components().all(plain)).then(|| directory.join(relative))
}

impl Ota {
    /// The document that a `documentSource` names.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it names no file, or one that is too long or no text.
    pub(super) fn document_from(&self, source: &str) -> Result<String, Error> {
        let shown: String = source.chars().take(200).collect();
        let shown = shown.escape_debug();
        let Some(path) = file_of(&self.inner.documents, source) else {
            return invalid(
                FIELD,
                format!(
                    "`{shown}` names no file; write it as https://s3.amazonaws.com/BUCKET/KEY, for the file DIR/documents/BUCKET/KEY of this server"
                ),
            );
        };
        let mut text = Vec::new();
        let bound = MAX_DOCUMENT_BYTES as u64;
        let read = File::open(&path)
            .and_then(|file| file.take(bound.saturating_add(1)).read_to_end(&mut text));
        if let Err(error) = read {
            return invalid(
                FIELD,
                format!(
                    "`{shown}`: {error}; the file is looked for at DIR/documents/BUCKET/KEY of this server"
                ),
            );
        }
        if text.len() > MAX_DOCUMENT_BYTES {
            return invalid(
                FIELD,
                format!("`{shown}` has more than the {MAX_DOCUMENT_BYTES} bytes that are possible"),
            );
        }
        String::from_utf8(text).or_else(|_| invalid(FIELD, format!("`{shown}` is no text")))
    }

    /// A request with the document that its source names.
    pub(super) fn with_source(
        &self,
        request: &CreateJob,
        source: &str,
    ) -> Result<CreateJob, Error> {
        if request.document.is_some() || request.job_template_arn.is_some() {
            return invalid(
                FIELD,
                "a job has a document, a documentSource or a jobTemplateArn, and one of them only",
            );
        }
        Ok(CreateJob {
            document: Some(self.document_from(source)?),
            ..request.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_file_below_the_directory_or_nothing() {
        let dir = Path::new("/data/documents");
        for (source, file) in [
            (
                "https://s3.amazonaws.com/jobs/reboot.json",
                "jobs/reboot.json",
            ),
            (
                "https://s3.eu-west-1.amazonaws.com/jobs/a/b.json",
                "jobs/a/b.json",
            ),
            ("https://s3-us-west-2.amazonaws.com/jobs/a", "jobs/a"),
            ("https://jobs.s3.amazonaws.com/a/b.json", "jobs/a/b.json"),
            ("https://my.jobs.s3.eu-west-1.amazonaws.com/a", "my.jobs/a"),
            ("s3://jobs/a", "jobs/a"),
            ("https://s3.amazonaws.com/jobs/a%20b.json", "jobs/a b.json"),
        ] {
            assert_eq!(file_of(dir, source), Some(dir.join(file)), "{source}");
        }
        for source in [
            "",
            "https://s3.amazonaws.com/jobs",
            "https://s3.amazonaws.com/jobs/",
            "https://s3.amazonaws.com//a",
            "https://s3.amazonaws.com/../a",
            "https://s3.amazonaws.com/jobs/../../etc/passwd",
            "https://s3.amazonaws.com/jobs/%2e%2e/%2e%2e/etc/passwd",
            "https://s3.amazonaws.com/jobs//etc/passwd%00",
            "https://s3.amazonaws.com/jobs%2f../x/a",
            "https://s3.amazonaws.com/%2fetc/passwd",
            "https://s3.amazonaws.com/jobs/a?x=1",
            "https://example.org/jobs/a",
            "https://s3.amazonaws.com.example.org/jobs/a",
            "https://jobs.s3evil.amazonaws.com/a",
            "http://s3.amazonaws.com/jobs/a",
            "file:///etc/passwd",
            "/etc/passwd",
        ] {
            assert_eq!(file_of(dir, source), None, "{source}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_address_leads_out_of_the_directory(rest in "[a-z./%2ef0]{0,40}") {
            let dir = Path::new("/data/documents");
            if let Some(file) = file_of(dir, &format!("https://s3.amazonaws.com/{rest}")) {
                let outside = file.components().any(|part| part == Component::ParentDir);
                proptest::prop_assert!(file.starts_with(dir) && !outside);
            }
        }
    }
}
