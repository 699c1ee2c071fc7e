use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use super::{House, PATIENCE};
use crate::server::{Message, StreamDesk, StreamRequest};

/// The code of a refusal.
fn code(answers: &Receiver<Message>) -> String {
    let message = answers.recv_timeout(PATIENCE).unwrap();
    let value: Value = serde_json::from_slice(&message.payload).unwrap();
    value["o"].as_str().unwrap().to_owned()
}

fn request(thing: &str, payload: &[u8], reply: impl Fn(Message) + Send + 'static) -> StreamRequest {
    StreamRequest {
        thing: Some(thing.into()),
        topic: format!("$aws/things/{thing}/streams/s/get/json"),
        payload: payload.to_vec(),
        reply: Box::new(reply),
    }
}

#[test]
fn one_thing_has_its_share_of_the_desk_and_the_others_are_answered() {
    const ASKED: usize = 3000;
    let house = House::with_lamps(2);
    let desk = StreamDesk::start(house.ota()).unwrap();
    // Both threads wait while they answer.
    let (holds, held) = channel();
    let mut releases = Vec::new();
    for _ in 0..2 {
        let (release, released) = channel::<()>();
        let holds = holds.clone();
        desk.ask(request("lamp-0", br#"{"f":0,"l":256}"#, move |_| {
            holds.send(()).unwrap();
            let _ = released.recv();
        }));
        releases.push(release);
    }
    for _ in 0..2 {
        held.recv_timeout(PATIENCE).unwrap();
    }
    let (tell, loud) = channel();
    for _ in 0..ASKED {
        let tell = tell.clone();
        desk.ask(request(
            "lamp-0",
            br#"{"c":"t","f":0,"l":256}"#,
            move |message| {
                drop(tell.send(message));
            },
        ));
    }
    let (tell, quiet) = channel();
    desk.ask(request("lamp-1", br#"{"f":0,"l":256}"#, move |message| {
        drop(tell.send(message));
    }));
    drop(releases);
    assert_eq!(code(&quiet), "ResourceNotFound");
    let codes: Vec<String> = (0..ASKED).map(|_| code(&loud)).collect();
    let answered = codes
        .iter()
        .filter(|code| *code == "ResourceNotFound")
        .count();
    let refused = codes
        .iter()
        .filter(|code| *code == "RequestThrottled")
        .count();
    assert_eq!((answered, refused), (32, ASKED - 32));
    // Too long to be looked at, and so to wait.
    let (tell, answers) = channel();
    desk.ask(request("lamp-1", &[b' '; 40_000], move |message| {
        drop(tell.send(message));
    }));
    assert_eq!(code(&answers), "InvalidRequest");
}
