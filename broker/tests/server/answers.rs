//! Requests to reserved topics: few at a time, and no more than the client takes the answers of.

use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use broker::codec::{
    Acknowledgement, Delivery, Packet, PacketId, PubRel, Publish, Qos, ReasonCode, Version,
};
use bytes::Bytes;

use crate::client::{Client, hello, lasting};
use crate::house::{House, PATIENCE};

const TOPIC: &str = "$aws/things/a/jobs/get";

fn answer(request: &broker::Request, bytes: usize) {
    let topic = "$aws/things/a/jobs/get/accepted".parse().unwrap();
    request.reply.send(topic, Bytes::from(vec![b'x'; bytes]));
}

#[test]
fn a_client_with_many_requests_unanswered_is_not_read_on() {
    const AT_ONCE: usize = 16;
    let house = House::new();
    let a = house.device("a");
    let mut client = Client::open(&house, &a, Version::V5);
    for _ in 0..AT_ONCE + 4 {
        client.put(TOPIC, "{}", Qos::AtMostOnce, false);
    }
    let mut requests: Vec<_> = (0..AT_ONCE)
        .map(|_| house.requests.recv_timeout(PATIENCE).unwrap())
        .collect();
    // What it has said since waits for the answers, whatever it is.
    client.write(&[0xC0, 0]);
    let more = house.requests.recv_timeout(Duration::from_millis(200));
    assert!(more.is_err(), "one more than may be unanswered");
    for request in requests.drain(..4) {
        answer(&request, 2);
    }
    for _ in 0..4 {
        let request = house.requests.recv_timeout(PATIENCE).unwrap();
        answer(&request, 2);
    }
    drop(requests);
    let mut messages = 0;
    loop {
        match client.receive() {
            Some(Packet::Publish(publish)) => {
                client.acknowledge(&publish);
                messages += 1;
            }
            Some(Packet::PingResp) => break,
            other => panic!("{other:?} instead of answers"),
        }
    }
    while messages < 8 {
        client.message();
        messages += 1;
    }
    client.settle();
}

/// Asks and is answered with so many bytes, again and again; how often, and with what it ended.
fn unacknowledged(version: Version, qos: Qos, bytes: usize) -> (usize, Option<ReasonCode>) {
    let house = House::new();
    let a = house.device("a");
    let mut connect = hello(&a, version);
    connect.receive_max = NonZeroU16::MIN;
    let (mut client, _) = Client::open_with(&house, &a, &connect);
    for asked in 0..5_000 {
        client.put(TOPIC, "{}", qos, false);
        let mut end = None;
        loop {
            match house.requests.recv_timeout(Duration::from_millis(20)) {
                Ok(request) => {
                    answer(&request, bytes);
                    drop(request);
                    if qos == Qos::AtMostOnce {
                        break;
                    }
                }
                Err(_) if house.broker.stats().refused_requests == 0 => continue,
                Err(_) if version == Version::V311 => {
                    assert!(client.end().is_none());
                    return (asked, None);
                }
                Err(_) => end = Some(()),
            }
            if qos == Qos::AtLeastOnce || end.is_some() {
                match client.receive() {
                    Some(Packet::PubAck(ack)) if ack.0.reason == ReasonCode::Success => break,
                    Some(Packet::PubAck(ack)) => return (asked, Some(ack.0.reason)),
                    Some(Packet::Disconnect(told)) => return (asked, Some(told.reason)),
                    Some(Packet::Publish(_)) => {}
                    other => panic!("{other:?} at the end"),
                }
            }
        }
    }
    panic!("it may ask for ever");
}

#[test]
fn who_acknowledges_no_answer_is_refused_by_bytes_and_by_number() {
    let quota = Some(ReasonCode::QuotaExceeded);
    let many = 1024 * 1024 / 60_000;
    let (asked, end) = unacknowledged(Version::V5, Qos::AtMostOnce, 60_000);
    assert_eq!(end, quota);
    // One is on its way, as many as are taken at once are no longer counted.
    assert!((many..many + 80).contains(&asked), "{asked}");
    let (asked, end) = unacknowledged(Version::V5, Qos::AtMostOnce, 10);
    assert_eq!(end, quota);
    assert!((1_000..1_100).contains(&asked), "{asked}");
    let (_, end) = unacknowledged(Version::V311, Qos::AtMostOnce, 60_000);
    assert_eq!(end, None);
}

/// Publishes at QoS 2 and says how long PUBCOMP took from PUBREL on, until when `meanwhile` is done.
fn completed(
    client: &mut Client,
    (topic, retain): (&str, bool),
    number: u16,
    meanwhile: impl FnOnce(),
) -> Duration {
    let packet_id = PacketId::new(number).unwrap();
    client.send(&Publish {
        delivery: Delivery::ExactlyOnce {
            packet_id,
            dup: false,
        },
        retain,
        topic: Some(topic.parse().unwrap()),
        topic_alias: None,
        expiry_s: None,
        subscription_ids: Vec::new(),
        properties: None,
        payload: Bytes::from_static(b"{}"),
    });
    let received = client.receive();
    assert!(
        matches!(&received, Some(Packet::PubRec(ack)) if !ack.0.reason.is_error()),
        "{received:?}"
    );
    let since = Instant::now();
    client.say(&Packet::PubRel(PubRel(Acknowledgement {
        packet_id,
        reason: ReasonCode::Success,
        reason_string: None,
        user: Vec::new(),
    })));
    meanwhile();
    assert!(matches!(client.receive(), Some(Packet::PubComp(_))));
    since.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn a_request_of_qos_2_is_complete_as_soon_as_it_is_answered_and_on_the_disk() {
    const ROUNDS: u16 = 9;
    const OTHERS: &str = "$aws/things/b/jobs/get";
    let house = House::new();
    let (a, b) = (house.device("a"), house.device("b"));
    let (mut kept, _) = Client::open_with(&house, &a, &lasting(&a, Version::V5));
    let mut passing = Client::open(&house, &b, Version::V5);
    let answered = || drop(house.requests.recv_timeout(PATIENCE).unwrap());
    let (mut commits, mut answers, mut requests) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=ROUNDS {
        // What is retained waits for a commit, and a request in a session that ends with its connection for its answer.
        commits.push(completed(&mut kept, ("dt/a/up", true), number, || {}));
        answers.push(completed(&mut passing, (OTHERS, false), number, answered));
        let number = 100 + number;
        requests.push(completed(&mut kept, (TOPIC, false), number, answered));
    }
    let (both, request) = (median(commits) + median(answers), median(requests));
    assert!(
        request < both * 20,
        "a request took {request:?}, an answer and a commit {both:?}"
    );
}
