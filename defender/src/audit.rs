//! Audit: checks that look at the whole registry on demand. Each is a value in [`CHECKS`]; a new one is one more file
//! and one more entry.

mod policies;
mod revocation;

use fleet::{FleetError, RevocationFaces};
use serde::Serialize;
use std::time::SystemTime;

/// Findings of one check that are listed; more are counted.
const LISTED_FINDINGS: usize = 1_000;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Put right when there is time.
    Low,
    /// Put right soon.
    Medium,
    /// Someone may get in who must not, or is kept out who should not be.
    High,
    /// The same, and nothing else stands in between.
    Critical,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What it is about: `certificate ID`, `list crl/16/3.crl`.
    pub resource: String,
    /// What is wrong.
    pub reason: String,
    /// How it is mended.
    pub mend: String,
}

/// What one check saw.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// How many things it looked at.
    pub examined: u64,
    /// What it found, the first thousand.
    pub findings: Vec<Finding>,
    /// How many more it found.
    pub unlisted: u64,
}

impl Outcome {
    fn find(&mut self, finding: Finding) {
        if self.findings.len() < LISTED_FINDINGS {
            self.findings.push(finding);
        } else {
            self.unlisted += 1;
        }
    }
}

/// One check.
#[derive(Debug)]
pub struct Check {
    /// Its name, for the command line and the record.
    pub name: &'static str,
    /// What it looks at and what it finds, in a sentence.
    pub description: &'static str,
    run: fn(&Audited<'_>) -> Result<Outcome, FleetError>,
}

/// What there is to look at.
#[derive(Clone, Copy)]
pub struct Audited<'a> {
    /// Revocation lists and OCSP, and the registry that they speak of.
    pub revocation: &'a RevocationFaces,
    /// The time of the audit.
    pub now: SystemTime,
}

impl Check {
    /// Runs it.
    ///
    /// # Errors
    /// When the registry cannot be read or a key cannot be used: then nothing is known.
    pub fn run(&self, audited: &Audited<'_>) -> Result<Outcome, FleetError> {
        (self.run)(audited)
    }
}

/// Every check there is.
pub static CHECKS: &[Check] = &[
    Check {
        name: "revocation",
        description: "registry, revocation lists and OCSP say the same of every certificate",
        run: revocation::run,
    },
    Check {
        name: "deny-fails-open",
        description: "no policy lets in what it denies where a variable or a key has no value",
        run: policies::fails_open,
    },
    Check {
        name: "policy-matches-nothing",
        description: "no statement of a policy is of another account, or can match nothing",
        run: policies::matches_nothing,
    },
];
