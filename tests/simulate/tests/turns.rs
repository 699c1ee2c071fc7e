//! What one connection may do before the others of its core have their turn, counted: the broker is the real one from a
//! connection's first packet on, on one thread, and a turn is a task's.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod pipe;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker::Limits;
use broker::session::Time;
use broker::simulate::{Broker, Parts};
use ca::CertificateId;
use fleet::{FleetError, Standing};
use policy::Realm;
use store::Journal;
use store::journal::Options;
use store::journal::simulated::{self, Committer, MemoryDisk};
use tokio::runtime::{Builder, Runtime};

use pipe::{EVERYTHING, Link, Registry, packet, properties, text, turns_until};

/// Of the tests: so little that a few steps are a turn.
const TURN_WORK: usize = 2_000;

struct World {
    runtime: Runtime,
    broker: Broker,
    journal: Journal,
    committer: Committer,
    certificate: CertificateId,
    registry: Arc<Counting>,
}

/// Counts how often it is asked for somebody's standing.
struct Counting {
    registry: Registry,
    asked: AtomicUsize,
}

impl broker::Registry for Counting {
    fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, FleetError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.registry.standing(id)
    }

    fn realm(&self) -> &Arc<Realm> {
        self.registry.realm()
    }
}

impl World {
    fn new(limits: Limits) -> Self {
        let certificate = CertificateId::of(b"a certificate");
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            // Whoever waits for something looks after every turn.
            .event_interval(1)
            .build()
            .unwrap();
        let (journal, replay, committer) =
            simulated::open(&MemoryDisk::default(), Options::default()).unwrap();
        let registry = Arc::new(Counting {
            registry: Registry::with(&certificate),
            asked: AtomicUsize::new(0),
        });
        let broker = {
            let _entered = runtime.enter();
            Broker::open(Parts {
                registry: Arc::clone(&registry) as _,
                journal: journal.clone(),
                replay,
                limits: Limits {
                    turn_work: TURN_WORK,
                    ..limits
                },
                now: Time::from_millis(1_767_225_600_000),
            })
            .unwrap()
        };
        Self {
            runtime,
            broker,
            journal,
            committer,
            certificate,
            registry,
        }
    }

    /// A MQTT 5 client after its CONNACK.
    fn connect(&mut self, client_id: &str, expiry_s: u8) -> Link {
        let link = Link::default();
        {
            let _entered = self.runtime.enter();
            assert!(self.broker.accept(link.clone(), &self.certificate));
        }
        let told = self.ask(&link, &connect(client_id, expiry_s));
        assert_eq!((told[0], told[3]), (0x20, 0));
        link
    }

    /// Says something and takes what comes next.
    fn ask(&mut self, link: &Link, packet: &[u8]) -> Vec<u8> {
        link.say(packet);
        for _ in 0..100 {
            self.runtime.block_on(async {
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
            });
            self.committer.commit();
            let down = std::mem::take(&mut link.0.lock().down);
            if !down.is_empty() {
                return down;
            }
        }
        panic!("no answer to {:x?}", &packet[..packet.len().min(20)]);
    }

    fn subscribe(&mut self, link: &Link, filters: &[String], qos: u8, id: Option<u8>) {
        for some in filters.chunks(500) {
            let suback = self.ask(link, &subscribe(some, qos, id));
            assert_eq!(suback[0], 0x90);
        }
    }

    /// One client says something; another one's ping comes right behind. Until that is answered.
    fn in_one_turn(&self, link: &Link, said: &[u8], other: &Link) {
        self.runtime.block_on(async {
            link.say(said);
            other.say(&[0xC0, 0]);
            turns_until(|| other.0.lock().down == [0xD0, 0]).await;
        });
        other.0.lock().down.clear();
    }

    fn until(&self, done: impl Fn(&broker::Stats) -> bool) {
        let done = || done(&self.broker.stats());
        self.runtime.block_on(turns_until(done));
    }
}

/// A CONNECT of MQTT 5 with a Clean Start.
fn connect(client_id: &str, expiry_s: u8) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend([5, 2, 0, 0, 5, 0x11, 0, 0, 0, expiry_s]);
    body.extend(text(client_id));
    packet(0x10, &body)
}

