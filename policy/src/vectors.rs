//! Policy test files: decisions with what they should be, judged as strictly as AWS does, so
//! that a user's policies have unit tests.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::action::{Action, Kind};
use crate::document::Policy;
use crate::grant::{Decision, Grant, NamedPolicy, Realm, Variables};
use crate::shown::{NAME_MAX_CHARS, shown};

/// Bytes of the largest test file.
pub const FILE_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A test file that cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VectorError {
    /// Not JSON, or not of the format.
    #[error("the policy test file is not understood: {0}")]
    Format(#[from] serde_json::Error),
    /// A file without cases would pass whatever the policies say.
    #[error("the policy test file has no case in \"vectors\": add one")]
    Empty,
    /// Too large.
    #[error("the policy test file has {bytes} bytes, {FILE_MAX_BYTES} are the limit: split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

/// Outcome of a test file. `Display` writes one line per failing case and a last line
/// `PASS n of m`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Cases that came out as expected.
    pub passed: usize,
    /// All cases.
    pub total: usize,
    /// The others, in the file's order.
    pub failures: Vec<Failure>,
}

/// A case that did not come out as expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The case's name in the file.
    pub id: String,
    /// What the file says.
    pub expected: Decision,
    /// What the engine says; `None` where it refused a policy or the case.
    pub got: Option<Decision>,
    /// The deciding statement, or the refusal.
    pub why: String,
}

impl Report {
    /// Whether every case came out as expected.
    #[must_use]
    pub fn is_pass(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = shown(&self.id, NAME_MAX_CHARS);
        match self.got {
            Some(got) => {
                write!(
                    f,
                    "{id}: expected {:?}, got {got:?}: {}",
                    self.expected, self.why
                )
            }
            None => write!(
                f,
                "{id}: expected {:?}, got a refusal: {}",
                self.expected, self.why
            ),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for failure in &self.failures {
            writeln!(f, "{failure}")?;
        }
        write!(f, "PASS {} of {}", self.passed, self.total)
    }
}

#[derive(Deserialize)]
struct File<'t> {
    // Each case names its resource in full; these say for whom the file was written.
    #[serde(rename = "region")]
    _region: String,
    #[serde(rename = "account")]
    _account: String,
    #[serde(borrow)]
    vectors: Vec<Vector<'t>>,
}

#[derive(Deserialize)]
struct Vector<'t> {
    id: String,
    #[serde(borrow)]
    policies: Vec<&'t RawValue>,
    #[serde(default)]
    context: Context,
    action: String,
    resource: String,
    expect: Decision,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Context {
    client_id: String,
    thing: Option<Thing>,
    certificate: Certificate,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Thing {
    name: String,
    #[serde(default)]
    is_attached: bool,
    #[serde(default)]
    attachment: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Certificate {
    subject: Subject,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Subject {
    #[serde(rename = "CommonName")]
    common_name: Vec<String>,
}

impl Context {
    /// As AWS resolves them: the thing speaks only through a certificate attached to it, and
    /// unless that attachment is exclusive, only under its own name.
    fn variables(&self) -> Variables {
        let speaks = |thing: &&Thing| {
            let exclusive = thing.attachment == "EXCLUSIVE_THING";
            thing.is_attached && (exclusive || thing.name == self.client_id)
        };
        let thing = self.thing.as_ref().filter(speaks);
        Variables {
            client_id: self.client_id.as_str().into(),
            thing_name: thing.map(|thing| thing.name.as_str().into()),
            certificate_common_name: self
                .certificate
                .subject
                .common_name
                .first()
                .map(|name| name.as_str().into()),
        }
    }
}

/// Runs a test file.
///
/// # Errors
/// When the file itself is not understood; a policy in it that is not is a failing case.
pub fn run(json: &str) -> Result<Report, VectorError> {
    if json.len() > FILE_MAX_BYTES {
        return Err(VectorError::TooLarge { bytes: json.len() });
    }
    let file: File<'_> = serde_json::from_str(json)?;
    if file.vectors.is_empty() {
        return Err(VectorError::Empty);
    }
    let failures = file
        .vectors
        .iter()
        .filter_map(|vector| vector.judge().err());
    let failures = failures.collect::<Vec<_>>();
    let total = file.vectors.len();
    Ok(Report {
        passed: total.saturating_sub(failures.len()),
        total,
        failures,
    })
}

impl Vector<'_> {
    fn judge(&self) -> Result<(), Failure> {
        let failure = |got, why| Failure {
            id: self.id.clone(),
            expected: self.expect,
            got,
            why,
        };
        let explanation = self.explain().map_err(|why| failure(None, why))?;
        if explanation.0 == self.expect {
            Ok(())
        } else {
            Err(failure(Some(explanation.0), explanation.1))
        }
    }

    /// The decision and its grounds, or the refusal.
    fn explain(&self) -> Result<(Decision, String), String> {
        let mut policies = Vec::with_capacity(self.policies.len());
        for (index, document) in self.policies.iter().enumerate() {
            let name = format!("policy-{}", index + 1);
            let policy =
                Policy::parse(document.get()).map_err(|error| format!("{name}: {error}"))?;
            let name = name.parse().map_err(|error| format!("{error}"))?;
            policies.push(NamedPolicy {
                name,
                policy: Arc::new(policy),
            });
        }
        let action: Action = self.action.parse().map_err(|error| format!("{error}"))?;
        let (realm, kind, name) = request(&self.resource).ok_or_else(|| {
            let resource = shown(&self.resource, NAME_MAX_CHARS);
            format!(
                "resource {resource:?} is no arn:aws:iot:REGION:ACCOUNT:client/…, topic/… or topicfilter/…"
            )
        })?;
        let grant = Grant::new(Arc::new(realm), policies.into(), self.context.variables());
        let explanation = grant.explain_as(action, kind, name);
        Ok((explanation.decision, explanation.summary))
    }
}

/// Takes the ARN of a request apart.
fn request(arn: &str) -> Option<(Realm, Kind, &str)> {
    let (region, rest) = arn.strip_prefix("arn:aws:iot:")?.split_once(':')?;
    let (account, resource) = rest.split_once(':')?;
    Kind::ALL.into_iter().find_map(|kind| {
        let name = resource.strip_prefix(kind.prefix())?;
        Some((Realm::exact(region, account), kind, name))
    })
}
