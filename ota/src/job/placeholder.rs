//! Placeholders in job documents, as AWS IoT has them: `${aws:iot:s3-presigned-url:URL}` and
//! `${aws:iot:s3-presigned-url-v2:URL}` stand for where the device gets a file, `${aws:iot:parameter:NAME}` for a
//! parameter of the job. Files are the server's firmware: the bucket `firmware`, the key `NAME/VERSION`.

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

/// The JSON text `document` with what `by` says in the place of each placeholder in its texts (not in the names of its
/// fields); where it says nothing the placeholder stays. All else is as it was, to the byte.
///
/// # Errors
/// [`Error::Invalid`] for a placeholder that means nothing here, and those of `by`; [`Error::Malformed`] where a text cannot
/// be read as JSON.
pub fn fill(
    document: &str,
    by: &mut impl FnMut(&Placeholder) -> Result<Option<String>, Error>,
) -> Result<String, Error> {
    let mut out = String::with_capacity(document.len());
    let mut left = document;
    while let Some(start) = left.find('"') {
        let (before, from) = left.split_at(start);
        let (literal, after) = from.split_at(literal(from));
        out.push_str(before);
        left = after;
        let is_name = after
            .trim_start_matches([' ', '\t', '\n', '\r'])
            .starts_with(':');
        if is_name {
            out.push_str(literal);
            continue;
        }
        let malformed = |error: serde_json::Error| Error::Malformed {
            what: "job document",
            why: error.to_string(),
        };
        let text: String = serde_json::from_str(literal).map_err(malformed)?;
        if text.contains(OPEN) {
            let filled = serde_json::to_string(&filled(&text, by)?).map_err(malformed)?;
            out.push_str(&filled);
        } else {
            out.push_str(literal);
        }
    }
    out.push_str(left);
    Ok(out)
}

/// How many bytes a text of JSON has with which `from` begins, its quotes included.
fn literal(from: &str) -> usize {
    let mut escaped = true;
    for (at, byte) in from.bytes().enumerate() {
        match byte {
            // The first is the one it begins with.
            b'"' if !escaped => return at + 1,
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    from.len()
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
                let document = json!({"files": [format!("a ${{aws:iot:{kind}:{url}}} b")]});
                let document = fill(&document.to_string(), &mut told).unwrap();
                assert_eq!(document, r#"{"files":["a /lamp/1.0 b"]}"#, "{url}");
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
            let document = json!(format!("${{aws:iot:{inside}}}")).to_string();
            let words = fill(&document, &mut told).unwrap_err().to_string();
            assert!(words.contains(why), "{words}");
        }
        let open = fill(r#""${aws:iot:parameter:x""#, &mut told);
        assert!(open.unwrap_err().to_string().contains("has no end"));
    }

    #[test]
    fn all_else_stays_to_the_byte() {
        let (given, expected) = (
            r#" {"z" : 1.10, "${aws:iot:parameter:p}" :"\u0024{aws:iot:parameter:\"}", "b":["\\","\\\"",12345678901234567890123, 1e2,"${aws:iot:parameter:p}"] , "z":"\u00e9" }"#,
            r#" {"z" : 1.10, "${aws:iot:parameter:p}" :"<\">", "b":["\\","\\\"",12345678901234567890123, 1e2,"<p>"] , "z":"\u00e9" }"#,
        );
        assert_eq!(fill(given, &mut told).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn text_without_placeholders_stays(text in "\\PC*") {
            prop_assume!(!text.contains(OPEN));
            let document = serde_json::to_string_pretty(&json!([text.clone(), {text.clone(): "k"}, {"k": text}])).unwrap();
            prop_assert_eq!(fill(&document, &mut told).unwrap(), document);
        }

        #[test]
        fn nothing_makes_trouble(text in "(\\$\\{aws:iot:|parameter:|s3-presigned-url:|none|s3://firmware/a/1|\\}|\\PC){0,12}") {
            let _ = fill(&text, &mut told);
            if let Ok(filled) = fill(&json!(text).to_string(), &mut told) {
                let filled: Result<serde_json::Value, _> = serde_json::from_str(&filled);
                prop_assert!(filled.is_ok_and(|filled| filled.is_string()));
            }
        }

        #[test]
        fn what_stands_between_is_kept(before in "[a-z ]*", after in "[a-z ]*") {
            let document = format!("{before}${{aws:iot:parameter:p}}{after}${{aws:iot:parameter:none}}");
            let filled = fill(&json!(document).to_string(), &mut told).unwrap();
            let expected = format!("{before}<p>{after}${{aws:iot:parameter:none}}");
            prop_assert_eq!(filled, json!(expected).to_string());
        }
    }
}
