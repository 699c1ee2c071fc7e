//! The steps of a message's way, alone and repeated, for a program that counts instructions.
//!
//! `muster-instructions` lists the cases; `muster-instructions CASE COUNT` runs one so often and says nothing. What a
//! step costs is the difference between two counts, so that what is made before does not matter. `count.py` counts.
//! Neighbours: the pure halves of `broker` and `policy`, and the topic tree.

mod codec;
mod decision;
mod session;
mod topic_match;

use std::hint::black_box;
use std::io::Write as _;
use std::process::ExitCode;

/// A step: what it does once.
type Step = Box<dyn FnMut()>;

/// A name, and what makes the step.
type Case = (&'static str, fn() -> Step);

const CASES: [Case; 10] = [
    ("codec/relay-v311", codec::relay_v311),
    ("codec/relay-v5", codec::relay_v5),
    ("match/exact", topic_match::exact),
    ("match/wildcard", topic_match::wildcard),
    ("decide/allow", decision::allow),
    ("decide/deny", decision::deny),
    ("session/publish-qos0", session::publish_qos0),
    ("session/publish-qos1", session::publish_qos1),
    ("session/deliver-qos0", session::deliver_qos0),
    ("session/deliver-qos1", session::deliver_qos1),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut out = std::io::stdout();
    match arguments.as_slice() {
        [] => {
            for (name, _) in CASES {
                if writeln!(out, "{name}").is_err() {
                    return ExitCode::FAILURE;
                }
            }
            ExitCode::SUCCESS
        }
        [name, count] => {
            let case = CASES.iter().find(|(known, _)| known == name);
            let (Some((_, make)), Ok(count)) = (case, count.parse::<u64>()) else {
                let _ = writeln!(
                    std::io::stderr(),
                    "muster-instructions: {name} {count}: name a case (without arguments it lists them) and how often"
                );
                return ExitCode::FAILURE;
            };
            let mut step = make();
            for _ in 0..count {
                black_box(&mut step)();
            }
            ExitCode::SUCCESS
        }
        _ => {
            let _ = writeln!(
                std::io::stderr(),
                "muster-instructions: give CASE and COUNT, or nothing"
            );
            ExitCode::FAILURE
        }
    }
}
