//! Placeholders in job documents, as AWS IoT has them: `${aws:iot:s3-presigned-url:URL}` and
//! `${aws:iot:s3-presigned-url-v2:URL}` stand for where the device gets a file, `${aws:iot:parameter:NAME}` for a
//! parameter of the job. Files are the server's firmware: the bucket `firmware`, the key `NAME/VERSION`.

use serde_json::Value;

use crate::{Error, FirmwareName, FirmwareVersion};

const OPEN: &str = "${aws:iot:";
const BUCKET: &str = "firmware";
/// Where files may be named to lie: AWS's hosts of S3.
const S3_DOMAIN: &str = ".amazonaws.com";

/// What stands in a document for something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// A parameter of the job.
    Parameter(String),
    /// An image.
    File(FirmwareName, FirmwareVersion),
}

fn refuse<T>(inside: &str, why: &str) -> Result<T, Error> {
    let shown: String = inside.chars().take(80).collect();
    Err(Error::Invalid {
        field: "document".into(),
        why: format!("the placeholder `{OPEN}{}}}` {why}", shown.escape_debug()),
    })
}

impl Placeholder {
    fn read(inside: &str) -> Result<Self, Error> {
        if let Some(name) = inside.strip_prefix("parameter:") {
            return Ok(Self::Parameter(name.to_owned()));
        }
        let url = inside
            .strip_prefix("s3-presigned-url:")
            .or_else(|| inside.strip_prefix("s3-presigned-url-v2:"));
        let Some(url) = url else {
            return refuse(inside, "is not known here");
        };
        let Some((name, version)) = key(url).and_then(|key| key.split_once('/')) else {
            return refuse(
                inside,
                "names no file of this server: write https://s3.amazonaws.com/firmware/NAME/VERSION",
            );
        };
        Ok(Self::File(name.parse()?, version.parse()?))
    }
}

/// The key of a URL in our bucket, whichever way it is written.
fn key(url: &str) -> Option<&str> {
    let rest = match url.strip_prefix("s3://") {
        Some(rest) => rest,
        None => {
            let (host, path) = url.strip_prefix("https://")?.split_once('/')?;
            let host = host.strip_suffix(S3_DOMAIN)?;
            match host.strip_prefix(BUCKET) {
                Some(host) if host.starts_with(".s3") => return Some(path),
                _ if host == "s3" || host.starts_with("s3.") || host.starts_with("s3-") => path,
                _ => return None,
            }
        }
    };
    rest.strip_prefix(BUCKET)?.strip_prefix('/')
}

/// Puts what `by` says in the place of each placeholder in the texts of `document`; where it says nothing
/// the placeholder stays.
///
/// # Errors
/// [`Error::Invalid`] for a placeholder that means nothing here, and those of `by`.
pub fn fill(
    document: &mut Value,
    by: &mut impl FnMut(&Placeholder) -> Result<Option<String>, Error>,
) -> Result<(), Error> {
    match document {
        Value::String(text) => {
            if text.contains(OPEN) {
                *text = filled(text, by)?;
            }
            Ok(())
        }
        Value::Array(items) => items.iter_mut().try_for_each(|item| fill(item, by)),
        Value::Object(fields) => fields.values_mut().try_for_each(|field| fill(field, by)),
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn filled(
    text: &str,
    by: &mut impl FnMut(&Placeholder) -> Result<Option<String>, Error>,
) -> Result<String, Error> {
    let mut out = String::new();
    let mut left = text;
    while let Some((before, rest)) = left.split_once(OPEN) {
        out.push_str(before);
        let Some((inside, after)) = rest.split_once('}') else {
            return refuse(rest, "has no end");
        };
        match by(&Placeholder::read(inside)?)? {
            Some(value) => out.push_str(&value),
            None => {
                out.push_str(OPEN);
                out.push_str(inside);
                out.push('}');
            }
        }
        left = after;
    }
    out.push_str(left);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn told(placeholder: &Placeholder) -> Result<Option<String>, Error> {
        Ok(match placeholder {
            Placeholder::Parameter(name) if name == "none" => None,
            Placeholder::Parameter(name) => Some(format!("<{name}>")),
            Placeholder::File(name, version) => Some(format!("/{name}/{version}")),
        })
    }

    #[test]
    fn each_way_to_name_a_file_is_read() {
        for url in [
            "https://s3.amazonaws.com/firmware/lamp/1.0",
            "https://s3.eu-central-1.amazonaws.com/firmware/lamp/1.0",
            "https://firmware.s3.amazonaws.com/lamp/1.0",
            "https://firmware.s3.eu-central-1.amazonaws.com/lamp/1.0",
            "s3://firmware/lamp/1.0",
        ] {
            for kind in ["s3-presigned-url", "s3-presigned-url-v2"] {
                let mut document = json!({"files": [format!("a ${{aws:iot:{kind}:{url}}} b")]});
                fill(&mut document, &mut told).unwrap();
                assert_eq!(document, json!({"files": ["a /lamp/1.0 b"]}), "{url}");
            }
        }
    }

    #[test]
    fn what_means_nothing_here_is_refused_by_name() {
        for (inside, why) in [
            (
                "s3-presigned-url:https://s3.amazonaws.com/other/lamp/1.0",
                "names no file",
            ),
            (
                "s3-presigned-url:https://firmware.s3.evil.com/lamp/1.0",
                "names no file",
            ),
            (
                "s3-presigned-url:https://s3evil.amazonaws.com/firmware/lamp/1.0",
                "names no file",
            ),
            ("s3-presigned-url:s3://firmware/lamp/../x", "is not valid"),
            ("code-sign-signature:s3://a/b", "is not known here"),
        ] {
            let mut document = json!(format!("${{aws:iot:{inside}}}"));
            let words = fill(&mut document, &mut told).unwrap_err().to_string();
            assert!(words.contains(why), "{words}");
        }
        let open = fill(&mut json!("${aws:iot:parameter:x"), &mut told);
        assert!(open.unwrap_err().to_string().contains("has no end"));
    }

    proptest! {
        #[test]
        fn text_without_placeholders_stays(text in "\\PC*") {
            prop_assume!(!text.contains(OPEN));
            let mut document = json!([text.clone(), {"k": text}]);
            let before = document.clone();
            fill(&mut document, &mut told).unwrap();
            prop_assert_eq!(document, before);
        }

        #[test]
        fn nothing_makes_trouble(text in "(\\$\\{aws:iot:|parameter:|s3-presigned-url:|none|s3://firmware/a/1|\\}|\\PC){0,12}") {
            let _ = fill(&mut json!(text), &mut told);
        }

        #[test]
        fn what_stands_between_is_kept(before in "[a-z ]*", after in "[a-z ]*") {
            let mut document = json!(format!("{before}${{aws:iot:parameter:p}}{after}${{aws:iot:parameter:none}}"));
            fill(&mut document, &mut told).unwrap();
            prop_assert_eq!(document, json!(format!("{before}<p>{after}${{aws:iot:parameter:none}}")));
        }
    }
}
