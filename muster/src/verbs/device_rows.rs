//! The file of `muster device create --from`: one device a row. Pure but for the reading itself, which is bounded.

use crate::cli::DeviceCreate;
use anyhow::bail;
use serde_json::{Map, Value};
use std::{
    cell::Cell,
    collections::HashMap,
    io::{self, Read},
    rc::Rc,
};

/// Longest row. One without an end is a quotation mark that was never closed, and would hold the whole file.
const ROW_LIMIT_BYTES: usize = 64 * 1024;
/// Columns whose name begins so are attributes.
const ATTRIBUTE: &str = "attribute.";
/// Most characters of a wrong value that the report repeats.
const SHOWN_CHARS: usize = 100;

/// One device as the file describes it.
#[derive(Debug)]
pub(super) struct Row {
    /// Of the file, from 1.
    pub(super) line: u64,
    pub(super) name: String,
    /// What the server is asked for.
    pub(super) body: Map<String, Value>,
}

/// A row that is wrong, or that the server would not have.
#[derive(Debug)]
pub(super) struct Failure {
    /// Of the file, from 1; 0 where not even that is known.
    pub(super) line: u64,
    pub(super) name: String,
    /// The column at fault; empty where it is the row as a whole.
    pub(super) field: String,
    pub(super) value: String,
    /// What is wrong and how it is mended.
    pub(super) error: String,
}

impl Failure {
    pub(super) fn new(line: u64, field: &str, value: &str, error: impl Into<String>) -> Self {
        Failure {
            line,
            name: String::new(),
            field: field.to_owned(),
            value: value.chars().take(SHOWN_CHARS).collect(),
            error: error.into(),
        }
    }
}

/// Gives out the file's bytes, and no more for one row than a row may have.
pub(super) struct Bounded<R> {
    inner: R,
    left: Rc<Cell<usize>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other(format!(
                "a row has more than {ROW_LIMIT_BYTES} bytes: is a quotation mark not closed?"
            )));
        }
        let most = buffer.len().min(left);
        let read = buffer
            .get_mut(..most)
            .map_or(Ok(0), |part| self.inner.read(part))?;
        self.left.set(left - read);
        Ok(read)
    }
}

/// Reads rows one after the other.
pub(super) struct Rows<R> {
    reader: csv::Reader<Bounded<R>>,
    left: Rc<Cell<usize>>,
    columns: Columns,
    record: csv::ByteRecord,
    /// A file that cannot be read on has no more rows.
    ended: bool,
}

impl<R: Read> Rows<R> {
    /// Reads the first line, which names the columns.
    pub(super) fn open(file: R) -> anyhow::Result<Self> {
        let left = Rc::new(Cell::new(ROW_LIMIT_BYTES));
        // The carriage return of a CRLF is trimmed with the last field's spaces; taken for an end of line it would
        // put every row one line too high.
        let mut reader = csv::ReaderBuilder::new()
            .terminator(csv::Terminator::Any(b'\n'))
            .from_reader(Bounded {
                inner: file,
                left: Rc::clone(&left),
            });
        let columns = Columns::read(reader.headers()?)?;
        Ok(Rows {
            reader,
            left,
            columns,
            record: csv::ByteRecord::new(),
            ended: false,
        })
    }

    /// The next row; flags stand in for what it leaves out. `None` at the end.
    pub(super) fn next(&mut self, flags: &DeviceCreate) -> Option<Result<Row, Failure>> {
        if self.ended {
            return None;
        }
        self.left.set(ROW_LIMIT_BYTES);
        let line = self.reader.position().line();
        match self.reader.read_byte_record(&mut self.record) {
            Ok(false) => None,
            Ok(true) => {
                let line = self.record.position().map_or(line, csv::Position::line);
                Some(self.columns.row(line, &self.record, flags))
            }
            Err(error) => {
                self.ended = matches!(error.kind(), csv::ErrorKind::Io(_));
                let line = error.position().map_or(line, csv::Position::line);
                let words = match error.kind() {
                    csv::ErrorKind::UnequalLengths {
                        expected_len, len, ..
                    } => format!(
                        "the row has {len} fields and the first line names {expected_len}: write as many, and put one that has a comma in quotation marks"
                    ),
                    csv::ErrorKind::Io(error) => format!("the file cannot be read on: {error}"),
                    _ => error.to_string(),
                };
                Some(Err(Failure::new(line, "", "", words)))
            }
        }
    }
}

/// What each column of the file is.
struct Columns(HashMap<String, usize>);

