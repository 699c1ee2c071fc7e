use std::io;
use std::path::{Path, PathBuf};

/// What can go wrong with kept state. Each text names the place and, where there is one, the mend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process (or another handle in this one) has the directory open.
    #[error(
        "the data directory {} is in use by another server: stop that one first, or start this one with another --data directory",
        dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The path exists and is something else.
    #[error("{} is not a directory: give --data a directory, or remove what is there", path.display())]
    NotADirectory {
        /// The path as given.
        path: PathBuf,
    },
    /// The operating system forbids it.
    #[error(
        "no permission to {what} {}: give the user that runs muster write access to it (chown, chmod), or choose another --data directory",
        path.display()
    )]
    Permission {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
    },
    /// Any other failed system call.
    #[error("cannot {what} {}: {cause}", path.display())]
    Io {
        /// What was tried, as a verb.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said; part of the message, so not told again as its source.
        cause: io::Error,
    },
    /// A write's expectation did not hold; nothing of the batch was written.
    #[error("the row {key:?} is not as expected: it was changed meanwhile, read it again")]
    Conflict {
        /// The first key whose expectation did not hold.
        key: String,
    },
    /// A batch names a key twice, which leaves open which write is meant.
    #[error("the batch writes the row {key:?} twice: merge the two writes")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A batch of more writes than the bound.
    #[error("a batch of {length} writes, the bound is {limit}: split it")]
    BatchTooLarge {
        /// Its length in writes.
        length: usize,
        /// The bound in writes.
        limit: usize,
    },
    /// A key that is empty or longer than the bound.
    #[error("a key of {length} bytes: keys are 1 to {limit} bytes long")]
    KeyLength {
        /// Its length in bytes.
        length: usize,
        /// The bound in bytes.
        limit: usize,
    },
    /// A value longer than the bound; large content belongs into blobs.
    #[error("the value of {key:?} has {length} bytes, the bound is {limit}")]
    ValueTooLarge {
        /// The key.
        key: String,
        /// The value's length in bytes.
        length: usize,
        /// The bound in bytes.
        limit: usize,
    },
    /// Values of a pack that do not come in the order of their ids.
    #[error(
        "the value {id} of a pack comes behind one that is not before it: sort them by their ids"
    )]
    PackOrder {
        /// The id.
        id: String,
    },
    /// A name of a table, journal or kind of packs outside the pattern.
    #[error(
        "{name:?} is not a name for a table, journal or kind of packs: use 1 to 64 of a-z, 0-9 and '-'"
    )]
    Name {
        /// The name as given.
        name: String,
    },
    /// What is on disk was written by a later release.
    #[error(
        "{what} has format {found}, this release reads up to {known}: run the newer release that wrote it"
    )]
    Newer {
        /// The row or file.
        what: String,
        /// The format's number on disk.
        found: u32,
        /// The newest this release knows.
        known: u32,
    },
    /// A stored value is not of the type it is read as.
    #[error("the row {key:?} cannot be read: {reason}")]
    Decode {
        /// The key.
        key: String,
        /// Why.
        reason: String,
    },
    /// A value could not be serialised.
    #[error("the value for {key:?} cannot be written: {source}")]
    Encode {
        /// The key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The embedded database failed.
    #[error("the database failed to {what}: {source}")]
    Database {
        /// What was tried, as a verb.
        what: &'static str,
        /// Why.
        source: sled::Error,
    },
    /// The disk is nearly full; nothing of the change was made.
    #[error(
        "the disk that holds {} has {free_bytes} bytes left and the change needs {needed_bytes}: make room and try again",
        directory.display()
    )]
    Full {
        /// The data directory.
        directory: PathBuf,
        /// Left for this user, in bytes.
        free_bytes: u64,
        /// Must be left, in bytes.
        needed_bytes: u64,
    },
    /// An earlier commit could not be made durable; nothing after it is acknowledged.
    #[error("an earlier commit could not be made durable ({reason}): mend the disk and restart")]
    Failed {
        /// What went wrong then.
        reason: String,
    },
    /// A file is not what was written to it.
    #[error("{} is damaged at offset {offset}: {reason}; restore it from a backup", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The database lacks what was acknowledged.
    #[error(
        "the database {} holds changes up to {found}, but {acknowledged} were acknowledged: it was emptied or cut. Restore the data directory from a backup; to go on with what is left, remove {}",
        database.display(), mark.display()
    )]
    Lost {
        /// The database.
        database: PathBuf,
        /// The newest revision in it.
        found: u64,
        /// The least that was durable once.
        acknowledged: u64,
        /// The file that says so.
        mark: PathBuf,
    },
    /// A journal of this name has a live handle already.
    #[error("the journal {name:?} is open already: drop its handle first")]
    JournalOpen {
        /// The journal.
        name: String,
    },
    /// More bytes were written to a blob than its writer allows.
    #[error("more than the {limit} bytes allowed here")]
    BlobTooLarge {
        /// The bound in bytes.
        limit: u64,
    },
    /// A blob is asked for by something that is not a hash.
    #[error("{hash:?} is not a SHA-256 in 64 lower-case hex digits")]
    Hash {
        /// As given.
        hash: String,
    },
}

impl StoreError {
    /// A failed system call on `path`; `what` is the verb for the sentence.
    pub(crate) fn io(what: &'static str, path: &Path, cause: io::Error) -> StoreError {
        let path = path.to_path_buf();
        match cause.kind() {
            io::ErrorKind::PermissionDenied => StoreError::Permission { what, path },
            io::ErrorKind::NotADirectory => StoreError::NotADirectory { path },
            _ => StoreError::Io { what, path, cause },
        }
    }

    pub(crate) fn database(what: &'static str) -> impl FnOnce(sled::Error) -> StoreError {
        move |source| StoreError::Database { what, source }
    }
}
