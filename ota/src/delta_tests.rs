//! Patches that are right, and patches that a hostile hand wrote.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

fn patch(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut patch = Vec::new();
    make(old, new, &mut patch).unwrap();
    patch
}

fn applied(patch: &[u8], old: &[u8], size: u64) -> Result<Vec<u8>, Error> {
    let mut new = Vec::new();
    apply(patch, Cursor::new(old), size, |bytes| {
        new.extend_from_slice(bytes);
        assert!(new.len() as u64 <= size, "more than was asked for");
        Ok::<_, Error>(())
    })?;
    Ok(new)
}

fn words(patch: &[u8], old: &[u8], size: u64) -> String {
    applied(patch, old, size).unwrap_err().to_string()
}

/// A patch of these records: what to add, what to copy, how far to skip.
fn written(records: &[(i64, i64, i64, &[u8])]) -> Vec<u8> {
    let mut packed = ZlibEncoder::new(MAGIC.to_vec(), Compression::fast());
    for (add, copy, skip, bytes) in records {
        for number in [add, copy, skip] {
            let sign = u64::from(*number < 0) << 63;
            let coded = number.unsigned_abs() | sign;
            packed.write_all(&coded.to_le_bytes()).unwrap();
        }
        packed.write_all(bytes).unwrap();
    }
    packed.finish().unwrap()
}

fn noise(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(bytes)
    .collect()
}

#[test]
fn a_patch_makes_the_new_image_and_is_smaller() {
    let old = noise(200_000, 1);
    let mut new = old.clone();
    new[1000..1100].copy_from_slice(&noise(100, 2));
    // Moved, and grown in the middle.
    new.splice(50_000..50_000, noise(3000, 3));
    new.rotate_left(70_000);
    let patch = patch(&old, &new);
    assert!(patch.len() < 10_000, "{} bytes", patch.len());
    assert_eq!(applied(&patch, &old, new.len() as u64).unwrap(), new);
}

#[test]
fn a_patch_stops_at_the_signed_size() {
    let huge = written(&[(0, i64::MAX, 0, b"")]);
    assert!(words(&huge, b"old", 100).contains("more than the 100 bytes that were signed"));
    let both = written(&[(i64::MAX, i64::MAX, 0, b"")]);
    assert!(words(&both, b"old", 100).contains("more than the 100 bytes"));
    // What comes after the last byte is not even looked at.
    let more = written(&[(0, 3, 0, b"new"), (-1, -1, 0, b"")]);
    assert_eq!(applied(&more, b"old", 3).unwrap(), b"new");
}

#[test]
fn a_patch_reads_nothing_outside_the_old_image() {
    for (records, what) in [
        (written(&[(4, 0, 0, &[0; 4])]), "4 bytes at byte 0"),
        (
            written(&[(1, 0, 2, &[0]), (1, 0, 0, &[0])]),
            "1 bytes at byte 3",
        ),
        (
            written(&[(0, 1, -1, b"x"), (1, 0, 0, &[0])]),
            "1 bytes at byte -1",
        ),
        (
            written(&[(0, 1, i64::MAX, b"x"), (1, 0, 0, &[0])]),
            "of the old image, which has 3",
        ),
    ] {
        let said = words(&records, b"old", 4);
        assert!(said.contains(what), "{said}");
    }
    let leaves = written(&[(0, 1, i64::MAX, b"x"), (0, 1, i64::MAX, b"x")]);
    assert!(words(&leaves, b"old", 4).contains("leaves the old image"));
}

#[test]
fn damaged_and_foreign_patches_are_told_apart() {
    let good = patch(b"the old image", b"the new image");
    assert!(words(b"MZ", b"", 1).contains("damaged"));
    assert!(words(b"BSDIFF40xxxxxxxxxxxx", b"", 1).contains("no delta"));
    let mut flipped = good.clone();
    let last = flipped.len() / 2;
    flipped[last] ^= 0x55;
    assert!(applied(&flipped, b"the old image", 13).map_or(true, |new| new != b"the new image"));
    let short = written(&[(0, 3, 0, b"new")]);
    assert!(words(&short, b"old", 9).contains("ends after 3 of 9 bytes"));
    assert!(words(&written(&[(-1, 1, 0, b"")]), b"old", 9).contains("length below 0"));
    assert!(words(&good[..good.len() - 6], b"the old image", 99).contains("it "));
}

#[test]
fn records_without_an_end_are_refused() {
    let idle = vec![(0, 0, 0, &b""[..]); 11];
    assert!(words(&written(&idle), b"old", 9).contains("make nothing"));
    // One that only says where to begin is bsdiff's own.
    let start = written(&[(0, 0, 2, b""), (1, 0, 0, &[0])]);
    assert_eq!(applied(&start, b"old", 1).unwrap(), b"d");
}

proptest! {
    #[test]
    fn any_two_images_have_a_patch(old in prop::collection::vec(0..4u8, 0..400), new in prop::collection::vec(0..4u8, 1..400)) {
        prop_assert_eq!(applied(&patch(&old, &new), &old, new.len() as u64).unwrap(), new);
    }

    #[test]
    fn hostile_records_neither_panic_nor_make_more(records in prop::collection::vec((any::<i64>(), -3..3i64, any::<i64>(), prop::collection::vec(any::<u8>(), 0..40)), 0..6), small in any::<bool>()) {
        let records: Vec<_> = records
            .iter()
            .map(|(add, copy, skip, bytes)| if small { (add % 20, *copy, skip % 20, &bytes[..]) } else { (*add, *copy, *skip, &bytes[..]) })
            .collect();
        let _ = applied(&written(&records), b"some old image", 64);
    }
}
