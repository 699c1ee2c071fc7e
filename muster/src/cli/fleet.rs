//! `muster fleet …`: which device runs which version.

use clap::{Args, Subcommand};

/// `muster fleet …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Fleet {
    /// Count devices by version and hardware, now or then
    Versions {
        #[command(flatten)]
        which: FleetOf,
        /// At this moment: RFC 3339, or seconds since 1970 [default: now]
        #[arg(long, value_name = "TIME")]
        at: Option<String>,
        /// And on each of so many days before
        #[arg(long, value_name = "N")]
        days: Option<u16>,
    },
    /// List devices and the versions they run
    Devices {
        #[command(flatten)]
        which: FleetOf,
        /// That run this version
        #[arg(long = "version", value_name = "V")]
        firmware_version: Option<String>,
        /// That say they run another version than they were brought to
        #[arg(long)]
        drift: bool,
    },
    /// Show what one device has run
    History {
        /// The device
        device: String,
    },
}

/// Which devices.
#[derive(Debug, Args)]
pub(crate) struct FleetOf {
    /// This firmware alone
    #[arg(long, value_name = "NAME")]
    pub(crate) firmware: Option<String>,
    /// Members of this group
    #[arg(long, value_name = "G")]
    pub(crate) group: Option<String>,
    /// Devices of this hardware (attribute `hardware`)
    #[arg(long, value_name = "H")]
    pub(crate) hardware: Option<String>,
}
