//! `muster ca …`: the authority's own keys and certificates.

use ::ca::RevocationReason;
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
    /// Withdraw a former issuing certificate: the root's own revocation list has it from then on
    RevokeIssuing(RevokeIssuing),
    /// Print the roots' own revocation lists; make the next one with a root's key, or take one made elsewhere
    RootList(RootListFlags),
    /// Make the next revocation list of a root where its key is, without a server
    SignRootList(SignRootList),
    /// Make or take the root that follows, signed by the present one; devices learn of it while both are trusted
    SucceedRoot(SucceedRoot),
    /// Sign a successor's name and key with a root's key, without a server
    CrossSign(CrossSign),
    /// Trust a former root no more, at its end
    RetireRoot(RetireRoot),
    /// Print the code that another authority's verification certificate has as its common name
    RegistrationCode,
    /// Register another organisation's authority, whose certificates may be devices' here
    Register(RegisterAuthority),
    /// List the authorities that are registered
    ListRegistered,
    /// Have a registered authority's certificates count
    Activate(RegisteredAuthority),
    /// Have none of a registered authority's certificates count; live sessions end at once. Its devices stay while another
    /// registered certificate over its name and key is ACTIVE, unless --every is said
    Deactivate(DeactivateAuthority),
    /// Forget a registered authority; it must be INACTIVE
    Unregister(RegisteredAuthority),
}

/// Where a passphrase comes from.
#[derive(Debug, Clone, Default, PartialEq, Args)]
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
    /// Number of the root, as `muster ca show` says it [default: the newest]
    #[arg(long, value_name = "N")]
    pub(crate) root: Option<u32>,
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

/// `muster ca revoke-issuing`. Without a flag the root's key on the server signs.
#[derive(Debug, Args)]
pub(crate) struct RevokeIssuing {
    /// Its number, as `muster ca show` says it; not the one that signs
    pub(crate) number: u32,
    /// RFC 5280's reason, e.g. cACompromise or superseded
    #[arg(long, default_value = "unspecified")]
    pub(crate) reason: RevocationReason,
    /// The root's key, for this act: it signs here and does not go to the server
    #[arg(long, value_name = "FILE")]
    pub(crate) root_key: Option<PathBuf>,
    /// Of an encrypted --root-key
    #[command(flatten)]
    pub(crate) passphrase: PassphraseSource,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `muster ca root-list`.
#[derive(Debug, Args)]
pub(crate) struct RootListFlags {
    /// Make the next list of the root that has this key: it signs here and does not go to the server
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    pub(crate) root_key: Option<PathBuf>,
    /// Take this list, PEM or DER, which the root's key signed elsewhere
    #[arg(long, value_name = "FILE")]
    pub(crate) list: Option<PathBuf>,
    /// Of an encrypted --root-key
    #[command(flatten)]
    pub(crate) passphrase: PassphraseSource,
}

/// `muster ca sign-root-list`.
#[derive(Debug, Args)]
pub(crate) struct SignRootList {
    /// The root, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) root: PathBuf,
    /// Its key
    #[arg(long, value_name = "FILE")]
    pub(crate) root_key: PathBuf,
    /// The list before, as `muster ca root-list` prints it; what it revokes stays revoked
    #[arg(long, value_name = "FILE")]
    pub(crate) former: Option<PathBuf>,
    /// An issuing certificate to withdraw, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) revoke: Option<PathBuf>,
    /// Why, as of `muster ca revoke-issuing`
    #[arg(long, default_value = "unspecified", requires = "revoke")]
    pub(crate) reason: RevocationReason,
    /// Where the list goes; must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Of an encrypted --root-key
    #[command(flatten)]
    pub(crate) passphrase: PassphraseSource,
}

/// What `muster serve` does about an issuing certificate that has ended or is revoked.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct RotateAtStart {
    /// Where the issuing certificate has ended or is revoked, make the next one at this start: with the root's key that is with the
    /// server, unless one of the flags below says otherwise. Make sure first that the clock is right; while a server
    /// runs it is `muster ca rotate-issuing`
    #[arg(long)]
    pub(crate) rotate_issuing: bool,
    /// With --rotate-issuing: the root's key, for this start; it does not stay
    #[arg(long, value_name = "FILE", requires = "rotate_issuing", conflicts_with_all = ["issuing_csr_out", "issuing_cert"])]
    pub(crate) root_key: Option<PathBuf>,
    /// With --rotate-issuing: only write the request, to have it signed elsewhere
    #[arg(
        long,
        value_name = "FILE",
        requires = "rotate_issuing",
        conflicts_with = "issuing_cert"
    )]
    pub(crate) issuing_csr_out: Option<PathBuf>,
    /// With --rotate-issuing: the certificate that was signed elsewhere, PEM, and behind it what stands between it and
    /// the root
    #[arg(long, value_name = "FILE", requires = "rotate_issuing")]
    pub(crate) issuing_cert: Option<PathBuf>,
    /// Its key, where the request was not made here
    #[arg(long, value_name = "FILE", requires = "issuing_cert")]
    pub(crate) issuing_key: Option<PathBuf>,
    /// Of an encrypted --root-key or --issuing-key
    #[command(flatten)]
    pub(crate) passphrase: PassphraseSource,
}

