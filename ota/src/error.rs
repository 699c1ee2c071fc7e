//! What can go wrong in this room, each case in its own words: what it was about, what was found, and
//! what mends it.

/// The room's error. The text is for the person who has to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name outside its alphabet or length.
    #[error(
        "{what} `{}` is not valid: 1 to 64 characters, letters, digits and `{extra}`{begins}",
        value.escape_debug()
    )]
    Name {
        /// Which kind of name.
        what: &'static str,
        /// The refused text, cut.
        value: String,
        /// The characters allowed besides letters and digits.
        extra: &'static str,
        /// What is asked of the first one, if anything is.
        begins: &'static str,
    },
    /// Text that is no SHA-256.
    #[error("`{}` is no SHA-256 (64 lower-case hex digits)", value.escape_debug())]
    Hash {
        /// The refused text, cut.
        value: String,
    },
    /// A key file that cannot be used.
    #[error("the key cannot be used: {why}")]
    Key {
        /// What it is instead, and the mend.
        why: String,
    },
    /// A value canonical JSON has no form for.
    #[error("not expressible in canonical JSON: {why}")]
    Canonical {
        /// What stands in the way.
        why: String,
    },
    /// A time outside the calendar.
    #[error("not a time: {why}")]
    Time {
        /// What is wrong with it.
        why: String,
    },
    /// A document that is not what it should be.
    #[error("the {what} cannot be read: {why}")]
    Malformed {
        /// Which document.
        what: &'static str,
        /// Where and why.
        why: String,
    },
    /// More bytes than are read.
    #[error("the {what} has {bytes} bytes; at most {bound} are read")]
    TooLarge {
        /// What was too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The bound.
        bound: u64,
    },
    /// No signature at all.
    #[error("{what} is unsigned: it carries no signature; sign it with a release key")]
    Unsigned {
        /// Which document.
        what: String,
    },
    /// Fewer trusted signatures than the threshold.
    #[error("{what} is {} short: it has {have} of the {need} signatures by trusted release keys it needs", signatures(need - have))]
    Short {
        /// Which document.
        what: String,
        /// Distinct trusted keys that signed.
        have: u32,
        /// The threshold.
        need: u32,
    },
    /// Signed, but by nobody who is trusted.
    #[error(
        "{what} is signed by key {key}, which is not trusted: trust root version {root} does not name it"
    )]
    KeyNotTrusted {
        /// Which document.
        what: String,
        /// The first such key's id.
        key: String,
        /// The trust root's version.
        root: u64,
    },
    /// A trusted key's signature does not match.
    #[error("{what} does not match its signature by key {key}: it was changed after it was signed")]
    Altered {
        /// Which document.
        what: String,
        /// The key's id.
        key: String,
    },
    /// Past its expiry.
    #[error("{what} expired at {expires} (it is {now}); have the release team sign a new one")]
    Expired {
        /// Which document.
        what: String,
        /// When it expired.
        expires: String,
        /// The time it was judged at.
        now: String,
    },
    /// Signed by a delegate's keys, but by fewer than its threshold.
    #[error(
        "{what} is {} short: it has {have} of the {need} signatures by keys of delegate `{role}` it needs", signatures(need - have)
    )]
    NotByDelegate {
        /// Which document.
        what: String,
        /// The delegate.
        role: String,
        /// Distinct keys of it that signed.
        have: u32,
        /// Its threshold.
        need: u32,
    },
    /// Signed by a delegate for an image that was not left to it.
    #[error(
        "`{path}` (hardware/name/version) is not delegated to `{role}`, whose keys signed it: it may sign {may}"
    )]
    OutsideDelegation {
        /// The image, `HARDWARE/NAME/VERSION`.
        path: String,
        /// The delegate.
        role: String,
        /// What it may sign, as patterns.
        may: String,
    },
    /// A document that an older state of the repository had.
    #[error("{what} is older than version {trusted}, which was trusted before")]
    Older {
        /// Which document, its version in it.
        what: String,
        /// The version that was trusted.
        trusted: u64,
    },
    /// A root that the trusted one did not sign.
    #[error(
        "trust root version {version} is not signed by the trusted root version {trusted} (threshold {need}): it carries {have} of the {need} signatures needed"
    )]
    NotSuccessor {
        /// The refused root's version.
        version: u64,
        /// The trusted root's version.
        trusted: u64,
        /// Distinct keys of the trusted root that signed.
        have: u32,
        /// The trusted root's threshold.
        need: u32,
    },
    /// A root that does not follow directly.
    #[error(
        "trust root version {version} cannot follow version {trusted}: the next one is version {}; give the roots one after the other",
        trusted.saturating_add(1)
    )]
    WrongVersion {
        /// The refused root's version.
        version: u64,
        /// The trusted root's version.
        trusted: u64,
    },
    /// An image that is not what its manifest says.
    #[error("the image of {firmware} is not what was signed: {why}")]
    Image {
        /// `NAME VERSION`.
        firmware: String,
        /// Size, hash or chunk, expected and got.
        why: String,
    },
    /// A delta that is not what the manifest says.
    #[error("the delta of {firmware} from {from} is not what was signed: {why}")]
    Patch {
        /// `NAME VERSION`.
        firmware: String,
        /// The version it is applied to.
        from: String,
        /// Size, hash or chunk, expected and got.
        why: String,
    },
    /// A delta that does not make what it should of the image that is there.
    #[error("the delta cannot be applied: {why}")]
    Delta {
        /// What is wrong with it.
        why: String,
    },
    /// A manifest that holds, but not for this device as it is.
    #[error("{firmware} does not fit this device: {why}")]
    NotForDevice {
        /// `NAME VERSION`.
        firmware: String,
        /// Hardware, counter or version, expected and got.
        why: String,
    },
    /// A package file that is not one.
    #[error("not a firmware package: {why}")]
    Package {
        /// What was found.
        why: String,
    },
    /// A rollout that cannot be.
    #[error("the rollout cannot be started: {why}")]
    Rollout {
        /// What is wrong and the mend.
        why: String,
    },
    /// A job under the id of a rollout's that the rollout did not make.
    #[error(
        "job {job} is in the way of rollout {rollout}, which did not make it: delete it, and the rollout goes on"
    )]
    Foreign {
        /// The job.
        job: String,
        /// The rollout.
        rollout: String,
    },
    /// Something told to a rollout that does not fit its state.
    #[error("rollout {id} is {state} and cannot be {verb}")]
    RolloutState {
        /// The rollout.
        id: String,
        /// Where it stands.
        state: &'static str,
        /// What it was told.
        verb: &'static str,
    },
    /// Something that is not there.
    #[error("{kind} `{name}` does not exist")]
    NotFound {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// Something that is there already, and is not the same.
    #[error("{kind} `{name}` exists already{hint}")]
    AlreadyExists {
        /// What kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The mend, beginning with a separator, or nothing.
        hint: &'static str,
    },
    /// A request that cannot be carried out as it is.
    #[error("{field}: {why}")]
    Invalid {
        /// Which field.
        field: String,
        /// What is wrong and the mend.
        why: String,
    },
    /// A job that is over cannot be told anything more.
    #[error("job `{job}` is {status} and cannot be {verb}")]
    JobState {
        /// The job.
        job: String,
        /// Where it stands.
        status: &'static str,
        /// What was asked for.
        verb: &'static str,
    },
    /// An execution that stands so cannot be told that.
    #[error(
        "the execution of job `{job}` on {thing} is {status} and cannot be {verb} without force"
    )]
    ExecutionState {
        /// The job.
        job: String,
        /// The thing.
        thing: String,
        /// Where it stands.
        status: String,
        /// What was asked for.
        verb: &'static str,
    },
    /// The caller's picture is out of date.
    #[error("the {what} has version {version} by now")]
    Version {
        /// What has.
        what: String,
        /// The version it has.
        version: u64,
    },
    /// No trust root has been given yet.
    #[error(
        "no release keys are trusted yet: give the server a trust root with `muster firmware trust ROOT.json`"
    )]
    NoTrust,
    /// A kept file that is not what it was.
    #[error("a file of firmware {firmware} is damaged on the server's disk; add its package again")]
    Damaged {
        /// `NAME VERSION`.
        firmware: String,
    },
    /// The store failed.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// The registry refused or failed.
    #[cfg(feature = "server")]
    #[error(transparent)]
    Fleet(#[from] fleet::FleetError),
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// Whether a document was refused only because the release keys did not sign it to their threshold:
    /// a delegate may have.
    #[must_use]
    pub const fn is_of_strangers(&self) -> bool {
        matches!(self, Self::KeyNotTrusted { .. } | Self::Short { .. })
    }
}

fn signatures(missing: u32) -> String {
    if missing == 1 {
        "one signature".into()
    } else {
        format!("{missing} signatures")
    }
}
