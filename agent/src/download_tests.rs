//! Downloads from a small HTTPS server that lies in every way it can.

use std::fs;
use std::sync::Arc;

use ota::Manifest;

use super::*;
use crate::clock::Clock;
use crate::files::Disk;
use crate::files::tests::PowerCut;
use crate::https::Timeouts;
use crate::identity::Identity;
use crate::identity::tests::Ca;
use crate::pace::Least;
use crate::testserver::{Answer, Server};
use crate::update::Order;

/// Two and a half chunks.
const SIZE: usize = 5 * CHUNK_BYTES as usize / 2;
const CHUNK: usize = CHUNK_BYTES as usize;

fn image(size: usize) -> Vec<u8> {
    (0..size).map(|n| (n * 31 % 251) as u8).collect()
}

fn manifest(image: &[u8]) -> Manifest {
    let facts = ota::ImageFacts::measure(image).unwrap();
    Manifest {
        name: "lamp".parse().unwrap(),
        version: "1.0.0".parse().unwrap(),
        hardware: ["rev-a".parse().unwrap()].into(),
        requires: None,
        components: Default::default(),
        size: facts.size,
        sha256: facts.sha256,
        chunks: facts.chunks,
        counter: 0,
        expires: std::time::SystemTime::now() + Duration::from_secs(3600),
        notes: None,
        deltas: Vec::new(),
    }
}

struct Bench {
    dir: tempfile::TempDir,
    client: Client,
    server: Server,
    cancel: Cancel,
    order: Order,
}

impl Bench {
    fn new(answer: impl Fn(&str, u64) -> Answer + Send + Sync + 'static) -> Self {
        // Requests are counted: a test server that is not scheduled for a while must not add one.
        Self::reading_within(Duration::from_secs(30), answer)
    }

    fn reading_within(
        read: Duration,
        answer: impl Fn(&str, u64) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let timeouts = Timeouts {
            read,
            ..Timeouts::default()
        };
        Self::with(timeouts, answer)
    }

    fn with(
        timeouts: Timeouts,
        answer: impl Fn(&str, u64) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        ca.write_identity(dir.path(), "lamp-1");
        let server = Server::start(&ca, Arc::new(answer));
        let identity = Identity::open(dir.path()).unwrap();
        let client = Client::new(&identity, "localhost", server.port, timeouts);
        Self {
            dir,
            client,
            server,
            cancel: Cancel::default(),
            order: Order::new(
                "lamp".parse().unwrap(),
                "1.0.0".parse().unwrap(),
                "r-1".parse().unwrap(),
                false,
            ),
        }
    }

    fn run(&self, manifest: &Manifest) -> Result<(), String> {
        self.run_on(&Disk, manifest)
    }

    fn run_on(&self, files: &dyn Files, manifest: &Manifest) -> Result<(), String> {
        let patience = Patience {
            first: Duration::from_millis(1),
            most: Duration::from_millis(4),
            attempts: 3,
            progress_bytes: CHUNK_BYTES / 2,
        };
        let clock = Clock::since(std::time::UNIX_EPOCH);
        let mut term = Term::of(&self.order, &clock);
        term.expires = Some(manifest.expires);
        let download = Download {
            client: &self.client,
            files,
            patience,
            cancel: &self.cancel,
            term: &term,
        };
        download
            .run(
                "/firmware/lamp/1.0.0/image",
                Content::image(manifest),
                &self.partial(manifest),
            )
            .map_err(|fault| fault.to_string())
    }

    fn partial(&self, manifest: &Manifest) -> PathBuf {
        partial(self.dir.path(), manifest.sha256)
    }
}

#[test]
fn an_image_arrives_whole_and_a_torn_beginning_is_used() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let served = whole.clone();
    let bench = Bench::new(move |_, from| Answer::range(&served, from));
    bench.run(&manifest).unwrap();
    assert_eq!(fs::read(bench.partial(&manifest)).unwrap(), whole);
    assert_eq!(bench.server.requests(), [0]);

    // Some good bytes, then rubbish: the good chunks are kept, the rest comes again.
    let mut torn = whole[..2 * CHUNK + 100].to_vec();
    torn[CHUNK + 9_000] ^= 1;
    torn.extend_from_slice(&[0; 9_000]);
    fs::write(bench.partial(&manifest), torn).unwrap();
    bench.run(&manifest).unwrap();
    assert_eq!(fs::read(bench.partial(&manifest)).unwrap(), whole);
    assert_eq!(bench.server.requests(), [0, CHUNK_BYTES]);

    // Complete already: nothing is asked for.
    bench.run(&manifest).unwrap();
    assert_eq!(bench.server.requests().len(), 2);
}

