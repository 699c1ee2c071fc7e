//! What can happen to an execution, and what the thing is told of it. Everything that changes one goes
//! through [`Changes`], which keeps its row, its indexes, its job's count and the notifications together.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Message;
use super::create_job::MANY;
use super::health::ToTell;
use super::job_events::{JobEvent, Tells};
use super::jobs::cancel;
use super::pictures::News;
use super::queue::Queue;
use super::records::{
    Execution, Firmware, Install, Job, JobRef, JobStatus, Newest, RolloutRow, Runs, key,
};
use super::transaction::Transaction;
use crate::job::{ExecutionStatus, JobExecution, NotifyMessage, NotifyNextMessage, StatusDetails};
use crate::rollout::{HELD, Offer, RolloutState, is_withdrawn};
use crate::{Error, FirmwareName, FirmwareVersion, JobId, RolloutId};

/// Most executions listed for a thing, of each status.
pub(super) const MAX_LISTED: usize = 100;
/// Most executions of each status in a notification (AWS IoT: 10).
pub(super) const MAX_NOTIFIED: usize = 10;

/// Time as the room uses it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// Seconds since 1970.
    pub(super) seconds: u64,
    /// Milliseconds since 1970.
    pub(super) millis: u64,
}

/// Changes in the making: a transaction and what follows once it is durable.
pub(super) struct Changes<'t> {
    pub(super) rows: Transaction<'t>,
    pub(super) now: Now,
    /// For each list touched, its head before the first change: the job, and which try of it.
    touched: BTreeMap<Queue, Option<(JobId, u64)>>,
    /// The lists of which more than the order changed.
    listed: BTreeSet<Queue>,
    /// The rollouts to look at again.
    pub(super) rollouts: BTreeSet<RolloutId>,
    /// What the pictures of rollouts must show.
    pub(super) news: Vec<News>,
    /// Whether a job was cancelled or deleted, and its executions have yet to follow.
    pub(super) unfinished: bool,
    /// What the registry must be told of what things run.
    pub(super) telling: Vec<(String, ToTell)>,
    /// Things that say they are not well.
    pub(super) unwell: BTreeSet<String>,
    /// The rollouts that were looked at, and whether each is undone.
    turned: BTreeMap<RolloutId, bool>,
    /// Where devices reach this server's HTTPS.
    pub(super) address: &'t str,
    /// Which events are wanted, and those there are.
    pub(super) tells: Tells,
    pub(super) events: Vec<JobEvent>,
}

/// What the words begin with of an execution whose thing a newer rollout has taken over.
const SUPERSEDED: &str = "superseded by rollout ";

fn superseded_by(rollout: &RolloutId) -> String {
    format!("{SUPERSEDED}{rollout}")
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Malformed {
        what: "message",
        why: error.to_string(),
    })
}

fn is_undone(
    rows: &mut Transaction<'_>,
    known: &mut BTreeMap<RolloutId, bool>,
    rollout: &RolloutId,
) -> Result<bool, Error> {
    if let Some(undone) = known.get(rollout) {
        return Ok(*undone);
    }
    let row: Option<RolloutRow> = rows.get(&key::rollout(rollout))?;
    let undone = row.is_some_and(|row| row.undone % 2 == 1);
    known.insert(rollout.clone(), undone);
    Ok(undone)
}

impl<'t> Changes<'t> {
    pub(super) const fn new(
        rows: Transaction<'t>,
        now: Now,
        tells: Tells,
        address: &'t str,
    ) -> Self {
        Self {
            rows,
            now,
            touched: BTreeMap::new(),
            listed: BTreeSet::new(),
            rollouts: BTreeSet::new(),
            news: Vec::new(),
            unfinished: false,
            telling: Vec::new(),
            unwell: BTreeSet::new(),
            turned: BTreeMap::new(),
            tells,
            address,
            events: Vec::new(),
        }
    }

    /// The execution of `job` on `thing`.
    pub(super) fn execution(
        &mut self,
        job: &JobId,
        thing: &str,
    ) -> Result<Option<Execution>, Error> {
        self.rows.get(&key::execution(job, thing))
    }

    pub(super) fn job(&mut self, job: &JobId) -> Result<Option<Job>, Error> {
        self.rows.get(&key::job(job))
    }