fn subscribe(filters: &[String], qos: u8, id: Option<u8>) -> Vec<u8> {
    let mut body = vec![0, 1];
    match id {
        Some(id) => body.extend([2, 0x0B, id]),
        None => body.extend(properties(5)),
    }
    for filter in filters {
        body.extend(text(filter));
        body.push(qos);
    }
    packet(0x82, &body)
}

fn publish(topic: &str, payload: &[u8], first: u8) -> Vec<u8> {
    let mut body = text(topic);
    if first & 6 != 0 {
        body.extend([0, 7]);
    }
    body.extend(properties(5));
    body.extend(payload);
    packet(0x30 | first, &body)
}

/// `a` and `+` in every order.
fn overlapping(levels: u32, last: &str) -> Vec<String> {
    let filter = |bits: u32| {
        let level = |at: u32| {
            if bits & (1_u32 << at) == 0 {
                "a/"
            } else {
                "+/"
            }
        };
        (0..levels).map(level).collect::<String>() + last
    };
    (0..1 << levels).map(filter).collect()
}

fn topics(levels: usize, count: usize) -> Vec<u8> {
    let topic = |n| format!("{}{n}", "a/".repeat(levels));
    (0..count)
        .flat_map(|n| publish(&topic(n), b"", 0))
        .collect()
}

/// [MQTT-3.3.4-3, 3.3.4-4]
#[test]
fn a_message_to_a_thousand_overlapping_subscriptions_is_looked_at_once_for_each() {
    let mut world = World::new(Limits::default());
    let attacker = world.connect("attacker", 0);
    let victim = world.connect("victim", 0);
    world.subscribe(&attacker, &overlapping(10, "+"), 0, Some(9));
    let before = world.broker.stats();
    world.in_one_turn(&attacker, &topics(10, 50), &victim);
    let handled = world.broker.stats().messages_in - before.messages_in;
    assert!(
        handled <= 2,
        "{handled} of 50 in the turn before the others'"
    );
    world.until(|stats| stats.messages_out - before.messages_out == 50);
    assert!(world.broker.stats().turns_cut - before.turns_cut >= 25);
    // One copy, with the identifier of each.
    let down = std::mem::take(&mut attacker.0.lock().down);
    let ids = down.windows(4).filter(|four| *four == [0x0B, 9, 0x0B, 9]);
    assert!(ids.count() > 50 * 1_000);
}

#[test]
fn subscriptions_that_match_nothing_are_work_too() {
    let mut world = World::new(Limits::default());
    let attacker = world.connect("attacker", 0);
    let victim = world.connect("victim", 0);
    world.subscribe(&attacker, &overlapping(10, "x"), 0, None);
    let before = world.broker.stats();
    world.in_one_turn(&attacker, &topics(10, 50), &victim);
    let handled = world.broker.stats().messages_in - before.messages_in;
    assert!(
        handled <= 2,
        "{handled} of 50 in the turn before the others'"
    );
    world.until(|stats| stats.messages_in - before.messages_in == 50);
}

#[test]
fn a_message_to_many_goes_on_in_the_next_turn() {
    let mut world = World::new(Limits::default());
    let sender = world.connect("sender", 0);
    let receivers: Vec<Link> = (0..1_500)
        .map(|n| {
            let link = world.connect(&format!("receiver-{n}"), 0);
            world.subscribe(&link, &["all".into()], 0, None);
            link
        })
        .collect();
    let cut = world.broker.stats().turns_cut;
    sender.say(&publish("all", b"1", 0));
    world.until(|stats| stats.messages_out == 1_500);
    let cut = world.broker.stats().turns_cut - cut;
    assert!((2..=4).contains(&cut), "in {cut} turns and the last");
    let got = receivers
        .iter()
        .filter(|link| !link.0.lock().down.is_empty());
    assert_eq!(got.count(), 1_500, "once each");
}

