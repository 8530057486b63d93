//! `cargo xtask ci`: everything that has to hold before a change is taken, in one command and in the order in which
//! it is cheapest to learn of a failure. A failed step does not keep the others from running; the last line counts.

#![expect(
    clippy::print_stdout,
    reason = "what each step says is the output of the task"
)]

mod readme;
mod runner;
mod tally;

use crate::packages::{self, Package};
use crate::{tidy, workspace};
use anyhow::{Result, bail};
use runner::Runner;
use std::process::Command;
use std::time::{Duration, Instant};
use tally::Tally;

/// Checks the sources and the dependencies; a release that is known to read our `deny.toml`.
const DENY_VERSION: &str = "0.20.2";
/// The steps that build get this long on two cores from nothing; what takes longer hangs.
const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// All tests together.
const TEST_LIMIT: Duration = Duration::from_secs(40 * 60);
/// The checks of the running lab wait for TTLs, elections and boots.
const LAB_LIMIT: Duration = Duration::from_secs(10 * 60);
/// What neither builds nor tests.
const SHORT_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Debian packages beside those of the simulated machines: a stock etcd and its client to test against.
const PACKAGES: [Package; 2] = [
    Package {
        name: "etcd-server",
        program: "/usr/bin/etcd",
    },
    Package {
        name: "etcd-client",
        program: "/usr/bin/etcdctl",
    },
];

/// Which steps.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Only this step; may be given several times
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Name the steps, and run none
    #[arg(long)]
    list: bool,
}

/// Something that holds or does not.
struct Step {
    name: &'static str,
    /// Whether it runs without being asked for by `--only`.
    is_on: bool,
    work: fn(&mut Runner) -> Result<Tally>,
}

/// In the order in which they run. A step whose subject is not built yet is off: it would fail, not be skipped.
const STEPS: [Step; 11] = [
    Step {
        name: "packages",
        is_on: true,
        work: install_packages,
    },
    Step {
        name: "format",
        is_on: true,
        work: |runner| runner.cargo(&["fmt", "--all", "--check"], SHORT_LIMIT),
    },
    Step {
        name: "tidy",
        is_on: true,
        work: |runner| tidy::tidy(runner.command_line()).map(|()| Tally::ONE),
    },
    Step {
        name: "dependencies",
        is_on: true,
        work: check_dependencies,
    },
    Step {
        name: "clippy",
        is_on: true,
        work: |runner| {
            let words = [
                "clippy",
                "--locked",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ];
            runner.cargo(&words, BUILD_LIMIT)
        },
    },
    Step {
        name: "tests",
        is_on: true,
        work: |runner| runner.tests(&[], None, TEST_LIMIT),
    },
    Step {
        name: "clients on our node",
        is_on: true,
        work: test_clients_on_our_node,
    },
    Step {
        name: "up",
        is_on: true,
        work: bring_up,
    },
    Step {
        name: "cluster",
        is_on: true,
        work: |runner| runner.xtask(&["check"], LAB_LIMIT).and_then(|()| runner.tally()),
    },
    Step {
        name: "down",
        is_on: true,
        work: |runner| runner.xtask(&["down"], SHORT_LIMIT).map(|()| Tally::ONE),
    },
    Step {
        name: "readme",
        is_on: true,
        work: |runner| {
            let passed = readme::play(runner.program())?;
            Ok(Tally { passed, failed: 0 })
        },
    },
];

/// Runs the steps. `xtask` describes our own command line.
pub(crate) fn ci(arguments: &Arguments, xtask: clap::Command) -> Result<()> {
    let steps = chosen(&arguments.only)?;
    if arguments.list {
        for step in steps {
            println!("{}{}", step.name, if step.is_on { "" } else { " (off)" });
        }
        return Ok(());
    }
    let begun = Instant::now();
    let mut runner = Runner::new(workspace::target().join("ci"), xtask)?;
    let outcomes: Vec<_> = steps.iter().map(|step| run(step, &mut runner)).collect();
    conclude(&steps, &outcomes, begun.elapsed())
}

/// What became of a step.
struct Outcome {
    tally: Tally,
    took: Duration,
    /// Why it failed, and the last of what it said.
    failure: Option<String>,
}

fn chosen(only: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(unknown) = only
        .iter()
        .find(|name| STEPS.iter().all(|step| step.name != **name))
    {
        let names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
        bail!("there is no step `{unknown}`; there are {}", names.join(", "));
    }
    let is_chosen = |step: &&Step| match only {
        [] => step.is_on,
        only => only.iter().any(|name| step.name == name),
    };
    Ok(STEPS.iter().filter(is_chosen).collect())
}

