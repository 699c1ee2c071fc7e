//! The operator's credentials file: an AWS shared-credentials file, which boto3 and the AWS command line read too,
//! with two keys of ours that they skip: where the server is and which root it must prove to descend from.

use anyhow::{Context as _, bail};
use std::{collections::BTreeMap, path::Path};

/// What signs an operator's requests, and whom they may be sent to. Holds a secret: no `Debug`.
pub(crate) struct Credentials {
    /// Named in each request.
    pub(crate) access_key: String,
    /// Signs each request; never sent.
    pub(crate) secret_key: String,
    /// `https://HOST:PORT`.
    pub(crate) endpoint: Option<String>,
    /// DER of the root certificate the server's must chain to.
    pub(crate) root: Vec<u8>,
}

impl Credentials {
    /// Reads the `default` profile of a credentials file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("read credentials file {}", path.display()))?;
        let mut values = profile(&text, "default");
        let mut take = |key: &str| values.remove(key).filter(|value| !value.is_empty());
        let missing = |key: &str| {
            format!(
                "credentials file {} has no {key} under [default]: it is not one that a Muster server wrote",
                path.display()
            )
        };
        let root = take("muster_root").with_context(|| missing("muster_root"))?;
        Ok(Credentials {
            access_key: take("aws_access_key_id").with_context(|| missing("aws_access_key_id"))?,
            secret_key: take("aws_secret_access_key")
                .with_context(|| missing("aws_secret_access_key"))?,
            endpoint: take("muster_endpoint"),
            root: match data_encoding::BASE64.decode(root.as_bytes()) {
                Ok(der) => der,
                Err(error) => bail!("muster_root in {} is not base64: {error}", path.display()),
            },
        })
    }
}

/// The keys of one profile. Lines outside it, comments and blank lines are skipped.
fn profile(text: &str, name: &str) -> BTreeMap<String, String> {
    let mut inside = false;
    let mut values = BTreeMap::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
    {
        if let Some(section) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            inside = section.trim() == name;
        } else if inside && let Some((key, value)) = line.split_once('=') {
            values.insert(key.trim().to_owned(), value.trim().to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_default_profile_only() {
        let text = "[other]\naws_access_key_id = no\n# note\n[default]\naws_access_key_id=AK\n aws_secret_access_key = s=/+ \n";
        let values = profile(text, "default");
        assert_eq!(values["aws_access_key_id"], "AK");
        assert_eq!(values["aws_secret_access_key"], "s=/+");
    }

    #[test]
    fn says_what_is_missing_and_not_the_secret() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "[default]\naws_access_key_id = AK\naws_secret_access_key = hush\n",
        )
        .unwrap();
        let error = Credentials::read(file.path()).err().unwrap().to_string();
        assert!(
            error.contains("muster_root") && !error.contains("hush"),
            "{error}"
        );
    }
}
