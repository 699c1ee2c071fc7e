//! A disk that forgets what was not made durable: the file system of a device whose power goes.
//!
//! What the agent does is done on a real directory and followed in a model that knows, of every
//! name and every byte, whether it was made durable. The power goes at the n-th operation; a
//! write under way is then half done, and nothing after it happens. [`LossyDisk::crash`] puts
//! into the directory what a device would find there afterwards.
//!
//! The model is stricter than common file systems: syncing a file does not sync its name, and
//! syncing a directory syncs the names in it and nothing else. Only a rename is one step.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use crate::files::{Disk, Files};

/// What is left of all that was not made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// All of it.
    All,
    /// Nothing.
    Nothing,
    /// The names, and nothing of the contents.
    Names,
    /// The contents, and none of the names.
    Contents,
    /// The names, and half of each content.
    Torn,
    /// The names and the sizes; the bytes are zeros.
    Zeros,
}

impl Left {
    pub(crate) const EACH: [Self; 6] = [
        Self::All,
        Self::Nothing,
        Self::Names,
        Self::Contents,
        Self::Torn,
        Self::Zeros,
    ];

    fn of(self, content: &Content) -> Vec<u8> {
        let Content {
            durable,
            now,
            is_device,
        } = content;
        let same = durable.iter().zip(now).take_while(|(a, b)| a == b).count();
        match self {
            Self::All | Self::Contents => now.clone(),
            Self::Nothing | Self::Names => durable.clone(),
            // A device keeps its size, whatever is lost.
            Self::Torn if *is_device => {
                let mut bytes = now.clone();
                let torn = same + (now.len() - same) / 2;
                bytes[torn..].copy_from_slice(&durable[torn..]);
                bytes
            }
            Self::Torn => now[..same + (now.len() - same) / 2].to_vec(),
            Self::Zeros => {
                let mut bytes = now[..same].to_vec();
                bytes.resize(now.len(), 0);
                bytes
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    File(usize),
}

#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    now: Vec<u8>,
    is_device: bool,
}

#[derive(Default)]
struct Model {
    names: BTreeMap<PathBuf, Entry>,
    durable: BTreeMap<PathBuf, Entry>,
    /// Renames between directories that are not durable.
    moves: Vec<(PathBuf, PathBuf)>,
    contents: Vec<Content>,
    by_inode: HashMap<u64, usize>,
    operations: usize,
    off: bool,
}

impl Model {
    fn make(&mut self, path: &Path, file: &File) -> io::Result<usize> {
        let id = match self.names.get(path) {
            Some(Entry::File(id)) => *id,
            _ => {
                self.contents.push(Content::default());
                self.contents.len() - 1
            }
        };
        self.names.insert(path.to_path_buf(), Entry::File(id));
        self.by_inode.insert(file.metadata()?.ino(), id);
        Ok(id)
    }

    fn content(&mut self, file: &File) -> io::Result<&mut Content> {
        let id = self.by_inode[&file.metadata()?.ino()];
        Ok(&mut self.contents[id])
    }

    /// The name becomes durable as it is now, or its absence does.
    fn sync_name(&mut self, path: &Path) {
        match self.names.get(path) {
            Some(entry) => self.durable.insert(path.to_path_buf(), *entry),
            None => self.durable.remove(path),
        };
    }
}

/// The disk of a device, under one directory.
pub(crate) struct LossyDisk {
    root: PathBuf,
    /// At which operation the power goes.
    cut_at: usize,
    model: Mutex<Model>,
}

/// A tree of files: a name ending in `/` is a directory.
pub(crate) type Tree = BTreeMap<PathBuf, Option<Vec<u8>>>;

/// All that lies under `root`.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.insert(path.clone(), None);
                open.push(path);
            } else {
                found.insert(path.clone(), Some(fs::read(&path).unwrap()));
            }
        }
    }
    found
}

