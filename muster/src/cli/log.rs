//! `muster log …`: who did what.

use clap::{Args, Subcommand};

/// `muster log …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Show entries, the newest first
    Show(LogShow),
    /// Hold all entries against their chain; exit code 3 where one was changed or taken away, 4 where the head
    /// is older than all that is kept
    ///
    /// It prints a head, NUMBER:HASH, which speaks of all entries before it. Note it where the server's keeper cannot change
    /// it: `--head` tells later whether those entries are still the same.
    Verify {
        /// A head that was noted before
        #[arg(long, value_name = "NUMBER:HASH")]
        head: Option<String>,
    },
}

/// Which entries.
#[derive(Debug, Args)]
pub(crate) struct LogShow {
    /// Of this operator
    #[arg(long, value_name = "NAME")]
    pub(crate) operator: Option<String>,
    /// About this device
    #[arg(long, value_name = "NAME")]
    pub(crate) device: Option<String>,
    /// About this certificate
    #[arg(long, value_name = "ID")]
    pub(crate) certificate: Option<String>,
    /// Of this operation, by its name in the API, as RevokeDevice
    #[arg(long, value_name = "NAME")]
    pub(crate) operation: Option<String>,
    /// With this outcome: done, refused (something stood in the way), or denied (who asked may not)
    #[arg(long, value_name = "OUTCOME")]
    pub(crate) outcome: Option<String>,
    /// Not before this: RFC 3339, or how long ago, as 24h
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Before this
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// So many at most; 0: all
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
}
