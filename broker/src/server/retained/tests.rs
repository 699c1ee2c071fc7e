use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec::Qos;
use crate::server::message::Origin;
use crate::server::work::Work;
use crate::session::{Publication, Time};
use crate::topic::{self, TopicFilter, TopicName};

const MANY: usize = 1_000_000;
const NOW: Time = Time::from_millis(0);

fn volume(messages: usize, bytes: usize) -> Volume {
    Volume { messages, bytes }
}

fn written() -> Result<Lsn, Behind> {
    Ok(Lsn(1))
}

fn message(topic: &str, payload: &'static str) -> Message {
    from(Origin::Service, topic, payload)
}

fn from(origin: Origin, topic: &str, payload: &'static str) -> Message {
    let publication = Publication::new(
        topic.parse().unwrap(),
        Bytes::from_static(payload.as_bytes()),
    );
    Message::new(publication, Qos::AtLeastOnce, true, origin)
}

fn device(digit: &str) -> CertificateId {
    digit.repeat(64).parse().unwrap()
}

fn thing(name: &str) -> Owner {
    Owner::Thing(name.parse().unwrap())
}

impl Retained {
    fn put(&self, message: Message) -> Result<Lsn, RetainError> {
        self.insert(&message, NOW, Claim::Service, written)
    }

    fn put_for(&self, owner: &Owner, bound: Volume, message: Message) -> Result<Lsn, RetainError> {
        let claim = Claim::Owner(owner, bound);
        let room = self.room(&message, claim);
        let kept = self.insert(&message, NOW, claim, written);
        assert_eq!(
            room.is_ok(),
            kept.is_ok(),
            "asked before and asked to do it"
        );
        kept
    }

    fn clear(&self, topic: &str) {
        self.remove(topic, || None);
    }

    /// All in one go.
    fn matching(&self, filter: &TopicFilter) -> Vec<Message> {
        self.matching_by(filter, usize::MAX)
    }

    /// So many nodes at a time.
    fn matching_by(&self, filter: &TopicFilter, nodes: usize) -> Vec<Message> {
        let mut walk = Walk::new(filter.clone(), self.newest());
        let mut found = Vec::new();
        while !walk.is_done() {
            let mut work = Work::of(nodes);
            found.extend(self.portion(&mut walk, Time::from_millis(0), &mut work));
        }
        found
    }

    fn topics(&self) -> Vec<String> {
        let all = self.matching(&"#".parse().unwrap());
        let mut topics: Vec<String> = all.iter().map(|kept| kept.topic().to_owned()).collect();
        topics.sort();
        topics
    }
}

const SERVER_FULL: Result<Lsn, RetainError> = Err(RetainError::Full(Full::Server));
const OWNER_FULL: Result<Lsn, RetainError> = Err(RetainError::Full(Full::Owner));

#[test]
fn the_bound_holds_and_replacing_is_always_possible() {
    let retained = Retained::new(volume(2, MANY));
    retained.put(message("a", "1")).unwrap();
    retained.put(message("b", "1")).unwrap();
    assert_eq!(retained.put(message("c", "1")), SERVER_FULL);
    retained.put(message("b", "2")).unwrap();
    retained.clear("a");
    retained.clear("a");
    retained.put(message("c", "1")).unwrap();
    assert_eq!(retained.topics(), ["b", "c"]);
}

#[test]
fn what_a_device_left_is_found_by_it() {
    let (one, other) = (device("a"), device("b"));
    let (thing_one, thing_other) = (thing("one"), thing("other"));
    let retained = Retained::new(volume(10, MANY));
    let put = |device, owner, topic, payload| {
        let message = from(Origin::Device(device), topic, payload);
        retained.put_for(owner, volume(10, MANY), message).unwrap();
    };
    for topic in ["x/1", "x", "y"] {
        put(one, &thing_one, topic, "1");
    }
    retained.put(message("z", "1")).unwrap();
    // In its own place, in another's, and in nobody's.
    put(one, &thing_one, "x", "2");
    put(other, &thing_other, "y", "1");
    assert_eq!(retained.topics_of(&one), ["x", "x/1"]);
    assert_eq!(retained.topics_of(&other), ["y"]);
    retained.put(message("x/1", "2")).unwrap();
    // What somebody else has put there meanwhile is not the device's to lose.
    retained.remove_of(&one, "x/1", || panic!("it is a service's"));
    retained.remove_of(&one, "y", || panic!("it is the other's"));
    retained.remove_of(&other, "y", || None);
    assert_eq!(retained.topics_of(&one), ["x"]);
    assert!(retained.topics_of(&other).is_empty());
    for topic in ["x", "x/1", "z"] {
        retained.clear(topic);
    }
    assert!(retained.inner.read().ledger.is_empty());
}

