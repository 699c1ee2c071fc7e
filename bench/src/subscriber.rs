//! One subscriber.

use std::rc::Rc;

use bytes::BytesMut;
use mqttbytes::QoS;
use mqttbytes::v4::{Packet, PubAck, PubComp, PubRec};

use crate::dial::Connection;
use crate::error::BenchError;
use crate::in_flight::InFlight;
use crate::payload::Head;
use crate::tally::Tally;

/// Receives, and acknowledges what came in one read with one write, until the connection ends.
pub(crate) async fn hear(
    mut connection: Connection,
    in_flight: Option<Rc<InFlight>>,
    tally: Rc<Tally>,
) -> Result<(), BenchError> {
    let mut answers = BytesMut::new();
    loop {
        connection.fill().await?;
        let now_ns = tally.now_ns();
        while let Some(packet) = connection.buffered()? {
            let answered = match &packet {
                Packet::Publish(publish) => match publish.qos {
                    QoS::AtMostOnce => Ok(0),
                    QoS::AtLeastOnce => PubAck::new(publish.pkid).write(&mut answers),
                    QoS::ExactlyOnce => PubRec::new(publish.pkid).write(&mut answers),
                },
                Packet::PubRel(release) => PubComp::new(release.pkid).write(&mut answers),
                _ => Ok(0),
            };
            answered.map_err(|cause| connection.malformed(cause))?;
            let Packet::Publish(publish) = packet else {
                continue;
            };
            let Some(head) = Head::read(tally.run, &publish.payload) else {
                tally.foreign.set(tally.foreign.get() + 1);
                continue;
            };
            tally.heard(head, now_ns);
            if let Some(in_flight) = &in_flight {
                in_flight.heard(head.source, head.sequence);
            }
        }
        if !answers.is_empty() {
            connection.send(&answers, "acknowledge").await?;
            answers.clear();
        }
    }
}
