//! `muster ca …`: the authority's own keys and certificates.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `muster ca …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Ca {
    /// Found an authority by one reviewed file, without a server; leaves a signed transcript
    Ceremony(Ceremony),
    /// Show the root, the issuing certificates, and where the root's key is
    Show,
    /// Write the root's key to an encrypted file and remove it from the server, which lives on without it
    TakeRootOffline(TakeRootOffline),
    /// Make or take the next issuing certificate; those before stay trusted and are still spoken for
    RotateIssuing(RotateIssuing),
}

/// Where a passphrase comes from.
#[derive(Debug, Args)]
pub(crate) struct PassphraseSource {
    /// File with the passphrase [default: the variable MUSTER_PASSPHRASE, else the systemd credential
    /// muster-passphrase]
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// `muster ca ceremony`.
#[derive(Debug, Args)]
pub(crate) struct Ceremony {
    /// Names, keys, lives and custody (docs/ceremony.md)
    pub(crate) file: PathBuf,
    /// Of encrypted keys that are brought, and of the root's key that goes offline
    #[command(flatten)]
    pub(crate) passphrase: PassphraseSource,
}

/// `muster ca take-root-offline`.
#[derive(Debug, Args)]
pub(crate) struct TakeRootOffline {
    /// The encrypted key (PKCS#8, as openssl reads it); must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Of 12 characters or more
    #[command(flatten)]
    pub(crate) passphrase: PassphraseSource,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `muster ca rotate-issuing`. Without a flag the root's key on the server signs.
#[derive(Debug, Args)]
pub(crate) struct RotateIssuing {
    /// The root's key, for this act: it signs here and does not go to the server
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csr_out", "cert"])]
    pub(crate) root_key: Option<PathBuf>,
    /// Only write the request, to have it signed elsewhere
    #[arg(long, value_name = "FILE", conflicts_with = "cert")]
    pub(crate) csr_out: Option<PathBuf>,
    /// The certificate that was signed elsewhere, PEM, and behind it what stands between it and the root
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key, where the request was not made here
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// Of an encrypted --root-key or --key
    #[command(flatten)]
    pub(crate) passphrase: PassphraseSource,
}