#[test]
fn bytes_are_bounded_too_and_given_back() {
    let weight = message("a", "1").weight_bytes();
    let retained = Retained::new(volume(10, weight));
    retained.put(message("a", "1")).unwrap();
    assert_eq!(retained.put(message("b", "1")), SERVER_FULL);
    retained.clear("a");
    retained.put(message("b", "1")).unwrap();
}

#[test]
fn an_owner_has_a_bound_of_its_own_over_all_its_certificates() {
    let retained = Retained::new(volume(100, MANY));
    let (old, new) = (Origin::Device(device("a")), Origin::Device(device("b")));
    let (own, other) = (thing("own"), thing("other"));
    let two = volume(2, MANY);
    retained.put_for(&own, two, from(old, "x", "1")).unwrap();
    retained.put_for(&own, two, from(old, "y", "1")).unwrap();
    assert_eq!(retained.put_for(&own, two, from(new, "z", "1")), OWNER_FULL);
    // Its own in its place, under a renewed certificate; as little room is there afterwards.
    retained.put_for(&own, two, from(new, "x", "2")).unwrap();
    assert_eq!(retained.put_for(&own, two, from(old, "z", "1")), OWNER_FULL);
    // Others are not concerned, and what is another's does not become free by being taken over.
    let elsewhere = Origin::Device(device("c"));
    retained
        .put_for(&other, two, from(elsewhere, "z", "1"))
        .unwrap();
    assert_eq!(retained.put_for(&own, two, from(new, "z", "1")), OWNER_FULL);
    retained.put(message("service", "1")).unwrap();
    retained.clear("y");
    retained.put_for(&own, two, from(new, "z", "1")).unwrap();
    assert_eq!(retained.inner.read().ledger.of(&own).messages, 2);
    assert_eq!(retained.inner.read().ledger.of(&other), Volume::default());
}

#[test]
fn an_owners_bytes_are_bounded_and_what_does_not_grow_is_taken() {
    let retained = Retained::new(volume(100, MANY));
    let (own, origin) = (thing("own"), Origin::Device(device("a")));
    let weight = message("a", "1").weight_bytes();
    let bound = volume(100, 2 * weight);
    retained
        .put_for(&own, bound, from(origin, "a", "1"))
        .unwrap();
    retained
        .put_for(&own, bound, from(origin, "b", "1"))
        .unwrap();
    assert_eq!(
        retained.put_for(&own, bound, from(origin, "c", "1")),
        OWNER_FULL
    );
    assert_eq!(
        retained.put_for(&own, bound, from(origin, "b", "12")),
        OWNER_FULL
    );
    // Also where the bound has become lower than what is there.
    let lower = volume(1, weight);
    retained
        .put_for(&own, lower, from(origin, "b", "2"))
        .unwrap();
    assert_eq!(
        retained.put_for(&own, lower, from(origin, "c", "1")),
        OWNER_FULL
    );
}

#[test]
fn what_an_earlier_run_kept_is_taken_back_whole_and_counts() {
    let retained = Retained::new(volume(2, MANY));
    let (own, origin) = (thing("own"), Origin::Device(device("a")));
    for topic in ["a", "b", "c"] {
        retained.restore(from(origin, topic, "1"), NOW, Some(&own));
    }
    assert_eq!(retained.topics(), ["a", "b", "c"]);
    assert_eq!(retained.inner.read().ledger.of(&own).messages, 3);
    assert_eq!(retained.put(message("d", "1")), SERVER_FULL);
    retained.put(message("c", "1")).unwrap();
}

#[test]
fn a_certificate_that_came_to_a_thing_brings_what_it_left() {
    let retained = Retained::new(volume(100, MANY));
    let (id, one) = (device("a"), volume(1, MANY));
    let (alone, own) = (Owner::Certificate(id), thing("own"));
    let origin = Origin::Device(id);
    retained
        .put_for(&alone, one, from(origin, "a", "1"))
        .unwrap();
    assert_eq!(
        retained.put_for(&own, one, from(origin, "b", "1")),
        OWNER_FULL
    );
    retained.put_for(&own, one, from(origin, "a", "2")).unwrap();
    retained.clear("a");
    assert!(retained.inner.read().ledger.is_empty());
}

#[test]
fn what_cannot_be_written_down_leaves_what_was_there() {
    let retained = Retained::new(volume(10, MANY));
    retained.put(message("a", "old")).unwrap();
    let (length, limit_bytes) = (2, 1);
    let too_large = Behind::TooLarge {
        length,
        limit_bytes,
    };
    let behind = Behind::Full {
        backlog_bytes: 2,
        limit_bytes,
    };
    for (why, told) in [
        (too_large, RetainError::Full(Full::TooLarge)),
        (behind, RetainError::Behind(behind)),
    ] {
        for topic in ["a", "new"] {
            let kept = retained.insert(&message(topic, "x"), NOW, Claim::Service, || Err(why));
            assert_eq!(kept, Err(told));
        }
    }
    let kept = retained.matching(&"#".parse().unwrap());
    assert_eq!(kept, [message("a", "old")]);
}

