use http::Method;
use policy::{InvariantText, PolicyName, Proof};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

/// Most claims of one request.
const MAX_CLAIMS: usize = 100;

/// Proves or refutes claims about every device: those of the request, else those declared, else
/// that the namespaces of `device-default` are each device's own.
pub(super) const OPERATION: Operation = Operation {
    name: "ProvePolicies",
    method: Method::POST,
    path: "/muster/v1/policies/prove",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

/// What `device-default` gives each device for itself.
const DEFAULT_NAMESPACES: [&str; 3] = ["dt/${thing}/#", "cmd/${thing}/#", "$aws/things/${thing}/#"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    #[serde(default)]
    claims: Vec<InvariantText>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    /// Whether every claim is proven.
    holds: bool,
    results: Vec<Judged>,
}

#[derive(Serialize)]
struct Judged {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<PolicyName>,
    claim: InvariantText,
    /// The claim in words, and how it is broken.
    text: String,
    #[serde(flatten)]
    proof: Proof,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    if body.claims.len() > MAX_CLAIMS {
        return Err(ApiError::invalid(format!("claims: at most {MAX_CLAIMS}")));
    }
    let mut claims: Vec<(Option<PolicyName>, InvariantText)> = Vec::new();
    claims.extend(body.claims.into_iter().map(|claim| (None, claim)));
    if claims.is_empty() {
        let declared = rooms.fleet.invariants()?.into_iter();
        claims.extend(declared.map(|one| (Some(one.name), one.claim)));
    }
    if claims.is_empty() {
        let owned = |namespace: &str| InvariantText {
            owned: Some(namespace.to_owned()),
            ..InvariantText::default()
        };
        claims.extend(DEFAULT_NAMESPACES.map(|namespace| (None, owned(namespace))));
    }
    let texts: Vec<InvariantText> = claims.iter().map(|(_, claim)| claim.clone()).collect();
    let proofs = rooms.fleet.prove(&texts)?;
    let judged = claims.into_iter().zip(proofs).map(|((name, claim), proof)| {
        let text = match &proof {
            Proof::Holds { for_any_name: true } => format!("proven for things of any name: {claim}"),
            Proof::Holds { .. } => format!(
                "proven for the things that there are: {claim}; a thing with another name could change that"
            ),
            Proof::Broken(example) => format!("BROKEN: {claim}; but {example}"),
            Proof::Undecided { reason } => format!("undecided: {claim}; {reason}"),
        };
        Judged {
            name,
            claim,
            text,
            proof,
        }
    });
    let results: Vec<Judged> = judged.collect();
    Answer::json(&Output {
        holds: results.iter().all(|judged| judged.proof.holds()),
        results,
    })
}
