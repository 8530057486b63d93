//! Whether a job is made, and whether its end is waited for.
//!
//! Running twice must change nothing: what runs is not started again, and what was restarted for
//! these very files on this boot is not restarted again.

use super::config::Command;
use super::plan::{Job, Wait};

/// Our own unit at boot.
pub const OWN_UNIT: &str = "cluster-init.service";

/// What systemd says about a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitState {
    /// `LoadState`: loaded, not-found, masked, ...
    pub load: String,
    /// `ActiveState`: active, inactive, failed, activating, ...
    pub active: String,
    /// `SubState`, finer, by the unit's kind.
    pub sub: String,
    /// `Result` of the last run.
    pub result: String,
    /// `Type` of a service, else empty.
    pub service_type: String,
    /// Whether a job for it waits or runs (`Job`).
    pub has_job: bool,
    /// `After`: what it is ordered behind.
    pub after: Vec<String>,
    /// `Triggers`: what a socket, timer or path starts.
    pub triggers: Vec<String>,
}

impl UnitState {
    /// Whether it runs, or is about to.
    pub fn is_up(&self) -> bool {
        matches!(
            self.active.as_str(),
            "active" | "reloading" | "activating" | "refreshing"
        )
    }

    /// Whether its start was asked for and goes on.
    pub fn is_starting(&self) -> bool {
        self.active == "activating" || (self.has_job && !self.is_up())
    }

    /// Whether it ended badly and will not be tried again.
    pub fn is_failed(&self) -> bool {
        self.active == "failed"
    }

    /// Whether systemd is waiting to start it again after it ended badly.
    pub fn is_retrying(&self) -> bool {
        self.sub == "auto-restart"
    }
}

/// What came before this job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History<'a> {
    /// The same job succeeded on this boot, for the same files, and they were all found in place.
    pub is_done: bool,
    /// Units whose start goes on: those not waited for, and at boot [`OWN_UNIT`] itself.
    pub unfinished: &'a [String],
}

/// What to do about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, with the reason.
    Skip(&'static str),
    /// Ask systemd.
    Run(Wait),
}

/// Decides about a job.
pub fn decide(job: &Job, state: &UnitState, history: History<'_>) -> Decision {
    match job.command {
        Command::Start if state.is_starting() => Decision::Skip("already starting"),
        Command::Start if state.is_up() => Decision::Skip("already running"),
        Command::Start if history.is_done && has_run_once(state) => {
            Decision::Skip("already done on this boot")
        }
        Command::Stop if !state.is_up() && state.active != "deactivating" => Decision::Skip("not running"),
        Command::Start | Command::Stop => Decision::Run(wait_for(job, state, history)),
        Command::Restart
        | Command::Reload
        | Command::TryRestart
        | Command::ReloadOrRestart
        | Command::ReloadOrTryRestart => {
            if history.is_done {
                Decision::Skip("already done on this boot, nothing changed since")
            } else {
                Decision::Run(wait_for(job, state, history))
            }
        }
    }
}

/// Whether it is a task that ended well, rather than a service that is down.
fn has_run_once(state: &UnitState) -> bool {
    state.service_type == "oneshot" && state.active == "inactive" && state.result == "success"
}

fn wait_for(job: &Job, state: &UnitState, history: History<'_>) -> Wait {
    // Readiness of a notifying service may depend on other machines.
    let is_notifying = state.service_type.starts_with("notify") && job.command != Command::Stop;
    // systemd holds its job back until theirs are done; of our own unit, that is until we end.
    let is_behind = state.after.iter().any(|unit| history.unfinished.contains(unit));
    if is_notifying || is_behind {
        Wait::Never
    } else {
        job.wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud_config::plan::Condition;

    fn job(command: Command) -> Job {
        Job {
            unit: "web.service".to_owned(),
            command,
            wait: Wait::ForResult,
            condition: Condition::Always,
        }
    }

    fn state(active: &str, service_type: &str) -> UnitState {
        UnitState {
            load: "loaded".to_owned(),
            active: active.to_owned(),
            result: "success".to_owned(),
            service_type: service_type.to_owned(),
            ..UnitState::default()
        }
    }

    const FRESH: History<'_> = History {
        is_done: false,
        unfinished: &[],
    };
    const DONE: History<'_> = History {
        is_done: true,
        unfinished: &[],
    };

    #[test]
    fn what_holds_already_is_skipped_and_the_rest_is_run() {
        use Command::{Reload, ReloadOrRestart, Restart, Start, Stop, TryRestart};
        let run = Decision::Run(Wait::ForResult);
        for (command, active, kind, history, expected) in [
            (
                Start,
                "active",
                "simple",
                FRESH,
                Decision::Skip("already running"),
            ),
            (
                Start,
                "activating",
                "notify",
                FRESH,
                Decision::Skip("already starting"),
            ),
            (Start, "inactive", "simple", FRESH, run.clone()),
            (Start, "failed", "simple", DONE, run.clone()),
            (Start, "inactive", "simple", DONE, run.clone()),
            (
                Start,
                "inactive",
                "oneshot",
                DONE,
                Decision::Skip("already done on this boot"),
            ),
            (Start, "inactive", "oneshot", FRESH, run.clone()),
            (Start, "inactive", "notify", FRESH, Decision::Run(Wait::Never)),
            (
                Start,
                "inactive",
                "notify-reload",
                FRESH,
                Decision::Run(Wait::Never),
            ),
            (Stop, "inactive", "simple", FRESH, Decision::Skip("not running")),
            (Stop, "failed", "simple", FRESH, Decision::Skip("not running")),
            (Stop, "active", "notify", DONE, run.clone()),
            (Restart, "active", "simple", FRESH, run.clone()),
            (Reload, "active", "simple", FRESH, run.clone()),
            (Restart, "active", "notify", FRESH, Decision::Run(Wait::Never)),
            (
                Restart,
                "active",
                "simple",
                DONE,
                Decision::Skip("already done on this boot, nothing changed since"),
            ),
            (
                TryRestart,
                "inactive",
                "simple",
                DONE,
                Decision::Skip("already done on this boot, nothing changed since"),
            ),
            (ReloadOrRestart, "failed", "simple", FRESH, run.clone()),
        ] {
            let decision = decide(&job(command), &state(active, kind), history);
            assert_eq!(decision, expected, "{command:?} on {active} {kind} {history:?}");
        }
    }

    #[test]
    fn a_start_that_waits_in_the_queue_is_not_asked_for_again() {
        let queued = UnitState {
            has_job: true,
            ..state("inactive", "simple")
        };
        assert_eq!(
            decide(&job(Command::Start), &queued, FRESH),
            Decision::Skip("already starting")
        );
    }

    #[test]
    fn what_is_ordered_behind_an_unfinished_start_is_not_waited_for() {
        let behind = UnitState {
            after: vec!["basic.target".to_owned(), "etcd.service".to_owned()],
            ..state("inactive", "simple")
        };
        let start = job(Command::Start);
        let unfinished = [OWN_UNIT.to_owned(), "etcd.service".to_owned()];
        for (units, wait) in [
            (&unfinished[..], Wait::Never),
            (&unfinished[..1], Wait::ForResult),
            (&[], Wait::ForResult),
        ] {
            let history = History {
                is_done: false,
                unfinished: units,
            };
            assert_eq!(decide(&start, &behind, history), Decision::Run(wait), "{units:?}");
        }
    }
}
