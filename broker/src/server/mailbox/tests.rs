use super::*;
use crate::server::groups::Groups;
use crate::server::message::Origin;
use crate::server::stats::Stats;
use crate::session::Publication;
use bytes::Bytes;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

fn message(payload: &str) -> Message {
    let publication = Publication::new(
        "x".parse().unwrap(),
        Bytes::copy_from_slice(payload.as_bytes()),
    );
    Message::new(publication, Qos::AtLeastOnce, false, Origin::Service)
}

fn options(qos: Qos) -> SendOptions {
    SendOptions {
        qos,
        retain: false,
        subscription_ids: None,
    }
}

fn mailbox(limits: &Limits) -> Mailbox {
    Mailbox::new(1, None, limits)
}

fn put(mailbox: &Mailbox, payload: &str, qos: Qos, counters: &Counters) {
    let safe = mailbox.deliver(
        &message(payload),
        options(qos),
        None,
        false,
        BodyRef::Inline,
        counters,
    );
    assert_eq!(safe, Ok(None), "nothing here waits for a disk");
}

fn all(mailbox: &Mailbox) -> Vec<String> {
    let mut taken = VecDeque::new();
    mailbox.take(&mut taken, usize::MAX);
    taken
        .iter()
        .map(|delivery| {
            let message = delivery.message.as_ref().unwrap();
            String::from_utf8(message.payload().to_vec()).unwrap()
        })
        .collect()
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn qos_0_is_dropped_at_the_bound_and_counted() {
    let limits = Limits {
        session_qos0_messages: 2,
        ..Limits::default()
    };
    let (mailbox, counters) = (mailbox(&limits), Counters::default());
    for payload in ["1", "2", "3"] {
        put(&mailbox, payload, Qos::AtMostOnce, &counters);
    }
    put(&mailbox, "4", Qos::AtLeastOnce, &counters);
    assert_eq!(all(&mailbox), ["1", "2", "4"]);
    assert_eq!(Stats::sum([&counters].into_iter()).dropped_qos0_full, 1);
}

#[test]
fn beyond_the_bound_in_messages_the_oldest_goes() {
    let limits = Limits {
        session_queue_messages: 2,
        ..Limits::default()
    };
    let (mailbox, counters) = (mailbox(&limits), Counters::default());
    for payload in ["1", "2"] {
        put(&mailbox, payload, Qos::AtLeastOnce, &counters);
    }
    assert_eq!(Stats::sum([&counters].into_iter()).dropped_queue_full, 0);
    put(&mailbox, "3", Qos::AtLeastOnce, &counters);
    assert_eq!(all(&mailbox), ["2", "3"]);
    assert_eq!(Stats::sum([&counters].into_iter()).dropped_queue_full, 1);
}

#[test]
fn beyond_the_bound_in_bytes_the_oldest_goes() {
    let limits = Limits {
        session_queue_bytes: 2 * message("1").weight_bytes(),
        ..Limits::default()
    };
    let (mailbox, counters) = (mailbox(&limits), Counters::default());
    for payload in ["1", "2", "3"] {
        put(&mailbox, payload, Qos::AtLeastOnce, &counters);
    }
    assert_eq!(all(&mailbox), ["2", "3"]);
    put(&mailbox, "4", Qos::AtLeastOnce, &counters);
    assert_eq!(all(&mailbox), ["4"], "room is given back");
}

#[test]
fn what_ends_with_its_connection_has_a_bound_of_memory() {
    let limits = Limits {
        session_memory_bytes: 2 * message("1").weight_bytes(),
        ..Limits::default()
    };
    let (mailbox, counters) = (mailbox(&limits), Counters::default());
    for payload in ["1", "2", "3"] {
        put(&mailbox, payload, Qos::AtLeastOnce, &counters);
    }
    assert_eq!(all(&mailbox), ["2", "3"]);
    assert_eq!(Stats::sum([&counters].into_iter()).dropped_queue_full, 1);
}

#[test]
fn the_owner_is_woken_once_per_batch_and_again_after_it_took_all() {
    let (mailbox, counters) = (mailbox(&Limits::default()), Counters::default());
    let count = Arc::new(Count::default());
    mailbox.own(&Waker::from(Arc::clone(&count)));
    for _ in 0..100 {
        put(&mailbox, "x", Qos::AtLeastOnce, &counters);
    }
    assert_eq!(count.0.load(Ordering::SeqCst), 1);
    assert!(mailbox.has(Signal::MAIL));
    assert_eq!(all(&mailbox).len(), 100);
    assert!(!mailbox.has(Signal::MAIL));
    put(&mailbox, "x", Qos::AtLeastOnce, &counters);
    assert_eq!(count.0.load(Ordering::SeqCst), 2);
}

#[test]
fn what_is_not_durable_does_not_outlive_the_connection() {
    let (mailbox, counters) = (mailbox(&Limits::default()), Counters::default());
    put(&mailbox, "1", Qos::AtLeastOnce, &counters);
    mailbox.park(VecDeque::new());
    put(&mailbox, "2", Qos::AtMostOnce, &counters);
    put(&mailbox, "3", Qos::AtLeastOnce, &counters);
    assert!(all(&mailbox).is_empty());
    assert_eq!(Stats::sum([&counters].into_iter()).dropped_qos0_offline, 1);
    mailbox.close();
    mailbox.reply(&message("4"), options(Qos::AtMostOnce));
    assert!(all(&mailbox).is_empty());
}

#[test]
fn what_comes_for_a_group_to_one_that_has_ended_is_not_taken() {
    let (mailbox, counters) = (Arc::new(mailbox(&Limits::default())), Counters::default());
    let filter = "$share/g/x".parse().unwrap();
    let subscription = crate::codec::SubscriptionOptions::new(Qos::AtLeastOnce);
    let joined = Groups::default().join(&filter, &mailbox, subscription, || 9);
    let shared = joined.map(|(_, group)| Box::new(Shared::new(&group)));
    let deliver = |shared| {
        let options = options(Qos::AtLeastOnce);
        mailbox.deliver(
            &message("1"),
            options,
            shared,
            false,
            BodyRef::Inline,
            &counters,
        )
    };
    assert_eq!(deliver(shared.clone()), Ok(None));
    assert_eq!(mailbox.close().len(), 1);
    assert_eq!(deliver(shared), Err(NotPut::Ended));
    assert_eq!(deliver(None), Ok(None), "nobody else can have it");
    assert!(mailbox.close().is_empty());
}