fn run(step: &Step, runner: &mut Runner) -> Outcome {
    println!("\n=== {}", step.name);
    runner.begin(step.name);
    let begun = Instant::now();
    let outcome = (step.work)(runner);
    let took = begun.elapsed();
    let (tally, failure) = match outcome {
        Ok(tally) if tally.failed == 0 => (tally, None),
        Ok(tally) => (tally, Some(format!("{} failed", tally.failed))),
        Err(error) => (Tally::FAILURE, Some(format!("{error:#}"))),
    };
    let mark = if failure.is_some() { "failed" } else { "passed" };
    println!("=== {} {mark} after {:.1} s", step.name, took.as_secs_f64());
    Outcome {
        tally,
        took,
        failure: failure.map(|reason| format!("{reason}\n{}", runner.tail())),
    }
}

/// The failures once more, the time of each step, and the line that counts.
fn conclude(steps: &[&Step], outcomes: &[Outcome], took: Duration) -> Result<()> {
    for (step, outcome) in steps.iter().zip(outcomes) {
        if let Some(failure) = &outcome.failure {
            println!("\n=== {} failed: {}", step.name, failure.trim_end());
        }
    }
    println!();
    let mut total = Tally::default();
    for (step, outcome) in steps.iter().zip(outcomes) {
        let mark = if outcome.failure.is_some() {
            "failed"
        } else {
            "passed"
        };
        println!("{:>7.1} s  {mark}  {}", outcome.took.as_secs_f64(), step.name);
        total += outcome.tally;
    }
    println!("{:>7.1} s  in all\n", took.as_secs_f64());
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        bail!("not everything passed");
    }
    Ok(())
}

fn install_packages(_: &mut Runner) -> Result<Tally> {
    let all: Vec<_> = packages::MACHINES.iter().chain(&PACKAGES).copied().collect();
    packages::ensure("the checks", &all)?;
    Ok(Tally::ONE)
}

/// The tests of the clients once more, with our node where they had a stock etcd. The tests of the whole have built it.
fn test_clients_on_our_node(runner: &mut Runner) -> Result<Tally> {
    let node = workspace::target().join("debug/etcd");
    // Programs that talk to a store, by the names of their tests.
    let words = [
        "--test", "etcdctl", "--test", "v2", "--test", "v3", "--test", "machines",
    ];
    runner.tests(&words, Some(&node), TEST_LIMIT)
}

/// A lab that an earlier run left is in the way.
fn bring_up(runner: &mut Runner) -> Result<Tally> {
    runner.xtask(&["down"], SHORT_LIMIT)?;
    runner.xtask(&["up"], BUILD_LIMIT)?;
    Ok(Tally::ONE)
}

fn check_dependencies(runner: &mut Runner) -> Result<Tally> {
    if !crate::command::succeeds(Command::new("cargo").args(["deny", "--version"])) {
        let words = ["install", "cargo-deny", "--locked", "--version", DENY_VERSION];
        runner.cargo(&words, BUILD_LIMIT)?;
    }
    let words = [
        "deny",
        "--locked",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ];
    runner.cargo(&words, SHORT_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_names_of_their_own_and_unknown_ones_are_refused() {
        let names: std::collections::BTreeSet<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
        let error = chosen(&["fmt".to_owned()]).err().unwrap().to_string();
        assert!(
            error.starts_with("there is no step `fmt`; there are packages, format"),
            "{error}"
        );
        let one = chosen(&["tests".to_owned()]).unwrap();
        assert_eq!(one.iter().map(|step| step.name).collect::<Vec<_>>(), ["tests"]);
    }

    #[test]
    fn failed_step_fails_the_whole() {
        let step = |failure: Option<&str>, tally| Outcome {
            tally,
            took: Duration::ZERO,
            failure: failure.map(str::to_owned),
        };
        let steps = [&STEPS[0], &STEPS[1]];
        conclude(
            &steps,
            &[step(None, Tally::ONE), step(None, Tally::ONE)],
            Duration::ZERO,
        )
        .unwrap();
        conclude(
            &steps,
            &[step(None, Tally::ONE), step(Some("no"), Tally::FAILURE)],
            Duration::ZERO,
        )
        .unwrap_err();
    }
}