    fn touch(&mut self, queue: Queue) -> Result<(), Error> {
        if !self.touched.contains_key(&queue) {
            // One that has just come to be outside its window is what the thing was told last.
            let head = match self.pending(&queue, 1)?.pop() {
                Some((_, job)) => self.execution(&job, &queue.thing)?,
                None => None,
            };
            let head = head.map(|head| (head.job, head.number));
            self.touched.insert(queue, head);
        }
        Ok(())
    }

    /// Queues `job` for `thing`; nothing where it has an execution of it already. A thing that is not in
    /// the registry any more gets one that is over.
    pub(super) fn queue(&mut self, job: &mut Job, thing: &str, exists: bool) -> Result<(), Error> {
        let offer = Offer {
            thing: thing.to_owned(),
            attempt: 1,
            until: None,
        };
        self.offer(job, &offer, exists)
    }

    /// Queues `job` for `thing`, once more where it had it and that is over.
    pub(super) fn tell(&mut self, job: &mut Job, thing: &str) -> Result<(), Error> {
        let old = self.execution(&job.id, thing)?;
        let number = old.map_or(0, |old| old.number);
        let offer = Offer {
            thing: thing.to_owned(),
            attempt: u32::try_from(number + 1).unwrap_or(u32::MAX),
            until: None,
        };
        self.offer(job, &offer, true)
    }

    /// Queues `job` as `offer` says; nothing where that try was offered already and is not shut.
    pub(super) fn offer(
        &mut self,
        job: &mut Job,
        offer: &Offer,
        exists: bool,
    ) -> Result<(), Error> {
        let thing = &*offer.thing;
        let old = self.execution(&job.id, thing)?;
        let number = u64::from(offer.attempt);
        let now = self.now;
        match &old {
            Some(old) if old.number == number && old.is_shut(now.seconds) => {}
            Some(old) if old.number < number && old.status.is_terminal() => {}
            Some(_) => return Ok(()),
            None => {}
        }
        if let Some(old) = old.as_ref().filter(|old| old.number < number) {
            self.keep_try(old)?;
        }
        let queue = Queue {
            thing: thing.to_owned(),
            namespace: job.namespace.clone(),
        };
        self.touch(queue.clone())?;
        let was_open = old.as_ref().is_some_and(|old| !old.status.is_terminal());
        if let Some(deadline) = old.as_ref().and_then(Execution::deadline) {
            self.rows
                .delete(format!("{}{deadline:016}/{}/{thing}", key::DUE, job.id));
        }
        if let Some(old) = &old {
            self.rows.delete(key::pending(old));
        }
        let (superseded, mut over) = match &job.install {
            Some(install) if exists => self.supersede(install, thing)?,
            _ => (None, Vec::new()),
        };
        over.extend(
            old.as_ref()
                .map_or(&[][..], |old| &old.over)
                .iter()
                .cloned(),
        );
        let before = match &job.install {
            Some(install) => {
                self.rows.put(
                    key::fetch(thing, &install.name, &install.version),
                    &JobRef {
                        job: job.id.clone(),
                    },
                )?;
                self.goes_back_to(thing, install)?
            }
            None => None,
        };
        let status = match (exists, &superseded) {
            (false, _) => ExecutionStatus::Removed,
            (true, Some(_)) => ExecutionStatus::Canceled,
            (true, None) => ExecutionStatus::Queued,
        };
        let same_try = old.as_ref().filter(|old| old.number == number);
        let execution = Execution {
            job: job.id.clone(),
            thing: thing.to_owned(),
            status,
            details: superseded
                .map(|by| StatusDetails::from([("reason".to_owned(), superseded_by(&by))])),
            queued_at: now.seconds,
            started_at: None,
            last_updated_at: now.seconds,
            version_number: same_try.map_or(1, |old| old.version_number + 1),
            force_canceled: false,
            job_deadline: None,
            step_deadline: None,
            order: now.millis,
            before,
            namespace: job.namespace.clone(),
            number,
            until: offer.until,
            over,
        };
        let is_open = status == ExecutionStatus::Queued;
        if is_open {
            self.rows.put(
                key::pending(&execution),
                &JobRef {
                    job: job.id.clone(),
                },
            )?;
            if let Some(until) = execution.deadline() {
                self.rows.put(
                    key::due(until, &execution),
                    &JobRef {
                        job: job.id.clone(),
                    },
                )?;
            }
        }
        job.open = (job.open + u64::from(is_open)).saturating_sub(u64::from(was_open));
        // One that had left and came back has no end any more.
        match old.as_ref().map(|old| old.status) {
            Some(ExecutionStatus::Canceled) => {
                job.ends.canceled = job.ends.canceled.saturating_sub(1);
            }
            Some(ExecutionStatus::Removed) => {
                job.ends.removed = job.ends.removed.saturating_sub(1);
            }
            _ => {}
        }
        job.ends.canceled += u64::from(status == ExecutionStatus::Canceled);
        job.ends.removed += u64::from(status == ExecutionStatus::Removed);
        if !is_open {
            self.tell_end(&execution);
        }
        self.listed.insert(queue);
        if let Some(install) = &job.install {
            self.news.push(News::Execution {
                install: install.clone(),
                execution: Box::new(execution.clone()),
            });
        }
        self.rows.put(key::execution(&job.id, thing), &execution)
    }

