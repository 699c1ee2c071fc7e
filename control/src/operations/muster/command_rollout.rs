use http::Method;
use ota::RolloutId;
use ota::rollout::Command;
use serde::Deserialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const OPERATION: Operation = Operation {
    name: "CommandRollout",
    method: Method::POST,
    path: "/muster/v1/rollouts/{id}/{command}",
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &[],
    run: Run::WithBody(run),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    /// Of an approval: the wave that is meant.
    wave: Option<String>,
    /// Of a rollback: the other way, for those that went back.
    #[serde(default)]
    forward: bool,
}

fn run(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: RolloutId = call.path("id")?;
    let by = call.caller.operator.name.to_string();
    let Input { wave, forward } = call.body()?;
    let verb = call.path::<String>("command")?;
    if wave.is_some() && verb != "approve" {
        return Err(ApiError::invalid(
            "wave: only an approval is for one wave; leave it out",
        ));
    }
    if forward && verb != "rollback" {
        return Err(ApiError::invalid(
            "forward: only a rollback goes either way; leave it out",
        ));
    }
    let command = match verb.as_str() {
        "pause" => Command::Pause,
        "resume" => Command::Resume,
        "abort" => Command::Abort,
        "rollback" if forward => Command::Forward,
        "rollback" => Command::Rollback,
        "approve" => Command::Approve {
            by: by.clone(),
            wave,
        },
        _ => {
            return Err(ApiError::not_found(
                "a rollout is told to pause, resume, approve, abort or rollback",
            ));
        }
    };
    rooms.ota.command_rollout(&id, command, &by, call.now)?;
    Answer::json(&rooms.ota.rollout(&id)?)
}
