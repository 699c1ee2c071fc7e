//! Tags of jobs and job templates: what the operator calls them by. Nothing here asks for them.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use store::Stored;

use super::Ota;
use super::executions::Changes;
use super::jobs::invalid;
use crate::{Error, JobId};

/// Most tags of one resource (AWS: 50).
pub const MAX_TAGS: usize = 50;
/// Longest key and value, in characters (AWS: 128 and 256).
const MAX_KEY_CHARS: usize = 128;
const MAX_VALUE_CHARS: usize = 256;

/// A tag as AWS writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Tag {
    /// Its name, once for each resource.
    pub key: String,
    /// What it says; nothing, where it is not there.
    #[serde(default)]
    pub value: String,
}

/// What can have tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tagged {
    /// A job.
    Job(JobId),
    /// A job template.
    JobTemplate(JobId),
}

impl Tagged {
    fn row(&self) -> String {
        match self {
            Self::Job(id) => format!("tags/job/{id}"),
            Self::JobTemplate(id) => format!("tags/jobtemplate/{id}"),
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct TagsRow {
    tags: BTreeMap<String, String>,
}
impl Stored for TagsRow {}

/// AWS's pattern for tags: letters, digits, space and `_.:/=+-@`.
fn fits(text: &str) -> bool {
    text.chars()
        .all(|c| c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c))
}

/// Tags of a request, checked.
///
/// # Errors
/// [`Error::Invalid`] past AWS's bounds.
pub fn read(tags: &[Tag]) -> Result<BTreeMap<String, String>, Error> {
    let mut read = BTreeMap::new();
    for Tag { key, value } in tags {
        let shown: String = key.chars().take(40).collect();
        let wrong = |why: String| invalid("tags", format!("`{}`: {why}", shown.escape_debug()));
        if key.is_empty() || key.chars().count() > MAX_KEY_CHARS {
            return wrong(format!("a key has 1 to {MAX_KEY_CHARS} characters"));
        }
        if value.chars().count() > MAX_VALUE_CHARS {
            return wrong(format!("a value has at most {MAX_VALUE_CHARS} characters"));
        }
        if !fits(key) || !fits(value) {
            return wrong("letters, digits, space and _.:/=+-@ are possible".into());
        }
        if key.starts_with("aws:") {
            return wrong("keys that begin with aws: are AWS's".into());
        }
        if read.insert(key.clone(), value.clone()).is_some() {
            return wrong("it is there twice".into());
        }
    }
    if read.len() > MAX_TAGS {
        return invalid("tags", format!("at most {MAX_TAGS} are possible"));
    }
    Ok(read)
}

impl Changes<'_> {
    pub(super) fn put_tags(
        &mut self,
        of: &Tagged,
        tags: BTreeMap<String, String>,
    ) -> Result<(), Error> {
        if tags.is_empty() {
            self.drop_tags(of);
            return Ok(());
        }
        self.rows.put(of.row(), &TagsRow { tags })
    }

    pub(super) fn drop_tags(&mut self, of: &Tagged) {
        self.rows.delete(of.row());
    }
}

impl Ota {
    fn is_there(&self, of: &Tagged) -> Result<(), Error> {
        match of {
            Tagged::Job(id) => self.job(id).map(drop),
            Tagged::JobTemplate(id) => self.job_template(id).map(drop),
        }
    }

    /// The tags of a resource, by key.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn tags(&self, of: &Tagged) -> Result<Vec<Tag>, Error> {
        self.is_there(of)?;
        let row = self.inner.table.get_as::<TagsRow>(&of.row())?;
        let tags = row.map(|row| row.value.tags).unwrap_or_default();
        let tag = |(key, value)| Tag { key, value };
        Ok(tags.into_iter().map(tag).collect())
    }

    /// Sets tags of a resource; others stay.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`].
    pub fn tag(&self, of: &Tagged, tags: &[Tag], at: SystemTime) -> Result<(), Error> {
        let fresh = read(tags)?;
        self.change_tags(of, at, |tags| tags.extend(fresh))
    }

    /// Takes tags from a resource; those it does not have are no error.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn untag(&self, of: &Tagged, keys: &[String], at: SystemTime) -> Result<(), Error> {
        self.change_tags(of, at, |tags| tags.retain(|key, _| !keys.contains(key)))
    }

    fn change_tags(
        &self,
        of: &Tagged,
        at: SystemTime,
        change: impl FnOnce(&mut BTreeMap<String, String>),
    ) -> Result<(), Error> {
        self.change(at, |changes| {
            self.is_there(of)?;
            let mut tags = changes.rows.get::<TagsRow>(&of.row())?.unwrap_or_default();
            change(&mut tags.tags);
            if tags.tags.len() > MAX_TAGS {
                return invalid("tags", format!("at most {MAX_TAGS} are possible"));
            }
            changes.put_tags(of, tags.tags)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_have_awss_bounds() {
        let tag = |key: &str, value: &str| Tag {
            key: key.into(),
            value: value.into(),
        };
        let long = "x".repeat(MAX_KEY_CHARS);
        let good = [
            tag("a", ""),
            tag(&long, &"y".repeat(MAX_VALUE_CHARS)),
            tag("Straße 1", "a/b=c"),
        ];
        assert_eq!(read(&good).unwrap().len(), 3);
        let many: Vec<Tag> = (0..=MAX_TAGS).map(|n| tag(&n.to_string(), "")).collect();
        for bad in [
            &[tag("", "x")][..],
            &[tag(&format!("{long}x"), "")],
            &[tag("a", &"y".repeat(MAX_VALUE_CHARS + 1))],
            &[tag("a", "\n")],
            &[tag("a<b", "")],
            &[tag("aws:x", "")],
            &[tag("a", "1"), tag("a", "2")],
            &many,
        ] {
            assert!(matches!(read(bad), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }
}