/// Puts `files` under `root`, in the place of all that lies there.
pub(crate) fn plant(root: &Path, files: &Tree) {
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
    }
    for (path, content) in files {
        match content {
            None => fs::create_dir(path).unwrap(),
            Some(bytes) => fs::write(path, bytes).unwrap(),
        }
    }
}

impl LossyDisk {
    /// The disk as it lies under `root`, all of it durable, until the power goes at operation
    /// `cut_at`, counted from 0.
    pub(crate) fn new(root: &Path, cut_at: usize) -> Self {
        let mut model = Model::default();
        for (path, content) in tree(root) {
            let entry = match content {
                None => Entry::Directory,
                Some(bytes) => {
                    let inode = fs::metadata(&path).unwrap().ino();
                    model.by_inode.insert(inode, model.contents.len());
                    model.contents.push(Content {
                        durable: bytes.clone(),
                        now: bytes,
                        is_device: false,
                    });
                    Entry::File(model.contents.len() - 1)
                }
            };
            model.names.insert(path, entry);
        }
        model.durable = model.names.clone();
        Self {
            root: root.to_path_buf(),
            cut_at,
            model: Mutex::new(model),
        }
    }

    /// Whether the power has gone.
    pub(crate) fn is_off(&self) -> bool {
        self.model.lock().unwrap().off
    }

    /// Puts into the directory what is found there after the power has gone.
    pub(crate) fn crash(&self, left: Left) {
        let model = self.model.lock().unwrap();
        let names = match left {
            Left::Nothing | Left::Contents => &model.durable,
            _ => &model.names,
        };
        let reachable = |path: &&PathBuf| {
            let mut above = path.ancestors().skip(1);
            above
                .by_ref()
                .take_while(|dir| *dir != self.root)
                .all(|dir| names.get(dir) == Some(&Entry::Directory))
        };
        let found = names.keys().filter(reachable).map(|path| {
            let content = match names[path] {
                Entry::Directory => None,
                Entry::File(id) => Some(left.of(&model.contents[id])),
            };
            (path.clone(), content)
        });
        plant(&self.root, &found.collect());
    }

    /// The model, where the power is on for another operation; what `half` does of it is done when
    /// it goes.
    fn step(&self, half: impl FnOnce(&mut Model)) -> io::Result<MutexGuard<'_, Model>> {
        let mut model = self.model.lock().unwrap();
        if !model.off && model.operations == self.cut_at {
            half(&mut model);
            model.off = true;
        }
        if model.off {
            return Err(io::Error::other("the power went"));
        }
        model.operations += 1;
        Ok(model)
    }
}