#[test]
fn a_portion_is_bounded_and_the_walk_goes_on_whatever_comes_and_goes() {
    let retained = Retained::new(volume(MANY, MANY * 1000));
    for n in 0..200 {
        retained.put(message(&format!("a/{n:03}"), "x")).unwrap();
    }
    let at = |walk: &mut Walk, nodes| {
        let mut work = Work::of(nodes);
        let found = retained.portion(walk, Time::from_millis(0), &mut work);
        let topics: Vec<String> = found.iter().map(|kept| kept.topic().to_owned()).collect();
        (topics, nodes - work.left())
    };
    let mut walk = Walk::new("a/+".parse().unwrap(), retained.newest());
    // To find the first, and then one for each.
    let (found, looked_at) = at(&mut walk, walk::SEEK + 10);
    assert_eq!((found.len(), looked_at), (10, walk::SEEK + 10));
    let (found, looked_at) = at(&mut walk, 1000);
    assert_eq!(
        (found.len(), looked_at),
        (walk::PORTION_MESSAGES, walk::SEEK + walk::PORTION_MESSAGES)
    );
    assert_eq!(found.first().unwrap(), "a/010");
    retained.clear(found.last().unwrap());
    retained.clear("a/074");
    // They come to the subscription by themselves.
    retained.put(message("a/0741", "new")).unwrap();
    retained.put(message("a/150", "newer")).unwrap();
    retained.put(message("a/005", "seen already")).unwrap();
    let (found, _) = at(&mut walk, walk::SEEK + 3);
    assert_eq!(found, ["a/075", "a/076"]);
    let mut rest = 0;
    while !walk.is_done() {
        rest += at(&mut walk, 50).0.len();
    }
    assert_eq!(rest, 200 - 77 - 1);
    // What matches nothing is looked at in portions too.
    let mut walk = Walk::new("+/+/none".parse().unwrap(), retained.newest());
    let (found, looked_at) = at(&mut walk, 100);
    assert_eq!((found.len(), looked_at), (0, 100));
    assert!(!walk.is_done());
    while !walk.is_done() {
        at(&mut walk, 100);
    }
}

#[test]
fn what_cannot_match_is_leapt_over() {
    let retained = Retained::new(volume(MANY, MANY * 1000));
    for thing in 0..10 {
        for n in 0..100 {
            let topic = format!("dt/{thing}/{n:02}/state");
            retained.put(message(&topic, "x")).unwrap();
        }
    }
    for (filter, found, leaps) in [
        ("dt/3/07/state", 1, 2),
        ("dt/3/#", 100, 2),
        // For each of the ten: to what is asked for, and to the next.
        ("dt/+/07/#", 10, 21),
        ("+/3/07/state", 1, 4),
        ("$aws/#", 0, 1),
    ] {
        let mut walk = Walk::new(filter.parse().unwrap(), retained.newest());
        let mut work = Work::of(MANY);
        let mut all = 0;
        while !walk.is_done() {
            let now = Time::from_millis(0);
            all += retained.portion(&mut walk, now, &mut work).len();
        }
        assert_eq!(all, found, "{filter}");
        let spent = MANY - work.left();
        let most = leaps * (walk::SEEK + 1) + found;
        assert!(spent <= most, "{filter}: {spent}, {most}");
    }
}

proptest! {
    /// [MQTT-3.3.2-3, 4.7.2-1] [MQTT311-3.3.2-3, 4.7.2-1]
    #[test]
    fn finds_what_matching_one_by_one_finds(
        topics in prop::collection::hash_set("(\\$?[ab]?[!0]?/){0,3}[ab$]", 0..30),
        filter in "((\\$?[ab]|\\+|)/){0,3}([ab]|\\+|#)",
        nodes in 1..9_usize,
    ) {
        let retained = Retained::new(volume(100, MANY));
        for topic in &topics {
            retained.put(message(topic, "x")).unwrap();
        }
        let filter: TopicFilter = filter.parse().unwrap();
        let mut found: Vec<String> = retained
            .matching_by(&filter, nodes)
            .iter()
            .map(|message| message.topic().to_owned())
            .collect();
        found.sort();
        let mut expected: Vec<String> = topics
            .iter()
            .filter(|topic| {
                let name: TopicName = topic.parse().unwrap();
                topic::matches(&filter, &name)
            })
            .cloned()
            .collect();
        expected.sort();
        prop_assert_eq!(found, expected);
    }
}
