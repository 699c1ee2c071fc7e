//! When the certificate is renewed, and what follows: the clients take the new identity, the link dials anew, and the
//! server is told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ClientConfig;
use tokio::sync::{mpsc, watch};

use crate::backoff;
use crate::files::Disk;
use crate::https::Client;
use crate::identity::Identity;
use crate::renewal;

/// The longest sleep: a clock that was set is noticed after this.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// How long after a failed confirmation the next is tried.
const CONFIRM_AGAIN: Duration = Duration::from_secs(30);

/// What a step on a thread of its own has come to.
pub(crate) enum Done {
    /// There is a new identity on disk.
    Renewed,
    /// There is none; why has been said.
    Failed,
    /// The server knows that the new one is in use, or does not.
    Confirmed(bool),
}

/// Keeps the identity fresh.
pub(crate) struct Renewer {
    identity: Arc<Identity>,
    client: Client,
    tls: watch::Sender<Arc<ClientConfig>>,
    due: SystemTime,
    /// From when on to tell the server that the new certificate is in use, once it has connected.
    confirm: Option<Option<SystemTime>>,
    working: bool,
}

impl Renewer {
    pub(crate) fn new(
        identity: Identity,
        client: Client,
        tls: watch::Sender<Arc<ClientConfig>>,
    ) -> Self {
        let (from, until) = identity.life();
        Self {
            due: renewal::due(from, until, backoff::random()),
            identity: Arc::new(identity),
            client,
            tls,
            // One that was renewed before this start and never confirmed retires the old one with its own renewal.
            confirm: None,
            working: false,
        }
    }

    /// How long there is nothing to do; `None` while something is being done.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let next = match self.confirm {
            Some(Some(at)) => at.min(self.due),
            _ => self.due,
        };
        let wait = next.duration_since(SystemTime::now()).unwrap_or_default();
        (!self.working).then_some(wait.min(LOOK_EVERY))
    }

    /// The link stands, with the identity of now.
    pub(crate) fn connected(&mut self) {
        if let Some(at @ None) = &mut self.confirm {
            *at = Some(SystemTime::now());
        }
    }

    /// Does what is due, on a thread that may block.
    pub(crate) fn step(&mut self, done: mpsc::Sender<Done>) {
        let now = SystemTime::now();
        let (identity, client) = (Arc::clone(&self.identity), self.client.clone());
        if matches!(self.confirm, Some(Some(at)) if at <= now) {
            self.working = true;
            tokio::task::spawn_blocking(move || {
                let confirmed = renewal::confirm(&client);
                if let Err(fault) = &confirmed {
                    tracing::debug!(
                        "the server was not told of the certificate in use: {}",
                        fault.words()
                    );
                }
                let _ = done.blocking_send(Done::Confirmed(confirmed.is_ok()));
            });
        } else if self.due <= now {
            self.working = true;
            tokio::task::spawn_blocking(move || {
                let outcome = match renewal::renew(&identity, &client, &Disk) {
                    Ok(()) => Done::Renewed,
                    Err(error) => {
                        tracing::warn!("the device's certificate was not renewed: {error}");
                        Done::Failed
                    }
                };
                let _ = done.blocking_send(outcome);
            });
        }
    }

    /// Takes note of a step's end; whether the link must dial anew.
    pub(crate) fn done(&mut self, done: &Done) -> bool {
        self.working = false;
        let now = SystemTime::now();
        match done {
            Done::Confirmed(true) => self.confirm = None,
            Done::Confirmed(false) => self.confirm = Some(Some(now + CONFIRM_AGAIN)),
            Done::Failed => self.put_off(now),
            Done::Renewed => match self.identity.reopen(now) {
                Ok(identity) => {
                    self.adopt(identity);
                    return true;
                }
                Err(error) => {
                    tracing::warn!("the renewed identity cannot be used: {error}");
                    self.put_off(now);
                }
            },
        }
        false
    }

    fn put_off(&mut self, now: SystemTime) {
        self.due = now + renewal::again(self.identity.life().1, now);
    }

    fn adopt(&mut self, identity: Identity) {
        let (from, until) = identity.life();
        self.due = renewal::due(from, until, backoff::random());
        self.client.adopt(&identity);
        self.tls.send_replace(identity.tls());
        self.identity = Arc::new(identity);
        self.confirm = Some(None);
        tracing::info!("the device's certificate was renewed");
    }
}