impl Files for LossyDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut model = self.step(|_| {})?;
        Disk.create_dir(path)?;
        for dir in path.ancestors().take_while(|dir| *dir != self.root) {
            model
                .names
                .entry(dir.to_path_buf())
                .or_insert(Entry::Directory);
        }
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let mut model = self.step(|_| {})?;
        let file = Disk.open(path)?;
        model.make(path, &file)?;
        Ok(file)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let put = |model: &mut Model, bytes: &[u8]| {
            Disk.write(path, bytes)?;
            let id = model.make(path, &File::open(path)?)?;
            model.contents[id].now = bytes.to_vec();
            io::Result::Ok(())
        };
        let half = &bytes[..bytes.len() / 2];
        let mut model = self.step(|model| put(model, half).unwrap())?;
        put(&mut model, bytes)
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let half = &bytes[..bytes.len() / 2];
        let mut model =
            self.step(|model| model.content(file).unwrap().now.extend_from_slice(half))?;
        Disk.append(file, bytes)?;
        model.content(file)?.now.extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        let mut model = self.step(|_| {})?;
        Disk.truncate(file, len)?;
        model.content(file)?.now.resize(len as usize, 0);
        Ok(())
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut model = self.step(|_| {})?;
        let content = model.content(&File::open(path)?)?;
        content.durable = content.now.clone();
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut model = self.step(|_| {})?;
        let inside = |name: &&PathBuf| name.parent() == Some(path);
        let known = model.names.keys().chain(model.durable.keys());
        let mut names: Vec<PathBuf> = known.filter(inside).cloned().collect();
        // The other half of a rename goes with this one.
        model.moves.retain(|(from, to)| {
            let touched = from.parent() == Some(path) || to.parent() == Some(path);
            if touched {
                names.extend([from.clone(), to.clone()]);
            }
            !touched
        });
        for name in names {
            model.sync_name(&name);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut model = self.step(|_| {})?;
        Disk.rename(from, to)?;
        if let Some(entry) = model.names.remove(from) {
            model.names.insert(to.to_path_buf(), entry);
        }
        model.moves.push((from.to_path_buf(), to.to_path_buf()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut model = self.step(|_| {})?;
        Disk.remove(path)?;
        model.names.remove(path);
        Ok(())
    }

    fn open_device(&self, path: &Path) -> io::Result<File> {
        let mut model = self.step(|_| {})?;
        let device = Disk.open_device(path)?;
        model.content(&device)?.is_device = true;
        Ok(device)
    }

    fn write_at(&self, device: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
        let put = |model: &mut Model, bytes: &[u8]| {
            let at = at as usize;
            model.content(device).unwrap().now[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let half = &bytes[..bytes.len() / 2];
        let mut model = self.step(|model| put(model, half))?;
        Disk.write_at(device, at, bytes)?;
        put(&mut model, bytes);
        Ok(())
    }
}

#[cfg(test)]
#[path = "powercut_tests.rs"]
mod lives;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(left: Left, act: impl FnOnce(&LossyDisk, &Path)) -> BTreeMap<String, Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("old"), "before").unwrap();
        let disk = LossyDisk::new(dir.path(), usize::MAX);
        act(&disk, dir.path());
        disk.crash(left);
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        tree(dir.path())
            .into_iter()
            .filter_map(|(path, content)| Some((name(&path), content?)))
            .collect()
    }

    fn files<const N: usize>(files: [(&str, &[u8]); N]) -> BTreeMap<String, Vec<u8>> {
        files
            .map(|(name, bytes)| (name.into(), bytes.into()))
            .into()
    }

    #[test]
    fn what_was_not_synced_is_lost_torn_or_there() {
        let write = |disk: &LossyDisk, dir: &Path| disk.write(&dir.join("new"), b"1234").unwrap();
        let old: (&str, &[u8]) = ("old", b"before");
        assert_eq!(after(Left::All, write), files([old, ("new", b"1234")]));
        assert_eq!(after(Left::Nothing, write), files([old]));
        assert_eq!(after(Left::Contents, write), files([old]));
        assert_eq!(after(Left::Names, write), files([old, ("new", b"")]));
        assert_eq!(after(Left::Torn, write), files([old, ("new", b"12")]));
        assert_eq!(after(Left::Zeros, write), files([old, ("new", &[0; 4])]));
        for left in Left::EACH {
            let whole = after(left, |disk, dir| {
                write(disk, dir);
                disk.sync(&dir.join("new")).unwrap();
                disk.sync_dir(dir).unwrap();
            });
            assert_eq!(whole, files([old, ("new", b"1234")]), "{left:?}");
        }
    }

    #[test]
    fn a_rename_is_one_step_and_durable_with_either_directory() {
        let moved = |sync: &'static str| {
            move |disk: &LossyDisk, dir: &Path| {
                disk.create_dir(&dir.join("a")).unwrap();
                disk.sync_dir(dir).unwrap();
                disk.rename(&dir.join("old"), &dir.join("a/new")).unwrap();
                if sync != "none" {
                    disk.sync_dir(&dir.join(sync)).unwrap();
                }
            }
        };
        let there = files([("new", b"before")]);
        assert_eq!(after(Left::Nothing, moved("")), there);
        assert_eq!(after(Left::Nothing, moved("a")), there);
        assert_eq!(
            after(Left::Nothing, moved("none")),
            files([("old", b"before")])
        );
        assert_eq!(after(Left::Names, moved("none")), there);
    }
}
