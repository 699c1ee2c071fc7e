//! The update as a state machine: one event in, the next state and the effects to carry out.
//!
//! No file, socket, process or clock. The shell carries effects out in order and must not go on
//! past a [`Effect::Save`] that failed: what comes after it may only happen once the state is
//! durable. So a device killed between any two effects starts again from the last saved state
//! ([`Event::Started`]), ends on the old or the new image, and never tries one job's image more
//! than [`TRIAL_BOOTS_MAX`] times.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How often one image is tried before the device falls back: once, and once more when the
/// first trial was cut off (power, crash) before the health command answered.
pub const TRIAL_BOOTS_MAX: u32 = 2;

/// How many finished jobs are remembered, so that none is ever done twice.
pub const FINISHED_JOBS_MAX: usize = 32;

/// One of the two places an image lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// `slots/a`
    A,
    /// `slots/b`
    B,
}

impl Slot {
    /// The other slot.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// The directory name: `a` or `b`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// One execution of one job: what must not be done twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobKey {
    /// The job's id.
    pub id: String,
    /// The execution's number; a retry of the job has a higher one.
    pub execution: u64,
}

/// What a job asks for, as its document says it. Nothing in it is believed before the signed
/// manifest agrees.
pub type Order = ota::InstallDocument;

/// A verified image that lies complete in a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// Where it lies.
    pub slot: Slot,
    /// Firmware name, from the signed manifest.
    pub name: String,
    /// Firmware version, from the signed manifest.
    pub version: String,
    /// Security counter, from the signed manifest.
    pub counter: u64,
    /// SHA-256 of the image, lower-case hex.
    pub sha256: String,
}

/// How far the job in hand has come, as far as a restart must know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Being verified, downloaded, written to the idle slot. A restart begins it again; the
    /// download goes on where it stopped.
    Fetching,
    /// The image lies in its slot and its health is being asked for.
    Trial {
        /// The image on trial.
        image: Installed,
        /// How many times its trial has begun.
        boots: u32,
    },
}

/// The job in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// Which execution.
    pub job: JobKey,
    /// What it asks for.
    pub order: Order,
    /// How far it has come.
    pub phase: Phase,
}

/// The steps a device names in `statusDetails.step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Manifest and image are being fetched and checked.
    Downloading,
    /// The image is being written to the idle slot.
    Installing,
    /// The health command is running.
    Trial,
    /// The image was kept.
    Confirmed,
    /// The image was given up; the device runs what it ran before.
    FellBack,
}

impl Step {
    /// As in `statusDetails.step`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Downloading => "downloading",
            Self::Installing => "installing",
            Self::Trial => "trial",
            Self::Confirmed => "confirmed",
            Self::FellBack => "fell-back",
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Ending {
    /// The image runs and is confirmed.
    Succeeded,
    /// It could not be fetched or was not healthy.
    Failed,
    /// The device will not have it: not trusted, not signed, not for this hardware, going back.
    Rejected,
}

/// How a job ended, and in which words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The final status.
    pub ending: Ending,
    /// The last step.
    pub step: Step,
    /// Why, for a person.
    pub reason: String,
}

impl Outcome {
    /// Whether the image was never tried: the device would not have it, or what it got was not what was signed.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self.ending {
            Ending::Rejected => true,
            Ending::Failed => matches!(self.step, Step::Downloading | Step::Installing),
            Ending::Succeeded => false,
        }
    }
}

/// Why an image is not installed.
pub type Refusal = Outcome;

/// A job that is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Which execution.
    pub job: JobKey,
    /// How it ended.
    pub outcome: Outcome,
    /// Whether the server has acknowledged the report (or wants none).
    pub reported: bool,
}

/// All that survives a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The lowest security counter this device still takes; it never goes down.
    pub counter: u64,
    /// The confirmed image; `None` before the first.
    pub active: Option<Installed>,
    /// What is wrong with the confirmed image where it lies, if it is not what was signed any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<String>,
    /// The job in hand.
    pub current: Option<Current>,
    /// An image that was given up in its trial, while what starts images has yet to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Installed>,
    /// Jobs that are over, oldest first, at most [`FINISHED_JOBS_MAX`].
    pub finished: VecDeque<Finished>,
}

impl State {
    /// The slot a new image goes to.
    #[must_use]
    pub fn idle_slot(&self) -> Slot {
        self.active
            .as_ref()
            .map_or(Slot::A, |active| active.slot.other())
    }

    /// The image on trial, if one is.
    #[must_use]
    pub fn on_trial(&self) -> Option<&Installed> {
        match &self.current.as_ref()?.phase {
            Phase::Trial { image, .. } => Some(image),
            Phase::Fetching => None,
        }
    }
}

