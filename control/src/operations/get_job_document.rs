use http::Method;
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "GetJobDocument",
    method: Method::GET,
    path: "/jobs/{jobId}/job-document",
    least: Role::Viewer,
    query: &["beforeSubstitution"],
    undone: &[],
    run: Run::Plain(run),
};

#[derive(Serialize)]
struct Output {
    document: String,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let job = rooms.ota.job(&call.path("jobId")?)?;
    let document = if call.flag("beforeSubstitution")? {
        job.document
    } else {
        job.filled_document()?
    };
    Answer::json(&Output { document })
}
