//! When the certificate is renewed, and what follows: the clients take the new identity, the link dials anew, and the
//! server is told. And when it is looked whether the authority's root has a successor.

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
    /// The server was asked for its authority's certificates under the one in use.
    Looked(Looked),
}

/// What came of a look at the authority's certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// The roots are as they were.
    Same,
    /// There are others on disk.
    OtherRoots,
    /// There was no answer that could be used; why has been said.
    Failed,
}

/// Keeps the identity fresh.
pub(crate) struct Renewer {
    identity: Arc<Identity>,
    client: Client,
    tls: watch::Sender<Arc<ClientConfig>>,
    due: SystemTime,
    /// From when on to tell the server that the new certificate is in use, once it has connected.
    confirm: Option<Option<SystemTime>>,
    /// When the authority's certificates are looked at again.
    look: SystemTime,
    working: bool,
}

impl Renewer {
    pub(crate) fn new(
        identity: Identity,
        client: Client,
        tls: watch::Sender<Arc<ClientConfig>>,
    ) -> Self {
        let ((from, until), now) = (identity.life(), identity.clock().now());
        Self {
            due: renewal::due(from, until, backoff::random()),
            identity: Arc::new(identity),
            client,
            tls,
            // One that was renewed before this start and never confirmed retires the old one with its own renewal.
            confirm: None,
            look: renewal::look_again((from, until), now, backoff::random()),
            working: false,
        }
    }

    /// How long there is nothing to do; `None` while something is being done.
    pub(crate) fn wait(&self) -> Option<Duration> {
        let next = match self.confirm {
            Some(Some(at)) => at.min(self.due),
            _ => self.due,
        };
        let next = next.min(self.look);
        let wait = next
            .duration_since(self.identity.clock().now())
            .unwrap_or_default();
        (!self.working).then_some(wait.min(LOOK_EVERY))
    }

    /// The link stands, with the identity of now.
    pub(crate) fn connected(&mut self) {
        if let Some(at @ None) = &mut self.confirm {
            *at = Some(self.identity.clock().now());
        }
    }

    /// Does what is due, on a thread that may block.
    pub(crate) fn step(&mut self, done: mpsc::Sender<Done>) {
        let now = self.identity.clock().now();
        let (identity, client) = (Arc::clone(&self.identity), self.client.clone());
        let confirms = matches!(self.confirm, Some(Some(at)) if at <= now);
        if confirms || (self.look <= now && self.due > now) {
            self.working = true;
            tokio::task::spawn_blocking(move || {
                let looked = match renewal::look(&identity, &client, &Disk, now) {
                    Ok(true) => Looked::OtherRoots,
                    Ok(false) => Looked::Same,
                    Err(error) => {
                        tracing::debug!("the authority's certificates were not looked at: {error}");
                        Looked::Failed
                    }
                };
                let _ = done.blocking_send(Done::Looked(looked));
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
        let now = self.identity.clock().now();
        match done {
            Done::Looked(looked) => self.looked(*looked, now),
            Done::Failed => self.put_off(now),
            Done::Renewed => match self.identity.reopen() {
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

    /// The certificate in use was told with it; other roots are believed from the next connection on.
    fn looked(&mut self, looked: Looked, now: SystemTime) {
        self.look = renewal::look_again(self.identity.life(), now, backoff::random());
        if looked == Looked::Failed {
            self.confirm = self.confirm.map(|_| Some(now + CONFIRM_AGAIN));
            return;
        }
        self.confirm = None;
        if looked == Looked::Same {
            return;
        }
        match self.identity.reopen() {
            Ok(identity) => {
                self.client.adopt(&identity);
                self.tls.send_replace(identity.tls());
                tracing::info!(
                    "the authority's roots changed: {} are trusted",
                    identity.roots().len()
                );
                self.identity = Arc::new(identity);
            }
            Err(error) => tracing::warn!("the roots that were taken cannot be used: {error}"),
        }
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