/// What the fetch of an image came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// A verified image lies in the idle slot.
    Installed(Installed),
    /// The very image asked for is the confirmed one already.
    AlreadyRunning,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent started and loaded its state. Always the first event.
    Started,
    /// A session with the server stands.
    Connected,
    /// The server offers a job execution. `Err` says why its document cannot be followed.
    Offered(JobKey, Result<Order, String>),
    /// The execution is no longer this device's to do (cancelled, timed out, removed).
    Withdrawn(JobKey),
    /// The fetch numbered so has come to a step.
    Progress(u64, Step),
    /// The fetch numbered so is over.
    Fetched(u64, Result<Fetched, Refusal>),
    /// The job's window closed before the image of the fetch numbered so could be installed.
    Late(u64),
    /// The health command of the trial numbered so answered; `Err` says how it failed.
    Judged(u64, Result<(), String>),
    /// The confirmed image was looked at where it lies; `Err` says what is wrong with it.
    Looked(Installed, Result<(), String>),
    /// What starts images was told that the image of the undoing numbered so was given up.
    Undone(u64),
    /// The server has the final report of this job, or wants none.
    Acknowledged(JobKey),
}

/// A status report to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// About which execution.
    pub job: JobKey,
    /// Its final status; `None` while in progress.
    pub ending: Option<Ending>,
    /// The step.
    pub step: Step,
    /// In words; empty when there is nothing to say.
    pub reason: String,
}

/// What to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make the state durable. Nothing after it may happen when it fails.
    Save,
    /// Verify, download and write to the idle slot; answer with [`Event::Fetched`] and `run`.
    Fetch {
        /// Number of this run.
        run: u64,
        /// What to fetch.
        order: Order,
    },
    /// Stop the running fetch; its answer will be ignored.
    StopFetch,
    /// Run the health command; answer with [`Event::Judged`] and `run`.
    Judge {
        /// Number of this run.
        run: u64,
        /// The image on trial.
        image: Installed,
        /// How many times its trial has begun.
        boots: u32,
    },
    /// See whether the confirmed image is what was signed; answer with [`Event::Looked`].
    Look(Installed),
    /// Have the image before this one started from now on; answer with [`Event::Undone`] and `run`.
    Undo {
        /// Number of this run.
        run: u64,
        /// The image that was given up.
        image: Installed,
    },
    /// Tell the server, if connected. Progress may be lost; a final report is repeated at the
    /// next [`Event::Connected`] until acknowledged.
    Report(Report),
    /// Ask the server for the next job, if connected.
    Ask,
    /// Ask the server how this execution stands, if connected.
    Describe(JobKey),
}

/// The machine: the durable state and the little that a restart may forget.
#[derive(Clone, Debug)]
pub struct Machine {
    state: State,
    run: u64,
    step: Step,
    /// Whether there is anything to tell of an image that was given up.
    undoes: bool,
}

impl Machine {
    /// A machine over the state as loaded; feed it [`Event::Started`] first.
    #[must_use]
    pub fn new(state: State) -> Self {
        Self {
            state,
            run: 0,
            step: Step::Downloading,
            undoes: false,
        }
    }

    /// With something that must be told when an image was given up in its trial.
    #[must_use]
    pub fn that_undoes(mut self, undoes: bool) -> Self {
        self.undoes = undoes;
        self
    }

