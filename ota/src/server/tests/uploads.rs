//! Packages in parts.

use super::*;
use crate::sha256;

const MIB: usize = 1 << 20;

fn trusting() -> (House, Team) {
    let (house, team) = (House::new(), Team::of(1));
    house
        .ota()
        .trust(&team.root(1, 365), SystemTime::now())
        .unwrap();
    (house, team)
}

fn parts(house: &House) -> usize {
    std::fs::read_dir(house.directory.path().join("firmware/uploads"))
        .unwrap()
        .count()
}

/// A connection that breaks after so many bytes.
struct Breaks<'b>(&'b [u8]);

impl std::io::Read for Breaks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match std::io::Read::read(&mut self.0, buffer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

#[test]
fn a_package_in_parts_goes_on_after_a_crash_and_counts_as_a_whole() {
    let (mut house, team) = trusting();
    let now = SystemTime::now();
    let package = team.package("2.0", &vec![7; 3 * MIB]);
    let hash = sha256(&package);
    assert_eq!(house.ota().uploaded(hash).unwrap(), 0);
    let upload = |house: &House, from: usize, to: usize| {
        house
            .ota()
            .upload(hash, from as u64, &mut &package[from..to], now)
    };
    assert_eq!(upload(&house, 0, MIB).unwrap(), MIB as u64);
    // One that breaks off leaves what came before it.
    let broken = house
        .ota()
        .upload(hash, MIB as u64, &mut Breaks(&package[MIB..2 * MIB]), now);
    assert!(matches!(broken, Err(Error::Io { .. })), "{broken:?}");
    house.restart();
    assert_eq!(house.ota().uploaded(hash).unwrap(), MIB as u64);
    let said = upload(&house, 0, MIB).unwrap_err().to_string();
    assert!(said.contains("1048576 bytes have come"), "{said}");
    // Half of it is no package, however it is asked for.
    upload(&house, MIB, 2 * MIB).unwrap();
    assert!(house.ota().firmwares(None, 9).unwrap().is_empty());
    upload(&house, 2 * MIB, package.len()).unwrap();
    let firmware = house.ota().finish_upload(hash, now).unwrap();
    assert_eq!(firmware.version.as_str(), "2.0");
    assert_eq!(parts(&house), 0);
    let again = house.ota().finish_upload(hash, now);
    assert!(matches!(again, Err(Error::NotFound { .. })), "{again:?}");
}

#[test]
fn what_was_not_announced_or_signed_so_goes_away() {
    let (house, team) = trusting();
    let now = SystemTime::now();
    let good = team.package("2.0", b"image");
    let mut other = good.clone();
    let at = other.len() / 2;
    other[at] ^= 1;
    let stranger = Team::of(1).package("2.0", b"image");
    for (announced, sent, words) in [
        (sha256(&good), &other, "announced was"),
        (sha256(&good), &good[..600].to_vec(), "announced was"),
        (sha256(&stranger), &stranger, "not trusted"),
        (sha256(b"no package"), &b"no package".to_vec(), "package"),
    ] {
        house
            .ota()
            .upload(announced, 0, &mut &sent[..], now)
            .unwrap();
        let said = house.ota().finish_upload(announced, now).unwrap_err();
        assert!(said.to_string().contains(words), "{said}");
        assert_eq!(parts(&house), 0);
    }
    assert!(house.ota().firmwares(None, 9).unwrap().is_empty());
}

#[test]
fn so_many_are_half_done_at_once_and_none_for_ever() {
    let (house, _) = trusting();
    let now = SystemTime::now();
    let upload = |number: u8, at: SystemTime| {
        house
            .ota()
            .upload(sha256(&[number]), 0, &mut &b"part"[..], at)
    };
    for number in 0..8 {
        upload(number, now).unwrap();
    }
    let said = upload(8, now).unwrap_err().to_string();
    assert!(said.contains("8 others are half done"), "{said}");
    assert_eq!(parts(&house), 8);
    let later = now + Duration::from_secs(25 * 3600);
    upload(8, later).unwrap();
    assert_eq!(parts(&house), 1, "those that nobody went on with are gone");
}