#[test]
fn bytes_that_a_power_cut_left_wrong_are_fetched_again_and_a_wrong_server_is_refused() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let served = whole.clone();
    let bench = Bench::new(move |_, from| Answer::range(&served, from));
    // In a chunk that ends before the image does, and in the last one.
    for torn in [CHUNK + 9_000, 2 * CHUNK + 9_000] {
        let mut left = whole[..torn].to_vec();
        left[torn - 5_000..].fill(0);
        fs::write(bench.partial(&manifest), left).unwrap();
        bench.run(&manifest).unwrap();
        assert_eq!(fs::read(bench.partial(&manifest)).unwrap(), whole);
    }
    let asked = [CHUNK + 9_000, CHUNK, 2 * CHUNK + 9_000, 2 * CHUNK];
    assert_eq!(bench.server.requests(), asked.map(|at| at as u64));

    let mut wrong = whole.clone();
    wrong[CHUNK + 20_000] ^= 1;
    let bench = Bench::new(move |_, from| Answer::range(&wrong, from));
    fs::write(bench.partial(&manifest), &whole[..CHUNK + 9_000]).unwrap();
    let words = bench.run(&manifest).unwrap_err();
    assert!(words.contains("chunk 1"), "{words}");
    assert_eq!(bench.server.requests().len(), 2, "asked once more, no more");
}

#[test]
fn a_connection_that_breaks_again_and_again_still_ends_with_the_image() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let served = whole.clone();
    let bench = Bench::new(move |_, from| Answer::range(&served, from).cut_after(400_001));
    bench.run(&manifest).unwrap();
    assert_eq!(fs::read(bench.partial(&manifest)).unwrap(), whole);
    let requests = bench.server.requests();
    assert!(requests.len() > 5, "{requests:?}");
    assert!(
        requests.windows(2).all(|pair| pair[0] < pair[1]),
        "bytes were fetched twice"
    );
}

#[test]
fn a_server_that_ignores_ranges_is_read_past_what_is_here() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let served = whole.clone();
    let bench = Bench::new(move |_, _| Answer::range(&served, 0));
    fs::write(bench.partial(&manifest), &whole[..CHUNK + 5]).unwrap();
    bench.run(&manifest).unwrap();
    assert_eq!(fs::read(bench.partial(&manifest)).unwrap(), whole);
}

#[test]
fn a_truncated_image_ends_in_words_after_the_last_attempt() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let served = whole.clone();
    let bench = Bench::new(move |_, from| {
        Answer::range(&served, from).cut_after(1_400_000usize.saturating_sub(from as usize))
    });
    let words = bench.run(&manifest).unwrap_err();
    assert!(
        words.contains("stopped at byte 1400000 of 2621440") && words.contains("truncated"),
        "{words}"
    );
    assert!(
        bench.server.requests().len() <= 6,
        "{:?}",
        bench.server.requests()
    );
    // What came is kept for the next time.
    assert_eq!(
        fs::metadata(bench.partial(&manifest)).unwrap().len(),
        1_400_000
    );
}

#[test]
fn endless_data_is_cut_at_the_size_the_manifest_says() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let served = whole.clone();
    let bench = Bench::new(move |_, _| Answer::endless(&served));
    let words = bench.run(&manifest).unwrap_err();
    assert!(
        words.contains("endless data") && words.contains("2621440"),
        "{words}"
    );
    assert!(fs::metadata(bench.partial(&manifest)).unwrap().len() <= SIZE as u64);
    assert_eq!(bench.server.requests().len(), 1);
}

#[test]
fn another_size_is_refused_before_a_byte_is_taken() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    for served in [image(SIZE + 1), image(SIZE - 1)] {
        let bench = Bench::new(move |_, from| Answer::range(&served, from));
        let words = bench.run(&manifest).unwrap_err();
        assert!(words.contains("size mismatch"), "{words}");
    }
    let served = image(CHUNK);
    let bench = Bench::new(move |_, from| Answer::range(&served, from));
    fs::write(bench.partial(&manifest), &whole[..CHUNK + 12_000]).unwrap();
    let words = bench.run(&manifest).unwrap_err();
    assert!(
        words.contains("size mismatch") && words.contains("ends at byte 1048576"),
        "{words}"
    );
}

#[test]
fn a_flipped_bit_is_found_in_its_chunk() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let mut served = whole.clone();
    served[CHUNK + 9_000] ^= 0x10;
    let bench = Bench::new(move |_, from| Answer::range(&served, from));
    let words = bench.run(&manifest).unwrap_err();
    assert!(
        words.contains("chunk 1 (bytes 1048576 to 2097152)"),
        "{words}"
    );
    // The bad chunk is not kept.
    assert_eq!(
        fs::metadata(bench.partial(&manifest)).unwrap().len(),
        CHUNK_BYTES
    );
}

