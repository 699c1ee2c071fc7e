//! The HTTPS face from outside: every request goes through TLS, authentication and routing.

mod access;
mod devices;
mod firmware;
mod house;
mod registry;
