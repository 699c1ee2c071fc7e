//! Every normative statement of MQTT 5.0 and MQTT 3.1.1 has a place in the code and a test.
//!
//! The statements are listed in `broker/conformance`. Tags in comments say where each is kept: `[MQTT-3.1.2-24]` is of
//! MQTT 5.0, `[MQTT311-3.1.2-24]` of 3.1.1, and `[MQTT-3.1.2-24, -25, 3.3.2-5]` are three. A tag belongs to the item it
//! stands in, or to the one it stands directly above. In a test it says: this test fails when the statement is broken.
//!
//! `docs/mqtt-conformance.md` is made of both. To write it anew:
//! `MUSTER_CONFORMANCE=write cargo test -p muster-broker --test conformance`
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

const WRITE: &str = "MUSTER_CONFORMANCE=write cargo test -p muster-broker --test conformance";

/// From the root of the repository.
const DOCUMENT: &str = "docs/mqtt-conformance.md";
const SOURCES: [(&str, &str); 3] = [
    ("broker/src", "rs"),
    ("broker/tests", "rs"),
    ("tests/e2e", "py"),
];

struct Standard {
    title: &'static str,
    /// What its tags begin with.
    prefix: &'static str,
    file: &'static str,
}

const STANDARDS: [Standard; 2] = [
    Standard {
        title: "MQTT 5.0",
        prefix: "[MQTT-",
        file: "broker/conformance/mqtt5.toml",
    },
    Standard {
        title: "MQTT 3.1.1",
        prefix: "[MQTT311-",
        file: "broker/conformance/mqtt311.toml",
    },
];

#[derive(Deserialize)]
struct List {
    statements: BTreeMap<Id, Statement>,
}

#[derive(Deserialize)]
struct Statement {
    binds: Binds,
    text: String,
    not_applicable: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Binds {
    Server,
    Client,
    Both,
}

/// `3.1.2-24`, ordered by number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
struct Id {
    section: Vec<u32>,
    number: u32,
}

impl TryFrom<String> for Id {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text:?} is no identifier of a statement"))
    }
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let (section, number) = text.split_once('-')?;
        let section: Vec<u32> = section
            .split('.')
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()?;
        (section.len() == 3).then_some(Self {
            section,
            number: number.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let section: Vec<String> = self.section.iter().map(u32::to_string).collect();
        write!(f, "{}-{}", section.join("."), self.number)
    }
}

/// Where a tag stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// From the root, with `/`.
    file: String,
    item: String,
}

/// What the tags of one standard say.
#[derive(Default)]
struct Tagged {
    code: BTreeMap<Id, BTreeSet<Place>>,
    tests: BTreeMap<Id, BTreeSet<Place>>,
}

