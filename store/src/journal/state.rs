//! What a journal is in memory: where each key's newest record lies, and the records that are not
//! durable yet. A record's place on the disk is settled when it is put, so the index never changes
//! when it is written, and a write that failed is tried again at the same place.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::mark::Mark;
use super::record::{self, Body, Kind};
use super::segment::{HEADER_BYTES, Segment};
use super::{Options, SEGMENT_BYTES_MIN};
use crate::room::Room;

/// Length, in bytes, at which a chunk of waiting records is closed and the next one begun.
const CHUNK_BYTES: usize = 1024 * 1024;
/// The index gives memory back when it is this many times larger than its keys need.
const INDEX_SPARE_FACTOR: usize = 8;
/// An index of so many keys is never shrunk.
const INDEX_KEYS_MIN: usize = 4096;

/// While the disk is nearly full a segment is ended when it has this part of its length otherwise,
const LOW_SEGMENTS: u32 = 64;
/// and compaction starts where so many of those segments are dead,
const LOW_SLACK_SEGMENTS: u64 = 2;
/// and one byte for so many that live: each step moves that many at most for each it sets free.
const LOW_DEAD_SHARE: u64 = 4;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Location {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) value_length: u32,
}

/// Records that follow each other in one segment and are not durable yet.
pub(super) struct Chunk {
    pub(super) segment: u32,
    pub(super) offset: u32,
    pub(super) bytes: Vec<u8>,
    pub(super) last_sequence: u64,
}

impl Chunk {
    /// Where it ends in its segment.
    pub(super) fn end(&self) -> u32 {
        self.offset
            .saturating_add(u32::try_from(self.bytes.len()).unwrap_or(u32::MAX))
    }
}

/// Bytes that may be put until the disk is looked at again, of each kind. Each is counted against all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) ordinary: u64,
    pub(super) bounded: u64,
    pub(super) compaction: u64,
}

impl Left {
    /// Nobody knows what the disk has.
    pub(super) const UNKNOWN: Left = Left {
        ordinary: u64::MAX,
        bounded: u64::MAX,
        compaction: u64::MAX,
    };

    /// What `room` leaves besides so many bytes that are not written yet.
    pub(super) fn of(room: Room, waiting_bytes: usize) -> Left {
        let left = Left {
            ordinary: room.ordinary_bytes(),
            bounded: room.bounded_bytes(),
            compaction: room.compaction_bytes(),
        };
        left.without(waiting_bytes)
    }

    fn without(self, bytes: usize) -> Left {
        // What is not known stays so, for all that counts.
        let less = |left: u64| left.saturating_sub(bytes as u64);
        Left {
            ordinary: less(self.ordinary),
            bounded: less(self.bounded),
            compaction: less(self.compaction),
        }
    }
}

pub(super) struct State {
    pub(super) options: Options,
    pub(super) index: HashMap<Box<[u8]>, Location>,
    /// Oldest first, numbers without a gap; records go to the last.
    pub(super) segments: VecDeque<Segment>,
    /// Waiting to be written or being written, oldest first.
    pub(super) waiting: VecDeque<Arc<Chunk>>,
    /// Where the next record goes, behind all of `waiting`.
    pub(super) open: Option<Chunk>,
    pub(super) backlog_bytes: usize,
    /// What is noted beside the segments.
    pub(super) noted: Mark,
    pub(super) next_sequence: u64,
    pub(super) live_bytes: u64,
    /// Lengths of all segments together, in bytes.
    pub(super) disk_bytes: u64,
    pub(super) failed: Option<Arc<str>>,
    /// The disk has no more room for what is new.
    pub(super) low: bool,
    pub(super) left: Left,
    /// The least of what was not taken for want of room since that was last told, in bytes.
    pub(super) refused: Option<u64>,
    pub(super) stop: bool,
}

