//! The founder of a cluster dies around each request that it makes to the discovery service. Between two requests it
//! writes its intent, boots and commits its first entry, so that these moments cut its work into all its steps. Then
//! two others start; the founder comes back from its disk, or never does. Either way there is one cluster.
//!
//! A founder that has announced its cluster and never comes back leaves nothing to form: the others wait, on
//! purpose, for they cannot know that it is gone.

#![expect(clippy::print_stdout, reason = "rounds are the output of the task")]

use super::gate::{Gate, Moment, Strike};
use super::start::{discovery, token};
use super::{FORM_LIMIT, wait_one_cluster};
use crate::http::get;
use crate::processes::{self, Node, Origin};
use crate::wait;
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

/// What becomes of the dead founder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Returns,
    Gone,
}

/// What all rounds share.
struct Stage<'a> {
    program: &'a Path,
    base: &'a Path,
    discovery: &'a Node,
}

pub(super) fn founder(program: &Path, only_returning: bool) -> Result<()> {
    let base = processes::fresh_directory("stress/founder")?;
    let discovery = discovery(program, &base)?;
    let stage = Stage {
        program,
        base: &base,
        discovery: &discovery,
    };
    let requests = stage.undisturbed()?;
    println!("undisturbed, founding takes {} requests:", requests.len());
    for (number, request) in (1..).zip(&requests) {
        println!("  {number}: {request}");
    }
    let fates: &[Fate] = if only_returning {
        &[Fate::Returns]
    } else {
        &[Fate::Returns, Fate::Gone]
    };
    let mut rounds = 0;
    for fate in fates {
        for request in 1..=requests.len() {
            for moment in Moment::ALL {
                let what = format!("request {request}, {moment:?}, {fate:?}");
                let begun = Instant::now();
                let outcome = stage
                    .round(request, moment, *fate)
                    .with_context(|| what.clone())?;
                println!(
                    "{what:<36} {outcome} after {:.1} s",
                    begun.elapsed().as_secs_f64()
                );
                rounds += 1;
            }
        }
    }
    println!("{rounds} founders killed, never two clusters");
    Ok(())
}

impl Stage<'_> {
    /// The requests of a founder that nobody kills.
    fn undisturbed(&self) -> Result<Vec<String>> {
        let (gate, url) = self.gate()?;
        let mut nodes = processes::nodes(&self.base.join("undisturbed"), 1)?;
        let command = nodes[0].command(self.program, &Origin::Discovery(&url));
        nodes[0].spawn(&command)?;
        nodes[0].wait_ready()?;
        Ok(gate.requests())
    }

    fn round(&self, request: usize, moment: Moment, fate: Fate) -> Result<String> {
        let (gate, url) = self.gate()?;
        let directory = self.base.join("round");
        let mut nodes = processes::nodes(&directory, 3)?;
        let command = nodes[0].command(self.program, &Origin::Discovery(&url));
        nodes[0].spawn(&command)?;
        gate.arm(Strike {
            victim: nodes[0].pid(),
            request,
            moment,
        });
        // One that says less this time is killed as soon as it serves.
        let serves = || get(nodes[0].client, "/v2/keys/").is_ok_and(|answer| answer.status == 200);
        wait::until_true("the founder's death", FORM_LIMIT, || {
            gate.has_struck() || serves()
        })?;
        nodes[0].kill();
        let is_committed = self.is_committed(&url)?;
        let (founder, others) = nodes.split_at_mut(1);
        for other in &mut *others {
            let command = other.command(self.program, &Origin::Discovery(&url));
            other.spawn(&command)?;
        }
        let outcome = match fate {
            Fate::Gone if is_committed => "announced and gone: the others wait".to_owned(),
            Fate::Gone => {
                let id = wait_one_cluster(others)?;
                format!("cluster {id} of the others")
            }
            Fate::Returns => {
                let command = founder[0].command(self.program, &Origin::Discovery(&url));
                founder[0].spawn(&command)?;
                let id = wait_one_cluster(&mut nodes)?;
                format!("cluster {id} of all three")
            }
        };
        drop(nodes);
        std::fs::remove_dir_all(&directory)?;
        Ok(outcome)
    }

    /// A gate, and a fresh discovery URL through it.
    fn gate(&self) -> Result<(Gate, String)> {
        let gate = Gate::open(self.discovery.client)?;
        let url = token(self.discovery, false)?;
        let url = url.replace(&self.discovery.client.to_string(), &gate.address.to_string());
        Ok((gate, url))
    }

    /// Whether a founder has announced its cluster, as its record in the discovery directory says.
    fn is_committed(&self, url: &str) -> Result<bool> {
        let (_, path) = url
            .split_once("/v2/keys/")
            .context("a discovery URL names a key")?;
        let answer = get(self.discovery.client, &format!("/v2/keys/{path}/_founder"))?;
        ensure!(
            [200, 404].contains(&answer.status),
            "the discovery service answers {}",
            answer.status
        );
        let record: Value = serde_json::from_str(&answer.body)?;
        let founder: Value = serde_json::from_str(record["node"]["value"].as_str().unwrap_or("{}"))?;
        Ok(founder["is_committed"].as_bool().unwrap_or(false))
    }
}
