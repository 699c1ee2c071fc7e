//! `muster-agent`: the agent as a program.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use agent::{
    Agent, AgentError, Devices, EnrolError, Enrolment, Fingerprint, Health, Hooks, Identity,
    Settings, Trust, Way, state, tuf,
};
use clap::{Args, Parser, Subcommand};
use ota::{FirmwareName, FirmwareVersion};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Runs on a device: keeps it connected, installs signed firmware, falls back when it is bad.
#[derive(Parser)]
#[command(
    name = "muster-agent",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    run: Option<Run>,
    #[command(flatten)]
    entry: Entry,
}

#[derive(Subcommand)]
enum Verb {
    /// Gets this device a certificate of its own, where it has none: by a claim certificate or a one-time password.
    ///
    /// Writes NAME.crt, NAME.key and root.crt to --identity, all of them or none; the key is made here and never
    /// leaves. Said again after a power cut it goes on where it was. A device that has an identity keeps it.
    Enrol(Enrol),
    /// Says which image this device runs.
    Status {
        /// The agent's state directory.
        #[arg(long, value_name = "DIR")]
        state: PathBuf,
        /// As one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Verifies a TUF repository and gets targets from it; needs no identity and no server.
    Tuf(Tuf),
}

#[derive(Args)]
struct Tuf {
    /// Where trusted metadata is kept.
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// The repository's metadata.
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// A target's path, as the repository has it; may be given more than once.
    #[arg(long, value_name = "PATH", allow_hyphen_values = true)]
    target_name: Vec<String>,
    /// The repository's targets.
    #[arg(long, value_name = "URL")]
    target_base_url: Option<String>,
    /// Where targets are put.
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    /// Certificates that an https:// repository is known by.
    #[arg(long, value_name = "PEM", conflicts_with = "identity")]
    ca: Option<PathBuf>,
    /// What `muster device create` wrote, for a Muster server's own repository
    /// (https://HOST:8443/firmware/tuf/metadata and …/targets).
    #[arg(long, value_name = "DIR")]
    identity: Option<PathBuf>,
    #[command(subcommand)]
    verb: TufVerb,
}

#[derive(Subcommand)]
enum TufVerb {
    /// Trusts a root from now on.
    Init {
        /// Root metadata believed for a reason of its own.
        #[arg(value_name = "ROOT")]
        root: PathBuf,
    },
    /// Brings the trusted metadata up to date.
    Refresh,
    /// Brings the trusted metadata up to date and gets targets; prints where each lies.
    Download,
}

#[derive(Args)]
struct Enrol {
    /// Where the identity is to be; made if it is not there.
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
    /// The server's name, as its certificate has it.
    #[arg(long, value_name = "HOST")]
    server: String,
    /// The server's MQTT port.
    #[arg(long, value_name = "PORT", default_value_t = 8883, value_parser = clap::value_parser!(u16).range(1..))]
    mqtt_port: u16,
    /// The server's HTTPS port.
    #[arg(long, value_name = "PORT", default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..))]
    https_port: u16,
    /// How many seconds to try on while the server cannot be reached or is busy; 0: once.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(..=86_400))]
    wait: u64,
    #[command(flatten)]
    entry: Entry,
}

/// By what a device without an identity is let in.
#[derive(Args)]
#[command(next_help_heading = "For a device that has no identity yet")]
struct Entry {
    /// By claim: what `muster claim create` wrote (claim.crt, claim.key, root.crt).
    #[arg(
        long,
        value_name = "DIR",
        requires = "template",
        conflicts_with = "thing"
    )]
    claim: Option<PathBuf>,
    /// The template that the claim is for.
    #[arg(long, value_name = "NAME", requires = "claim")]
    template: Option<String>,
    /// What the device says of itself to the template, as SerialNumber=4711; may be repeated.
    #[arg(long = "parameter", value_name = "NAME=VALUE", requires = "claim", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    /// By one-time password: the thing that `muster device enrol-password` made it for.
    #[arg(long, value_name = "NAME", requires = "password_file")]
    thing: Option<String>,
    /// The file that the password stands in, alone on its line.
    #[arg(long, value_name = "FILE", requires = "thing")]
    password_file: Option<PathBuf>,
    /// The root certificates that the server is known by (its root.crt).
    #[arg(
        long,
        value_name = "FILE",
        requires = "thing",
        conflicts_with = "root_fingerprint"
    )]
    root: Option<PathBuf>,
    /// Or the SHA-256 fingerprint of its root certificate, which is then asked for.
    #[arg(long, value_name = "HEX", requires = "thing")]
    root_fingerprint: Option<Fingerprint>,
}

