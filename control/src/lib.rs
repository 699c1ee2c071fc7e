//! Control operates: the HTTPS face of the server.
//!
//! It answers AWS IoT's REST API (restJson1) and Muster's own paths to operators, who prove
//! themselves in each request by SigV4 or by an operator certificate; it hands jobs and
//! firmware to devices under their client certificates, and revocation lists to anybody over plain HTTP.
//! It keeps nothing but the operators: it asks `fleet`, `ota`, `ca` and `broker`, on a thread and
//! a runtime of its own, and the program `muster` starts it.

mod answer;
mod api_error;
mod api_error_from;
mod arn;
mod auth;
mod call;
mod control;
mod data_plane;
mod device;
mod dispatch;
mod endpoints;
mod error;
mod est;
mod firmware;
mod job_data;
mod listener;
mod operation;
mod operations;
mod operators;
mod pace;
mod page;
mod peer;
mod places;
mod plain;
mod record;
mod rooms;
mod upload;

pub use control::{Control, ControlDescriptors, ControlParts};
pub use endpoints::{Endpoint, Endpoints};
pub use error::ControlError;
pub use operators::{NewOperator, Operator, OperatorName, Operators, Role, Rotated};