impl Columns {
    fn read(heads: &csv::StringRecord) -> anyhow::Result<Self> {
        let mut columns = HashMap::new();
        for (at, head) in heads.iter().enumerate() {
            let head = head.trim().trim_start_matches('\u{feff}');
            let known = matches!(head, "name" | "policy" | "group")
                || head
                    .strip_prefix(ATTRIBUTE)
                    .is_some_and(|key| !key.is_empty());
            if !known {
                bail!(
                    "column {head:?} is not known: there are name, policy, group and {ATTRIBUTE}KEY"
                );
            }
            if columns.insert(head.to_owned(), at).is_some() {
                bail!("column {head:?} is there twice: leave one out");
            }
        }
        if !columns.contains_key("name") {
            bail!("the first line names the columns, and there is none called name");
        }
        Ok(Columns(columns))
    }

    fn row(
        &self,
        line: u64,
        record: &csv::ByteRecord,
        flags: &DeviceCreate,
    ) -> Result<Row, Failure> {
        let field = |head: &str| -> Result<Option<&str>, Failure> {
            let Some(bytes) = self.0.get(head).and_then(|at| record.get(*at)) else {
                return Ok(None);
            };
            let text = std::str::from_utf8(bytes).map_err(|_| {
                let shown = String::from_utf8_lossy(bytes);
                Failure::new(
                    line,
                    head,
                    &shown,
                    "it is not UTF-8: save the file as UTF-8",
                )
            })?;
            Ok(Some(text.trim()).filter(|text| !text.is_empty()))
        };
        let name = field("name")?
            .ok_or_else(|| Failure::new(line, "name", "", "the row has no name: give it one"))?;
        let named = |mut failure: Failure| {
            name.clone_into(&mut failure.name);
            failure
        };
        let wrong = |head: &str, value: &str, error: &dyn std::fmt::Display| {
            named(Failure::new(line, head, value, error.to_string()))
        };
        // It becomes a directory before the server has looked at it.
        name.parse::<fleet::ThingName>()
            .map_err(|error| wrong("name", name, &error))?;
        let mut body = Map::new();
        body.insert("thingName".into(), name.into());
        let policy = field("policy").map_err(named)?.unwrap_or(&flags.policy);
        policy
            .parse::<policy::PolicyName>()
            .map_err(|error| wrong("policy", policy, &error))?;
        body.insert("policyName".into(), policy.into());
        if let Some(group) = field("group").map_err(named)?.or(flags.group.as_deref()) {
            group
                .parse::<fleet::GroupName>()
                .map_err(|error| wrong("group", group, &error))?;
            body.insert("groupName".into(), group.into());
        }
        let mut attributes: Map<String, Value> = (flags.attributes.iter())
            .map(|(key, value)| (key.clone(), value.clone().into()))
            .collect();
        for head in self.0.keys() {
            if let Some(key) = head.strip_prefix(ATTRIBUTE)
                && let Some(value) = field(head).map_err(named)?
            {
                attributes.insert(key.to_owned(), value.into());
            }
        }
        if !attributes.is_empty() {
            body.insert("attributes".into(), attributes.into());
        }
        Ok(Row {
            line,
            name: name.to_owned(),
            body,
        })
    }
}