impl Entry {
    /// `None` where nothing was given.
    fn way(self) -> Result<Option<Way>, AgentError> {
        match (self.claim, self.template, self.thing, self.password_file) {
            (Some(dir), Some(template), ..) => Ok(Some(Way::Claim {
                dir,
                template,
                parameters: self.parameters.into_iter().collect(),
            })),
            (_, _, Some(thing), Some(file)) => {
                let trust = match (self.root, self.root_fingerprint) {
                    (Some(path), _) => Trust::Roots(path),
                    (None, Some(fingerprint)) => Trust::Root(fingerprint),
                    (None, None) => {
                        return Err(AgentError::Option {
                            verb: "enrol",
                            option: "--root FILE or --root-fingerprint HEX beside --thing: no server is believed unseen",
                        });
                    }
                };
                Ok(Some(Way::Password { thing, file, trust }))
            }
            _ => Ok(None),
        }
    }
}

fn parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE, as SerialNumber=4711".into()),
    }
}

#[derive(Args)]
struct Run {
    /// What `muster device create` or `enrol` wrote: NAME.crt, NAME.key, root.crt. Where there is none, and it is said
    /// below how to get one, the device is enrolled first, for as long as it takes.
    #[arg(long, value_name = "DIR")]
    identity: PathBuf,
    /// The firmware trust root to begin with; else the identity's firmware-root.json, else the
    /// server's first.
    #[arg(long, value_name = "ROOT.json")]
    trust: Option<PathBuf>,
    /// The server's name, as its certificate has it.
    #[arg(long, value_name = "HOST")]
    server: String,
    /// The server's MQTT port.
    #[arg(long, value_name = "PORT", default_value_t = 8883, value_parser = clap::value_parser!(u16).range(1..))]
    mqtt_port: u16,
    /// The server's HTTPS port.
    #[arg(long, value_name = "PORT", default_value_t = 8443, value_parser = clap::value_parser!(u16).range(1..))]
    https_port: u16,
    /// Where slots, downloads and the agent's memory are kept.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The device, as /dev/mmcblk0p2, that slot `a` is, in the place of a directory below --state. It is written
    /// over from its first byte on.
    #[arg(long, value_name = "DEVICE", requires = "slot_b")]
    slot_a: Option<PathBuf>,
    /// The device that slot `b` is.
    #[arg(long, value_name = "DEVICE", requires = "slot_a")]
    slot_b: Option<PathBuf>,
    /// What this device is, as firmware manifests name it.
    #[arg(long, value_name = "ID")]
    hardware: ota::HardwareId,
    /// Other firmware this device has, as radio=2.1.0, for images that require it (`muster firmware sign --requires
    /// radio=2.0.0`); may be repeated.
    #[arg(long = "component", value_name = "NAME=VERSION", value_parser = component)]
    components: Vec<(FirmwareName, FirmwareVersion)>,
    /// Run by `sh -c` with MUSTER_IMAGE, MUSTER_VERSION and MUSTER_STATE; exit 0 keeps the image.
    #[arg(long, value_name = "CMD")]
    health: String,
    /// How many seconds the health command may take; then it is ended and the image falls back.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    health_timeout: u64,
    /// How often the health command is run for the confirmed image too, in seconds; what it says is told to the
    /// server, whose health gates look at it. 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    health_every: u64,
    /// Run when a verified image lies in its slot, with MUSTER_SLOT (a or b) and the variables of --health: puts it
    /// where it is started from. Each hook may be run again after a power cut.
    #[arg(long, value_name = "CMD")]
    on_install: Option<String>,
    /// Run when a trial begins: has the image started, once. One that restarts the device must not return.
    #[arg(long, value_name = "CMD")]
    on_activate: Option<String>,
    /// Run after a restart in a trial: exit 0 if the device runs from MUSTER_SLOT; anything else is a fall back.
    #[arg(long, value_name = "CMD")]
    on_booted: Option<String>,
    /// Run when the image is healthy: has it started from now on.
    #[arg(long, value_name = "CMD")]
    on_confirm: Option<String>,
    /// Run, until it has succeeded, when an image was given up in its trial: has the one before started again.
    #[arg(long, value_name = "CMD")]
    on_revert: Option<String>,
    /// How many seconds each of them may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    hook_timeout: u64,
    /// A watchdog device, as /dev/watchdog, that is fed while an image is on trial and disarmed after.
    #[arg(long, value_name = "DEVICE")]
    watchdog: Option<PathBuf>,
}

