//! The tries of a job on one thing. The newest is the execution that a device sees; those before it are over, and kept for
//! people to look at.

use super::Ota;
use super::executions::Changes;
use super::jobs::ExecutionPage;
use super::records::{Execution, key};
use crate::job::ExecutionStatus;
use crate::{Error, JobId};

/// Most earlier tries of a job on one thing that are kept.
const KEPT: u64 = 32;
/// Rows read in one go.
const PAGE: usize = 1_000;

/// Where a page of executions goes on: behind this name, or within its tries, behind the one of this number.
struct Place<'a> {
    name: &'a str,
    number: Option<u64>,
}

impl<'a> Place<'a> {
    /// No name has a `/`.
    fn read(after: &'a str) -> Self {
        let within = after
            .split_once('/')
            .and_then(|(name, number)| Some((name, number.parse().ok()?)));
        match within {
            Some((name, number)) => Self {
                name,
                number: Some(number),
            },
            None => Self {
                name: after,
                number: None,
            },
        }
    }
}

/// A page in the making: it is full with one more than was asked for.
struct Page<'w> {
    found: Vec<(String, Execution)>,
    limit: usize,
    wanted: &'w dyn Fn(&Execution) -> bool,
}

impl Page<'_> {
    /// Takes tries of what `name` stands for, the oldest first; whether there is room for more.
    fn take(&mut self, name: &str, tries: impl IntoIterator<Item = Execution>) -> bool {
        for one in tries {
            if (self.wanted)(&one) {
                self.found.push((name.to_owned(), one));
                if self.found.len() > self.limit {
                    return false;
                }
            }
        }
        true
    }

    fn end(mut self) -> ExecutionPage {
        let more = self.found.len() > self.limit;
        self.found.truncate(self.limit);
        let last = self.found.last().filter(|_| more);
        let next = last.map(|(name, last)| format!("{name}/{}", last.number));
        ExecutionPage {
            executions: self.found.into_iter().map(|(_, one)| one).collect(),
            next,
        }
    }
}

impl Ota {
    /// All tries of a job on a thing, the oldest first, after the one of this number.
    fn all_tries(&self, newest: Execution, after: u64) -> Result<Vec<Execution>, Error> {
        let mut tries = Vec::new();
        if newest.number > 1 {
            let prefix = key::tries_of(&newest.job, &newest.thing);
            let table = &self.inner.table;
            let rows = table.scan_as::<Execution>(&prefix, None, PAGE)?;
            tries.extend(rows.into_iter().map(|(_, row)| row.value));
        }
        tries.push(newest);
        tries.retain(|one| one.number > after);
        Ok(tries)
    }

    /// One thing's execution of a job: its newest try, or the one of this number.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn job_try(
        &self,
        id: &JobId,
        thing: &str,
        number: Option<u64>,
    ) -> Result<Execution, Error> {
        let newest = self.job_execution(id, thing)?;
        let Some(number) = number.filter(|number| *number != newest.number) else {
            return Ok(newest);
        };
        let row = key::tried(id, thing, number);
        let row = self.inner.table.get_as::<Execution>(&row)?;
        row.map(|row| row.value).ok_or_else(|| Error::NotFound {
            kind: "job execution",
            name: format!("{id} on {thing}, number {number}"),
        })
    }

    /// A page of a job's executions in the order of the things' names, each with its tries, the oldest first; with
    /// `status` only where it is given. `after` is the `next` of the page before.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn job_executions(
        &self,
        id: &JobId,
        status: Option<ExecutionStatus>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ExecutionPage, Error> {
        self.job(id)?;
        let wanted = |one: &Execution| status.is_none_or(|status| status == one.status);
        let mut page = Page {
            found: Vec::new(),
            limit: limit.max(1),
            wanted: &wanted,
        };
        let prefix = key::executions(id);
        let place = after.map(Place::read);
        if let Some(Place {
            name,
            number: Some(number),
        }) = place
            && let Ok(newest) = self.job_execution(id, name)
            && !page.take(name, self.all_tries(newest, number)?)
        {
            return Ok(page.end());
        }
        let mut after = place.map(|place| format!("{prefix}{}", place.name));
        loop {
            let table = &self.inner.table;
            let rows = table.scan_as::<Execution>(&prefix, after.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else {
                return Ok(page.end());
            };
            after = Some(last.clone());
            for (_, row) in rows {
                let thing = row.value.thing.clone();
                if !page.take(&thing, self.all_tries(row.value, 0)?) {
                    return Ok(page.end());
                }
            }
        }
    }

    /// What a thing had and has to do, in the order of the jobs' ids, each with its tries, the oldest first. `after` is
    /// the `next` of the page before.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn thing_executions(
        &self,
        thing: &str,
        wanted: &dyn Fn(&Execution) -> bool,
        after: Option<&str>,
        limit: usize,
    ) -> Result<ExecutionPage, Error> {
        let mut page = Page {
            found: Vec::new(),
            limit: limit.max(1),
            wanted,
        };
        let place = after.map(Place::read);
        let table = &self.inner.table;
        let newest = |id: &JobId| -> Result<Option<Execution>, Error> {
            let row = table.get_as::<Execution>(&key::execution(id, thing))?;
            Ok(row.map(|row| row.value))
        };
        if let Some(Place {
            name,
            number: Some(number),
        }) = place
            && let Ok(id) = name.parse()
            && let Some(newest) = newest(&id)?
            && !page.take(name, self.all_tries(newest, number)?)
        {
            return Ok(page.end());
        }
        let mut after = place.map(|place| place.name.to_owned());
        loop {
            let jobs = self.jobs(after.as_deref(), PAGE)?;
            let Some(last) = jobs.last() else {
                return Ok(page.end());
            };
            after = Some(last.id.to_string());
            for job in jobs {
                if let Some(newest) = newest(&job.id)?
                    && !page.take(job.id.as_str(), self.all_tries(newest, 0)?)
                {
                    return Ok(page.end());
                }
            }
        }
    }
}

impl Changes<'_> {
    /// An execution that is over makes room for the next try, and is kept beside it.
    pub(super) fn keep_try(&mut self, old: &Execution) -> Result<(), Error> {
        if let Some(oldest) = old.number.checked_sub(KEPT) {
            self.rows.delete(key::tried(&old.job, &old.thing, oldest));
        }
        self.rows
            .put(key::tried(&old.job, &old.thing, old.number), old)
    }

    /// An earlier try of a job on a thing.
    pub(super) fn earlier_try(
        &mut self,
        job: &JobId,
        thing: &str,
        number: u64,
    ) -> Result<Option<Execution>, Error> {
        self.rows.get(&key::tried(job, thing, number))
    }

    /// Forgets a try that is over. In the place of the newest comes the one before it, if it is kept.
    pub(super) fn drop_try(&mut self, newest: &Execution, number: u64) -> Result<(), Error> {
        let (job, thing) = (&newest.job, &*newest.thing);
        if number != newest.number {
            self.rows.delete(key::tried(job, thing, number));
            return Ok(());
        }
        let tries = self.rows.keys(&key::tries_of(job, thing), PAGE)?;
        let Some(row) = tries.last() else {
            self.rows.delete(key::execution(job, thing));
            return Ok(());
        };
        let before: Option<Execution> = self.rows.get(row)?;
        self.rows.delete(row.clone());
        match before {
            Some(before) => self.rows.put(key::execution(job, thing), &before),
            None => {
                self.rows.delete(key::execution(job, thing));
                Ok(())
            }
        }
    }
}
