//! DeleteConnection.

use std::sync::Arc;

use broker::topic::ClientId;
use policy::{Action, MessageFacts};

use super::{Asked, on_a_thread};
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::{find, read};

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
    // Begun, it is done to its end, whether anybody waits for that or not.
    let (broker, of) = (asked.rooms.broker.clone(), client.clone());
    let ending = tokio::spawn(async move { broker.disconnect(&of, clean, without_will).await });
    let ended = ending.await.map_err(|error| ApiError::internal(&error))?;
    if ended == 0 {
        return Err(ApiError::not_found(format!(
            "no client {} is connected{}",
            client.as_str().escape_debug(),
            if clean {
                ", and none has a session"
            } else {
                ""
            }
        )));
    }
    asked.record();
    Answer::nothing()
}
