use std::future::pending;

use super::guests::Source;
use super::*;

fn peer() -> SocketAddr {
    from("127.0.0.1")
}

fn from(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 9)
}

fn full(lobby: &Arc<Lobby>, peer: SocketAddr, now: Instant) -> Option<Full> {
    lobby.try_enter(peer, now).err()
}

fn is_out(seat: &mut Seat) -> bool {
    matches!(
        seat.out.try_recv(),
        Err(oneshot::error::TryRecvError::Closed)
    )
}

#[tokio::test]
async fn who_comes_gets_the_seat_of_who_had_it_longest_and_only_after_a_while() {
    let (lobby, began) = (Lobby::new(2, "testing"), Instant::now());
    let half = began + SILENT / 2;
    let mut first = lobby.try_seat(peer(), began).unwrap();
    let mut second = lobby.try_seat(peer(), half).unwrap();
    assert_eq!(
        full(&lobby, peer(), half),
        Some(Full::OfItsOwn(began + SILENT))
    );
    let third = lobby.try_seat(peer(), began + SILENT).unwrap();
    assert_eq!(first.while_seated(pending::<()>()).await, None);
    assert_eq!(second.while_seated(async { 7 }).await, Some(7));
    assert_eq!(lobby.taken(), 2);
    drop((first, second, third));
    assert_eq!(lobby.taken(), 0);
}

#[tokio::test]
async fn who_has_begun_to_speak_keeps_its_seat_for_longer() {
    let (lobby, began) = (Lobby::new(2, "testing"), Instant::now());
    let mut speaking = lobby.try_seat(peer(), began).unwrap();
    speaking.voice().speaks();
    let mut silent = lobby.try_seat(peer(), began).unwrap();
    let second = began + SILENT;
    let third = lobby.try_seat(peer(), second).unwrap();
    assert_eq!(silent.while_seated(pending::<()>()).await, None);
    third.voice().speaks();
    let late = began + SPEAKING;
    assert_eq!(
        full(&lobby, peer(), second + SILENT),
        Some(Full::OfItsOwn(late))
    );
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
    let lobby = Lobby::new(1, "testing");
    // Of the distant future: it would keep its seat for good.
    let later = Instant::now() + Duration::from_secs(3600);
    let first = lobby.try_seat(peer(), later).unwrap();
    let waiting = {
        let lobby = Arc::clone(&lobby);
        tokio::spawn(async move { drop(lobby.seat(peer()).await) })
    };
    tokio::task::yield_now().await;
    drop(first);
    waiting.await.unwrap();
}

#[tokio::test]
async fn however_many_come_and_say_nothing_somebody_else_gets_in() {
    let (lobby, mut now) = (Lobby::new(8, "testing"), Instant::now());
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
    let lobby = Lobby::new(8, "testing");
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
    let own = Full::OfItsOwn(began + SILENT);
    assert_eq!(full(&lobby, from("10.9.9.9"), began), Some(own));
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
    assert_eq!(
        full(&lobby, from("10.0.2.2"), began),
        Some(Full::Until(began + SILENT))
    );
    came.push(lobby.try_seat(from("10.0.2.2"), late).unwrap());
    assert!(is_out(&mut others[0]));
    drop((others, crowd, came, again));
    assert!(lobby.guests.lock().is_forgotten());
}

#[test]
fn while_there_is_room_a_crowd_may_have_it_all() {
    let (lobby, now) = (Lobby::new(8, "testing"), Instant::now());
    let mut all: Vec<Seat> = (0..8)
        .map(|_| lobby.try_seat(peer(), now).unwrap())
        .collect();
    for seat in &mut all {
        assert!(!is_out(seat));
    }
    drop(all);
    assert!(lobby.guests.lock().is_forgotten());
}

#[tokio::test]
async fn a_crowds_newcomers_keep_nobody_waiting_and_are_bounded() {
    let lobby = Lobby::new(2, "testing");
    // Of the distant future: they keep their seats for good.
    let later = Instant::now() + Duration::from_secs(3600);
    let seats = [(); 2].map(|()| lobby.try_seat(peer(), later).unwrap());
    let mut in_line = Vec::new();
    for _ in 0..2 * IN_LINE_PER_SEAT {
        in_line.push(lobby.admit(peer()).await.unwrap());
    }
    assert!(lobby.admit(peer()).await.is_none(), "the line is full");
    let mut other = lobby
        .admit(from("10.0.0.1"))
        .await
        .unwrap()
        .seat(later)
        .await
        .unwrap();
    assert_eq!(lobby.taken(), 2 + 2 * IN_LINE_PER_SEAT);
    // In vain until then; the next gets what comes free.
    let first = in_line.remove(0);
    assert!(first.seat(Instant::now()).await.is_none());
    let next = tokio::spawn(in_line.remove(0).seat(later));
    tokio::task::yield_now().await;
    drop(seats);
    let mut next = next.await.unwrap().unwrap();
    assert!(!is_out(&mut next) && !is_out(&mut other));
    drop((in_line, next, other));
    assert_eq!(lobby.taken(), 0);
}

#[test]
fn a_source_is_an_address_or_a_network() {
    let of = |address| Source::of(from(address));
    assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::"));
    assert_ne!(of("2001:db8:1:2::"), of("2001:db8:1:3::"));
}
