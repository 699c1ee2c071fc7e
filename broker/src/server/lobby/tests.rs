use std::future::{pending, ready};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn peer() -> SocketAddr {
    from("127.0.0.1")
}

fn from(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 9)
}

fn lobby(seats: usize) -> Arc<Lobby> {
    Lobby::new(seats, "testing")
}

/// Until when there is no seat for one from there.
fn full(lobby: &Arc<Lobby>, peer: SocketAddr, now: Instant) -> Option<Instant> {
    let inside = lobby.inside.lock();
    let room = inside.guests.room_for(Source::of(peer), now);
    room.err().map(|Full(until)| until)
}

/// Admitted, and with something to say at once.
fn speaks(lobby: &Arc<Lobby>, peer: SocketAddr) -> impl Future<Output = Option<Seat>> + use<> {
    let admission = lobby.admit(peer).unwrap();
    admission.seat(ready(()), Instant::now() + HOUR)
}

fn is_forgotten(lobby: &Lobby) -> bool {
    let inside = lobby.inside.lock();
    inside.guests.is_forgotten() && inside.lines.is_forgotten()
}

fn is_out(seat: &mut Seat) -> bool {
    matches!(
        seat.out.try_recv(),
        Err(oneshot::error::TryRecvError::Closed)
    )
}

#[tokio::test]
async fn who_comes_gets_the_seat_of_who_had_it_longest_and_only_after_a_while() {
    let (lobby, began) = (lobby(2), Instant::now());
    let half = began + SILENT / 2;
    let mut first = lobby.try_seat(peer(), began).unwrap();
    let mut second = lobby.try_seat(peer(), half).unwrap();
    assert_eq!(full(&lobby, peer(), half), Some(began + SILENT));
    let third = lobby.try_seat(peer(), began + SILENT).unwrap();
    assert_eq!(first.while_seated(pending::<()>()).await, None);
    assert_eq!(second.while_seated(async { 7 }).await, Some(7));
    assert_eq!(lobby.taken(), 2);
    drop((first, second, third));
    assert_eq!(lobby.taken(), 0);
}

#[tokio::test]
async fn who_has_begun_to_speak_keeps_its_seat_for_longer() {
    let (lobby, began) = (lobby(2), Instant::now());
    let mut speaking = lobby.try_seat(peer(), began).unwrap();
    speaking.voice().speaks();
    let mut silent = lobby.try_seat(peer(), began).unwrap();
    let second = began + SILENT;
    let third = lobby.try_seat(peer(), second).unwrap();
    assert_eq!(silent.while_seated(pending::<()>()).await, None);
    third.voice().speaks();
    let late = began + SPEAKING;
    assert_eq!(full(&lobby, peer(), second + SILENT), Some(late));
    let fourth = lobby.try_seat(peer(), late).unwrap();
    assert_eq!(speaking.while_seated(pending::<()>()).await, None);
    // Too late to matter.
    speaking.voice().speaks();
    assert_eq!(lobby.taken(), 2);
    drop((third, fourth));
    assert_eq!(lobby.taken(), 0);
}

#[tokio::test]
async fn a_seat_that_comes_free_is_had_by_who_waits_long_before_the_others_time_is_over() {
    let lobby = lobby(1);
    // Of the distant future: it would keep its seat for good.
    let first = lobby.try_seat(peer(), Instant::now() + HOUR).unwrap();
    let waiting = tokio::spawn(speaks(&lobby, peer()));
    tokio::task::yield_now().await;
    drop(first);
    drop(waiting.await.unwrap().unwrap());
    assert!(is_forgotten(&lobby));
}

