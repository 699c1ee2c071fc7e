//! The server's own certificate, TLS made of it for each listener, and the thread that keeps certificate and stapled
//! OCSP answer fresh while connections go on.

use anyhow::Context as _;
use broker::tls::{ClientAnchors, ClientAuth, Protocol, ServerCertificate, server_config};
use ca::{Authority, CertificateId, PublicKey, ServerIdentity};
use control::Operators;
use fleet::{KeyOwner, RevocationFaces, Staple};
use rustls::{ServerConfig, pki_types::CertificateDer};
use std::{
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

/// How often the thread looks, unless the certificate's life is short.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Looks in one life of a certificate, at least: it is renewed when a third of it is left.
const LOOKS_PER_LIFE: u32 = 30;

pub(super) struct ServerTls {
    pub(super) mqtt: Arc<ServerConfig>,
    pub(super) wss: Arc<ServerConfig>,
    pub(super) https: Arc<ServerConfig>,
    pub(super) keeper: Keeper,
}

impl ServerTls {
    pub(super) fn of(
        faces: &RevocationFaces,
        dir: PathBuf,
        names: Vec<String>,
        expired_grace: Duration,
        operators: Operators,
        now: SystemTime,
    ) -> anyhow::Result<Self> {
        let authority = Arc::clone(faces.fleet().authority());
        let credentials = operators.clone();
        let source = Source {
            authority,
            operators,
            faces: faces.clone(),
            dir,
            names,
        };
        let identity = source.identity(now)?;
        source.operators(now);
        let staple = source.staple(&identity, now);
        let certificate = ServerCertificate::new(
            identity.chain(),
            identity.private_key(),
            staple.as_ref().map(|staple| staple.der.clone()),
        )?;
        let anchors = ClientAnchors::new(&source.authority.anchors())?;
        let optional = ClientAuth::Optional {
            grace: expired_grace,
        };
        let outside = Some(faces.fleet());
        let config =
            |client, protocol| server_config(&anchors, outside, &certificate, client, protocol);
        let tls = ServerTls {
            mqtt: config(ClientAuth::Required, Protocol::Mqtt)?,
            wss: config(ClientAuth::Required, Protocol::Http)?,
            https: config(optional, Protocol::Http)?,
            keeper: Keeper::start(source, certificate, Shown::of(&identity, staple))?,
        };
        let look = tls.keeper.waker();
        let authority = faces.fleet().authority();
        let own = Arc::downgrade(authority);
        authority.tell_anchors(move |authorities| {
            if let Err(error) = anchors.replace(authorities) {
                tracing::error!(%error, "client certificates are judged by the authorities of before");
            }
            // Who retires a root has verbs to say after that, and their files trust the newest.
            if let Some(own) = own.upgrade()
                && let Err(error) = credentials.refresh_credentials(&own)
            {
                tracing::error!(%error, "operators' credentials beside the registry name a root of before");
            }
            look.now();
        });
        Ok(tls)
    }
}

/// Where certificate and answer come from, and whose certificates are seen to besides.
struct Source {
    operators: Operators,
    authority: Arc<Authority>,
    faces: RevocationFaces,
    dir: PathBuf,
    names: Vec<String>,
}

impl Source {
    /// The certificate on disk while it is good for longer, a new one otherwise; known to OCSP.
    fn identity(&self, now: SystemTime) -> anyhow::Result<ServerIdentity> {
        let identity = self
            .authority
            .server_identity(&self.dir, &self.names, now)
            .context("the server's own certificate")?;
        let facts = identity.facts();
        if let Some(own) = identity.chain().first() {
            let key = CertificateId::of(PublicKey::of_certificate(own)?.der());
            let fleet = self.faces.fleet();
            fleet.note_key(&key.to_string(), KeyOwner::Server)?;
        }
        self.faces.fleet().note_issued(
            &facts.id,
            identity.issuer(),
            &facts.serial,
            facts.not_after,
        )?;
        Ok(identity)
    }

    /// Renews what is due of the operators whose files are here. What fails is tried again at the next look.
    fn operators(&self, now: SystemTime) {
        let fleet = self.faces.fleet();
        let renewed = self.operators.renew(&self.authority, now);
        let noted = renewed.map_err(anyhow::Error::from).and_then(|renewed| {
            for operator in renewed {
                operator.note(fleet)?;
            }
            Ok(())
        });
        if let Err(error) = noted {
            tracing::error!(
                error = format!("{error:#}"),
                "an operator's certificate could not be renewed"
            );
        }
    }

    /// Without an answer handshakes go on: a client that insists on one asks the responder itself.
    fn staple(&self, identity: &ServerIdentity, now: SystemTime) -> Option<Staple> {
        let (issuer, serial) = (identity.issuer(), &identity.facts().serial);
        match self.faces.staple(issuer, serial, now) {
            Ok(staple) => Some(staple),
            Err(error) => {
                tracing::warn!(%error, "no OCSP answer is stapled to the server's certificate");
                None
            }
        }
    }
}

/// What handshakes show now.
struct Shown {
    id: CertificateId,
    life: Duration,
    /// It changes without the certificate when a root ends that it led to.
    chain: Vec<CertificateDer<'static>>,
    stapled: Option<Range<SystemTime>>,
}

impl Shown {
    fn of(identity: &ServerIdentity, staple: Option<Staple>) -> Self {
        let facts = identity.facts();
        Shown {
            id: facts.id,
            chain: identity.chain(),
            life: facts
                .not_after
                .duration_since(facts.not_before)
                .unwrap_or_default(),
            stapled: staple.map(|staple| staple.made_at..staple.renew_at),
        }
    }

    fn look_again(&self) -> Duration {
        (self.life / LOOKS_PER_LIFE).clamp(Duration::from_secs(1), LOOK_EVERY)
    }

    fn is_fresh(&self, identity: &ServerIdentity, now: SystemTime) -> bool {
        self.id == identity.facts().id
            && self.chain == identity.chain()
            && (self.stapled.as_ref()).is_some_and(|stapled| stapled.contains(&now))
    }
}

/// What the thread is woken for.
enum Wake {
    Look,
    End,
}

/// Has the thread look at once.
struct Waker(Sender<Wake>);

impl Waker {
    fn now(&self) {
        // A thread that has ended looks at nothing any more.
        let _ = self.0.send(Wake::Look);
    }
}

/// The thread that renews. Ends when it is dropped.
pub(super) struct Keeper {
    wake: Sender<Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    fn start(source: Source, certificate: ServerCertificate, shown: Shown) -> anyhow::Result<Self> {
        let (wake, woken) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("server-certificate".into())
            .spawn(move || {
                let mut shown = shown;
                while let Ok(Wake::Look) | Err(RecvTimeoutError::Timeout) =
                    woken.recv_timeout(shown.look_again())
                {
                    if let Err(error) = renew(&source, &certificate, &mut shown) {
                        tracing::error!(
                            error = format!("{error:#}"),
                            "the server's certificate could not be renewed"
                        );
                    }
                }
            })
            .context("start the thread that renews the server's certificate")?;
        Ok(Keeper {
            wake,
            thread: Some(thread),
        })
    }
}

impl Keeper {
    fn waker(&self) -> Waker {
        Waker(self.wake.clone())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.wake.send(Wake::End);
        if let Some(thread) = self.thread.take() {
            // It has said what went wrong, if anything did.
            let _ = thread.join();
        }
    }
}

fn renew(
    source: &Source,
    certificate: &ServerCertificate,
    shown: &mut Shown,
) -> anyhow::Result<()> {
    let now = SystemTime::now();
    source.operators(now);
    if let Err(error) = source.authority.blocked_keys().reload() {
        tracing::error!(%error, "a list of blocked keys stays as it was");
    }
    let identity = source.identity(now)?;
    if shown.is_fresh(&identity, now) {
        return Ok(());
    }
    let staple = source.staple(&identity, now);
    let answer = staple.as_ref().map(|staple| staple.der.clone());
    certificate.replace(identity.chain(), identity.private_key(), answer)?;
    if shown.id != identity.facts().id {
        tracing::info!(certificate = %identity.facts().id, "the server's certificate was renewed");
    }
    *shown = Shown::of(&identity, staple);
    Ok(())
}