fn component(text: &str) -> Result<(FirmwareName, FirmwareVersion), String> {
    let (name, version) = text
        .split_once('=')
        .ok_or("write NAME=VERSION, as radio=2.1.0")?;
    let name = name
        .parse()
        .map_err(|error: ota::Error| error.to_string())?;
    let version = version
        .parse()
        .map_err(|error: ota::Error| error.to_string())?;
    Ok((name, version))
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_env_filter(
            EnvFilter::try_from_env("MUSTER_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    let done = match (cli.verb, cli.run) {
        (Some(Verb::Status { state, json }), _) => status(&state, json),
        (Some(Verb::Enrol(asked)), _) => enrol(asked),
        (Some(Verb::Tuf(asked)), _) => verify(asked),
        (None, Some(run)) => start(run, cli.entry),
        (None, None) => {
            let _ = writeln!(std::io::stderr(), "nothing to do; try --help");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "muster-agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the command line, or what was asked of it. The verb `tuf` ends with 0 or 1, whatever it is.
fn misused(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let tuf = std::env::args_os().nth(1).is_some_and(|verb| verb == "tuf");
    match u8::try_from(error.exit_code()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(code) if !tuf => ExitCode::from(code),
        _ => ExitCode::FAILURE,
    }
}

fn status(dir: &std::path::Path, json: bool) -> Result<(), AgentError> {
    let status = state::Status::of(&state::read(dir)?);
    let line = if json {
        serde_json::to_string(&status).unwrap_or_default()
    } else {
        status.to_string()
    };
    let _ = writeln!(std::io::stdout(), "{line}");
    Ok(())
}

fn verify(asked: Tuf) -> Result<(), AgentError> {
    let verb = match asked.verb {
        TufVerb::Init { root } => return tuf::init(&asked.metadata_dir, &root),
        TufVerb::Refresh => "refresh",
        TufVerb::Download => "download",
    };
    let lacks = |option| move || AgentError::Option { verb, option };
    let now = SystemTime::now();
    let source = tuf::Source {
        metadata_dir: asked.metadata_dir,
        metadata_url: asked.metadata_url.ok_or_else(lacks("--metadata-url"))?,
        ca: asked.ca,
        identity: asked.identity.map(|dir| Identity::open(&dir)).transpose()?,
    };
    if verb == "refresh" {
        return tuf::refresh(&source, now);
    }
    if asked.target_name.is_empty() {
        return Err(lacks("--target-name")());
    }
    let wanted = tuf::Wanted {
        names: asked.target_name,
        base_url: asked
            .target_base_url
            .ok_or_else(lacks("--target-base-url"))?,
        dir: asked.target_dir.ok_or_else(lacks("--target-dir"))?,
    };
    tuf::download(&source, &wanted, now, |_, path| {
        let _ = writeln!(std::io::stdout(), "{}", path.display());
    })
}

fn enrol(asked: Enrol) -> Result<(), AgentError> {
    let way = asked.entry.way()?.ok_or(AgentError::Option {
        verb: "enrol",
        option: "--claim with --template, or --thing with --password-file and --root",
    })?;
    let thing = agent::enrol(&Enrolment {
        identity: asked.identity.clone(),
        server: asked.server,
        mqtt_port: asked.mqtt_port,
        https_port: asked.https_port,
        way,
        patience: Some(Duration::from_secs(asked.wait)),
    })?;
    let dir = asked.identity.display();
    let _ = writeln!(
        std::io::stdout(),
        "this device is {thing}: {dir}/{thing}.crt, {dir}/{thing}.key, {dir}/root.crt"
    );
    Ok(())
}

/// Before the first start, where it was said how.
fn enrol_first(run: &Run, way: Way) -> Result<(), AgentError> {
    let done = agent::enrol(&Enrolment {
        identity: run.identity.clone(),
        server: run.server.clone(),
        mqtt_port: run.mqtt_port,
        https_port: run.https_port,
        way,
        patience: None,
    });
    match done {
        Ok(thing) => tracing::info!("enrolled as {thing}"),
        Err(AgentError::Enrol(EnrolError::Enrolled { .. })) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn start(run: Run, entry: Entry) -> Result<(), AgentError> {
    if let Some(way) = entry.way()? {
        enrol_first(&run, way)?;
    }
    let settings = Settings {
        identity: Identity::open(&run.identity)?,
        trust: run.trust,
        server: run.server,
        mqtt_port: run.mqtt_port,
        https_port: run.https_port,
        state: run.state,
        devices: run.slot_a.zip(run.slot_b).map(|(a, b)| Devices { a, b }),
        hardware: run.hardware,
        components: run.components.into_iter().collect(),
        health: Health {
            command: run.health,
            deadline: Duration::from_secs(run.health_timeout),
        },
        hooks: Hooks {
            install: run.on_install,
            activate: run.on_activate,
            booted: run.on_booted,
            confirm: run.on_confirm,
            revert: run.on_revert,
            deadline: Duration::from_secs(run.hook_timeout),
            watchdog: run.watchdog,
        },
        health_every: (run.health_every > 0).then(|| Duration::from_secs(run.health_every)),
    };
    let agent = Agent::open(settings)?;
    let system = |what| move |why| AgentError::System { what, why };
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(system("starting the runtime"))?
        .block_on(async {
            let mut terminate =
                signal(SignalKind::terminate()).map_err(system("listening for SIGTERM"))?;
            let mut interrupt =
                signal(SignalKind::interrupt()).map_err(system("listening for SIGINT"))?;
            agent
                .run(async move {
                    tokio::select! {
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                })
                .await
        })
}