/// The identifiers of the tags in a line, or what is wrong with one.
fn tags(line: &str, prefix: &str) -> Result<Vec<Id>, String> {
    let mut found: Vec<Id> = Vec::new();
    for (at, _) in line.match_indices(prefix) {
        let rest = &line[at + prefix.len()..];
        let Some((inside, _)) = rest.split_once(']') else {
            return Err(format!("{prefix} has no ]: a tag ends on its line"));
        };
        for part in inside.split(',').map(str::trim) {
            let id = match (part.strip_prefix('-'), found.last()) {
                (Some(number), Some(last)) => number.parse().ok().map(|number| Id {
                    section: last.section.clone(),
                    number,
                }),
                _ => Id::parse(part),
            };
            found.push(id.ok_or_else(|| format!("{prefix}{inside}] is no tag"))?);
        }
    }
    Ok(found)
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the item that a line declares.
fn declared(line: &str) -> Option<&str> {
    let mut words = line
        .split([' ', '(', '<', ':', ';', '{', '='])
        .filter(|word| !word.is_empty());
    loop {
        match words.next()? {
            "pub" | "crate)" | "super)" | "in" | "async" | "unsafe" => {}
            "const" => match words.next()? {
                "fn" => return words.next(),
                name => return Some(name),
            },
            "fn" | "def" | "struct" | "enum" | "trait" | "type" | "static" | "mod" | "class" => {
                return words.next();
            }
            _ => return None,
        }
    }
}

fn is_note(line: &str) -> bool {
    let line = line.trim_start();
    ["//", "#", "@"].iter().any(|head| line.starts_with(head))
}

/// The line that declares what line `at` belongs to: the next one below comments and attributes, or else the nearest one
/// above that stands further left.
fn home(lines: &[&str], at: usize) -> Option<usize> {
    if declared(lines[at].trim_start()).is_some() {
        return Some(at);
    }
    if is_note(lines[at]) {
        let below = (at..lines.len()).find(|n| !is_note(lines[*n]))?;
        if declared(lines[below].trim_start()).is_some() {
            return Some(below);
        }
    }
    let left = indent(lines[at]);
    let mut above = (0..at).rev();
    above.find(|n| indent(lines[*n]) < left && declared(lines[*n].trim_start()).is_some())
}

/// Where the tests of a file begin.
fn tests_begin(file: &str, lines: &[&str]) -> usize {
    if file.contains("tests/") || file.ends_with("/tests.rs") {
        return 0;
    }
    let pairs = lines.windows(2);
    let mut found = pairs
        .enumerate()
        .filter(|(_, pair)| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod "));
    found
        .find(|(_, pair)| pair[1].ends_with('{'))
        .map_or(lines.len(), |(at, _)| at)
}

/// Whether a declaration is that of a test.
fn is_test(file: &str, lines: &[&str], at: usize) -> bool {
    if file.ends_with(".py") {
        return lines[at].trim_start().starts_with("def test_");
    }
    let above = (0..at).rev().take_while(|n| is_note(lines[*n]));
    lines[at].contains("fn ")
        && above
            .into_iter()
            .any(|n| lines[n].trim_start() == "#[test]")
}

/// Adds the tags of a file; what is wrong with them goes to `faults`.
fn scan(
    file: &str,
    text: &str,
    prefix: &str,
    known: &BTreeMap<Id, Statement>,
    tagged: &mut Tagged,
    faults: &mut Vec<String>,
) {
    let lines: Vec<&str> = text.lines().collect();
    let tests = tests_begin(file, &lines);
    for (at, line) in lines.iter().enumerate() {
        if line.contains("3.1.1 [MQTT-") {
            let wanted = "tags of 3.1.1 are [MQTT311-…]";
            faults.push(format!("{file}:{}: {wanted}", at + 1));
        }
        let ids = match tags(line, prefix) {
            Ok(ids) if ids.is_empty() => continue,
            Ok(ids) => ids,
            Err(fault) => {
                faults.push(format!("{file}:{}: {fault}", at + 1));
                continue;
            }
        };
        let home = home(&lines, at);
        if at >= tests && !home.is_some_and(|home| is_test(file, &lines, home)) {
            faults.push(format!("{file}:{}: the tag stands in no test", at + 1));
        }
        let item = home.and_then(|home| declared(lines[home].trim_start()));
        let place = Place {
            file: file.to_owned(),
            item: item.unwrap_or_default().to_owned(),
        };
        for id in ids {
            if !known.contains_key(&id) {
                faults.push(format!("{file}:{}: {prefix}{id}] is no statement", at + 1));
                continue;
            }
            let side = match at < tests {
                true => &mut tagged.code,
                false => &mut tagged.tests,
            };
            side.entry(id).or_default().insert(place.clone());
        }
    }
}

/// What is missing, or there against the list.
fn missing(standard: &Standard, known: &BTreeMap<Id, Statement>, tagged: &Tagged) -> Vec<String> {
    let mut faults = Vec::new();
    for (id, statement) in known {
        let tag = format!("{}{id}]", standard.prefix);
        let (code, tests) = (&tagged.code, &tagged.tests);
        match statement.not_applicable {
            Some(_) if code.contains_key(id) => {
                faults.push(format!("{tag} is listed as not applicable and has code"));
            }
            Some(_) => {}
            None => {
                if !code.contains_key(id) {
                    faults.push(format!(
                        "{tag} has no place in the code: {}",
                        statement.text
                    ));
                }
                if !tests.contains_key(id) {
                    faults.push(format!("{tag} has no test: {}", statement.text));
                }
            }
        }
    }
    faults
}

/// The places of one statement.
fn told(places: Option<&BTreeSet<Place>>) -> String {
    let told: Vec<String> = places
        .into_iter()
        .flatten()
        .map(|Place { file, item }| {
            let short = file
                .trim_start_matches("broker/src/")
                .trim_start_matches("broker/");
            format!("{short} `{item}`")
        })
        .collect();
    told.join("<br>")
}

fn document(standards: &[(&Standard, &BTreeMap<Id, Statement>, &Tagged)]) -> String {
    let mut out = String::from(
        "# The standards, statement by statement\n\n\
         Generated from the lists in `broker/conformance` and the tags in code and tests; do not edit. Write it anew with\n\
         `MUSTER_CONFORMANCE=write cargo test -p muster-broker --test conformance`; the same test fails when a statement\n\
         has no place in the code or no test, and when this page is stale. The statements are told in our own words; the\n\
         standards' words are those of OASIS, by the same identifiers. Files are those of `broker/src`, `broker/tests` and\n\
         `tests/e2e`.\n",
    );
    for (standard, known, tagged) in standards {
        let (no, yes): (Vec<_>, Vec<_>) = known
            .iter()
            .partition(|(_, statement)| statement.not_applicable.is_some());
        write!(
            out,
            "\n## {}\n\n{} statements: {} with code and test, {} not applicable.\n\n\
             | Statement | Binds | In short | Code | Tests |\n| --- | --- | --- | --- | --- |\n",
            standard.title,
            known.len(),
            yes.len(),
            no.len()
        )
        .unwrap();
        for (id, statement) in yes {
            writeln!(
                out,
                "| MQTT-{id} | {} | {} | {} | {} |",
                match statement.binds {
                    Binds::Server => "server",
                    Binds::Client => "client",
                    Binds::Both => "both",
                },
                statement.text,
                told(tagged.code.get(id)),
                told(tagged.tests.get(id)),
            )
            .unwrap();
        }
        out.push_str("\nNot applicable:\n\n| Statement | In short | Why not | Tests of that |\n| --- | --- | --- | --- |\n");
        for (id, statement) in no {
            let why = statement.not_applicable.as_deref().unwrap_or_default();
            let tests = told(tagged.tests.get(id));
            writeln!(out, "| MQTT-{id} | {} | {why} | {tests} |", statement.text).unwrap();
        }
    }
    out
}

fn root() -> PathBuf {
    let broker = Path::new(env!("CARGO_MANIFEST_DIR"));
    broker.parent().unwrap().to_owned()
}

fn files(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

#[test]
fn every_statement_has_code_and_a_test_and_the_document_says_so() {
    let root = root();
    let mut paths = Vec::new();
    for (dir, extension) in SOURCES {
        files(&root.join(dir), extension, &mut paths);
    }
    let mut faults = Vec::new();
    let mut standards = Vec::new();
    for standard in &STANDARDS {
        let list = std::fs::read_to_string(root.join(standard.file)).unwrap();
        let List { statements } = toml::from_str(&list).unwrap();
        let mut tagged = Tagged::default();
        for path in &paths {
            let file = path.strip_prefix(&root).unwrap().to_str().unwrap();
            if file == "broker/tests/conformance.rs" {
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let prefix = standard.prefix;
            scan(file, &text, prefix, &statements, &mut tagged, &mut faults);
        }
        faults.extend(missing(standard, &statements, &tagged));
        standards.push((standard, statements, tagged));
    }
    let said: Vec<_> = standards
        .iter()
        .map(|(s, known, t)| (*s, known, t))
        .collect();
    let document = document(&said);
    let path = root.join(DOCUMENT);
    if std::env::var_os("MUSTER_CONFORMANCE").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &document).unwrap();
    }
    assert!(
        faults.is_empty(),
        "{}\n{} faults",
        faults.join("\n"),
        faults.len()
    );
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    // The first line that differs says enough.
    let mut lines = document
        .lines()
        .zip(written.lines().chain(std::iter::repeat("")));
    let differs = lines.find(|(now, then)| now != then);
    assert!(
        written == document,
        "{DOCUMENT} is stale; write it anew: {WRITE}\nnow and then: {differs:#?}"
    );
}

fn list(text: &str) -> BTreeMap<Id, Statement> {
    toml::from_str::<List>(text).unwrap().statements
}

fn ids(texts: &[&str]) -> Vec<Id> {
    texts.iter().map(|text| Id::parse(text).unwrap()).collect()
}

#[test]
fn tags_name_one_statement_or_several_and_their_standard() {
    let line = "/// Once [MQTT-3.1.2-24, -25, 3.3.2-5], and [MQTT311-3.1.2-4] [MQTT-1.5.4-1].";
    assert_eq!(
        tags(line, "[MQTT-").unwrap(),
        ids(&["3.1.2-24", "3.1.2-25", "3.3.2-5", "1.5.4-1"])
    );
    assert_eq!(tags(line, "[MQTT311-").unwrap(), ids(&["3.1.2-4"]));
    for bad in [
        "[MQTT-3.1.2-24",
        "[MQTT-6.0.0]",
        "[MQTT-3.1.2-]",
        "[MQTT--4]",
    ] {
        assert!(tags(bad, "[MQTT-").is_err(), "{bad}");
    }
}

#[test]
fn what_has_no_code_no_test_or_no_statement_is_named() {
    let known = list(
        r#"[statements]
        "1.1.1-1" = { binds = "both", text = "kept and tested" }
        "1.1.1-2" = { binds = "both", text = "kept only" }
        "1.1.1-3" = { binds = "server", text = "tested only" }
        "1.1.1-4" = { binds = "client", text = "no", not_applicable = "why" }
        "1.1.1-5" = { binds = "client", text = "no", not_applicable = "why" }
        "#,
    );
    let code = "\
/// Keeps it [MQTT-1.1.1-1].
#[must_use]
pub(crate) const fn keep() {
    helper(); // [MQTT-1.1.1-2, -4]
}

#[cfg(test)]
mod tests {
    // [MQTT-1.1.1-1]
    #[test]
    fn it_is_kept() {
        let x = 1; // [MQTT-1.1.1-3]
    }

    fn not_a_test() {
        let x = 1; // [MQTT-1.1.1-3, -9]
    }
}
";
    let (mut tagged, mut faults) = (Tagged::default(), Vec::new());
    scan("a.rs", code, "[MQTT-", &known, &mut tagged, &mut faults);
    assert_eq!(
        faults,
        [
            "a.rs:16: the tag stands in no test",
            "a.rs:16: [MQTT-1.1.1-9] is no statement"
        ]
    );
    let place = |item: &str| Place {
        file: "a.rs".into(),
        item: item.into(),
    };
    let id = |number: u32| Id {
        section: vec![1, 1, 1],
        number,
    };
    assert_eq!(tagged.code[&id(1)], BTreeSet::from([place("keep")]));
    assert_eq!(tagged.tests[&id(1)], BTreeSet::from([place("it_is_kept")]));
    assert_eq!(
        missing(&STANDARDS[0], &known, &tagged),
        [
            "[MQTT-1.1.1-2] has no test: kept only",
            "[MQTT-1.1.1-3] has no place in the code: tested only",
            "[MQTT-1.1.1-4] is listed as not applicable and has code",
        ]
    );
    let python = "# [MQTT-1.1.1-2]\n@VERSIONS\ndef test_it(x):\n    pass\n";
    faults.clear();
    let file = "tests/e2e/test_it.py";
    scan(file, python, "[MQTT-", &known, &mut tagged, &mut faults);
    assert!(faults.is_empty() && tagged.tests.contains_key(&id(2)));
}