impl State {
    pub(super) fn new(options: Options) -> State {
        State {
            options,
            index: HashMap::new(),
            segments: VecDeque::new(),
            waiting: VecDeque::new(),
            open: None,
            backlog_bytes: 0,
            noted: Mark::default(),
            next_sequence: 1,
            live_bytes: 0,
            disk_bytes: 0,
            failed: None,
            low: false,
            left: Left::UNKNOWN,
            refused: None,
            stop: false,
        }
    }

    pub(super) fn add_segment(&mut self, segment: Segment) {
        self.disk_bytes += u64::from(segment.length);
        self.segments.push_back(segment);
    }

    pub(super) fn segment_mut(&mut self, number: u32) -> Option<&mut Segment> {
        let first = self.segments.front()?.number;
        self.segments.get_mut(number.checked_sub(first)? as usize)
    }

    pub(super) fn segment(&self, number: u32) -> Option<&Segment> {
        let first = self.segments.front()?.number;
        self.segments.get(number.checked_sub(first)? as usize)
    }

    /// Appends records that count only together, in one segment, and returns the last one's sequence
    /// number; `None` where there are none.
    pub(super) fn append_batch(&mut self, bodies: Vec<Body<'_>>) -> Option<u64> {
        let length = bodies.iter().map(Body::length).sum();
        // Not within a batch: it is in one segment.
        self.make_room(length, self.next_sequence, self.low);
        let last = bodies.len().checked_sub(1)?;
        let mut sequence = None;
        for (at, body) in bodies.into_iter().enumerate() {
            sequence = Some(self.append(body.with_more(at < last)));
        }
        sequence
    }

    /// Appends a record and returns its sequence number.
    pub(super) fn append(&mut self, body: Body<'_>) -> u64 {
        let kind = body.kind;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let length = body.length();
        let (number, offset, mark, durable) = self.place(length, sequence);
        let key: &[u8] = body.key;
        let location = Location {
            segment: number,
            offset,
            value_length: body.value_length,
        };
        match kind {
            Kind::Put => self.set(key, location),
            Kind::Delete => self.unset(key),
            Kind::Close => {}
        }
        let full = |chunk: &Chunk| {
            chunk.segment != number || chunk.bytes.len().saturating_add(length) > CHUNK_BYTES
        };
        if self.open.as_ref().is_some_and(full) {
            self.close_chunk();
        }
        let chunk = self.open.get_or_insert_with(|| Chunk {
            segment: number,
            offset,
            bytes: Vec::new(),
            last_sequence: sequence,
        });
        body.write(mark, durable, sequence, &mut chunk.bytes);
        chunk.last_sequence = sequence;
        self.backlog_bytes += length;
        self.left = self.left.without(length);
        sequence
    }

    /// Begins a new segment where the last one has no room for so many bytes.
    fn make_room(&mut self, length: usize, sequence: u64, low: bool) {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let bound = self.options.segment_bytes;
        let next = match self.segments.back() {
            None => Some(1),
            Some(last) => {
                let over = last.length.saturating_add(length) > bound;
                // What is dead can go only with its segment, and only where that is not the last.
                let closes = low && last.length >= self.low_segment_bytes();
                let full = last.length > HEADER_BYTES && (over || closes);
                full.then_some(last.number + 1)
            }
        };
        if let Some(number) = next {
            self.add_segment(Segment::new(number, sequence));
        }
    }

    /// Length of a segment while the disk is nearly full, in bytes.
    fn low_segment_bytes(&self) -> u32 {
        (self.options.segment_bytes / LOW_SEGMENTS).max(SEGMENT_BYTES_MIN)
    }

    /// Takes room for a record in the last segment, or in a new one where it is full; tells the
    /// segment's number, mark and durable length, and the record's offset.
    fn place(&mut self, length: usize, sequence: u64) -> (u32, u32, u32, u32) {
        self.make_room(length, sequence, false);
        // Segments are at most u32::MAX bytes long and records at most a segment.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        self.disk_bytes += u64::from(length);
        match self.segments.back_mut() {
            Some(last) => {
                let offset = last.length;
                last.length = last.length.saturating_add(length);
                (last.number, offset, last.mark, last.durable)
            }
            // One was added above where there was none.
            None => (0, 0, 0, 0),
        }
    }

