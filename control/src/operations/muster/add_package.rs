use std::io::Read;

use http::Method;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "AddFirmwarePackage",
    method: Method::POST,
    path: "/muster/v1/firmware/packages",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::Upload(run),
};

fn run(rooms: &Rooms, call: &Call, package: &mut dyn Read) -> Result<Answer, ApiError> {
    Answer::json(&rooms.ota.add(package, call.now)?)
}