#[test]
fn a_message_of_qos_2_to_many_goes_on_in_the_next_turn_and_reaches_all_whatever_becomes_of_its_sender()
 {
    const MANY: usize = 1_500;
    for taken_over in [false, true] {
        let mut world = World::new(Limits::default());
        let sender = world.connect("sender", 0);
        let receivers: Vec<Link> = (0..MANY)
            .map(|n| {
                let link = world.connect(&format!("receiver-{n}"), 0);
                world.subscribe(&link, &["all".into()], 2, None);
                link
            })
            .collect();
        let pubrec = world.ask(&sender, &publish("all", b"1", 0b0100));
        assert_eq!(pubrec[0], 0x50);
        let cut = world.broker.stats().turns_cut;
        sender.say(&packet(0x62, &[0, 7]));
        if taken_over {
            // It has found them all, and has put the message into some mailboxes.
            world.until(|stats| stats.messages_out > 0);
            world.connect("sender", 0);
        }
        world.until(|stats| stats.messages_out >= MANY as u64);
        let cut = world.broker.stats().turns_cut - cut;
        assert!(taken_over || (4..=8).contains(&cut), "in {cut} turns");
        let got = receivers
            .iter()
            .filter(|link| !link.0.lock().down.is_empty());
        assert_eq!(got.count(), MANY);
        assert_eq!(world.broker.stats().messages_out, MANY as u64, "once each");
    }
}

/// [MQTT-3.3.1-9]
#[test]
fn what_is_retained_is_walked_once_for_each_filter_and_in_portions() {
    const KEPT: u64 = 500;
    let mut world = World::new(Limits::default());
    let attacker = world.connect("attacker", 0);
    let victim = world.connect("victim", 0);
    for n in 0..KEPT {
        world.ask(&attacker, &publish(&format!("own/{n}"), b"1", 0b0011));
    }
    let before = world.broker.stats();
    let filters: Vec<String> = std::iter::repeat_n("own/#".to_owned(), 900).collect();
    let mut said = subscribe(&filters, 0, None);
    said.extend([0xC0, 0]);
    world.in_one_turn(&attacker, &said, &victim);
    let sent = world.broker.stats().messages_out - before.messages_out;
    assert!(
        sent <= TURN_WORK as u64 / 8,
        "{sent} in the turn before the others'"
    );
    world.until(|stats| stats.messages_out - before.messages_out >= KEPT);
    // It is heard meanwhile.
    let down = std::mem::take(&mut attacker.0.lock().down);
    let heard = down.windows(2).position(|two| two == [0xD0, 0]);
    assert!(
        heard.is_some_and(|at| at + 2 < down.len()),
        "its ping is answered behind all"
    );
    // Each came once: behind them there is nothing more.
    world.ask(&attacker, &[0xC0, 0]);
    assert_eq!(
        world.broker.stats().messages_out - before.messages_out,
        KEPT
    );
}

/// The most keys that leave the journal in one turn, until only `left` are there.
fn longest_removal(world: &World, left: u64) -> u64 {
    let (mut before, mut longest) = (world.journal.stats().live_keys, 0);
    world.runtime.block_on(turns_until(|| {
        let keys = world.journal.stats().live_keys;
        longest = longest.max(before.saturating_sub(keys));
        before = keys;
        keys <= left
    }));
    longest
}

/// [MQTT-4.1.0-2]
#[test]
fn what_a_session_leaves_is_cleared_away_in_portions() {
    const EACH: usize = 500;
    let mut world = World::new(Limits::default());
    let sender = world.connect("sender", 0);
    let kept = world.journal.stats().live_keys;
    for connected in [false, true] {
        let away = world.connect("away", 60);
        let filters: Vec<String> = (0..EACH).map(|n| format!("own/{n}")).collect();
        world.subscribe(&away, &filters, 1, None);
        let before = world.broker.stats().disconnected;
        if !connected {
            away.say(&[0xE0, 0]);
            world.until(|stats| stats.disconnected > before);
        }
        for _ in 0..EACH {
            let puback = world.ask(&sender, &publish("own/1", b"1", 0b0010));
            assert_eq!(puback[0], 0x40);
        }
        let all = world.journal.stats().live_keys - kept;
        assert!(all >= 2 * EACH as u64, "{all}");
        if connected {
            // Its session ends with it.
            away.say(&packet(0xE0, &[0, 5, 0x11, 0, 0, 0, 0]));
        } else {
            let clean = Link::default();
            let _entered = world.runtime.enter();
            assert!(world.broker.accept(clean.clone(), &world.certificate));
            clean.say(&connect("away", 0));
        }
        let longest = longest_removal(&world, kept);
        assert!(longest <= 200, "{longest} of {all} in one turn");
    }
}