/// `muster ca succeed-root`. Without a flag the successor is made on the server and the root's key there signs it.
#[derive(Debug, Args)]
pub(crate) struct SucceedRoot {
    /// The present root's key, for this act: it signs here and does not go to the server
    #[arg(long, value_name = "FILE", conflicts_with_all = ["successor_out", "cross"])]
    pub(crate) root_key: Option<PathBuf>,
    /// Only write the successor, to have it signed where the present root's key is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cross", "cert"])]
    pub(crate) successor_out: Option<PathBuf>,
    /// The successor signed by the present root's key, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) cross: Option<PathBuf>,
    /// A successor that was made elsewhere, PEM; its key stays elsewhere
    #[arg(long, value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key: it signs the next issuing certificate here and does not go to the server
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
    /// In its place the issuing certificate below it, PEM, and behind it what stands between them
    #[arg(long, value_name = "FILE", requires = "cert", conflicts_with = "key")]
    pub(crate) issuing: Option<PathBuf>,
    /// That one's key, where it does not answer `rotate-issuing --csr-out`
    #[arg(long, value_name = "FILE", requires = "issuing")]
    pub(crate) issuing_key: Option<PathBuf>,
    /// Of encrypted keys
    #[command(flatten)]
    pub(crate) passphrase: PassphraseSource,
}

/// `muster ca cross-sign`.
#[derive(Debug, Args)]
pub(crate) struct CrossSign {
    /// The root that signs, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) root: PathBuf,
    /// Its key
    #[arg(long, value_name = "FILE")]
    pub(crate) root_key: PathBuf,
    /// The other root, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) successor: PathBuf,
    /// Where the cross-certificate goes; must not exist yet
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
    /// Of an encrypted --root-key
    #[command(flatten)]
    pub(crate) passphrase: PassphraseSource,
}

/// `muster ca retire-root`.
#[derive(Debug, Args)]
pub(crate) struct RetireRoot {
    /// Its number, as `muster ca show` says it
    pub(crate) number: u32,
    /// Also before its end: devices below it, and those that know no other root, are cut off
    #[arg(long)]
    pub(crate) before_its_end: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}

/// `muster ca register`.
#[derive(Debug, Args)]
pub(crate) struct RegisterAuthority {
    /// The authority's certificate, PEM
    pub(crate) certificate: PathBuf,
    /// A certificate that it signed, with the registration code as its common name: the proof of its key
    #[arg(long, value_name = "FILE", required_unless_present = "sni_only")]
    pub(crate) verification: Option<PathBuf>,
    /// Without a proof: its devices name this server in the handshake (SNI), and are told apart by that
    #[arg(long, conflicts_with = "verification")]
    pub(crate) sni_only: bool,
    /// Register it without its certificates counting yet
    #[arg(long)]
    pub(crate) inactive: bool,
    /// Register a certificate of its that is new here at its first connection; an operator activates it
    #[arg(long)]
    pub(crate) auto: bool,
    /// The template (of kind JITP) that makes a device of such a certificate at once
    #[arg(long, value_name = "NAME")]
    pub(crate) template: Option<String>,
}

/// `muster ca deactivate`.
#[derive(Debug, Args)]
pub(crate) struct DeactivateAuthority {
    /// Which
    #[command(flatten)]
    pub(crate) authority: RegisteredAuthority,
    /// Also every other registered certificate over its name and key, which would vouch for its devices
    #[arg(long)]
    pub(crate) every: bool,
}

/// One that is registered.
#[derive(Debug, Args)]
pub(crate) struct RegisteredAuthority {
    /// Its id, as `muster ca list-registered` says it
    pub(crate) id: String,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
}