    /// Ends the chunk that takes records, so that it can be written.
    pub(super) fn close_chunk(&mut self) {
        if let Some(chunk) = self.open.take() {
            self.waiting.push_back(Arc::new(chunk));
        }
    }

    /// `key`'s newest record is the put at `location`.
    pub(super) fn set(&mut self, key: &[u8], location: Location) {
        let old = match self.index.get_mut(key) {
            Some(place) => Some(std::mem::replace(place, location)),
            None => self.index.insert(key.into(), location),
        };
        if let Some(old) = old {
            self.forget(key, old);
        }
        let length = record::length(key.len(), location.value_length) as u64;
        self.live_bytes += length;
        if let Some(segment) = self.segment_mut(location.segment) {
            segment.live_records += 1;
            segment.live_bytes += length;
        }
    }

    /// `key`'s newest record is a delete.
    pub(super) fn unset(&mut self, key: &[u8]) {
        if let Some(old) = self.index.remove(key) {
            self.forget(key, old);
        }
    }

    fn forget(&mut self, key: &[u8], old: Location) {
        let length = record::length(key.len(), old.value_length) as u64;
        self.live_bytes -= length;
        if let Some(segment) = self.segment_mut(old.segment) {
            segment.live_records -= 1;
            segment.live_bytes -= length;
        }
    }

    /// The bytes of the record at `location` where it is not durable yet.
    pub(super) fn waiting_record(&self, key: &[u8], location: Location) -> Option<&[u8]> {
        let holds = |chunk: &Chunk| {
            chunk.segment == location.segment
                && (chunk.offset..chunk.end()).contains(&location.offset)
        };
        let waiting = self.waiting.iter().map(|chunk| &**chunk);
        let chunk = self.open.iter().chain(waiting).find(|chunk| holds(chunk))?;
        let start = (location.offset - chunk.offset) as usize;
        let length = record::length(key.len(), location.value_length);
        chunk.bytes.get(start..start + length)
    }

    /// How many segments, from the oldest, hold nothing alive. Never the last: it takes records.
    ///
    /// Only the oldest are ever deleted. So when a delete record goes with its segment, every put
    /// it outlived is gone already, and no deleted key comes back.
    pub(super) fn dead_segments(&self) -> usize {
        let older = self.segments.len().saturating_sub(1);
        self.segments
            .iter()
            .take(older)
            .take_while(|segment| segment.live_records == 0)
            .count()
    }

    /// Whether the oldest segment's live records are to be copied forward. While the disk is nearly full that is so much
    /// sooner, for who comes and goes leaves dead records behind, and only where it leaves the registry its room.
    pub(super) fn compaction_due(&self) -> bool {
        let bound = if self.low {
            let slack = LOW_SLACK_SEGMENTS * u64::from(self.low_segment_bytes());
            self.live_bytes / LOW_DEAD_SHARE + self.live_bytes + slack
        } else {
            let bound = self.live_bytes.saturating_mul(self.options.compact_factor);
            bound.saturating_add(self.options.compact_slack_bytes)
        };
        let fits = |oldest: &Segment| !self.low || oldest.live_bytes <= self.left.compaction;
        self.failed.is_none()
            && self.disk_bytes > bound
            && self.segments.len() > 1
            && self.segments.front().is_some_and(|oldest| {
                oldest.live_records > 0 && oldest.durable == oldest.length && fits(oldest)
            })
    }

    /// Gives the index's memory back after a flood of keys has gone.
    pub(super) fn shrink(&mut self) {
        let needed = self.index.len().max(INDEX_KEYS_MIN);
        if self.index.capacity() / INDEX_SPARE_FACTOR > needed {
            self.index.shrink_to(needed * 2);
        }
    }
}
