//! The agent: feeds the machine with what comes from the server and the installer, and carries
//! out what it says.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ota::{Components, HardwareId};
use rustls::pki_types::ServerName;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::AgentError;
use crate::backoff::{self, Backoff};
use crate::cancel::Cancel;
use crate::clock::Clock;
use crate::download::Patience;
use crate::files::Disk;
use crate::health::{Health, Verdict};
use crate::hooks::Hooks;
use crate::https::{Client, Timeouts};
use crate::identity::Identity;
use crate::install::{Installer, Task};
use crate::jobs::{self, Incoming};
use crate::link::{Link, LinkEvent, Sender};
use crate::looks::Looks;
use crate::recover;
use crate::renewer::Renewer;
use crate::slots::{self, Devices, Slots};
use crate::state::{StateDir, Status};
use crate::term;
use crate::trust;
use crate::update::{Effect, Event, Machine, Slot};

/// The longest health deadline.
pub const HEALTH_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

/// While something awaits an answer it is said again after the first of these, then ever more
/// rarely up to the second.
const REPEAT: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// How often an idle agent asks by itself, lest a lost notification keep it waiting for ever.
const IDLE_ASK: Duration = Duration::from_secs(1800);

/// Asks in a row without any new work wait so long, the first of them nothing.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(300));

/// Messages and events that may wait for the agent.
const EVENTS_MAX: usize = 64;

/// The shortest time between two looks at a confirmed image.
pub const HEALTH_EVERY_MIN: Duration = Duration::from_secs(1);

/// What a device says of itself that is well.
const WELL: &str = "ok";

/// With less than so much of a job's window left it is not begun: clocks are told in whole seconds, and both sides must
/// find that it has closed.
const WINDOW_LEFT_MIN_SECONDS: u64 = 2;

/// How long the installer may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// How long the goodbye to the server may take.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// Everything the agent is started with.
#[derive(Debug)]
pub struct Settings {
    /// Who the device is.
    pub identity: Identity,
    /// The firmware trust root given by hand; else the identity's, else the server's first.
    pub trust: Option<PathBuf>,
    /// The server's name.
    pub server: String,
    /// Its MQTT port.
    pub mqtt_port: u16,
    /// Its HTTPS port.
    pub https_port: u16,
    /// The state directory.
    pub state: PathBuf,
    /// The devices that are the slots; `None`: directories below the state directory.
    pub devices: Option<Devices>,
    /// What this device is, as manifests name it.
    pub hardware: HardwareId,
    /// Other firmware that it has, for manifests that require some.
    pub components: Components,
    /// The health command.
    pub health: Health,
    /// What the device does at the steps of an update.
    pub hooks: Hooks,
    /// How often the confirmed image is asked how it is, for the server's health gates; `None`: never.
    pub health_every: Option<Duration>,
}

/// A started agent.
pub struct Agent {
    core: Core,
    events: mpsc::Receiver<Event>,
    found: mpsc::Receiver<Event>,
    link: Link,
    renewer: Renewer,
}