    /// The version a thing can be brought back to once it has what `install` brings.
    fn goes_back_to(
        &mut self,
        thing: &str,
        install: &Install,
    ) -> Result<Option<FirmwareVersion>, Error> {
        let runs: Option<Runs> = self.rows.get(&key::runs(thing, &install.name))?;
        let Some(runs) = runs else {
            return Ok(None);
        };
        let (rows, turned) = (RefCell::new(&mut self.rows), &mut self.turned);
        let is_kept = |version: &FirmwareVersion| {
            let row = key::firmware(&install.name, version);
            Ok(rows.borrow_mut().get::<Firmware>(&row)?.is_some())
        };
        let undone = |rollout: &RolloutId| is_undone(&mut rows.borrow_mut(), turned, rollout);
        runs.before(install, is_kept, undone)
    }

    /// Whether a rollout is turned round.
    pub(super) fn is_undone(&mut self, rollout: &RolloutId) -> Result<bool, Error> {
        is_undone(&mut self.rows, &mut self.turned, rollout)
    }

    /// A newer rollout takes a thing over: what older ones have queued for it is cancelled (the jobs are told), and an older
    /// one that comes later is told which has gone before it.
    fn supersede(
        &mut self,
        install: &Install,
        thing: &str,
    ) -> Result<(Option<RolloutId>, Vec<JobId>), Error> {
        let mut over = Vec::new();
        let newest_key = key::newest(thing, &install.name);
        let newest: Option<Newest> = self.rows.get(&newest_key)?;
        let newer = newest
            .map(|newest| newest.rollout)
            .filter(|newest| *newest > install.rollout);
        // On the way back only what is still open counts: one that is over has left the thing as it was.
        if let Some(newer) = newer {
            let open = self.installs(thing, &install.name)?;
            let at_it = open.iter().any(|(_, other)| other.rollout == newer);
            if at_it || (!install.back && !self.is_gone(&newer, thing, &install.name)?) {
                return Ok((Some(newer), over));
            }
            if install.back {
                return Ok((None, over));
            }
        }
        self.rows.put(
            newest_key,
            &Newest {
                rollout: install.rollout.clone(),
            },
        )?;
        for (job, other) in self.installs(thing, &install.name)? {
            if other.rollout >= install.rollout {
                continue;
            }
            if let Some(execution) = self
                .execution(&job, thing)?
                .filter(|execution| execution.status == ExecutionStatus::Queued)
            {
                let why = superseded_by(&install.rollout);
                over.push(job);
                self.update(&execution, |execution| {
                    execution.status = ExecutionStatus::Canceled;
                    execution.details = Some(StatusDetails::from([("reason".to_owned(), why)]));
                })?;
            }
        }
        Ok((None, over))
    }

