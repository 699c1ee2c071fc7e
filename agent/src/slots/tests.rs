use std::fs;
use std::io::Write as _;
use std::time::UNIX_EPOCH;

use ota::ImageFacts;

use super::*;
use crate::files::Disk;
use crate::files::tests::PowerCut;

const ROOM: usize = 300_000;

fn manifest_of(image: &[u8]) -> Manifest {
    let facts = ImageFacts::measure(image).unwrap();
    Manifest {
        name: "lamp".parse().unwrap(),
        version: "1.0".parse().unwrap(),
        hardware: ["rev-a".parse().unwrap()].into(),
        requires: None,
        components: Default::default(),
        size: facts.size,
        sha256: facts.sha256,
        chunks: facts.chunks,
        counter: 0,
        expires: UNIX_EPOCH,
        notes: None,
        deltas: Vec::new(),
    }
}

fn devices(dir: &Path) -> Devices {
    let make = |name: &str| {
        let path = dir.join(name);
        if !path.exists() {
            fs::write(&path, vec![0xEE; ROOM]).unwrap();
        }
        path
    };
    Devices {
        a: make("first"),
        b: make("second"),
    }
}

fn kinds(dir: &Path) -> [Arc<dyn Slots>; 2] {
    [of(dir, None).unwrap(), of(dir, Some(devices(dir))).unwrap()]
}

fn put(
    slots: &dyn Slots,
    files: &dyn Files,
    dir: &Path,
    slot: Slot,
    image: &[u8],
) -> io::Result<()> {
    let partial = dir.join("partial");
    fs::write(&partial, image).unwrap();
    // The image itself stands in for its signed manifest: each belongs to one.
    slots.install(files, slot, &partial, image, &manifest_of(image))
}

fn image_of(slots: &dyn Slots, slot: Slot, size: usize) -> Vec<u8> {
    fs::read(slots.image(slot)).unwrap()[..size].to_vec()
}

#[test]
fn at_every_cut_a_slot_with_a_manifest_has_its_image() {
    let old: Vec<u8> = (0..200_000_u32).map(|at| (at % 251) as u8).collect();
    let new: Vec<u8> = (0..170_001_u32).map(|at| (at % 241) as u8).collect();
    for kind in 0..2 {
        let mut finished = false;
        for operations in 0..40 {
            let dir = tempfile::tempdir().unwrap();
            let slots = &*kinds(dir.path())[kind];
            put(slots, &Disk, dir.path(), Slot::B, &old).unwrap();
            let cut = PowerCut::after(operations);
            let done = put(slots, &cut, dir.path(), Slot::B, &new).is_ok();
            match fs::read(slots.manifest(Slot::B)) {
                Ok(manifest) => assert_eq!(
                    image_of(slots, Slot::B, manifest.len()),
                    manifest,
                    "kind {kind} after {operations} operations"
                ),
                Err(_) => assert!(!done),
            }
            // The device starts again: from what is left, the install can be done.
            put(slots, &Disk, dir.path(), Slot::B, &new).unwrap();
            assert_eq!(image_of(slots, Slot::B, new.len()), new);
            assert!(!dir.path().join("partial").exists());
            finished |= done;
        }
        assert!(finished, "the loop must reach past the last operation");
    }
}

#[test]
fn the_other_slot_is_not_touched_and_what_was_taken_back_is_the_image() {
    for kind in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let slots = &*kinds(dir.path())[kind];
        for (slot, image) in [(Slot::A, b"one".as_slice()), (Slot::B, b"second")] {
            put(slots, &Disk, dir.path(), slot, image).unwrap();
        }
        assert_eq!(image_of(slots, Slot::A, 3), b"one");
        assert_eq!(fs::read(slots.manifest(Slot::A)).unwrap(), b"one");
        let back = dir.path().join("back");
        slots.take_back(&Disk, Slot::B, &back, b"other", 6).unwrap();
        assert!(!back.exists(), "another manifest's image stays");
        slots
            .take_back(&Disk, Slot::B, &back, b"second", 6)
            .unwrap();
        assert_eq!(fs::read(&back).unwrap(), b"second");
        slots
            .take_back(&Disk, Slot::A, &dir.path().join("x"), b"second", 6)
            .unwrap();
        assert_eq!(fs::read(slots.manifest(Slot::A)).unwrap(), b"one");
    }
}

/// A device that has a bad block.
struct BadBlock;

impl Files for BadBlock {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        Disk.create_dir(path)
    }
    fn open(&self, path: &Path) -> io::Result<fs::File> {
        Disk.open(path)
    }
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        Disk.write(path, bytes)
    }
    fn append(&self, file: &mut fs::File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }
    fn truncate(&self, file: &fs::File, len: u64) -> io::Result<()> {
        Disk.truncate(file, len)
    }
    fn sync(&self, path: &Path) -> io::Result<()> {
        Disk.sync(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Disk.sync_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        Disk.remove(path)
    }
    fn write_at(&self, device: &fs::File, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut bytes = bytes.to_vec();
        if at > 0 {
            bytes[7] ^= 1;
        }
        Disk.write_at(device, at, &bytes)
    }
}

#[test]
fn a_device_that_does_not_hold_what_was_written_leaves_an_empty_slot() {
    let dir = tempfile::tempdir().unwrap();
    let [_, slots] = kinds(dir.path());
    let image = vec![7; 100_000];
    let error = put(&*slots, &BadBlock, dir.path(), Slot::B, &image).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("second does not hold what was written to it"),
        "{error}"
    );
    assert!(!slots.manifest(Slot::B).exists());
    assert!(
        dir.path().join("partial").exists(),
        "it need not be fetched again"
    );
}

#[test]
fn a_device_keeps_its_size_and_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let [directories, slots] = kinds(dir.path());
    assert_eq!(directories.room(Slot::A).unwrap(), u64::MAX);
    assert_eq!(slots.room(Slot::A).unwrap(), ROOM as u64);
    put(&*slots, &Disk, dir.path(), Slot::A, b"short").unwrap();
    let bytes = fs::read(slots.image(Slot::A)).unwrap();
    assert_eq!((bytes.len(), bytes[5]), (ROOM, 0xEE));
    fs::remove_file(slots.image(Slot::B)).unwrap();
    put(&*slots, &Disk, dir.path(), Slot::B, b"short").unwrap_err();
    assert!(!slots.image(Slot::B).exists() && !slots.manifest(Slot::B).exists());
}

#[test]
fn what_cannot_be_a_slot_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = devices(dir.path());
    let said = |a: &Path, b: &Path| {
        let devices = Devices {
            a: a.into(),
            b: b.into(),
        };
        of(dir.path(), Some(devices)).err().unwrap().to_string()
    };
    let missing = said(&good.a, &dir.path().join("none"));
    assert!(
        missing.starts_with("--slot-b ") && missing.contains("must name a partition"),
        "{missing}"
    );
    assert!(said(dir.path(), &good.b).contains("neither a block device nor a file"));
    assert!(said(Path::new("/dev/null"), &good.b).starts_with("--slot-a /dev/null"));
    std::os::unix::fs::symlink(&good.a, dir.path().join("link")).unwrap();
    let twice = said(&good.a, &dir.path().join("link"));
    assert!(twice.contains("the device of slot a too"), "{twice}");
}
