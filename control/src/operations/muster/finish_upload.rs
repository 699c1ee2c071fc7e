use http::Method;
use ota::Sha256;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "FinishFirmwareUpload",
    method: Method::POST,
    path: "/muster/v1/firmware/uploads/{package}",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let package: Sha256 = call.path("package")?;
    Answer::json(&rooms.ota.finish_upload(package, call.now)?)
}