    /// What an execution that was stopped before it began has taken a thing over from comes again, where that was not
    /// stopped as well: like what was told in a window that has closed, so that it goes out as its rollout does.
    pub(super) fn reinstate(&mut self, stopped: &Execution) -> Result<(), Error> {
        let mut over = stopped.over.clone();
        while let Some(id) = over.pop() {
            let Some(old) = self.execution(&id, &stopped.thing)? else {
                continue;
            };
            let said = old.details.as_ref().and_then(|said| said.get("reason"));
            let taken = said.is_some_and(|said| said.starts_with(SUPERSEDED));
            let Some(mut job) = self.job(&id)? else {
                continue;
            };
            let Some(install) = job.install.clone() else {
                continue;
            };
            if old.status != ExecutionStatus::Canceled || !taken {
                continue;
            }
            let row: Option<RolloutRow> = self.rows.get(&key::rollout(&install.rollout))?;
            if row.is_none_or(|row| is_withdrawn(&row.id, row.state, row.turn(), &id)) {
                over.extend(old.over);
                continue;
            }
            let again = Execution {
                status: ExecutionStatus::Queued,
                details: None,
                until: Some(HELD),
                version_number: old.version_number + 1,
                last_updated_at: self.now.seconds,
                ..old
            };
            job.open += 1;
            job.ends.canceled = job.ends.canceled.saturating_sub(1);
            self.put_job(&job)?;
            self.rows.put(key::execution(&id, &again.thing), &again)?;
            self.rollouts.insert(install.rollout.clone());
            self.news.push(News::Execution {
                install,
                execution: Box::new(again),
            });
            return Ok(());
        }
        Ok(())
    }

    /// Whether a rollout was stopped or undone, and has not left its version on a thing.
    fn is_gone(
        &mut self,
        rollout: &RolloutId,
        thing: &str,
        name: &FirmwareName,
    ) -> Result<bool, Error> {
        let row: Option<RolloutRow> = self.rows.get(&key::rollout(rollout))?;
        let stopped = row.is_none_or(|row| {
            matches!(
                row.state,
                RolloutState::Aborted | RolloutState::RollingBack | RolloutState::RolledBack
            )
        });
        let runs: Option<Runs> = self.rows.get(&key::runs(thing, name))?;
        let left = runs.and_then(Runs::owner);
        Ok(stopped && left.as_ref() != Some(rollout))
    }

    /// The installs of a firmware that a thing has before it.
    fn installs(
        &mut self,
        thing: &str,
        name: &FirmwareName,
    ) -> Result<Vec<(JobId, Install)>, Error> {
        let mut installs = Vec::new();
        // Rollouts have no namespace.
        let own = Queue {
            thing: thing.to_owned(),
            namespace: None,
        };
        for (_, id) in self.pending(&own, MANY)? {
            let install = self.job(&id)?.and_then(|job| job.install);
            installs.extend(
                install
                    .filter(|install| install.name == *name)
                    .map(|install| (id, install)),
            );
        }
        Ok(installs)
    }

    /// The window of an execution has closed: the thing is not told of it any more. One whose device was no further
    /// than downloading waits for the next window like those that had not begun; what it fetched it has.
    pub(super) fn shut(&mut self, execution: &Execution) -> Result<(), Error> {
        self.touch(Queue::of(execution))?;
        self.listed.insert(Queue::of(execution));
        self.rows.delete(key::pending(execution));
        if let Some(deadline) = execution.deadline() {
            self.rows.delete(key::due(deadline, execution));
        }
        let install = self.job(&execution.job)?.and_then(|job| job.install);
        if execution.status == ExecutionStatus::InProgress {
            let shut = Execution {
                status: ExecutionStatus::Queued,
                job_deadline: None,
                step_deadline: None,
                version_number: execution.version_number + 1,
                last_updated_at: self.now.seconds,
                ..execution.clone()
            };
            self.rows
                .put(key::execution(&shut.job, &shut.thing), &shut)?;
            if let Some(install) = &install {
                self.news.push(News::Execution {
                    install: install.clone(),
                    execution: Box::new(shut),
                });
            }
        }
        self.rollouts.extend(install.map(|install| install.rollout));
        Ok(())
    }

    /// The rollout of an execution is paused: the thing is not told of it any more, until it is offered
    /// again. One in progress goes on.
    pub(super) fn hold(&mut self, job: &JobId, thing: &str) -> Result<(), Error> {
        let now = self.now.seconds;
        let told = |execution: &Execution| {
            execution.status == ExecutionStatus::Queued && !execution.is_shut(now)
        };
        let Some(mut execution) = self.execution(job, thing)?.filter(told) else {
            return Ok(());
        };
        self.shut(&execution)?;
        execution.until = Some(HELD);
        if let Some(install) = self.job(job)?.and_then(|job| job.install) {
            self.news.push(News::Execution {
                install,
                execution: Box::new(execution.clone()),
            });
        }
        self.rows.put(key::execution(job, thing), &execution)
    }