#[test]
fn what_waits_of_lost_subscriptions_is_looked_through_by_work() {
    const WAITING: usize = 40;
    const LEFT: &str = r#"{"Version":"2012-10-17","Statement":[
        {"Effect":"Allow","Action":["iot:Connect","iot:Publish","iot:Receive"],"Resource":"*"},
        {"Effect":"Allow","Action":"iot:Subscribe","Resource":"arn:aws:iot:local:000000000000:topicfilter/a/#"}]}"#;
    let mut world = World::new(Limits::default());
    let away = world.connect("away", 60);
    // What it loses matches nothing of what waits, and that takes a whole turn to find out.
    world.subscribe(&away, &overlapping(10, "x"), 1, None);
    world.subscribe(&away, &["a/#".into()], 1, None);
    let before = world.broker.stats().disconnected;
    away.say(&[0xE0, 0]);
    world.until(|stats| stats.disconnected > before);
    let sender = world.connect("sender", 0);
    for n in 0..WAITING {
        let topic = format!("{}{n}", "a/".repeat(10));
        assert_eq!(world.ask(&sender, &publish(&topic, b"", 2))[0], 0x40);
    }
    world.registry.registry.may(&world.certificate, LEFT);
    let link = Link::default();
    {
        let _entered = world.runtime.enter();
        assert!(world.broker.accept(link.clone(), &world.certificate));
    }
    let mut body = text("MQTT");
    body.extend([5, 0, 0, 0, 5, 0x11, 0, 0, 0, 60]);
    body.extend(text("away"));
    link.say(&packet(0x10, &body));
    let mut turns = 0;
    let said = world.broker.stats().connected;
    for _ in 0..10_000 {
        world.runtime.block_on(tokio::task::yield_now());
        world.committer.commit();
        if world.broker.stats().connected > said {
            break;
        }
        turns += 1;
    }
    assert!(turns >= WAITING, "in {turns} turns");
    world.until(|stats| stats.messages_out >= 20);
}

#[test]
fn a_change_that_concerns_many_who_are_away_is_looked_at_in_portions() {
    const AWAY: usize = 200;
    let mut world = World::new(Limits::default());
    for n in 0..AWAY {
        let before = world.broker.stats().disconnected;
        let away = world.connect(&format!("away-{n}"), 60);
        away.say(&[0xE0, 0]);
        world.until(|stats| stats.disconnected > before);
    }
    let asked = || world.registry.asked.load(Ordering::Relaxed);
    let before = asked();
    let (mut last, mut longest) = (before, 0);
    world.registry.registry.may(&world.certificate, EVERYTHING);
    world.runtime.block_on(turns_until(|| {
        let now = asked();
        longest = longest.max(now - last);
        last = now;
        now - before >= AWAY
    }));
    assert!(longest <= 20, "{longest} of {AWAY} in one turn");
    // Each once: nothing has changed since.
    assert_eq!(asked() - before, AWAY);
}

#[test]
fn the_body_of_a_message_is_written_once_however_many_groups_of_a_session_take_it() {
    const GROUPS: usize = 20;
    const BODY: usize = 10_000;
    let mut world = World::new(Limits::default());
    let member = world.connect("member", 60);
    let groups: Vec<String> = (0..GROUPS).map(|n| format!("$share/{n}/x")).collect();
    world.subscribe(&member, &groups, 1, None);
    let sender = world.connect("sender", 0);
    for _ in 0..10 {
        world.committer.commit();
    }
    assert_eq!(world.journal.stats().backlog_bytes, 0);
    sender.say(&publish("x", &[7; BODY], 0b0010));
    world.until(|stats| stats.messages_out == GROUPS as u64);
    let written = world.journal.stats().backlog_bytes as usize;
    assert!((BODY..2 * BODY).contains(&written), "{written} bytes");
}
