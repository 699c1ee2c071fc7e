//! Looks at the confirmed image: how it says it is, and whether it still is what was signed. Each on a thread of its own,
//! as both may take long and a download may take days.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use crate::AgentError;
use crate::cancel::Cancel;
use crate::health::{Health, Subject, Verdict};
use crate::slots::Slots;
use crate::sound::{self, Flaw};
use crate::state::StateDir;
use crate::update::{Event, Installed};

/// How the confirmed image is looked at.
pub(crate) struct Looks {
    /// The command that says how it is.
    pub health: Health,
    /// How often it is asked; `None`: never.
    pub every: Option<Duration>,
    /// Ends all looks.
    pub cancel: Cancel,
    /// What is kept of it.
    pub state: StateDir,
    /// Where it lies.
    pub slots: Arc<dyn Slots>,
}

impl Looks {
    /// When it is to be asked next.
    #[must_use]
    pub(crate) fn next(&self) -> Option<Instant> {
        self.every.map(|every| Instant::now() + every)
    }

    /// Asks the image how it is; the answer comes with its SHA-256.
    ///
    /// # Errors
    /// [`AgentError::System`].
    pub(crate) fn ask(
        &self,
        image: Installed,
        done: Sender<(String, Verdict)>,
    ) -> Result<(), AgentError> {
        let path = self.slots.image(image.slot);
        let state = self.state.path().to_path_buf();
        let (health, cancel) = (self.health.clone(), self.cancel.clone());
        start("health", move || {
            let subject = Subject {
                image: &path,
                slot: image.slot,
                version: &image.version,
                state: &state,
            };
            let verdict = health.run(&subject, &cancel);
            // Whoever stopped has no use for it.
            let _ = done.blocking_send((image.sha256, verdict));
        })
    }

    /// Reads the image where it lies; says so as [`Event::Looked`].
    ///
    /// # Errors
    /// [`AgentError::System`].
    pub(crate) fn read(&self, image: Installed, done: Sender<Event>) -> Result<(), AgentError> {
        let (state, slots) = (self.state.clone(), Arc::clone(&self.slots));
        let cancel = self.cancel.clone();
        start("look", move || {
            let found = match sound::look(&state, slots.as_ref(), &image, &cancel) {
                Ok(()) => Ok(()),
                Err(Flaw::CalledOff) => return,
                Err(Flaw::Damage(words)) => {
                    tracing::error!(
                        "{} {}, which was confirmed here: {words}; order its version again",
                        image.name,
                        image.version
                    );
                    Err(words)
                }
            };
            // Whoever stopped has no use for it.
            let _ = done.blocking_send(Event::Looked(image, found));
        })
    }
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), AgentError> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(work)
        .map(drop)
        .map_err(|why| AgentError::System {
            what: "starting a thread",
            why,
        })
}