impl Agent {
    /// Takes the state directory, reads what is there and starts the installer.
    ///
    /// # Errors
    /// [`AgentError`], each naming the flag or file and its mend.
    pub fn open(settings: Settings) -> Result<Self, AgentError> {
        check_server(&settings.server)?;
        let deadline = settings.health.deadline;
        if deadline < Duration::from_secs(1) || deadline > HEALTH_TIMEOUT_MAX {
            return Err(AgentError::HealthTimeout {
                given: deadline,
                most: HEALTH_TIMEOUT_MAX,
            });
        }
        if let Some(given) = settings.health_every
            && !(HEALTH_EVERY_MIN..=HEALTH_TIMEOUT_MAX).contains(&given)
        {
            return Err(AgentError::HealthEvery {
                given,
                least: HEALTH_EVERY_MIN,
                most: HEALTH_TIMEOUT_MAX,
            });
        }
        let slots = slots::of(&settings.state, settings.devices)?;
        let state = StateDir::open(&settings.state, Arc::new(Disk))?;
        let identity = &settings.identity;
        trust::adopt(
            &state,
            settings.trust.as_deref().or(identity.firmware_root()),
        )?;
        let undoes = settings.hooks.revert.is_some();
        let kept = recover::load(&state, slots.as_ref(), &settings.hooks)?;
        let machine = Machine::new(kept).that_undoes(undoes);

        let health = settings.health.clone();
        let client = Client::new(
            identity,
            &settings.server,
            settings.https_port,
            Timeouts::default(),
        );
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let tasks = Installer {
            state: state.clone(),
            slots: Arc::clone(&slots),
            client: client.clone(),
            hardware: settings.hardware,
            components: settings.components,
            health: settings.health,
            hooks: settings.hooks,
            patience: Patience::default(),
            clock: identity.clock(),
        }
        .spawn(sender)
        .map_err(|why| AgentError::System {
            what: "starting a thread",
            why,
        })?;
        let (tls, shown) = watch::channel(identity.tls());
        let link = Link::new(identity, shown, &settings.server, settings.mqtt_port);
        let status = watch::Sender::new(Status::of(machine.state()));
        let (finds, found) = mpsc::channel(1);
        let looks = Looks {
            health,
            every: settings.health_every,
            cancel: Cancel::default(),
            state: state.clone(),
            slots: Arc::clone(&slots),
        };
        let core = Core {
            thing: identity.thing().to_string(),
            state,
            slots,
            machine,
            tasks,
            session: None,
            working: None,
            asked: false,
            ask: Backoff::new(ASK_AGAIN.0, ASK_AGAIN.1),
            ask_at: None,
            repeat: Backoff::new(REPEAT.0, REPEAT.1),
            tick_in: IDLE_ASK,
            looks,
            finds,
            clock: identity.clock(),
            status,
            says: None,
        };
        Ok(Self {
            core,
            events,
            found,
            link,
            renewer: Renewer::new(settings.identity, client, tls),
        })
    }

    /// Which image runs here, now and whenever that changes; each change is on the disk before it is told.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.core.status.subscribe()
    }

    /// Where the image of a slot lies: a file, or the first bytes of a device.
    #[must_use]
    pub fn image(&self, slot: Slot) -> PathBuf {
        self.core.slots.image(slot)
    }

    /// Runs until `shutdown` is ready. Must be called inside a tokio runtime with time and I/O.
    ///
    /// # Errors
    /// [`AgentError`] when the state cannot be kept: going on could do a job twice.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), AgentError> {
        let Self {
            mut core,
            mut events,
            mut found,
            link,
            mut renewer,
        } = self;
        core.feed(Event::Started)?;
        let (sender, mut heard) = mpsc::channel(EVENTS_MAX);
        let connection = tokio::spawn(link.run(sender));
        let tick = tokio::time::sleep(core.tick_in);
        tokio::pin!(shutdown, tick);
        let (worked, mut renewals) = mpsc::channel(1);
        let (looked, mut looks) = mpsc::channel(1);
        let mut look_at = core.looks.next();
        loop {
            let ask_at = core.ask_at;
            let renewal_in = renewer.wait();
            tokio::select! {
                () = &mut shutdown => break,
                event = events.recv() => core.feed(event.ok_or(AgentError::WorkerGone)?)?,
                Some(event) = found.recv() => core.feed(event)?,
                Some(event) = heard.recv() => {
                    if matches!(event, LinkEvent::Up(_)) {
                        renewer.connected();
                    }
                    core.linked(event)?;
                }
                () = tokio::time::sleep(renewal_in.unwrap_or_default()),
                    if renewal_in.is_some() => renewer.step(worked.clone()),
                Some(done) = renewals.recv() => {
                    if renewer.done(&done) {
                        core.dial_anew();
                    }
                }
                () = tokio::time::sleep_until(ask_at.unwrap_or_else(Instant::now)),
                    if ask_at.is_some() => core.ask_now(),
                () = tokio::time::sleep_until(look_at.unwrap_or_else(Instant::now)),
                    if look_at.is_some() => look_at = core.look_now(&looked)?,
                Some((image, verdict)) = looks.recv() => {
                    core.looked(image, verdict);
                    look_at = core.looks.next();
                }
                () = &mut tick => core.tick()?,
            }
            let due = Instant::now() + core.next_tick(tick.deadline());
            if due < tick.deadline() || tick.is_elapsed() {
                tick.as_mut().reset(due);
            }
        }
        core.stop(&mut events, &mut heard).await?;
        connection.abort();
        Ok(())
    }
}

