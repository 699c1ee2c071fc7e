//! Images made of the one before, of more than one chunk, and deltas that are of no use in the middle.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ota::manifest::CHUNK_BYTES;
use ota::{ImageFacts, delta, sha256};

use super::*;
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::download::{Patience, partial};
use crate::files::Disk;
use crate::https::{Client, Timeouts};
use crate::identity::Identity;
use crate::identity::tests::Ca;
use crate::term::Term;
use crate::testserver::{Answer, Server};
use crate::update::Order;

const CHUNK: usize = CHUNK_BYTES as usize;

struct Bench {
    dir: tempfile::TempDir,
    client: Client,
    server: Server,
    manifest: Manifest,
    image: Vec<u8>,
    old: PathBuf,
    cancel: Cancel,
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(bytes)
    .collect()
}

impl Bench {
    /// A device with an image, and a server with the next one and a delta that was made of `of` the old one.
    fn new(of: impl Fn(&mut Vec<u8>)) -> Self {
        let old = noise(2 * CHUNK + 5000);
        let mut image = old.clone();
        image.splice(70_000..70_000, *b"more");
        let mut made_of = old.clone();
        of(&mut made_of);
        let mut patch = Vec::new();
        delta::make(&made_of, &image, &mut patch).unwrap();
        let facts = |bytes: &[u8]| ImageFacts::measure(bytes).unwrap();
        let (whole, part) = (facts(&image), facts(&patch));
        let manifest = Manifest {
            name: "lamp".parse().unwrap(),
            version: "2.0".parse().unwrap(),
            hardware: ["rev-a".parse().unwrap()].into(),
            requires: None,
            components: Default::default(),
            size: whole.size,
            sha256: whole.sha256,
            chunks: whole.chunks,
            counter: 0,
            expires: SystemTime::now() + Duration::from_secs(3600),
            notes: None,
            deltas: vec![DeltaSource {
                from: "1.0".parse().unwrap(),
                from_sha256: sha256(&old),
                size: part.size,
                sha256: part.sha256,
                chunks: part.chunks,
            }],
        };
        let dir = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        ca.write_identity(dir.path(), "lamp-1");
        let server = Server::start(&ca, Arc::new(move |_, from| Answer::range(&patch, from)));
        let identity = Identity::open(dir.path()).unwrap();
        let client = Client::new(&identity, "localhost", server.port, Timeouts::default());
        let at = dir.path().join("old");
        fs::write(&at, old).unwrap();
        Self {
            client,
            server,
            manifest,
            image,
            old: at,
            dir,
            cancel: Cancel::default(),
        }
    }

    fn run(&self) -> Result<bool, DownloadFault> {
        let clock = Clock::since(std::time::UNIX_EPOCH);
        let name = "lamp".parse().unwrap();
        let order = Order::new(name, "2.0".parse().unwrap(), "r-1".parse().unwrap(), false);
        let term = Term::of(&order, &clock);
        let download = Download {
            client: &self.client,
            files: &Disk,
            patience: Patience::default(),
            cancel: &self.cancel,
            term: &term,
        };
        let delta = &self.manifest.deltas[0];
        let rebuild = Rebuild {
            download: &download,
            manifest: &self.manifest,
            delta,
            old: &self.old,
        };
        rebuild.run(
            "/delta",
            &partial(self.dir.path(), delta.sha256),
            &self.part(),
        )
    }

    fn part(&self) -> PathBuf {
        partial(self.dir.path(), self.manifest.sha256)
    }

    fn patch_is_gone(&self) -> bool {
        !partial(self.dir.path(), self.manifest.deltas[0].sha256).exists()
    }
}

#[test]
fn an_image_is_made_of_the_one_before() {
    let bench = Bench::new(|_| {});
    // What lay there of the whole image is in nobody's way.
    fs::write(bench.part(), b"left").unwrap();
    assert!(bench.run().unwrap());
    assert_eq!(fs::read(bench.part()).unwrap(), bench.image);
    assert!(bench.patch_is_gone());
    assert_eq!(bench.server.requests(), [0]);
    assert!(bench.manifest.deltas[0].size < bench.manifest.size / 100);
}

#[test]
fn of_a_delta_that_leads_astray_what_is_right_stays() {
    let bench = Bench::new(|old| old[2 * CHUNK..2 * CHUNK + 900].fill(0));
    assert!(!bench.run().unwrap());
    // Two chunks were as signed; they need not be fetched again.
    assert_eq!(fs::read(bench.part()).unwrap(), bench.image[..2 * CHUNK]);
    assert!(bench.patch_is_gone());
}

#[test]
fn an_old_image_that_is_torn_or_gone_is_said() {
    let bench = Bench::new(|_| {});
    let whole = fs::read(&bench.old).unwrap();
    fs::write(&bench.old, &whole[..CHUNK + 9000]).unwrap();
    assert!(!bench.run().unwrap());
    // What reaches past its end is refused before it is read; no chunk was whole by then.
    assert!(fs::read(bench.part()).unwrap().is_empty());
    fs::remove_file(&bench.old).unwrap();
    assert!(!bench.run().unwrap());
    assert!(bench.patch_is_gone());
}

#[test]
fn a_call_to_stop_ends_it() {
    let bench = Bench::new(|_| {});
    bench.cancel.cancel();
    assert!(matches!(bench.run(), Err(DownloadFault::Cancelled)));
}
