//! `muster operator …`: who may use the API.

use clap::{Subcommand, builder::PossibleValuesParser};
use std::path::PathBuf;

/// `muster operator …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Operator {
    /// Make an operator and write its credentials, its certificate and its key
    Create {
        /// 1 to 32 of a-z, 0-9 and hyphen, beginning with a letter
        name: String,
        /// How far it may go; each may do all that those before it may
        #[arg(long, value_name = "ROLE", value_parser = PossibleValuesParser::new(control::Role::ALL.map(control::Role::as_str)))]
        role: String,
        /// Directory for its files [default: ./NAME]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// List operators
    List,
    /// Give an operator another secret, key and certificate; those it had are refused at once
    ///
    /// Files of its that lie in the data directory (operators/admin.*) are written anew by the server.
    Rotate {
        /// The operator
        name: String,
        /// Directory for its files [default: none where the server keeps them, else ./NAME]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Delete an operator; its next request is refused
    Delete {
        /// The operator
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}
