//! The name of a provisioning template.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// Longest template name (AWS IoT: `[0-9A-Za-z_-]{1,36}`).
const NAME_LIMIT_CHARS: usize = 36;

/// The name of a provisioning template.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TemplateName(Arc<str>);

impl TemplateName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TemplateName {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if text.is_empty() || text.len() > NAME_LIMIT_CHARS || !text.chars().all(fits) {
            return Err(format!(
                "a template name has 1 to {NAME_LIMIT_CHARS} letters a-z and A-Z, digits, '-' and '_'"
            ));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for TemplateName {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TemplateName> for String {
    fn from(name: TemplateName) -> String {
        name.as_str().to_owned()
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::TemplateName;

    #[test]
    fn takes_what_aws_takes() {
        for good in ["lamps", "a", "A_b-9", &"x".repeat(36)] {
            assert_eq!(good.parse::<TemplateName>().unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a:b", "a b", "ä", "+", &"x".repeat(37)] {
            assert!(bad.parse::<TemplateName>().is_err(), "{bad:?}");
        }
    }
}