#[test]
fn a_range_that_was_not_asked_for_is_refused() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let served = whole.clone();
    let bench = Bench::new(move |_, from| Answer::range(&served, from + 1));
    fs::write(bench.partial(&manifest), &whole[..CHUNK]).unwrap();
    let words = bench.run(&manifest).unwrap_err();
    assert!(words.contains("answers from byte 1048577"), "{words}");
}

#[test]
fn a_server_that_says_no_is_final_and_one_that_is_down_is_not() {
    let manifest = manifest(&image(SIZE));
    let bench = Bench::new(|_, _| Answer::status(403));
    assert!(bench.run(&manifest).unwrap_err().contains("403"));
    assert_eq!(bench.server.requests().len(), 1);
}

#[test]
fn a_server_that_is_away_for_long_is_waited_for_and_what_came_is_kept() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let served = whole.clone();
    // Once in mid-download, for many times as many attempts as a wrong answer may have.
    let bench =
        Bench::new(
            move |_, from| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Answer::range(&served, from).cut_after(1_400_000),
                1..=40 => Answer::status(503),
                _ => Answer::range(&served, from),
            },
        );
    bench.run(&manifest).unwrap();
    assert_eq!(fs::read(bench.partial(&manifest)).unwrap(), whole);
    let requests = bench.server.requests();
    assert_eq!(requests.len(), 42);
    assert!(requests[1..].iter().all(|from| *from == 1_400_000));
}

#[test]
fn what_has_run_out_is_waited_for_no_longer() {
    let whole = image(SIZE);
    for by_window in [false, true] {
        let mut manifest = manifest(&whole);
        let mut bench = Bench::new(|_, _| Answer::status(503));
        fs::write(bench.partial(&manifest), &whole[..CHUNK + 10]).unwrap();
        let soon = std::time::SystemTime::now() + Duration::from_secs(1);
        if by_window {
            let soon = soon.duration_since(std::time::UNIX_EPOCH).unwrap();
            bench.order.until = Some(soon.as_secs());
        } else {
            manifest.expires = soon;
        }
        assert_eq!(bench.run(&manifest).unwrap_err(), "too late");
        let kept = fs::metadata(bench.partial(&manifest)).unwrap().len();
        assert_eq!(kept, CHUNK_BYTES + 10, "what came is kept");
    }
}

#[test]
fn a_server_that_stalls_does_not_hold_the_device() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let stalls = move |_: &str, from| Answer::range(&whole, from).stall_after(1_500_000);
    let bench = Bench::reading_within(Duration::from_millis(500), stalls);
    bench.run(&manifest).unwrap();
    assert!(bench.server.requests().len() == 2);
}

#[test]
fn a_server_that_drips_is_given_up_in_its_own_words() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let least = Least {
        bytes: 2_000,
        within: Duration::from_millis(200),
    };
    let timeouts = Timeouts {
        least,
        document: least,
        ..Timeouts::default()
    };
    let bench = Bench::with(timeouts, move |_, from| {
        Answer::range(&whole, from).dripping()
    });
    // Documents and certificates no less.
    let client = &bench.client;
    let document = client.document("/firmware/root/1.json").unwrap_err();
    assert!(
        matches!(&document, HttpFault::Passing(words) if words.contains("too slow")),
        "{document:?}"
    );
    let certificate = client.enrol("CSR").unwrap_err();
    assert!(
        matches!(&certificate, HttpFault::Passing(words) if words.contains("too slow")),
        "{certificate:?}"
    );
    let asked = bench.server.requests().len();
    let words = bench.run(&manifest).unwrap_err();
    assert!(
        words.contains("too slow") && words.contains("4 answers"),
        "{words}"
    );
    assert_eq!(bench.server.requests().len(), asked + 4);
    let kept = fs::metadata(bench.partial(&manifest)).unwrap().len();
    assert!(kept > 0, "what came is kept");
}

#[test]
fn a_call_off_ends_the_download() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let bench = Bench::new(move |_, from| Answer::range(&whole, from));
    bench.cancel.cancel();
    assert_eq!(bench.run(&manifest).unwrap_err(), "called off");
}

#[test]
fn power_may_go_at_any_write_and_the_download_goes_on() {
    let whole = image(SIZE);
    let manifest = manifest(&whole);
    let served = whole.clone();
    let bench = Bench::new(move |_, from| Answer::range(&served, from));
    let mut cuts = 0;
    for operations in (0..).step_by(5) {
        if bench
            .run_on(&PowerCut::after(operations), &manifest)
            .is_ok()
        {
            break;
        }
        cuts += 1;
        // After each third cut the device starts from nothing, else from what is there.
        if operations % 15 == 0 {
            let _ = fs::remove_file(bench.partial(&manifest));
        }
        assert!(operations < 400, "the download never ends");
    }
    assert!(cuts > 2);
    assert_eq!(fs::read(bench.partial(&manifest)).unwrap(), whole);
}
