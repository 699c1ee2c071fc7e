//! DeleteConnection.

use std::sync::Arc;

use broker::topic::ClientId;
use policy::{Action, MessageFacts};

use super::{Asked, Speaker, on_a_thread};
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::{find, read};
use crate::record;

/// Ends the connections of a client id, of whatever thing.
pub(super) async fn delete(asked: Asked) -> Result<Answer, ApiError> {
    let client: ClientId = read("clientId", asked.path("clientId"))?;
    let flag = |name| -> Result<bool, ApiError> {
        let given = find(&asked.query, name).map(|text| read(name, text));
        Ok(given.transpose()?.unwrap_or(false))
    };
    let (clean, without_will) = (flag("cleanSession")?, flag("preventWillMessage")?);
    let asked = Arc::new(asked);
    let (asking, of) = (Arc::clone(&asked), client.clone());
    on_a_thread(move || {
        asking.require(
            Action::DeleteConnection,
            of.as_str(),
            &MessageFacts::default(),
        )
    })
    .await?;
    // Begun, it is done to its end and recorded, whether anybody waits for that or not.
    let done = tokio::spawn(end(asked, client, clean, without_will)).await;
    done.map_err(|error| ApiError::internal(&error))?
}

async fn end(
    asked: Arc<Asked>,
    client: ClientId,
    clean: bool,
    without_will: bool,
) -> Result<Answer, ApiError> {
    let broker = asked.rooms.broker.clone();
    let ended = broker.disconnect(&client, clean, without_will).await;
    let done = match ended {
        0 => Err(ApiError::not_found(format!(
            "no client {} is connected{}",
            client.as_str().escape_debug(),
            if clean {
                ", and none has a session"
            } else {
                ""
            }
        ))),
        _ => Answer::nothing(),
    };
    on_a_thread(move || match &asked.speaker {
        Speaker::Operator(caller) => {
            let about: Vec<_> = asked.path.iter().chain(&asked.query).cloned().collect();
            let name = asked.operation.name;
            record::asked(&asked.rooms, caller, name, &asked.peer, &about, done)
        }
        Speaker::Device(_) => done,
    })
    .await
}
