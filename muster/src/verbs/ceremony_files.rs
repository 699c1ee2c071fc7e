//! What a ceremony leaves beside the authority: written under names of their own while it is held, and put in place when
//! all of it is written. Where anything fails, none of it is there; what a ceremony that was killed left under such a name
//! is swept by the next one beside it.

use super::ca as verb;
use ::ca::Passphrase;
use anyhow::{Context as _, bail};
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// Names of what is being written: this, and what the temporary file's maker puts behind it.
const PREFIX: &str = ".ceremony-";
const RANDOM_CHARS: usize = 6;

/// Removes what ceremonies that were killed left in a directory. Who is at it still holds a lock.
fn sweep(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let random = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let ours = random.is_some_and(|random| {
            random.len() == RANDOM_CHARS && random.bytes().all(|one| one.is_ascii_alphanumeric())
        });
        if ours
            && entry.file_type()?.is_file()
            && let Ok(file) = File::open(entry.path())
            && file.try_lock().is_ok()
        {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// A file that is to be.
pub(super) struct Written {
    /// Where it goes.
    pub(super) path: PathBuf,
    dir: PathBuf,
    file: NamedTempFile,
}

impl Written {
    /// Looks, before anything is done, whether the file can be written and is not there yet.
    fn prepare(path: PathBuf) -> anyhow::Result<Self> {
        if path.exists() {
            bail!("{} is there already: nothing was done", path.display());
        }
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new(".")).to_owned();
        if path.file_name().is_none() {
            bail!("{} is no name of a file: nothing was done", path.display());
        }
        let made = || {
            sweep(&dir)?;
            let file = tempfile::Builder::new()
                .prefix(PREFIX)
                .rand_bytes(RANDOM_CHARS)
                .tempfile_in(&dir)?;
            // Where the file system knows no locks, another ceremony beside it may sweep it: that fails then, and says so.
            let _ = file.as_file().try_lock();
            Ok::<_, std::io::Error>(file)
        };
        let file = made().with_context(|| format!("write {}: nothing was done", path.display()))?;
        Ok(Written { path, dir, file })
    }

    /// Writes what it holds; durable on return, and not in its place yet.
    pub(super) fn fill(&mut self, contents: &[u8]) -> anyhow::Result<()> {
        let file = self.file.as_file_mut();
        file.write_all(contents)
            .and_then(|()| file.sync_all())
            .with_context(|| format!("write {}", self.path.display()))
    }

    /// The encrypted key that it holds, as it lies on the disk, after it has been opened.
    pub(super) fn read_back(&self, passphrase: &Passphrase) -> anyhow::Result<Vec<u8>> {
        verb::read_back(self.file.path(), passphrase)
            .with_context(|| format!("read back {}", self.path.display()))
    }

    fn put(self) -> anyhow::Result<PathBuf> {
        let path = self.path;
        self.file
            .persist_noclobber(&path)
            .map_err(|failure| failure.error)
            .and_then(|_| File::open(&self.dir)?.sync_all())
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// All of them.
pub(super) struct Files {
    pub(super) transcript: Written,
    pub(super) signature: Written,
    /// Where the root's key goes.
    pub(super) offline: Option<Written>,
    /// Where the root goes, signed with the key of the one that it follows.
    pub(super) cross: Option<Written>,
}

impl Files {
    /// As [`Written::prepare`], for each; no two of them are one file.
    pub(super) fn prepare(
        transcript: PathBuf,
        offline: Option<PathBuf>,
        cross: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        let signature = transcript.with_added_extension("sig");
        let files = Files {
            transcript: Written::prepare(transcript)?,
            signature: Written::prepare(signature)?,
            offline: offline.map(Written::prepare).transpose()?,
            cross: cross.map(Written::prepare).transpose()?,
        };
        let mut places: Vec<PathBuf> = Vec::new();
        for one in files.each() {
            // Named in two ways it is one file still.
            let dir = std::fs::canonicalize(&one.dir)
                .with_context(|| format!("write {}: nothing was done", one.path.display()))?;
            let place = dir.join(one.path.file_name().unwrap_or_default());
            if places.contains(&place) {
                bail!(
                    "{}: two of transcript, its signature, root.offline and succeeds.cross are this one file: nothing was done",
                    one.path.display()
                );
            }
            places.push(place);
        }
        Ok(files)
    }

    fn each(&self) -> impl Iterator<Item = &Written> {
        [&self.transcript, &self.signature]
            .into_iter()
            .chain(&self.offline)
            .chain(&self.cross)
    }

    /// Puts them in place; the transcript, which says that all is done, last.
    pub(super) fn put(self, placed: &mut Placed) -> anyhow::Result<()> {
        let others = self.offline.into_iter().chain(self.cross);
        for one in others.chain([self.signature, self.transcript]) {
            placed.0.push(one.put()?);
        }
        Ok(())
    }
}

/// What is in its place, and goes again unless the ceremony comes to its end.
#[derive(Default)]
pub(super) struct Placed(Vec<PathBuf>);

impl Placed {
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        for path in &self.0 {
            // What failed is said; a file that stays is one that the next ceremony names.
            let _ = std::fs::remove_file(path);
        }
    }
}
