use fleet::Target;
use http::Method;

use super::get_effective_policies::all_policies_of;
use super::list_policies::Policies;
use super::slice::page_of;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "ListAttachedPolicies",
    method: Method::POST,
    path: "/attached-policies/{target}",
    least: Role::Viewer,
    query: &["recursive", "pageSize", "marker"],
    undone: &[],
    run: Run::Plain(run),
};

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let arns = call.arns(rooms);
    let target = arns.read_target(&call.path::<String>("target")?)?;
    let recursive = call.flag("recursive")?;
    let asked = call.page(&format!("{target}/{recursive}"))?;
    match &target {
        Target::Certificate(id) => drop(rooms.fleet.certificate(id)?),
        Target::Group(name) => drop(rooms.fleet.group(name)?),
    }
    let names = match recursive {
        true => all_policies_of(rooms, &target)?,
        false => rooms.fleet.attached_policies(&target)?,
    };
    let (names, next) = page_of(names, &asked);
    Answer::json(&Policies::of(names, asked.token(next), arns))
}
