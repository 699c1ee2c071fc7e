//! `kill -9` while authorities are being founded or rotated: each is there whole, or can be founded; the issuing
//! certificate is the one before or the next.
#![expect(
    clippy::unwrap_used,
    reason = "a test may fail loudly, its helpers too"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use ca::{Authority, AuthorityConfig};

const DIRECTORY: &str = "MUSTER_CA_CRASH_TEST_DIRECTORY";

fn open_or_create(dir: &Path) -> Authority {
    let config = AuthorityConfig {
        name: "Crash".to_owned(),
        public_url: "http://localhost:8880".to_owned(),
    };
    Authority::open_or_create(dir, config, SystemTime::now()).unwrap()
}

/// Run by the test below in a process of its own.
#[test]
#[ignore = "the victim of the test below"]
fn victim() {
    let Some(base) = std::env::var_os(DIRECTORY) else {
        return;
    };
    for number in 0.. {
        open_or_create(&Path::new(&base).join(number.to_string()).join("ca"));
        println!("\nfounded {number}");
    }
}

/// Run by the last test in a process of its own.
#[test]
#[ignore = "the victim of the last test"]
fn rotating_victim() {
    let Some(base) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let authority = open_or_create(&Path::new(&base).join("ca"));
    for _ in 0..500 {
        let number = authority.rotate_issuing(SystemTime::now()).unwrap();
        println!("\nrotated {number}");
    }
}

#[test]
fn a_killed_rotation_leaves_the_one_before_or_the_next() {
    let base = tempfile::tempdir().unwrap();
    let dir = base.path().join("ca");
    let mut known = open_or_create(&dir).issuers().len();
    for round in 1..=8usize {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "rotating_victim", "--ignored", "--nocapture"])
            .env(DIRECTORY, base.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let rotated = lines
            .map_while(Result::ok)
            .filter(|line| line.starts_with("rotated"))
            .take(round)
            .count();
        victim.kill().unwrap();
        victim.wait().unwrap();
        let issuers = open_or_create(&dir).issuers().len();
        assert!(issuers >= known + rotated, "what was told is there");
        let entries = std::fs::read_dir(&dir).unwrap().map(Result::unwrap);
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        assert!(!names.into_iter().any(|name| name.starts_with('.')));
        known = issuers;
    }
}

#[test]
fn a_killed_founding_leaves_all_or_nothing() {
    for round in 1..=5u32 {
        let base = tempfile::tempdir().unwrap();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "victim", "--ignored", "--nocapture"])
            .env(DIRECTORY, base.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let founded = lines
            .map_while(Result::ok)
            .filter(|line| line.starts_with("founded"))
            .take(round as usize * 3)
            .count();
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert_eq!(founded, round as usize * 3);

        let dirs: Vec<_> = std::fs::read_dir(base.path()).unwrap().collect();
        assert!(dirs.len() >= founded);
        for dir in dirs {
            let place = dir.unwrap().path();
            let dir = place.join("ca");
            let before = std::fs::read(dir.join("root.crt")).ok();
            open_or_create(&dir);
            let after = std::fs::read(dir.join("root.crt")).unwrap();
            assert!(before.is_none_or(|before| before == after));
            assert_eq!(
                std::fs::read_dir(&place).unwrap().count(),
                1,
                "nothing left beside it"
            );
        }
    }
}
