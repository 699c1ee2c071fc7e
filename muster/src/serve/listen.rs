//! Binds the four ports before anything else is touched: what is wrong with them is said at once.

use crate::config::Settings;
use anyhow::{Context as _, anyhow};
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

/// Bound sockets, each with its port.
pub(super) struct Sockets {
    pub(super) mqtt: (TcpListener, u16),
    pub(super) wss: (TcpListener, u16),
    pub(super) https: (TcpListener, u16),
    pub(super) http: (TcpListener, u16),
}

/// New connections the kernel holds until they are accepted, if it holds so many (net.core.somaxconn): a fleet comes back all
/// at once, and whom the queue has no room for comes again after seconds. The standard library asks for 128.
const BACKLOG: i32 = 4096;

impl Sockets {
    pub(super) fn bind(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Sockets {
            mqtt: bind("mqtt", settings.mqtt)?,
            wss: bind("wss", settings.wss)?,
            https: bind("https", settings.https)?,
            http: bind("http", settings.http)?,
        })
    }
}

fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, u16)> {
    let bound = match TcpListener::bind(address) {
        // A machine without IPv6: all of IPv4 is what `[::]` would have been there.
        Err(error) if address.ip().is_unspecified() && address.is_ipv6() && !taken(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).map_err(|_| error)
        }
        bound => bound,
    };
    let listener = bound.map_err(|error| explain(flag, address, &error))?;
    rustix::net::listen(&listener, BACKLOG)
        .with_context(|| format!("--{flag} {address}: a longer queue of new connections"))?;
    let port = listener
        .local_addr()
        .with_context(|| format!("--{flag} {address}"))?
        .port();
    Ok((listener, port))
}

fn taken(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::AddrInUse
}

fn explain(flag: &str, address: SocketAddr, error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::AddrInUse => anyhow!(
            "port {} is taken: another program listens on {address}; stop it or choose another with --{flag} ADDR:PORT (port 0 picks a free one)",
            address.port()
        ),
        ErrorKind::PermissionDenied => anyhow!(
            "port {} may not be opened by this user: choose one above 1023 with --{flag} ADDR:PORT",
            address.port()
        ),
        ErrorKind::AddrNotAvailable => {
            anyhow!(
                "{} is not an address of this machine: choose another with --{flag} ADDR:PORT",
                address.ip()
            )
        }
        _ => anyhow!("cannot listen on {address} (--{flag}): {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_the_flag_that_mends_it() {
        let (_held, port) = bind("mqtt", "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let error = bind("mqtt", address).unwrap_err().to_string();
        assert!(
            error.contains(&format!("port {port} is taken")) && error.contains("--mqtt"),
            "{error}"
        );
    }
}
