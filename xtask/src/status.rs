//! `cargo xtask status`: one line per machine - power, its part in the cluster, its row in fleet - and what is cut.

#![expect(clippy::print_stdout, reason = "the table is the output of the task")]

use crate::cluster::{self, NodeView};
use crate::lab::{HUB, HUB_ADDRESS, Lab, Machine, Power, Role};
use anyhow::Result;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::thread;
use std::time::Duration;

/// Between two looks of `--watch`: a leader is replaced within a second, which should be seen.
const WATCH_PAUSE: Duration = Duration::from_millis(250);
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// Prints the lab's status once.
pub(crate) fn show(name: &str) -> Result<()> {
    print!("{}", render(&Lab::open(name)?));
    Ok(())
}

/// Prints it again at each change, until the lab is gone or the person is.
pub(crate) fn watch(name: &str) -> Result<()> {
    let clear = if std::io::stdout().is_terminal() {
        CLEAR_SCREEN
    } else {
        ""
    };
    let mut last = String::new();
    loop {
        // Opened anew each time: machines may have been added.
        let text = render(&Lab::open(name)?);
        if text != last {
            println!("{clear}{text}");
            last = text;
        }
        thread::sleep(WATCH_PAUSE);
    }
}

fn render(lab: &Lab) -> String {
    let views = ask_all(lab);
    let fleet = if lab.is_blank() {
        None
    } else {
        cluster::fleet_machines(lab).ok()
    };
    let mut text = format!(
        "{:<10} {:<13} {:<7} {:<9} {:<6} ID\n",
        "MACHINE", "ADDRESS", "POWER", "ETCD", "FLEET"
    );
    let (hub, address) = (power(lab.hub().power()), HUB_ADDRESS.to_string());
    line(
        &mut text,
        [
            HUB,
            &address,
            hub,
            if lab.is_blank() { "-" } else { "discovery" },
            "-",
            "-",
        ],
    );
    for (machine, view) in lab.machines().zip(&views) {
        let address = machine.address().to_string();
        let row = [
            machine.name(),
            &address,
            power(machine.power()),
            if lab.is_blank() {
                "-"
            } else {
                part(&machine, view.as_ref())
            },
            registered(&machine, fleet.as_ref()),
            &machine.machine_id()[..8],
        ];
        line(&mut text, row);
    }
    if !lab.partition_groups().is_empty() {
        let groups: Vec<_> = lab
            .partition_groups()
            .iter()
            .map(|group| group.join(","))
            .collect();
        text += &format!("partitioned: {}\n", groups.join(" | "));
    }
    text
}

fn line(text: &mut String, [name, address, power, etcd, fleet, id]: [&str; 6]) {
    writeln!(
        text,
        "{name:<10} {address:<13} {power:<7} {etcd:<9} {fleet:<6} {id}"
    )
    .expect("a String takes every write");
}

/// Asks all nodes at once: one that is paused answers only with a time-out.
fn ask_all(lab: &Lab) -> Vec<Option<NodeView>> {
    let asked = |machine: &Machine<'_>| {
        machine.role() == Role::Core && machine.power() == Power::On && !lab.is_blank()
    };
    thread::scope(|scope| {
        let ask = |machine: Machine<'_>| {
            let address = machine.address();
            asked(&machine).then(|| scope.spawn(move || cluster::view(lab, address).ok()))
        };
        let threads: Vec<_> = lab.machines().map(ask).collect();
        threads.into_iter().map(|thread| thread?.join().ok()?).collect()
    })
}

fn power(power: Power) -> &'static str {
    match power {
        Power::On => "on",
        Power::Paused => "paused",
        Power::Off => "off",
    }
}

fn part(machine: &Machine<'_>, view: Option<&NodeView>) -> &'static str {
    match view {
        Some(view) if view.is_led_by(machine.address()) => "leader",
        Some(view) if view.leader.is_empty() => "no leader",
        Some(_) => "follower",
        None if machine.role() == Role::Core && machine.power() == Power::On => "silent",
        None => "-",
    }
}

fn registered(machine: &Machine<'_>, fleet: Option<&BTreeSet<String>>) -> &'static str {
    match fleet {
        None => "?",
        Some(ids) if ids.contains(machine.machine_id()) => "yes",
        Some(_) => "no",
    }
}
