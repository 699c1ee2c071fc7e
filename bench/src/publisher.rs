//! One publisher: when it sends, and what comes of it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4::{Packet, PubRel, Publish};
use tokio::io::AsyncRead;
use tokio::sync::Notify;

use crate::dial::{self, Connection, Incoming};
use crate::error::BenchError;
use crate::in_flight::InFlight;
use crate::payload::Head;
use crate::schedule::Schedule;
use crate::tally::{Admission, Tally};

/// When the next message goes.
pub(crate) enum Pace {
    /// As soon as fewer than the bound are on their way.
    Closed(Rc<InFlight>),
    /// When it is due.
    Open(Rc<RefCell<Schedule>>),
}

/// What a publisher sends.
pub(crate) struct Speech {
    pub(crate) number: u32,
    pub(crate) topic: String,
    pub(crate) qos: QoS,
    pub(crate) size_bytes: usize,
}

/// PUBRELs that have to leave.
#[derive(Default)]
struct Owed {
    bytes: RefCell<BytesMut>,
    more: Notify,
}

/// Publishes until the run is over, then keeps the connection.
pub(crate) async fn publish(
    connection: Connection,
    speech: Speech,
    pace: Pace,
    tally: Rc<Tally>,
) -> Result<(), BenchError> {
    let client_id = connection.client_id.clone();
    let lost = |cause| BenchError::Lost {
        client_id: client_id.clone(),
        what: "send PUBLISH",
        cause,
    };
    let malformed = |cause| BenchError::Malformed {
        client_id: client_id.clone(),
        cause,
    };
    let (mut incoming, mut writer) = connection.split();
    let owed = Owed::default();
    let answers = attend(&mut incoming, &owed, &tally);
    let speak = async {
        let mut publish = Publish::new(speech.topic, speech.qos, Vec::new());
        let mut scratch = BytesMut::new();
        let mut out = BytesMut::new();
        let mut sequence = 0;
        let mut over = false;
        loop {
            let turn = tokio::select! {
                biased;
                () = owed.more.notified(), if speech.qos == QoS::ExactlyOnce => {
                    let release = owed.bytes.borrow_mut().split();
                    dial::send(&mut writer, &release).await.map_err(lost)?;
                    continue;
                }
                turn = pace.next(speech.number, &tally), if !over => turn,
                else => return Ok(()),
            };
            let Turn { stamp_ns, due_ns } = turn;
            let admission = tally.admit(stamp_ns);
            if admission == Admission::Over {
                over = true;
                tally.finished.set(tally.finished.get() + 1);
                continue;
            }
            let head = Head {
                stamp_ns,
                source: speech.number,
                sequence,
            };
            sequence = sequence.wrapping_add(1);
            publish.payload = head.payload(tally.run, speech.size_bytes, &mut scratch);
            if speech.qos != QoS::AtMostOnce {
                publish.pkid = publish.pkid.checked_add(1).unwrap_or(1);
            }
            out.clear();
            publish.write(&mut out).map_err(malformed)?;
            dial::send(&mut writer, &out).await.map_err(lost)?;
            match pace {
                Pace::Open(_) if admission == Admission::Counted => {
                    tally.left_late(tally.now_ns().saturating_sub(due_ns));
                }
                Pace::Open(_) => {}
                // A publisher never has two turns in a row.
                Pace::Closed(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::try_join!(speak, answers).map(|_| ())
}

/// Reads what the broker answers, until the connection ends.
async fn attend<S: AsyncRead + Unpin>(
    incoming: &mut Incoming<S>,
    owed: &Owed,
    tally: &Tally,
) -> Result<Infallible, BenchError> {
    loop {
        match incoming.packet().await? {
            Packet::PubAck(_) | Packet::PubComp(_) => tally.answered(),
            Packet::PubRec(received) => {
                let release = PubRel::new(received.pkid);
                let written = release.write(&mut owed.bytes.borrow_mut());
                written.map_err(|cause| incoming.malformed(cause))?;
                owed.more.notify_one();
            }
            _ => {}
        }
    }
}

/// A message may go.
struct Turn {
    /// From when its latency counts.
    stamp_ns: u64,
    due_ns: u64,
}

impl Pace {
    /// Waits for the next message's turn.
    async fn next(&self, number: u32, tally: &Tally) -> Turn {
        match self {
            Self::Closed(in_flight) => {
                in_flight.take(number).await;
                let now_ns = tally.now_ns();
                Turn {
                    stamp_ns: now_ns,
                    due_ns: now_ns,
                }
            }
            Self::Open(schedule) => {
                let due_ns = schedule.borrow().due_ns();
                if due_ns > tally.now_ns() {
                    tokio::time::sleep_until(tally.instant(due_ns)).await;
                    schedule.borrow_mut().woke(tally.now_ns());
                }
                let stamp_ns = schedule.borrow_mut().take();
                Turn { stamp_ns, due_ns }
            }
        }
    }
}