#[tokio::test]
async fn whose_time_is_over_makes_room_though_nobody_leaves() {
    let (lobby, soon) = (lobby(1), Duration::from_millis(50));
    let began = Instant::now().checked_sub(SPEAKING).unwrap() + soon;
    let mut first = lobby.try_seat(peer(), began).unwrap();
    first.voice().speaks();
    let mut second = speaks(&lobby, peer()).await.unwrap();
    assert!(began.elapsed() >= SPEAKING && is_out(&mut first));
    // Its time is not over for long: its own wait, who comes from elsewhere does not.
    let own = tokio::spawn(speaks(&lobby, peer()));
    tokio::task::yield_now().await;
    let other = speaks(&lobby, from("10.0.0.1")).await.unwrap();
    assert!(is_out(&mut second));
    drop((first, second, other));
    drop(own.await.unwrap().unwrap());
    assert!(is_forgotten(&lobby));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_less_than_the_others_is_not_held_up_by_them() {
    let (lobby, soon) = (lobby(8), Duration::from_millis(50));
    // A crowd of young ones, and somebody who has sat there for nearly as long as may be.
    let young: Vec<_> = (0..7)
        .map(|_| lobby.try_seat(peer(), Instant::now() + HOUR).unwrap())
        .collect();
    let old = from("10.0.0.1");
    let began = Instant::now().checked_sub(SILENT).unwrap() + soon;
    let old = lobby.try_seat(old, began).unwrap();
    let own = tokio::spawn(speaks(&lobby, peer()));
    tokio::task::yield_now().await;
    assert!(lobby.inside.lock().attended.unwrap() > Instant::now() + HOUR / 2);
    drop(young);
    drop(own.await.unwrap().unwrap());
    let young: Vec<_> = [
        "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.8",
    ]
    .map(|peer| lobby.try_seat(from(peer), Instant::now() + HOUR).unwrap())
    .into();
    // The attendant looks in an hour; for this one it has to look sooner.
    drop(speaks(&lobby, from("10.0.1.1")).await.unwrap());
    drop((young, old));
    assert!(is_forgotten(&lobby));
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_stands_in_line_without_a_seat_and_not_for_good() {
    let lobby = lobby(2);
    let silent: Vec<_> = (0..18)
        .map(|_| {
            let until = Instant::now() + Duration::from_millis(50);
            lobby.admit(peer()).unwrap().seat(pending(), until)
        })
        .map(tokio::spawn)
        .collect();
    tokio::task::yield_now().await;
    assert_eq!((lobby.taken(), lobby.inside.lock().guests.len()), (18, 0));
    // There is no more room: of those who say nothing one goes for each who does.
    let own = speaks(&lobby, peer()).await.unwrap();
    let other = speaks(&lobby, from("10.0.0.1")).await.unwrap();
    for one in silent {
        assert!(one.await.unwrap().is_none());
    }
    drop((own, other));
    assert!(is_forgotten(&lobby));
}

#[tokio::test(start_paused = true)]
async fn a_fleet_behind_one_address_gets_in_and_none_of_it_is_turned_away() {
    let lobby = Lobby::with_room(10, 20_000, "testing");
    let fleet: Vec<_> = (0..19_000)
        .map(|_| {
            let seat = speaks(&lobby, peer());
            tokio::spawn(async move {
                let mut seat = seat.await?;
                seat.while_seated(tokio::task::yield_now()).await
            })
        })
        .collect();
    for device in fleet {
        assert_eq!(device.await.unwrap(), Some(()));
    }
    assert!(is_forgotten(&lobby));
}

#[tokio::test]
async fn however_many_come_and_say_nothing_somebody_else_gets_in() {
    let (lobby, mut now) = (lobby(8), Instant::now());
    let mut held = Vec::new();
    for _ in 0..100 {
        now += SILENT / 8;
        held.push(lobby.try_seat(peer(), now).unwrap());
    }
    assert_eq!(lobby.taken(), 8);
    let mut honest = lobby.try_seat(peer(), now + SILENT / 8).unwrap();
    assert_eq!(honest.while_seated(async { 1 }).await, Some(1));
}

/// Eight seats, of which three make a crowd.
fn crowded(began: Instant) -> (Arc<Lobby>, Vec<Seat>, Vec<Seat>) {
    let lobby = lobby(8);
    let others = ["10.0.0.1", "10.0.0.2"];
    let others = others.map(|peer| lobby.try_seat(from(peer), began).unwrap());
    let crowd = (0..6).map(|n| {
        let peer = SocketAddr::new("10.9.9.9".parse().unwrap(), 1000 + n);
        lobby.try_seat(peer, began).unwrap()
    });
    let crowd = crowd.collect();
    (lobby, others.into(), crowd)
}

#[test]
fn a_crowd_makes_room_before_anybody_else() {
    let began = Instant::now();
    let (lobby, mut others, mut crowd) = crowded(began);
    crowd[0].voice().speaks();
    // Its own newcomer waits until the time of one of its own is over, though others sit there for longer.
    let own = Some(began + SILENT);
    assert_eq!(full(&lobby, from("10.9.9.9"), began), own);
    // Somebody else's does not wait: the oldest goes that says nothing, then who speaks.
    let mut came = Vec::new();
    for n in 1..4 {
        let newcomer = lobby.try_seat(from(&format!("10.0.1.{n}")), began);
        came.push(newcomer.unwrap());
        for (at, seat) in crowd.iter_mut().enumerate() {
            assert_eq!(is_out(seat), (1..=n).contains(&at), "{at} after {n}");
        }
    }
    let late = began + SILENT;
    let mut again = lobby.try_seat(from("10.9.9.9"), late).unwrap();
    assert!(is_out(&mut crowd[4]));
    for seat in others.iter_mut().chain(&mut came) {
        assert!(!is_out(seat));
    }
    // With one less it is a crowd no more: whoever has sat longest goes, and not at once.
    crowd[5].voice().speaks();
    came.push(lobby.try_seat(from("10.0.2.1"), late).unwrap());
    assert!(is_out(&mut again));
    assert_eq!(full(&lobby, from("10.0.2.2"), began), Some(began + SILENT));
    came.push(lobby.try_seat(from("10.0.2.2"), late).unwrap());
    assert!(is_out(&mut others[0]));
    drop((others, crowd, came, again));
    assert!(is_forgotten(&lobby));
}

#[test]
fn while_there_is_room_a_crowd_may_have_it_all() {
    let (lobby, now) = (lobby(8), Instant::now());
    let mut all: Vec<Seat> = (0..8)
        .map(|_| lobby.try_seat(peer(), now).unwrap())
        .collect();
    for seat in &mut all {
        assert!(!is_out(seat));
    }
    drop(all);
    assert!(is_forgotten(&lobby));
}

#[tokio::test]
async fn a_crowds_newcomers_keep_nobody_waiting_and_are_bounded() {
    let lobby = lobby(2);
    // Of the distant future: they keep their seats for good.
    let later = Instant::now() + HOUR;
    let seats = [(); 2].map(|()| lobby.try_seat(peer(), later).unwrap());
    let in_line: Vec<_> = (0..16)
        .map(|_| tokio::spawn(speaks(&lobby, peer())))
        .collect();
    tokio::task::yield_now().await;
    // The line is full: its first has to go for another.
    let newest = tokio::spawn(speaks(&lobby, peer()));
    tokio::task::yield_now().await;
    // From elsewhere: the next has to, and one of those on the seats.
    let mut other = speaks(&lobby, from("10.0.0.1")).await.unwrap();
    assert_eq!(lobby.taken(), 2 + 15);
    drop(seats);
    for (at, one) in in_line.into_iter().enumerate() {
        assert_eq!(one.await.unwrap().is_some(), at >= 2, "{at}");
    }
    assert!(newest.await.unwrap().is_some());
    assert!(!is_out(&mut other));
    drop(other);
    assert!(is_forgotten(&lobby));
}

#[tokio::test]
async fn who_comes_at_the_same_moment_is_not_closed_while_seats_are_free() {
    let lobby = Lobby::with_room(10, 5, "testing");
    // None of them has had its turn to sit down when the last one comes.
    let come: Vec<_> = (0..15).map(|_| lobby.admit(peer()).unwrap()).collect();
    for admission in come.into_iter().take(10) {
        let until = Instant::now() + HOUR;
        assert!(admission.seat(ready(()), until).await.is_some());
    }
}

#[tokio::test]
async fn two_crowds_have_the_free_seats_in_turn() {
    let lobby = lobby(2);
    let later = Instant::now() + HOUR;
    let crowds = ["10.0.0.1", "10.0.0.2"].map(from);
    let seats = crowds.map(|peer| lobby.try_seat(peer, later).unwrap());
    let order = Arc::new(Mutex::new(Vec::new()));
    let come = [0, 0, 0, 1, 1, 0].map(|number| {
        let (order, seat) = (Arc::clone(&order), speaks(&lobby, crowds[number]));
        tokio::spawn(async move {
            let seat = seat.await;
            order.lock().push(number);
            tokio::task::yield_now().await;
            drop(seat);
        })
    });
    tokio::task::yield_now().await;
    drop(seats);
    for one in come {
        one.await.unwrap();
    }
    assert_eq!(*order.lock(), [0, 1, 0, 1, 0, 0]);
}

/// There from that address, for as long as anybody may be silent.
fn sits(lobby: &Arc<Lobby>, address: &str) -> Seat {
    let long_ago = Instant::now().checked_sub(SILENT).unwrap();
    lobby.try_seat(from(address), long_ago).unwrap()
}

/// There from that address, for less than nothing.
fn comes(lobby: &Arc<Lobby>, address: &str) -> Seat {
    lobby
        .try_seat(from(address), Instant::now() + HOUR)
        .unwrap()
}

#[test]
fn where_nobody_has_to_leave_a_line_one_that_has_a_seat_goes() {
    let lobby = lobby(8);
    assert!(!lobby.make_room(Some(peer())), "nobody is there");
    let mut old = sits(&lobby, "10.0.0.2");
    let mut later = sits(&lobby, "10.0.0.3");
    let mut young = comes(&lobby, "10.0.0.1");
    let waiting = lobby.admit(from("10.0.0.4")).unwrap();
    assert!(lobby.make_room(Some(from("10.0.0.5"))));
    assert!(is_out(&mut old) && !is_out(&mut later));
    // Where nobody knows who comes: of the two in line the first.
    let second = lobby.admit(from("10.0.0.4")).unwrap();
    assert!(lobby.make_room(None));
    assert!(!is_out(&mut later));
    assert!(lobby.make_room(None));
    assert!(is_out(&mut later) && !is_out(&mut young));
    assert!(!lobby.make_room(None), "too young, and alone in its line");
    drop((young, old, later, waiting, second));
    assert!(is_forgotten(&lobby));
}

#[test]
fn a_crowds_seats_make_room_for_others_at_once_and_for_its_own_in_time() {
    let lobby = lobby(8);
    let mut crowd: Vec<Seat> = (0..6).map(|_| comes(&lobby, "10.9.9.9")).collect();
    crowd[0].voice().speaks();
    let other = Some(from("10.0.0.1"));
    assert!(!lobby.make_room(Some(from("10.9.9.9"))), "they are young");
    assert!(lobby.make_room(other));
    assert!(is_out(&mut crowd[1]), "who has said nothing first");
    // What is not to be broken off does not make room.
    crowd[2].stays(true);
    assert!(lobby.make_room(other));
    assert!(is_out(&mut crowd[3]) && !is_out(&mut crowd[2]));
    crowd[2].stays(false);
    assert!(lobby.make_room(other));
    assert!(is_out(&mut crowd[2]));
    for seat in &crowd {
        seat.stays(true);
    }
    assert!(!lobby.make_room(other));
    drop(crowd);
    assert!(is_forgotten(&lobby));
}

#[tokio::test]
async fn a_seat_that_made_room_is_had_by_who_waits_for_one() {
    let lobby = lobby(1);
    let mut first = comes(&lobby, "127.0.0.1");
    let waiting = tokio::spawn(speaks(&lobby, peer()));
    tokio::task::yield_now().await;
    assert!(lobby.make_room(Some(from("10.0.0.1"))));
    assert!(is_out(&mut first));
    drop(waiting.await.unwrap().unwrap());
    drop(first);
    assert!(is_forgotten(&lobby));
}

#[test]
fn a_source_is_an_address_or_a_network() {
    let of = |address| Source::of(from(address));
    assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::"));
    assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
}
