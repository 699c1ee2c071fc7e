//! Deltas that come with a package, and kept files that are not what they were.

use std::io::Read as _;

use super::*;
use crate::sha256;
use crate::{DeltaSource, ImageFacts, delta};

/// An image, the one after it, and the patch between them as the manifest names it.
struct Step {
    old: Vec<u8>,
    new: Vec<u8>,
    patch: Vec<u8>,
}

impl Step {
    fn new() -> Self {
        let old: Vec<u8> = (0..60_000_u32).map(|at| (at * at % 251) as u8).collect();
        let mut new = old.clone();
        new.splice(20_000..20_000, *b"something that is new");
        let mut patch = Vec::new();
        delta::make(&old, &new, &mut patch).unwrap();
        Self { old, new, patch }
    }

    fn source(&self) -> DeltaSource {
        let facts = ImageFacts::measure(&self.patch[..]).unwrap();
        DeltaSource {
            from: version("1.0"),
            from_sha256: sha256(&self.old),
            size: facts.size,
            sha256: facts.sha256,
            chunks: facts.chunks,
        }
    }

    fn signed(&self, team: &Team, sources: Vec<DeltaSource>) -> Result<Vec<u8>, Error> {
        let mut manifest = Team::manifest("2.0", &self.new);
        manifest.deltas = sources;
        manifest.sign(&team.keys)
    }

    fn package(&self, signed: &[u8], patches: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let patches = patches
            .iter()
            .map(|patch| (*patch, patch.len() as u64))
            .collect();
        let (image, size) = (&self.new[..], self.new.len() as u64);
        package::write_with_deltas(&mut bytes, signed, image, size, patches).unwrap();
        bytes
    }
}

fn trusting() -> (House, Team, SystemTime) {
    let (house, team, now) = (House::new(), Team::of(1), SystemTime::now());
    house.ota().trust(&team.root(1, 365), now).unwrap();
    (house, team, now)
}

#[test]
fn a_delta_is_kept_with_its_firmware_and_makes_its_image() {
    let (mut house, team, now) = trusting();
    let step = Step::new();
    let signed = step.signed(&team, vec![step.source()]).unwrap();
    let package = step.package(&signed, &[&step.patch]);
    house.ota().add(&package[..], now).unwrap();
    house.restart();
    let open = |from| {
        house
            .ota()
            .open_delta(&lamp(), &version("2.0"), &version(from))
    };
    let (mut file, kept) = open("1.0").unwrap();
    let mut patch = Vec::new();
    file.read_to_end(&mut patch).unwrap();
    assert_eq!(
        (kept.size, kept.sha256),
        (patch.len() as u64, sha256(&patch))
    );
    let mut made = Vec::new();
    delta::apply(
        &patch[..],
        std::io::Cursor::new(&step.old),
        step.new.len() as u64,
        |bytes| {
            made.extend_from_slice(bytes);
            Ok::<_, Error>(())
        },
    )
    .unwrap();
    assert_eq!(made, step.new);
    let said = open("0.9").unwrap_err().to_string();
    assert!(
        said.contains("the delta to firmware `lamp 2.0 from 0.9` does not exist"),
        "{said}"
    );
}

#[test]
fn a_delta_that_is_not_the_signed_one_spoils_the_package() {
    let (house, team, now) = trusting();
    let step = Step::new();
    let signed = step.signed(&team, vec![step.source()]).unwrap();
    let mut flipped = step.patch.clone();
    flipped[9] ^= 1;
    for (patches, words) in [
        (
            vec![&flipped[..]],
            "the delta of lamp 2.0 from 1.0 is not what was signed",
        ),
        (vec![&step.patch[1..]], "signed were"),
        (vec![], "no member `delta.0`"),
        (
            vec![&step.patch[..], &step.patch[..]],
            "`delta.1` that its manifest",
        ),
    ] {
        let said = house.ota().add(&step.package(&signed, &patches)[..], now);
        let said = said.unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }
    let blobs = std::fs::read_dir(house.directory.path().join("store/blobs")).unwrap();
    let files = blobs.filter(|entry| entry.as_ref().unwrap().path().is_file());
    assert_eq!(files.count(), 0);
    assert!(house.ota().firmwares(None, 9).unwrap().is_empty());
}

#[test]
fn deltas_out_of_bounds_are_not_signed() {
    let (team, step) = (Team::of(1), Step::new());
    let source = step.source();
    let own = DeltaSource {
        from: version("2.0"),
        ..source.clone()
    };
    let large = DeltaSource {
        size: step.new.len() as u64,
        ..source.clone()
    };
    let chunkless = DeltaSource {
        chunks: Vec::new(),
        ..source.clone()
    };
    let many: Vec<_> = (0..17)
        .map(|number| DeltaSource {
            from: version(&format!("0.{number}")),
            ..source.clone()
        })
        .collect();
    for (sources, words) in [
        (vec![own], "own version's"),
        (vec![source.clone(), source], "twice"),
        (vec![large], "fewer than the image's"),
        (vec![chunkless], "0 chunk hashes"),
        (many, "at most 16"),
    ] {
        let said = step.signed(&team, sources).unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_damaged_image_is_handed_to_nobody_until_it_comes_again() {
    let (mut house, team, now) = trusting();
    let package = team.package("2.0", b"image");
    let firmware = house.ota().add(&package[..], now).unwrap();
    let look = |house: &House| {
        let (room, check) = (&house.ota().inner, house.ota().inner.blobs.check());
        let kept = crate::server::images::kept(house.ota()).unwrap();
        crate::server::images::look(&Arc::downgrade(room), &check, &kept).unwrap()
    };
    assert_eq!(look(&house), 2, "the image and its manifest");
    let path = house
        .directory
        .path()
        .join("store/blobs")
        .join(firmware.sha256.to_string());
    let open = |house: &House| house.ota().open_image(&lamp(), &version("2.0"));
    for spoil in [Some(&b"imagf"[..]), Some(&b"imag"[..]), None] {
        match spoil {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        house.restart();
        look(&house);
        let said = open(&house).unwrap_err().to_string();
        assert!(said.contains("firmware lamp 2.0 is damaged"), "{said}");
        let start: StartRollout =
            serde_json::from_value(json!({"name": "lamp", "version": "2.0", "group": "lamps"}))
                .unwrap();
        let said = house.ota().start_rollout(&start, "ann", now).unwrap_err();
        assert!(said.to_string().contains("damaged"), "{said}");
        house.ota().add(&package[..], now).unwrap();
        assert_eq!(open(&house).unwrap().1, firmware);
        look(&house);
        assert!(open(&house).is_ok());
    }
}
