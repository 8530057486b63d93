//! Partitions: groups of machines that cannot reach each other, while who is in no group reaches everyone.

use super::Lab;
use super::network::{HUB, HUB_ADDRESS};
use super::state::State;
use anyhow::{Result, bail};
use std::net::Ipv4Addr;

impl Lab {
    /// Cuts the network between the groups; a group alone is cut from all others, the hub included. What was
    /// cut before is mended first.
    pub(crate) fn partition(&mut self, groups: &[Vec<String>]) -> Result<()> {
        let groups = complete(groups, &self.names())?;
        self.heal()?;
        for (group, others) in pairs(&groups) {
            for name in group {
                for other in others {
                    self.network.cut(name, self.address(other)?)?;
                    self.network.cut(other, self.address(name)?)?;
                }
            }
        }
        self.remember(groups)
    }

    /// Makes the network whole again.
    pub(crate) fn heal(&mut self) -> Result<()> {
        for name in self.names() {
            self.network.mend(name)?;
        }
        self.remember(Vec::new())
    }

    fn remember(&mut self, groups: Vec<Vec<String>>) -> Result<()> {
        let (state, ()) = State::update(&self.directory, |state| {
            state.partition = groups;
            Ok(())
        })?;
        self.state = state;
        Ok(())
    }

    fn address(&self, name: &str) -> Result<Ipv4Addr> {
        if name == HUB {
            Ok(HUB_ADDRESS)
        } else {
            Ok(self.machine(name)?.address())
        }
    }
}

/// The groups, checked; a single one gets all others as its counterpart.
fn complete(groups: &[Vec<String>], names: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut seen = Vec::new();
    for name in groups.iter().flatten() {
        if !names.contains(&name.as_str()) {
            bail!("there is no machine `{name}`; there are {}", names.join(", "));
        }
        if seen.contains(&name.as_str()) {
            bail!("{name} is named twice");
        }
        seen.push(name);
    }
    let mut groups = groups.to_vec();
    if groups.len() == 1 {
        let others = names.iter().filter(|name| !seen.contains(name));
        groups.push(others.map(|name| (*name).to_owned()).collect());
    }
    Ok(groups)
}

/// Every two groups, once.
fn pairs(groups: &[Vec<String>]) -> impl Iterator<Item = (&Vec<String>, &Vec<String>)> {
    groups
        .iter()
        .enumerate()
        .flat_map(|(index, group)| groups[index + 1..].iter().map(move |other| (group, other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["hub", "core-01", "core-02", "core-03"];

    fn groups(words: &[&str]) -> Vec<Vec<String>> {
        words
            .iter()
            .map(|word| word.split(',').map(str::to_owned).collect())
            .collect()
    }

    #[test]
    fn single_group_is_cut_from_all_others() {
        let complete = complete(&groups(&["core-03"]), &NAMES).unwrap();
        assert_eq!(complete, groups(&["core-03", "hub,core-01,core-02"]));
    }

    #[test]
    fn unknown_and_repeated_names_are_refused() {
        let error = complete(&groups(&["core-01", "core-09"]), &NAMES)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "there is no machine `core-09`; there are hub, core-01, core-02, core-03"
        );
        let error = complete(&groups(&["core-01", "core-02,core-01"]), &NAMES)
            .unwrap_err()
            .to_string();
        assert_eq!(error, "core-01 is named twice");
    }

    #[test]
    fn three_groups_make_three_pairs() {
        assert_eq!(pairs(&groups(&["core-01", "core-02", "core-03"])).count(), 3);
    }
}