impl Row {
    /// Which column the server's sentence is about, and what stands there.
    pub(super) fn at_fault(&self, sentence: &str) -> (String, String) {
        let text = |key: &str| self.body.get(key).and_then(Value::as_str);
        let group = text("groupName").filter(|_| sentence.starts_with("group "));
        let policy = text("policyName").filter(|_| sentence.starts_with("policy "));
        if let Some(group) = group {
            return ("group".into(), group.into());
        }
        if let Some(policy) = policy {
            return ("policy".into(), policy.into());
        }
        let attributes = self.body.get("attributes").and_then(Value::as_object);
        let about = attributes.into_iter().flatten().find(|(key, _)| {
            sentence.contains(&format!("attribute {key}:"))
                || sentence.contains(&format!("attribute name {key:?}"))
        });
        match about {
            Some((key, value)) => (
                format!("{ATTRIBUTE}{key}"),
                value.as_str().unwrap_or_default().to_owned(),
            ),
            None => ("name".into(), self.name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use proptest::prelude::*;
    use serde_json::json;

    fn flags() -> DeviceCreate {
        let line = "muster device create --from f --out d --group default --attribute site=bonn";
        let cli = crate::cli::Cli::try_parse_from(line.split(' ')).unwrap();
        match cli.command {
            Some(crate::cli::Command::Verb(crate::cli::Verb::Device(
                crate::cli::Device::Create(create),
            ))) => create,
            other => panic!("{other:?}"),
        }
    }

    fn rows(text: &[u8]) -> anyhow::Result<Vec<Result<Row, Failure>>> {
        let (create, mut rows) = (flags(), Rows::open(text)?);
        Ok(std::iter::from_fn(|| rows.next(&create)).collect())
    }

    #[test]
    fn a_row_says_what_is_its_own_and_flags_the_rest() {
        let read =
            rows(b"\xef\xbb\xbfname,group,attribute.serial\nlamp-1,hall,7\n\"lamp-2\",,\"a, b\"\n")
                .unwrap();
        let body = |at: usize| Value::Object(read[at].as_ref().unwrap().body.clone());
        assert_eq!(
            body(0),
            json!({"thingName": "lamp-1", "policyName": "device-default", "groupName": "hall",
                   "attributes": {"site": "bonn", "serial": "7"}})
        );
        assert_eq!(body(1)["groupName"], "default");
        assert_eq!(body(1)["attributes"]["serial"], "a, b");
    }

    #[test]
    fn lines_are_counted_alike_whatever_ends_them() {
        for end in ["\n", "\r\n"] {
            let text = ["name,group", "lamp-1,\"hall\"", "a b,", "lamp-2,"].join(end);
            let read = rows(text.as_bytes()).unwrap();
            assert_eq!(read[0].as_ref().unwrap().body["groupName"], "hall");
            assert_eq!(read[1].as_ref().unwrap_err().line, 3, "{end:?}");
            assert_eq!(read[2].as_ref().unwrap().line, 4);
        }
    }

    #[test]
    fn wrong_first_lines_are_named() {
        for (text, words) in [
            ("", "none called name"),
            ("serial\n1\n", "\"serial\" is not known"),
            ("name,name\n", "twice"),
            ("name,attribute.\n", "is not known"),
        ] {
            let error = rows(text.as_bytes()).err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn wrong_rows_are_named_by_line_field_and_value_and_the_rest_is_read() {
        let text = b"name,group,policy\n\"\",,\n../etc,,\na b,,\nlamp-1,,\nshort\nlamp-2,a/b,\nlamp-3,,p q\nlamp-\xff,,\nlamp-4,,\n";
        let read = rows(text).unwrap();
        let failed: Vec<(u64, &str, &str)> = read
            .iter()
            .filter_map(|row| row.as_ref().err())
            .map(|failure| (failure.line, &*failure.field, &*failure.value))
            .collect();
        assert_eq!(
            failed,
            [
                (2, "name", ""),
                (3, "name", "../etc"),
                (4, "name", "a b"),
                (6, "", ""),
                (7, "group", "a/b"),
                (8, "policy", "p q"),
                (9, "name", "lamp-\u{fffd}"),
            ]
        );
        let names: Vec<&str> = read
            .iter()
            .filter_map(|row| row.as_ref().ok())
            .map(|row| &*row.name)
            .collect();
        assert_eq!(names, ["lamp-1", "lamp-4"]);
    }

    #[test]
    fn a_quotation_mark_that_is_never_closed_holds_no_more_than_a_row_may() {
        let mut text = b"name\nlamp-1\n\"lamp-2\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 10 * ROW_LIMIT_BYTES));
        let read = rows(&text).unwrap();
        assert_eq!(read.len(), 2, "nothing follows what cannot be read on");
        let failure = read[1].as_ref().unwrap_err();
        assert!(failure.error.contains("quotation mark"), "{failure:?}");
    }

    #[test]
    fn what_the_server_says_is_led_back_to_its_column() {
        let read = rows(b"name,group,policy,attribute.serial\nlamp-1,hall,p,7\n").unwrap();
        let row = read[0].as_ref().unwrap();
        for (sentence, field) in [
            (
                "group hall does not exist (ResourceNotFoundException)",
                "group",
            ),
            ("policy p does not exist", "policy"),
            (
                "value \"7\" of attribute serial: at most",
                "attribute.serial",
            ),
            ("thing lamp-1 exists already", "name"),
        ] {
            assert_eq!(row.at_fault(sentence).0, field);
        }
    }

    proptest! {
        #[test]
        fn no_file_is_read_for_ever_or_panics(text in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut whole = b"name,group\n".to_vec();
            whole.extend(&text);
            let read = rows(&whole).unwrap();
            prop_assert!(read.len() <= text.len() + 1);
        }
    }
}
