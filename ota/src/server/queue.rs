//! The lists of jobs that devices work off, and what is next in each.

use super::executions::{Changes, MAX_LISTED};
use super::records::{Execution, key};
use crate::job::{GetPendingResponse, topic};
use crate::{Error, JobId};

/// A list of jobs that a device works off: a thing's own, or that of one of its namespaces (AWS IoT's `namespaceId`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Queue {
    pub(super) thing: String,
    pub(super) namespace: Option<String>,
}

impl Queue {
    pub(super) fn of(execution: &Execution) -> Self {
        Self {
            thing: execution.thing.clone(),
            namespace: execution.namespace.clone(),
        }
    }

    /// Where it is told of what changed: `…/jobs/<what>`, or `…/jobs/<what>-namespace-<namespace>`.
    pub(super) fn topic(&self, what: &str) -> String {
        match &self.namespace {
            None => topic(&self.thing, what),
            Some(namespace) => topic(&self.thing, &format!("{what}-namespace-{namespace}")),
        }
    }
}

impl Changes<'_> {
    /// The jobs of a list: whether in progress, and which; in their order.
    pub(super) fn pending(&self, queue: &Queue, limit: usize) -> Result<Vec<(bool, JobId)>, Error> {
        let prefix = key::pending_of(&queue.thing, queue.namespace.as_deref());
        let keys = self.rows.keys(&prefix, limit)?;
        Ok(keys.iter().filter_map(|key| key::of_pending(key)).collect())
    }

    /// The next execution of a list: the first in progress, else the first queued.
    pub(super) fn head(&mut self, queue: &Queue) -> Result<Option<Execution>, Error> {
        // What is shut leaves this list when its time comes; until then there are few.
        for (_, job) in self.pending(queue, MAX_LISTED)? {
            let execution = self.execution(&job, &queue.thing)?;
            if let Some(execution) = execution.filter(|found| !found.is_shut(self.now.seconds)) {
                return Ok(Some(execution));
            }
        }
        Ok(None)
    }

    /// The list a thing sees, at most `limit` of each status.
    pub(super) fn list(
        &mut self,
        queue: &Queue,
        limit: usize,
    ) -> Result<GetPendingResponse, Error> {
        let mut list = GetPendingResponse {
            timestamp: self.now.seconds,
            ..GetPendingResponse::default()
        };
        // However many are in progress, those that are queued are seen beside them.
        let all = key::pending_of(&queue.thing, queue.namespace.as_deref());
        for rank in [key::IN_PROGRESS, key::QUEUED] {
            let to = match rank {
                key::IN_PROGRESS => &mut list.in_progress_jobs,
                _ => &mut list.queued_jobs,
            };
            for row in self.rows.keys(&format!("{all}{rank}/"), limit)? {
                let Some((_, job)) = key::of_pending(&row) else {
                    continue;
                };
                let execution = self.rows.get(&key::execution(&job, &queue.thing))?;
                let shown = execution.filter(|found: &Execution| !found.is_shut(self.now.seconds));
                to.extend(shown.map(|execution| execution.summary()));
            }
        }
        Ok(list)
    }
}
