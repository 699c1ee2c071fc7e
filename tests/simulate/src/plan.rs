//! What a seed is about: how many clients, how long, and what goes wrong.

use fastrand::Rng;

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) principals: usize,
    pub(crate) clients: usize,
    pub(crate) steps: usize,
    pub(crate) crashes: bool,
    pub(crate) disk_fails: bool,
    pub(crate) rules_change: bool,
    pub(crate) shared: bool,
    /// Bytes of connections that were given up arrive late.
    pub(crate) old_bytes: bool,
    /// How often the server has a turn.
    pub(crate) turn_percent: u8,
    /// How often what a client does goes through at once.
    pub(crate) prompt_percent: u8,
    pub(crate) tasks_per_turn: u32,
    pub(crate) segment_bytes: u32,
    pub(crate) backlog_bytes: usize,
    pub(crate) output_bytes: usize,
    pub(crate) resident_bytes: usize,
    pub(crate) read_share_bytes: usize,
    pub(crate) turn_work: usize,
}

impl Plan {
    /// Most seeds are small, so that many are tried and a failure is short; some are crowds.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let (clients, steps) = match rng.u16(..1000) {
            0..2 => (rng.usize(100..300), rng.usize(6_000..12_000)),
            2..30 => (rng.usize(8..30), rng.usize(1_000..3_000)),
            30..500 => (rng.usize(2..4), rng.usize(150..500)),
            _ => (rng.usize(2..8), rng.usize(200..700)),
        };
        Self {
            principals: rng.usize(1..=clients.min(4)),
            clients,
            steps,
            crashes: rng.u8(..4) > 0,
            disk_fails: rng.u8(..4) == 0,
            rules_change: rng.bool(),
            shared: rng.u8(..3) == 0,
            old_bytes: rng.bool(),
            turn_percent: if rng.bool() { 100 } else { rng.u8(20..100) },
            prompt_percent: rng.u8(20..100),
            tasks_per_turn: if rng.bool() { 61 } else { rng.u32(1..4) },
            segment_bytes: if rng.bool() {
                1 << 20
            } else {
                rng.u32(4096..16_384)
            },
            backlog_bytes: if rng.u8(..6) == 0 {
                rng.usize(200..4096)
            } else {
                1 << 20
            },
            output_bytes: if rng.bool() {
                64 * 1024
            } else {
                rng.usize(200..2_000)
            },
            resident_bytes: if rng.bool() {
                1 << 20
            } else {
                rng.usize(..1_000)
            },
            read_share_bytes: if rng.bool() {
                64 * 1024
            } else {
                rng.usize(16..512)
            },
            turn_work: if rng.bool() {
                32 * 1024
            } else {
                rng.usize(1..200)
            },
        }
    }
}