    /// Takes back what a thing was told by rollouts that were stopped or turned round since, and holds what it was told by
    /// those that are paused. Done when it asks, as the room's thread may not have come to it yet: from the moment on at
    /// which a person, or a rule, has stopped a rollout nobody else begins.
    pub(super) fn take_back(&mut self, queue: &Queue) -> Result<(), Error> {
        if queue.namespace.is_some() {
            // Rollouts have none.
            return Ok(());
        }
        let all = key::pending_of(&queue.thing, None);
        let queued = format!("{all}{}/", key::QUEUED);
        for row in self.rows.keys(&queued, MAX_LISTED)? {
            if let Some((_, id)) = key::of_pending(&row) {
                self.take_back_job(&id, &queue.thing)?;
            }
        }
        Ok(())
    }

    /// The same of one job.
    pub(super) fn take_back_job(&mut self, id: &JobId, thing: &str) -> Result<(), Error> {
        let Some(install) = self.job(id)?.and_then(|job| job.install) else {
            return Ok(());
        };
        let row: Option<RolloutRow> = self.rows.get(&key::rollout(&install.rollout))?;
        match row {
            Some(row) if is_withdrawn(&row.id, row.state, row.turn(), id) => {
                cancel(self, id, &[thing.to_owned()], false)
            }
            Some(row) if row.state == RolloutState::Paused => self.hold(id, thing),
            Some(_) if !install.back => {
                // Every device would refuse it, and that says nothing of the version.
                let row = key::firmware(&install.name, &install.version);
                let firmware: Option<Firmware> = self.rows.get(&row)?;
                match firmware.filter(|firmware| firmware.expires <= self.now.seconds) {
                    Some(_) => self.hold(id, thing),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    /// A device says that an install succeeded whose execution had been given up: what it runs is known,
    /// the execution stays as it was.
    pub(super) fn learn(&mut self, execution: &Execution) -> Result<(), Error> {
        if let Some(install) = self.job(&execution.job)?.and_then(|job| job.install) {
            self.runs(execution, &install)?;
            self.rollouts.insert(install.rollout);
        }
        Ok(())
    }

    /// Replaces `old` by what `change` makes of it, counting its version up.
    pub(super) fn update(
        &mut self,
        old: &Execution,
        change: impl FnOnce(&mut Execution),
    ) -> Result<Execution, Error> {
        self.touch(Queue::of(old))?;
        let mut new = old.clone();
        change(&mut new);
        new.version_number += 1;
        new.last_updated_at = self.now.seconds;
        let began =
            new.status == ExecutionStatus::InProgress && old.status == ExecutionStatus::Queued;
        let ended = new.status.is_terminal() && !old.status.is_terminal();
        if new.status != ExecutionStatus::Queued
            && new.started_at.is_none()
            && !matches!(
                new.status,
                ExecutionStatus::Canceled | ExecutionStatus::Removed
            )
        {
            new.started_at = Some(self.now.seconds);
        }
        let mut job = self.job(&old.job)?;
        let mut again = false;
        if began {
            let minutes = job.as_ref().and_then(|job| job.timeout_minutes);
            new.job_deadline =
                minutes.map(|minutes| self.now.seconds.saturating_add(u64::from(minutes) * 60));
            if let Some(install) = job.as_ref().and_then(|job| job.install.as_ref()) {
                // Another install may have come between the queueing and now.
                new.before = self.goes_back_to(&new.thing, install)?;
            }
        }
        if let Some(deadline) = old.deadline() {
            self.rows.delete(key::due(deadline, old));
        }
        if let Some(deadline) = new.deadline() {
            self.rows.put(
                key::due(deadline, &new),
                &JobRef {
                    job: new.job.clone(),
                },
            )?;
        }
        self.rows.delete(key::pending(old));
        if ended {
            self.listed.insert(Queue::of(&new));
            again = job.as_ref().is_some_and(|job| {
                let retries = u64::from(job.config.retries(new.status));
                job.install.is_none()
                    && job.status == JobStatus::InProgress
                    && new.number <= retries
            });
            self.tell_end(&new);
            self.end(&new, job.as_mut(), again)?;
        } else {
            self.rows.put(
                key::pending(&new),
                &JobRef {
                    job: new.job.clone(),
                },
            )?;
        }
        if let Some(install) = job.as_ref().and_then(|job| job.install.clone()) {
            self.rollouts.insert(install.rollout.clone());
            self.news.push(News::Execution {
                install,
                execution: Box::new(new.clone()),
            });
        }
        self.rows.put(key::execution(&new.job, &new.thing), &new)?;
        if let Some(mut job) = job.filter(|_| again) {
            let offer = Offer {
                thing: new.thing.clone(),
                attempt: u32::try_from(new.number + 1).unwrap_or(u32::MAX),
                until: None,
            };
            self.offer(&mut job, &offer, true)?;
            self.put_job(&job)?;
        }
        Ok(new)
    }

    /// An execution is over: what its job and the thing's record learn from it.
    fn end(
        &mut self,
        execution: &Execution,
        job: Option<&mut Job>,
        again: bool,
    ) -> Result<(), Error> {
        let Some(job) = job else { return Ok(()) };
        job.open = job.open.saturating_sub(1);
        job.last_updated_at = self.now.seconds;
        if !again {
            match execution.status {
                ExecutionStatus::Succeeded => job.ends.succeeded += 1,
                ExecutionStatus::Failed => job.ends.failed += 1,
                ExecutionStatus::Rejected => job.ends.rejected += 1,
                ExecutionStatus::TimedOut => job.ends.timed_out += 1,
                ExecutionStatus::Canceled => job.ends.canceled += 1,
                ExecutionStatus::Removed => job.ends.removed += 1,
                ExecutionStatus::Queued | ExecutionStatus::InProgress => {}
            }
        }
        let why = job.config.aborts(&job.ends);
        if let Some(why) = why.filter(|_| job.status == JobStatus::InProgress) {
            job.status = JobStatus::Canceled;
            job.reason_code = Some("AbortCriteriaMet".into());
            job.comment = Some(why);
            job.completed_at = Some(self.now.seconds);
            self.give_up(job)?;
            self.unfinished = true;
        }
        if job.is_used_up() && !again && job.status == JobStatus::InProgress {
            job.status = JobStatus::Completed;
            job.completed_at = Some(self.now.seconds);
        }
        if let Some(install) = job
            .install
            .as_ref()
            .filter(|_| execution.status == ExecutionStatus::Succeeded)
        {
            self.runs(execution, install)?;
        }
        if execution.status == ExecutionStatus::Succeeded {
            self.brought_packages(&execution.thing, &job.packages)?;
        }
        self.put_job(job)
    }

    /// An execution as the device sees it.
    pub(super) fn shown(
        &mut self,
        execution: &Execution,
        with_document: bool,
    ) -> Result<JobExecution, Error> {
        let document = if with_document {
            self.document(execution)?
        } else {
            None
        };
        Ok(JobExecution {
            job_id: execution.job.to_string(),
            thing_name: execution.thing.clone(),
            job_document: document,
            status: execution.status,
            status_details: execution.details.clone(),
            queued_at: execution.queued_at,
            started_at: execution.started_at,
            last_updated_at: execution.last_updated_at,
            version_number: execution.version_number,
            execution_number: execution.number,
            approximate_seconds_before_timed_out: execution
                .times_out_at()
                .map(|deadline| deadline.saturating_sub(self.now.seconds)),
        })
    }

    /// What the touched things are told: `notify` where their list changed, `notify-next` where another
    /// execution is the next one.
    pub(super) fn notifications(&mut self) -> Result<Vec<Message>, Error> {
        let mut messages = Vec::new();
        for (queue, old_head) in std::mem::take(&mut self.touched) {
            if self.listed.contains(&queue) {
                let list = self.list(&queue, MAX_NOTIFIED)?;
                let jobs = [
                    (ExecutionStatus::InProgress, list.in_progress_jobs),
                    (ExecutionStatus::Queued, list.queued_jobs),
                ];
                let jobs = jobs
                    .into_iter()
                    .filter(|(_, jobs)| !jobs.is_empty())
                    .collect();
                let message = NotifyMessage {
                    jobs,
                    timestamp: self.now.seconds,
                };
                messages.push(Message {
                    topic: queue.topic("notify"),
                    payload: json(&message)?,
                });
            }
            let head = self.head(&queue)?;
            let next = head.as_ref().map(|head| (&head.job, head.number));
            if next != old_head.as_ref().map(|(job, number)| (job, *number)) {
                let execution = head.map(|head| self.shown(&head, true)).transpose()?;
                let message = NotifyNextMessage {
                    execution,
                    timestamp: self.now.seconds,
                };
                messages.push(Message {
                    topic: queue.topic("notify-next"),
                    payload: json(&message)?,
                });
            }
        }
        self.listed.clear();
        Ok(messages)
    }
}
