//! The tasks that act on one machine, or on the network between them.

#![expect(clippy::print_stdout, reason = "each says what it did")]

use crate::lab::{HUB, Lab, Power};
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Instant;

/// Becomes a root shell on a machine, or in the hub's network.
pub(crate) fn shell(name: &str, machine: &str) -> Result<()> {
    exec(name, machine, &["bash".into()])
}

/// Becomes a command on a machine, or in the hub's network: terminal and exit code are the command's.
pub(crate) fn exec(name: &str, machine: &str, words: &[OsString]) -> Result<()> {
    let lab = Lab::open(name)?;
    if machine == HUB {
        lab.hub().exec(words)
    } else {
        lab.machine(machine)?.exec(words)
    }
}

/// Becomes a reader of a machine's journal, or of the hub's log.
pub(crate) fn logs(name: &str, machine: &str, unit: Option<&str>, is_followed: bool) -> Result<()> {
    let lab = Lab::open(name)?;
    let mut command = if machine == HUB {
        if unit.is_some_and(|unit| !["etcd", "etcd.service"].contains(&unit)) {
            bail!("the hub runs nothing but etcd");
        }
        let mut command = Command::new("tail");
        command.args(if is_followed {
            ["-n", "20", "-F"].as_slice()
        } else {
            &["-n", "+1"]
        });
        command.arg(lab.hub().log());
        command
    } else {
        let mut command = lab.machine(machine)?.journal();
        command.args(unit.map(|unit| format!("--unit={unit}")));
        command.args(is_followed.then_some("--follow"));
        command
    };
    Err(command.exec()).context("read the log")
}

/// A power cut.
pub(crate) fn kill(name: &str, machine: &str) -> Result<()> {
    let lab = Lab::open(name)?;
    if machine == HUB {
        return lab.hub().kill();
    }
    let machine = lab.machine(machine)?;
    if machine.power() == Power::Off {
        println!("{} is off", machine.name());
        return Ok(());
    }
    machine.kill()
}

/// A clean shutdown of what runs, and a boot from the same disk.
pub(crate) fn restart(name: &str, machine: &str) -> Result<()> {
    let (lab, begun) = (Lab::open(name)?, Instant::now());
    if machine == HUB {
        if lab.hub().power() != Power::Off {
            lab.hub().stop()?;
        }
        lab.hub().start()?;
    } else {
        let machine = lab.machine(machine)?;
        if machine.power() != Power::Off {
            machine.stop()?;
        }
        machine.boot()?;
    }
    println!("{machine} is up after {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Freezes a machine in mid-work.
pub(crate) fn pause(name: &str, machine: &str) -> Result<()> {
    let lab = Lab::open(name)?;
    if machine == HUB {
        lab.hub().freeze()
    } else {
        lab.machine(machine)?.freeze()
    }
}

/// Lets it run on.
pub(crate) fn resume(name: &str, machine: &str) -> Result<()> {
    let lab = Lab::open(name)?;
    if machine == HUB {
        lab.hub().thaw()
    } else {
        lab.machine(machine)?.thaw()
    }
}

/// Cuts the network between groups of machines, each `A,B,...`.
pub(crate) fn partition(name: &str, groups: &[String]) -> Result<()> {
    let groups: Vec<Vec<String>> = groups
        .iter()
        .map(|group| group.split(',').map(str::to_owned).collect())
        .collect();
    Lab::open(name)?.partition(&groups)
}

/// Makes the network whole.
pub(crate) fn heal(name: &str) -> Result<()> {
    Lab::open(name)?.heal()
}

/// Removes the lab.
pub(crate) fn down(name: &str) -> Result<()> {
    report_down(Lab::destroy(name)?);
    Ok(())
}

/// Says so when there was nothing to remove.
pub(crate) fn report_down(was_there: bool) {
    if !was_there {
        println!("no lab is there");
    }
}
