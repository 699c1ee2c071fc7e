//! `muster template …` and `muster claim …`: devices that enrol themselves.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `muster template …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Template {
    /// Make a provisioning template from a JSON document, as AWS IoT writes them
    Create(TemplateCreate),
    /// List templates
    List,
    /// Show a template
    Show {
        /// The template
        name: String,
    },
    /// Change a template: a new document becomes the version devices get
    Update(TemplateUpdate),
    /// Let more devices provision by a template with an allow list
    Allow {
        /// The template
        name: String,
        /// One value (serial number) a line
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Take devices off a template's allow list
    Disallow {
        /// The template
        name: String,
        /// One value (serial number) a line
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
    },
    /// Delete a template; its claims can do nothing any more
    Delete {
        /// The template
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `muster template create`.
#[derive(Debug, Args)]
pub(crate) struct TemplateCreate {
    /// Its name: letters, digits, '-' and '_'
    pub(crate) name: String,
    /// The document
    pub(crate) file: PathBuf,
    /// For people
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Make it without letting devices use it yet
    #[arg(long)]
    pub(crate) disabled: bool,
    /// Who else is asked
    #[command(flatten)]
    pub(crate) hook: TemplateHook,
}

/// Who else is asked before a device is provisioned.
#[derive(Debug, Args)]
pub(crate) struct TemplateHook {
    /// HTTPS service that is asked before each device, and must say yes within 5 seconds
    #[arg(long, value_name = "URL", conflicts_with = "allow_parameter")]
    pub(crate) hook: Option<String>,
    /// What the hook's certificate is trusted by, PEM [default: this server's own root]
    #[arg(long, value_name = "FILE", requires = "hook")]
    pub(crate) hook_root: Option<PathBuf>,
    /// Only devices whose parameter of this name stands on the template's allow list
    #[arg(long, value_name = "PARAMETER")]
    pub(crate) allow_parameter: Option<String>,
    /// What stands on the allow list, one value a line; more with `template allow`
    #[arg(long, value_name = "FILE", requires = "allow_parameter")]
    pub(crate) allow_list: Option<PathBuf>,
}

/// `muster template update`.
#[derive(Debug, Args)]
pub(crate) struct TemplateUpdate {
    /// The template
    pub(crate) name: String,
    /// The new document
    pub(crate) file: Option<PathBuf>,
    /// Let devices use it
    #[arg(long, conflicts_with = "disable")]
    pub(crate) enable: bool,
    /// Let no device use it
    #[arg(long)]
    pub(crate) disable: bool,
    /// Ask nobody else any more
    #[arg(long, conflicts_with_all = ["hook", "allow_parameter"])]
    pub(crate) no_hook: bool,
    /// Who else is asked
    #[command(flatten)]
    pub(crate) hook: TemplateHook,
}

/// `muster claim …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Claim {
    /// Make a claim certificate for a template
    Create(ClaimCreate),
    /// List claims
    List,
    /// Show a claim
    Show {
        /// Its certificate id
        id: String,
    },
    /// Revoke a claim; devices that got their own certificate keep it
    Revoke {
        /// Its certificate id
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// `muster claim create`.
#[derive(Debug, Args)]
pub(crate) struct ClaimCreate {
    /// The template its devices are provisioned by
    #[arg(long, value_name = "NAME")]
    pub(crate) template: String,
    /// Most devices it may provision
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// Most devices in any minute
    #[arg(long, value_name = "N/min", default_value = "60/min")]
    pub(crate) rate: String,
    /// Network it may be used from, as 10.0.0.0/8; may be repeated [default: any]
    #[arg(long = "source", value_name = "CIDR")]
    pub(crate) sources: Vec<String>,
    /// How long it lives, as 30d or 12h
    #[arg(long, value_name = "D", default_value = "30d")]
    pub(crate) lifetime: String,
    /// Certificate signing request: the private key stays where it is
    #[arg(long, value_name = "FILE")]
    pub(crate) csr: Option<PathBuf>,
    /// Where to write claim.crt, claim.key and root.crt [default: ./claim]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}
