use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ota::job::config::JobConfig;
use ota::rollout::{Opening, Rate, Window};
use ota::tuf::{Client, Datastore, Repository, TufError};
use ota::{InstallDocument, Manifest, Root, package};
use serde_json::Value;

/// Signed by keys that nobody has any more, and good until 2100.
const ROOT: &[u8] = include_bytes!("../genuine/root.json");
const MANIFEST: &[u8] = include_bytes!("../genuine/manifest.json");
const TUF: [(&str, &[u8]); 4] = [
    ("root.json", include_bytes!("../genuine/tuf-root.json")),
    (
        "timestamp.json",
        include_bytes!("../genuine/tuf-timestamp.json"),
    ),
    (
        "snapshot.json",
        include_bytes!("../genuine/tuf-snapshot.json"),
    ),
    (
        "targets.json",
        include_bytes!("../genuine/tuf-targets.json"),
    ),
];

/// Nothing is believed but what was signed, whatever form it comes in; and what people and servers write
/// (packages, windows, rates, job documents and configurations) is read or refused, never more.
///
/// The bytes: what is read, then the document.
pub fn firmware(bytes: &[u8]) {
    let Some((which, document)) = bytes.split_first() else {
        return;
    };
    match which {
        0 => manifest(document),
        1 => successor(document),
        2 => served("timestamp.json", document),
        3 => served("snapshot.json", document),
        4 => served("targets.json", document),
        5 => served("2.root.json", document),
        6 => packed(document),
        7 => window(document),
        8 => order(document),
        9 => rate(document),
        10 => configuration(document),
        _ => {}
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn manifest(document: &[u8]) {
    let root = Root::read(ROOT).unwrap();
    let genuine = Manifest::verify(MANIFEST, &root, now()).unwrap();
    if let Ok(read) = Manifest::verify(document, &root, now()) {
        assert_eq!(read, genuine, "another manifest is believed");
    }
}

fn successor(document: &[u8]) {
    let root = Root::read(ROOT).unwrap();
    assert!(
        root.successor(document).is_err(),
        "a successor nobody signed"
    );
    if let Ok(other) = Root::read(document) {
        // One of another team is whole; it is not this one's.
        assert!(other.threshold().0 >= 1 && other.version() >= 1);
    }
}

/// A repository with one file in the place of the genuine one.
struct Served<'d> {
    file: &'d str,
    document: &'d [u8],
}

impl Repository for Served<'_> {
    fn metadata(&mut self, file: &str, bound: u64) -> Result<Option<Vec<u8>>, TufError> {
        let genuine = || {
            TUF.iter()
                .find(|(name, _)| *name == file && file != "root.json")
        };
        let found = if file == self.file {
            Some(self.document)
        } else {
            genuine().map(|(_, bytes)| *bytes)
        };
        Ok(found
            .filter(|bytes| bytes.len() as u64 <= bound)
            .map(<[u8]>::to_vec))
    }
}

/// What a client kept.
struct Kept(BTreeMap<String, Vec<u8>>);

impl Datastore for &mut Kept {
    fn load(&mut self, file: &str, _: u64) -> Result<Option<Vec<u8>>, TufError> {
        Ok(self.0.get(file).cloned())
    }
    fn keep(&mut self, file: &str, bytes: &[u8]) -> Result<(), TufError> {
        self.0.insert(file.to_owned(), bytes.to_vec());
        Ok(())
    }
    fn forget(&mut self, file: &str) -> Result<(), TufError> {
        self.0.remove(file);
        Ok(())
    }
}

fn served(file: &str, document: &[u8]) {
    let served = Served { file, document };
    let mut kept = Kept(BTreeMap::from([(
        "root.json".to_owned(),
        TUF[0].1.to_vec(),
    )]));
    let target = Client::open(served, &mut kept, now()).and_then(|mut client| {
        client.refresh()?;
        client.target("lamp.bin")
    });
    if let Ok(target) = target {
        let mut check = target.check().unwrap();
        check.update(b"lamp image").unwrap();
        check.finish().unwrap();
    }
    for (name, bytes) in &kept.0 {
        let (_, genuine) = TUF.iter().find(|(known, _)| known == name).unwrap();
        let said = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap()["signed"].clone();
        assert_eq!(
            said(bytes),
            said(genuine),
            "{name} is kept though nobody signed it"
        );
    }
}

fn packed(document: &[u8]) {
    let read = package::read(document, |manifest, size, image| {
        let mut bytes = Vec::new();
        image
            .read_to_end(&mut bytes)
            .map_err(|source| ota::Error::Io {
                what: "reading the image",
                source,
            })?;
        Ok((manifest, size, bytes))
    });
    if let Ok((manifest, size, image)) = read {
        assert_eq!(image.len() as u64, size);
        let mut again = Vec::new();
        package::write(&mut again, &manifest, &image[..], size).unwrap();
        let same = package::read(&again[..], |manifest, size, _| Ok((manifest, size))).unwrap();
        assert_eq!(same, (manifest, size));
    }
}

/// The bytes: a window, a line end, a time zone.
fn window(document: &[u8]) {
    let Ok(text) = std::str::from_utf8(document) else {
        return;
    };
    let (window, zone) = text.split_once('\n').unwrap_or((text, "UTC"));
    let (Ok(window), Ok(zone)) = (window.parse::<Window>(), ota::rollout::zone(zone, "")) else {
        return;
    };
    for at in [0, 1_774_746_000, 1_800_000_000] {
        match window.at(&zone, at) {
            Opening::Open { until } => assert!(until > at),
            Opening::Closed { opens } => assert!(opens.is_none_or(|opens| opens > at)),
        }
    }
    assert_eq!(window.to_string().parse::<Window>().unwrap(), window);
}

fn order(document: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(document) else {
        return;
    };
    if let Ok(Some(order)) = InstallDocument::read(&value) {
        // Its paths are never anywhere but where firmware lies.
        assert!(order.image.starts_with("/firmware/") && !order.image.contains(".."));
        assert!(order.manifest.starts_with("/firmware/") && !order.manifest.contains(".."));
    }
}

fn rate(document: &[u8]) {
    let rate = std::str::from_utf8(document)
        .ok()
        .and_then(|text| text.parse::<Rate>().ok());
    if let Some((rate, growth)) = rate.and_then(|rate| Some((rate, rate.growth?)))
        && growth.check().is_ok()
    {
        assert!(growth.rate(rate.per_minute, usize::MAX) >= rate.per_minute);
    }
}

fn configuration(document: &[u8]) {
    let Ok(config) = serde_json::from_slice::<JobConfig>(document) else {
        return;
    };
    if config.check(1_800_000_000).is_ok() {
        let (room, again) = config.room(1_800_000_000, 7, 3, &[(1_799_999_990, 5)]);
        assert!(again.is_none_or(|again| again > 1_800_000_000 && room == 0));
        assert!(config.times().is_ok());
    }
}