/// The machine and the hands it has.
struct Core {
    thing: String,
    state: StateDir,
    slots: Arc<dyn Slots>,
    machine: Machine,
    tasks: std::sync::mpsc::Sender<Task>,
    session: Option<Sender>,
    working: Option<Cancel>,
    /// Whether the answer to an ask is awaited.
    asked: bool,
    ask: Backoff,
    /// When an ask that was put off is due.
    ask_at: Option<Instant>,
    repeat: Backoff,
    tick_in: Duration,
    looks: Looks,
    /// What was found where the confirmed image lies.
    finds: mpsc::Sender<Event>,
    clock: Arc<Clock>,
    /// What runs here, for whoever embeds the agent.
    status: watch::Sender<Status>,
    /// What the health command said last, and of which image (its SHA-256).
    says: Option<(String, String)>,
}

impl Core {
    fn feed(&mut self, event: Event) -> Result<(), AgentError> {
        for effect in self.machine.handle(event) {
            self.carry_out(effect)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), AgentError> {
        match effect {
            Effect::Save => {
                self.state.save(self.machine.state())?;
                let _ = self.status.send_replace(Status::of(self.machine.state()));
            }
            Effect::Fetch { run, order } => {
                self.ask.reset();
                let cancel = self.begin_work();
                let state = Box::new(self.machine.state().clone());
                tracing::info!("job: install {} {}", order.name, order.version);
                self.task(Task::Fetch {
                    run,
                    order,
                    state,
                    cancel,
                })?;
            }
            Effect::Judge { run, image, boots } => {
                let cancel = self.begin_work();
                self.task(Task::Judge {
                    run,
                    image,
                    boots,
                    cancel,
                })?;
            }
            Effect::Look(image) => self.looks.read(image, self.finds.clone())?,
            Effect::Undo { run, image } => {
                let cancel = self.begin_work();
                self.task(Task::Undo { run, image, cancel })?;
            }
            Effect::StopFetch => {
                tracing::info!("the server has taken the job back; the download stops");
                if let Some(working) = self.working.take() {
                    working.cancel();
                }
            }
            Effect::Report(report) => {
                if let Some(ending) = report.ending {
                    tracing::info!(
                        "job {}: {ending:?} ({}) {}",
                        report.job.id,
                        report.step.as_str(),
                        report.reason
                    );
                }
                self.send(jobs::report(&self.thing, &report));
            }
            Effect::Ask if self.ask.attempts() == 0 => self.ask_now(),
            Effect::Ask => {
                // A server that offers the same finished job over and over is not answered at
                // the speed of the network.
                let wait = self.ask.next(backoff::random());
                self.ask_at = Some(Instant::now() + wait);
            }
            Effect::Describe(job) => self.send(jobs::describe(&self.thing, &job)),
        }
        Ok(())
    }

    /// Ends the session, so that the next one is opened with the identity of now. Nothing is lost by it: what was under
    /// way is asked for again.
    fn dial_anew(&self) {
        if let Some(session) = &self.session {
            session.disconnect();
        }
    }

    fn begin_work(&mut self) -> Cancel {
        let cancel = Cancel::default();
        self.working = Some(cancel.clone());
        cancel
    }

    fn task(&self, task: Task) -> Result<(), AgentError> {
        self.tasks.send(task).map_err(|_| AgentError::WorkerGone)
    }

    fn send(&self, request: jobs::Request) {
        if let Some(session) = &self.session {
            session.send(request);
        }
    }

    fn ask_now(&mut self) {
        self.ask_at = None;
        if self.ask.attempts() == 0 {
            self.ask.next(0);
        }
        if self.session.is_some() {
            self.asked = true;
            let runs = self.machine.state().active.as_ref();
            let says = self
                .says
                .as_ref()
                .filter(|(image, _)| runs.is_some_and(|runs| runs.sha256 == *image));
            let says = says.map(|(_, says)| says.as_str());
            // Worse than anything that it may say of itself.
            let damage = self.machine.state().damage.as_deref();
            let says = damage.or(says);
            let finished = self.machine.state().finished.iter();
            self.send(jobs::ask(&self.thing, runs, says, finished));
        }
    }

    /// Asks the confirmed image how it is; when to ask again where there is none to ask. An image on trial is asked by
    /// whoever tries it.
    fn look_now(
        &self,
        done: &mpsc::Sender<(String, Verdict)>,
    ) -> Result<Option<Instant>, AgentError> {
        let state = self.machine.state();
        let (Some(image), None) = (&state.active, state.on_trial()) else {
            return Ok(self.looks.next());
        };
        self.looks.ask(image.clone(), done.clone())?;
        Ok(None)
    }

    /// Tells the server what is new, and that it is not well each time.
    fn looked(&mut self, image: String, verdict: Verdict) {
        let says = match verdict {
            Verdict::CalledOff => return,
            Verdict::Healthy => WELL.to_string(),
            Verdict::Sick(words) => {
                tracing::warn!("the confirmed image is not well: {words}");
                words
            }
        };
        let says = (image, says);
        let tell = says.1 != WELL || self.says.as_ref() != Some(&says);
        self.says = Some(says);
        // With a job in hand its end is followed by an ask.
        if tell && self.machine.is_idle() {
            self.ask_now();
        }
    }

    fn linked(&mut self, event: LinkEvent) -> Result<(), AgentError> {
        match event {
            LinkEvent::Up(session) => {
                self.session = Some(session);
                self.ask.reset();
                self.repeat.reset();
                self.feed(Event::Connected)
            }
            LinkEvent::Down => {
                self.session = None;
                self.asked = false;
                self.ask_at = None;
                Ok(())
            }
            LinkEvent::Message { topic, payload } => {
                match jobs::read(&self.thing, &topic, &payload) {
                    Some(incoming) => self.heard(incoming),
                    None => {
                        tracing::debug!("passed over a message on {topic}");
                        Ok(())
                    }
                }
            }
        }
    }

    fn heard(&mut self, incoming: Incoming) -> Result<(), AgentError> {
        let current = self
            .machine
            .state()
            .current
            .as_ref()
            .map(|current| current.job.clone());
        match incoming {
            Incoming::Next(head) => match current {
                // Ours may be gone; its own description says so.
                Some(current) if head.as_ref() != Some(&current) => {
                    self.carry_out(Effect::Describe(current))
                }
                None if head.is_some() && self.machine.is_idle() => {
                    self.ask_now();
                    Ok(())
                }
                _ => Ok(()),
            },
            Incoming::Started(execution) => {
                self.asked = false;
                match execution.filter(jobs::Execution::is_open) {
                    Some(execution) => self.offered(execution),
                    None => Ok(()),
                }
            }
            Incoming::Described(execution) => match current {
                Some(current)
                    if current.id == execution.job.id
                        && (current != execution.job || !execution.is_open()) =>
                {
                    self.feed(Event::Withdrawn(current))
                }
                _ => Ok(()),
            },
            Incoming::Gone(id) => match current {
                Some(current) if current.id == id => self.feed(Event::Withdrawn(current)),
                _ => Ok(()),
            },
            Incoming::Taken { job, last: true } => self.feed(Event::Acknowledged(job)),
            Incoming::Taken { last: false, .. } => Ok(()),
            Incoming::Refused {
                job,
                last,
                code,
                message,
            } => {
                tracing::warn!(
                    "the server refused a report of job {}: {code}: {message}",
                    job.id
                );
                match (last, code.as_str()) {
                    (true, code) if jobs::is_final_refusal(code) => {
                        self.feed(Event::Acknowledged(job))
                    }
                    (
                        false,
                        "TerminalStateReached" | "ResourceNotFound" | "InvalidStateTransition",
                    ) => self.feed(Event::Withdrawn(job)),
                    _ => Ok(()),
                }
            }
            Incoming::AskRefused { code, message } => {
                tracing::warn!("the server refused a request for jobs: {code}: {message}");
                Ok(())
            }
        }
    }

    /// A job as the server has it; when its window closes is said in this device's time.
    fn offered(&mut self, execution: jobs::Execution) -> Result<(), AgentError> {
        let mut order = execution.order;
        if let Ok(order) = &mut order
            && let Some(until) = &mut order.until
        {
            let (left, ends) = term::by_own_clock(*until, execution.said_at, &self.clock);
            if left < WINDOW_LEFT_MIN_SECONDS && self.machine.state().current.is_none() {
                return self.carry_out(Effect::Ask);
            }
            *until = ends;
        }
        self.feed(Event::Offered(execution.job, order))
    }

    /// Says again what awaits an answer, or asks when there is nothing to say.
    fn tick(&mut self) -> Result<(), AgentError> {
        if self.session.is_none() {
            return Ok(());
        }
        self.ask.reset();
        self.feed(Event::Connected)
    }

    /// How long until the next tick at the latest; `planned` is when it would come.
    fn next_tick(&mut self, planned: Instant) -> Duration {
        let left = planned.saturating_duration_since(Instant::now());
        let awaiting = self.session.is_some() && (self.asked || !self.machine.is_idle());
        if !awaiting {
            self.repeat.reset();
            return if left.is_zero() { IDLE_ASK } else { left };
        }
        if left.is_zero() || left > REPEAT.1 {
            return self.repeat.next(backoff::random());
        }
        left
    }

    /// Stops the installer and says goodbye. A verdict that came in at the last moment counts.
    async fn stop(
        mut self,
        events: &mut mpsc::Receiver<Event>,
        heard: &mut mpsc::Receiver<LinkEvent>,
    ) -> Result<(), AgentError> {
        self.looks.cancel.cancel();
        if let Some(working) = self.working.take() {
            working.cancel();
        }
        // The installer ends when nobody can give it tasks any more.
        let (tasks, _) = std::sync::mpsc::channel();
        drop(std::mem::replace(&mut self.tasks, tasks));
        let deadline = Instant::now() + STOP_WITHIN;
        while let Ok(Some(event)) = tokio::time::timeout_at(deadline, events.recv()).await {
            if matches!(event, Event::Judged(..) | Event::Undone(..)) {
                self.feed(event)?;
            }
        }
        if let Some(session) = self.session.take() {
            session.disconnect();
            let goodbye = async {
                while let Some(event) = heard.recv().await {
                    if matches!(event, LinkEvent::Down) {
                        return;
                    }
                }
            };
            let _ = tokio::time::timeout(GOODBYE_WITHIN, goodbye).await;
        }
        Ok(())
    }
}

/// The name must be one that a certificate can carry and both clients can dial.
pub(crate) fn check_server(server: &str) -> Result<(), AgentError> {
    let fault = |what: &str| AgentError::Server {
        server: server.into(),
        what: what.into(),
    };
    match ServerName::try_from(server) {
        Ok(ServerName::IpAddress(rustls::pki_types::IpAddr::V6(_))) => Err(fault(
            "an IPv6 address cannot be dialled by number; give a host name",
        )),
        Ok(_) => Ok(()),
        Err(_) => Err(fault(
            "not a host name; give the name alone, without scheme, port or path (--mqtt-port and --https-port say the ports)",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_name_alone() {
        for good in ["localhost", "muster.example", "192.0.2.7"] {
            check_server(good).unwrap();
        }
        for bad in [
            "",
            "https://muster.example",
            "muster.example:8883",
            "::1",
            "a b",
        ] {
            let said = check_server(bad).unwrap_err().to_string();
            assert!(said.contains("--server"), "{said}");
        }
    }
}