    /// The state to save.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Whether the agent has nothing in hand and nothing to report.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.state.current.is_none()
            && self.state.undo.is_none()
            && self.state.finished.iter().all(|job| job.reported)
    }

    /// Takes one event; returns what to do, in order.
    pub fn handle(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Started => self.started(),
            Event::Connected => self.connected(),
            Event::Offered(job, order) => self.offered(job, order),
            Event::Withdrawn(job) => self.withdrawn(&job),
            Event::Progress(run, step) => self.progress(run, step),
            Event::Fetched(run, result) if run == self.run => self.fetched(result),
            Event::Late(run) if run == self.run => self.late(),
            Event::Judged(run, result) if run == self.run => self.judged(result),
            Event::Undone(run) if run == self.run => self.undone(),
            Event::Looked(image, result) => self.looked(&image, result.err()),
            // Answers of a run that was stopped.
            Event::Fetched(..) | Event::Late(..) | Event::Judged(..) | Event::Undone(..) => {
                Vec::new()
            }
            Event::Acknowledged(job) => self.acknowledged(&job),
        }
    }

    fn started(&mut self) -> Vec<Effect> {
        let mut effects = self.resumed();
        effects.extend(self.state.active.clone().map(Effect::Look));
        effects
    }

    fn looked(&mut self, image: &Installed, damage: Option<String>) -> Vec<Effect> {
        if self.state.active.as_ref() != Some(image) || self.state.damage == damage {
            return Vec::new();
        }
        self.state.damage = damage;
        let mut effects = vec![Effect::Save];
        if self.is_idle() {
            // The server hears of it with the question; a job's end is followed by one too.
            effects.push(Effect::Ask);
        }
        effects
    }

    fn resumed(&mut self) -> Vec<Effect> {
        if let Some(image) = self.state.undo.clone() {
            return vec![self.undo(image)];
        }
        let Some(current) = &mut self.state.current else {
            return Vec::new();
        };
        match &mut current.phase {
            // Its window may have closed meanwhile, and what time it is here nobody knows: the server is asked first.
            Phase::Fetching if current.order.until.is_some() => self.let_go(),
            Phase::Fetching => {
                let order = current.order.clone();
                vec![self.fetch(order)]
            }
            Phase::Trial { boots, image } if *boots >= TRIAL_BOOTS_MAX => {
                let image = image.clone();
                self.give_up(
                    image,
                    format!(
                        "the trial was cut off {TRIAL_BOOTS_MAX} times before the health command answered"
                    ),
                )
            }
            Phase::Trial { image, boots } => {
                *boots += 1;
                let (image, boots) = (image.clone(), *boots);
                self.judge(image, boots)
            }
        }
    }

    fn connected(&mut self) -> Vec<Effect> {
        if self.is_idle() {
            return vec![Effect::Ask];
        }
        let mut effects: Vec<Effect> = self
            .state
            .finished
            .iter()
            .filter(|job| !job.reported)
            .map(|job| Effect::Report(final_report(job)))
            .collect();
        if let Some(current) = &self.state.current {
            // It may have been cancelled while the device was away.
            effects.push(Effect::Describe(current.job.clone()));
            effects.push(Effect::Report(self.progress_report(current)));
        }
        effects
    }

    fn offered(&mut self, job: JobKey, order: Result<Order, String>) -> Vec<Effect> {
        if self.state.undo.is_some() {
            // The one before first. The server offers it again.
            return Vec::new();
        }
        if let Some(current) = &self.state.current {
            // One update at a time. The server's head moved: ours may be gone.
            return if current.job == job {
                Vec::new()
            } else {
                vec![Effect::Describe(current.job.clone())]
            };
        }
        if let Some(finished) = self.state.finished.iter_mut().find(|past| past.job == job) {
            // The report was lost, or the server went back to an older copy of itself: say it
            // again, do not do it again.
            let report = final_report(finished);
            if !finished.reported {
                return vec![Effect::Report(report)];
            }
            finished.reported = false;
            return vec![Effect::Save, Effect::Report(report)];
        }
        match order {
            Err(reason) => self.finish_job(
                job,
                Outcome {
                    ending: Ending::Rejected,
                    step: Step::Downloading,
                    reason,
                },
            ),
            Ok(order) => {
                let current = Current {
                    job,
                    order: order.clone(),
                    phase: Phase::Fetching,
                };
                self.step = Step::Downloading;
                let report = self.progress_report(&current);
                self.state.current = Some(current);
                vec![Effect::Save, Effect::Report(report), self.fetch(order)]
            }
        }
    }

    fn withdrawn(&mut self, job: &JobKey) -> Vec<Effect> {
        if self
            .state
            .current
            .as_ref()
            .is_none_or(|current| current.job != *job || current.phase != Phase::Fetching)
        {
            // A trial runs to its end: the slot it runs from is decided by its health, and the
            // report says what is true. A finished job needs no report any more.
            return self.acknowledged(job);
        }
        let mut effects = vec![Effect::StopFetch];
        effects.append(&mut self.let_go());
        effects
    }

    /// The job is out of the hand before anything came of it. The same execution may be offered again, in its next
    /// window, and is then begun like any other; what was fetched is there still.
    fn let_go(&mut self) -> Vec<Effect> {
        self.state.current = None;
        self.run += 1;
        vec![Effect::Save, Effect::Ask]
    }

    fn late(&mut self) -> Vec<Effect> {
        match &self.state.current {
            Some(current) if current.phase == Phase::Fetching => self.let_go(),
            _ => Vec::new(),
        }
    }

    fn progress(&mut self, run: u64, step: Step) -> Vec<Effect> {
        if run != self.run || step == self.step {
            return Vec::new();
        }
        let Some(current) = &self.state.current else {
            return Vec::new();
        };
        self.step = step;
        vec![Effect::Report(self.progress_report(current))]
    }

    fn fetched(&mut self, result: Result<Fetched, Refusal>) -> Vec<Effect> {
        let Some(current) = &mut self.state.current else {
            return Vec::new();
        };
        if current.phase != Phase::Fetching {
            return Vec::new();
        }
        let image = match result {
            Err(refusal) => return self.finish(refusal),
            Ok(Fetched::AlreadyRunning) => {
                self.state.damage = None;
                return self.finish(Outcome {
                    ending: Ending::Succeeded,
                    step: Step::Confirmed,
                    reason: "this image was confirmed here before".into(),
                });
            }
            Ok(Fetched::Installed(image)) => image,
        };
        // The verifier has refused this already; the floor is guarded here once more.
        if image.counter < self.state.counter {
            let reason = lower_counter(image.counter, self.state.counter);
            return self.finish(Outcome {
                ending: Ending::Rejected,
                step: Step::Downloading,
                reason,
            });
        }
        current.phase = Phase::Trial {
            image: image.clone(),
            boots: 1,
        };
        self.step = Step::Trial;
        let mut effects = self.judge(image, 1);
        if let Some(current) = &self.state.current {
            effects.insert(1, Effect::Report(self.progress_report(current)));
        }
        effects
    }

    fn judged(&mut self, result: Result<(), String>) -> Vec<Effect> {
        let Some(image) = self.state.on_trial().cloned() else {
            return Vec::new();
        };
        match result {
            Ok(()) => {
                self.state.counter = self.state.counter.max(image.counter);
                self.state.active = Some(image);
                self.state.damage = None;
                self.finish(Outcome {
                    ending: Ending::Succeeded,
                    step: Step::Confirmed,
                    reason: String::new(),
                })
            }
            Err(reason) => self.give_up(image, reason),
        }
    }

    /// The trial ended badly: what runs is what ran before.
    fn give_up(&mut self, image: Installed, reason: String) -> Vec<Effect> {
        if self.undoes {
            self.state.undo = Some(image.clone());
        }
        let mut effects = self.finish(Outcome {
            ending: Ending::Failed,
            step: Step::FellBack,
            reason,
        });
        if self.undoes {
            // It is on the disk by then that this is to be done.
            effects.push(self.undo(image));
        }
        effects
    }

    fn undo(&mut self, image: Installed) -> Effect {
        self.run += 1;
        Effect::Undo {
            run: self.run,
            image,
        }
    }

    fn undone(&mut self) -> Vec<Effect> {
        self.state.undo = None;
        let mut effects = vec![Effect::Save];
        if self.is_idle() {
            effects.push(Effect::Ask);
        }
        effects
    }

    fn acknowledged(&mut self, job: &JobKey) -> Vec<Effect> {
        let Some(finished) = self
            .state
            .finished
            .iter_mut()
            .find(|past| past.job == *job && !past.reported)
        else {
            return Vec::new();
        };
        finished.reported = true;
        let mut effects = vec![Effect::Save];
        if self.is_idle() {
            effects.push(Effect::Ask);
        }
        effects
    }

    fn fetch(&mut self, order: Order) -> Effect {
        self.run += 1;
        self.step = Step::Downloading;
        Effect::Fetch {
            run: self.run,
            order,
        }
    }

    /// Saves the trial before it begins: a device that dies in it knows on its return.
    fn judge(&mut self, image: Installed, boots: u32) -> Vec<Effect> {
        self.run += 1;
        self.step = Step::Trial;
        vec![
            Effect::Save,
            Effect::Judge {
                run: self.run,
                image,
                boots,
            },
        ]
    }

    fn finish(&mut self, outcome: Outcome) -> Vec<Effect> {
        let Some(current) = self.state.current.take() else {
            return Vec::new();
        };
        self.finish_job(current.job, outcome)
    }

    fn finish_job(&mut self, job: JobKey, outcome: Outcome) -> Vec<Effect> {
        self.run += 1;
        let finished = Finished {
            job,
            outcome,
            reported: false,
        };
        let report = final_report(&finished);
        self.remember(finished);
        vec![Effect::Save, Effect::Report(report)]
    }

    fn remember(&mut self, finished: Finished) {
        while self.state.finished.len() >= FINISHED_JOBS_MAX {
            self.state.finished.pop_front();
        }
        self.state.finished.push_back(finished);
    }

    fn progress_report(&self, current: &Current) -> Report {
        Report {
            job: current.job.clone(),
            ending: None,
            step: self.step,
            reason: String::new(),
        }
    }
}

fn final_report(finished: &Finished) -> Report {
    Report {
        job: finished.job.clone(),
        ending: Some(finished.outcome.ending),
        step: finished.outcome.step,
        reason: finished.outcome.reason.clone(),
    }
}

/// The words for an image whose counter is below the device's floor.
#[must_use]
pub fn lower_counter(image: u64, floor: u64) -> String {
    format!(
        "security counter {image} is lower than {floor}, which this device has already confirmed"
    )
}

#[cfg(test)]
#[path = "update_tests.rs"]
mod tests;
