//! A job document as it was given: byte for byte, so that what a signature in it is of stays what it was.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Error;

/// A job document: the text of a JSON value, and in what is written in its place that text itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Document(Box<RawValue>);

impl Document {
    /// The document that has this text.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is not JSON.
    pub fn of(text: String) -> Result<Self, Error> {
        match RawValue::from_string(text) {
            Ok(raw) => Ok(Self(raw)),
            Err(error) => Err(Error::Malformed {
                what: "job document",
                why: error.to_string(),
            }),
        }
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_stays_as_it_was_written() {
        let text = r#"{"z":1, "a":{"y":1.10,"x":12345678901234567890123},"n":1e2}"#;
        let document = Document::of(text.to_owned()).unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        let read: Document = serde_json::from_str(text).unwrap();
        assert_eq!(read, document);
        let words = Document::of("{".into()).unwrap_err().to_string();
        assert!(words.contains("job document"), "{words}");
    }
}
