//! The server's own certificate, and TLS made of it for each listener.

use anyhow::Context as _;
use broker::tls::{ClientAuth, Protocol, server_config};
use ca::Authority;
use rustls::ServerConfig;
use std::{path::Path, sync::Arc, time::SystemTime};

pub(super) struct ServerTls {
    pub(super) mqtt: Arc<ServerConfig>,
    pub(super) wss: Arc<ServerConfig>,
    pub(super) https: Arc<ServerConfig>,
}

impl ServerTls {
    pub(super) fn of(
        authority: &Authority,
        dir: &Path,
        names: &[String],
        now: SystemTime,
    ) -> anyhow::Result<Self> {
        let identity = authority
            .server_identity(dir, names, now)
            .context("the server's own certificate")?;
        let authorities = [
            authority.root_der().clone(),
            authority.issuing_der().clone(),
        ];
        let config = |client, protocol| {
            server_config(
                &authorities,
                identity.chain(),
                identity.private_key(),
                client,
                protocol,
            )
        };
        Ok(ServerTls {
            mqtt: config(ClientAuth::Required, Protocol::Mqtt)?,
            wss: config(ClientAuth::Required, Protocol::Http)?,
            https: config(ClientAuth::Optional, Protocol::Http)?,
        })
    }
}
