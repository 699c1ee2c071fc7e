//! What people may tell a rollout.

use super::{BackWave, Rollout, RolloutState, Wave, WaveState};
use crate::Error;

/// What an operator may tell a rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Tell no further device.
    Pause,
    /// Go on.
    Resume,
    /// The wave that waits for people may begin.
    Approve {
        /// Who says so.
        by: String,
        /// Which wave is meant; whichever waits where none is named.
        wave: Option<String>,
    },
    /// Stop for good, the way back too; devices stay as they are.
    Abort,
    /// Stop for good and go back; where it was told before, for those that did not go then.
    Rollback,
    /// The way back was gone: those that went come forward again.
    Forward,
}

impl Command {
    /// The verb for it.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Approve { .. } => "approve",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
            Self::Forward => "forward",
        }
    }
}

impl Rollout {
    /// Does what a person says.
    ///
    /// # Errors
    /// [`Error::RolloutState`] where that cannot be said to a rollout in this state; [`Error::Rollout`]
    /// where somebody approves twice; [`Error::Invalid`] where the wave that waits is another than the
    /// one that is meant.
    pub fn command(&mut self, command: Command) -> Result<(), Error> {
        use RolloutState::{
            Aborted, Paused, RolledBack, RollingBack, Running, Scheduled, Succeeded,
            WaitingApproval,
        };
        let waits = |wave: &Wave| wave.state == WaveState::Waiting;
        let (verb, next) = match (&command, self.state) {
            (Command::Pause, Scheduled | Running | WaitingApproval | RollingBack) => {
                ("paused", Some(Paused))
            }
            // Devices that were not waited for are told on.
            (Command::Pause, Succeeded) if self.may_still_tell() => ("paused", Some(Paused)),
            (Command::Abort, Succeeded) if self.may_still_tell() => ("aborted", Some(Aborted)),
            (Command::Resume, Paused) if self.undone > 0 => ("resumed", Some(RollingBack)),
            // It may have been paused before its time.
            (Command::Resume, Paused) if self.waves.iter().all(waits) => {
                ("resumed", Some(Scheduled))
            }
            (Command::Resume, Paused) => ("resumed", Some(Running)),
            (Command::Approve { .. }, WaitingApproval) => ("approved", Some(WaitingApproval)),
            (Command::Abort, Scheduled | Running | Paused | WaitingApproval | RollingBack) => {
                ("aborted", Some(Aborted))
            }
            // Its way back was paused.
            (Command::Rollback, Paused) if self.undone > 0 => ("rolled back", None),
            (
                Command::Rollback,
                Scheduled | Running | Paused | WaitingApproval | Succeeded | Aborted | RolledBack,
            ) => ("rolled back", Some(RollingBack)),
            (Command::Forward, RolledBack) => ("sent forward again", Some(RollingBack)),
            (Command::Forward, Aborted) if self.undone > 0 && self.undone % 2 != 1 => {
                ("sent forward again", Some(RollingBack))
            }
            (Command::Pause, _) => ("paused", None),
            (Command::Resume, _) => ("resumed", None),
            (Command::Approve { .. }, _) => ("approved", None),
            (Command::Abort, _) => ("aborted", None),
            (Command::Rollback, _) => ("rolled back", None),
            (Command::Forward, _) => ("sent forward again", None),
        };
        let Some(next) = next else {
            return Err(self.refuses(verb));
        };
        match command {
            Command::Approve { by, wave } => return self.approve(by, wave.as_deref()),
            Command::Rollback | Command::Forward => {
                // Once more in the same direction.
                let odd = u32::from(command == Command::Rollback);
                self.undone += u32::from(self.undone > 0 && self.undone % 2 == odd);
                self.undo(format!("{verb} by an operator"));
            }
            Command::Abort => {
                self.stop_waves();
                if self.undone > 0 {
                    self.say_too("the way back was stopped by an operator");
                } else {
                    self.reason = Some(format!("{verb} by an operator"));
                }
            }
            Command::Pause | Command::Resume => {}
        }
        self.state = next;
        Ok(())
    }

    /// That it cannot be `verb` (`paused`) as it stands.
    pub(crate) fn refuses(&self, verb: &'static str) -> Error {
        Error::RolloutState {
            id: self.id.to_string(),
            state: self.state.as_str(),
            verb,
        }
    }

    /// Whether it may tell devices though it has succeeded: those it did not wait for, and those that a newer rollout had
    /// taken over and gave back. Whether there are any the planner knows ([`super::Planner::still_tells`]).
    #[must_use]
    pub fn may_still_tell(&self) -> bool {
        self.state == RolloutState::Succeeded && self.undone == 0
    }

    fn approve(&mut self, by: String, meant: Option<&str>) -> Result<(), Error> {
        let Some(wave) = self
            .waves
            .iter_mut()
            .find(|wave| wave.state == WaveState::Waiting)
        else {
            return Ok(());
        };
        // Said twice, it would pass for an approval of the wave after the one that is meant.
        if let Some(meant) = meant.filter(|meant| *meant != wave.name) {
            return Err(Error::Invalid {
                field: "wave".into(),
                why: format!(
                    "`{}` is not the wave that waits: that is `{}`; look at it and name that one",
                    meant.escape_debug(),
                    wave.name
                ),
            });
        }
        if wave.approved_by.contains(&by) {
            return Err(Error::Invalid {
                field: "approve".into(),
                why: format!(
                    "{by} has approved wave `{}` already; it needs {} different people",
                    wave.name, wave.rules.approvers
                ),
            });
        }
        wave.approved_by.push(by);
        if wave.is_approved() {
            self.state = RolloutState::Running;
        }
        Ok(())
    }

    pub(super) fn undo(&mut self, why: String) {
        self.stop_waves();
        self.undone += 1;
        self.waves
            .iter_mut()
            .for_each(|wave| wave.back = BackWave::default());
        self.reason = Some(why);
        self.state = RolloutState::RollingBack;
    }

    fn stop_waves(&mut self) {
        for wave in self
            .waves
            .iter_mut()
            .filter(|wave| wave.state == WaveState::Running)
        {
            wave.state = WaveState::Aborted;
        }
    }
}
