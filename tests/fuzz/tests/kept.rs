//! The corpora: whatever was found interesting once holds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may fail loudly, and names the input it failed at"
)]

use std::path::Path;

fn each(target: &str, run: fn(&[u8])) {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(&kept).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        run(&std::fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 10, "{} is empty", kept.display());
}

#[test]
fn codec() {
    each("codec", fuzz::codec);
}

#[test]
fn differential() {
    each("differential", fuzz::differential);
}

#[test]
fn firmware() {
    each("firmware", fuzz::firmware);
}

#[test]
fn identity() {
    each("identity", fuzz::identity);
}

#[test]
fn policy() {
    each("policy", fuzz::policy);
}

#[test]
fn session() {
    each("session", fuzz::session);
}

#[test]
fn shadow() {
    each("shadow", fuzz::shadow);
}

#[test]
fn topics() {
    each("topics", fuzz::topics);
}

#[test]
fn websocket() {
    each("websocket", fuzz::websocket);
}
