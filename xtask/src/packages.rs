//! Debian packages that a task needs: named when missing, asked for on a terminal, installed as root.

#![expect(clippy::print_stdout, reason = "the question is asked on the terminal")]

use anyhow::{Context as _, Result, bail};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::Command;

/// A package, and a program of it that is used.
#[derive(Clone, Copy)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) program: &'static str,
}

/// What simulated machines are made of.
pub(crate) const MACHINES: [Package; 5] = [
    Package {
        name: "systemd",
        program: "/lib/systemd/systemd",
    },
    Package {
        name: "dbus",
        program: "/usr/bin/dbus-daemon",
    },
    Package {
        name: "iproute2",
        program: "/sbin/ip",
    },
    Package {
        name: "util-linux",
        program: "/usr/bin/nsenter",
    },
    Package {
        name: "uidmap",
        program: "/usr/bin/newuidmap",
    },
];
/// Needed by ordinary users alone: it maps their subordinate ids into a user namespace.
const FOR_USERS: &str = "uidmap";

/// Makes sure that everything is there that `who` (`the simulated machines`) needs, or says what is missing.
pub(crate) fn ensure(who: &str, packages: &[Package]) -> Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    let missing = missing(packages, is_root, |program| Path::new(program).exists());
    if missing.is_empty() {
        return Ok(());
    }
    let install = format!("apt-get install {}", missing.join(" "));
    if !is_root {
        bail!("{who} need more Debian packages: run `sudo {install}`");
    }
    println!("Missing Debian packages that {who} need: {}", missing.join(" "));
    if std::io::stdin().is_terminal() && !agreed(&install)? {
        bail!("{who} cannot do without these packages: run `{install}`");
    }
    for arguments in [
        vec!["update"],
        [vec!["install", "--yes", "--no-install-recommends"], missing].concat(),
    ] {
        let mut apt = Command::new("apt-get");
        let status = apt
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(&arguments)
            .status();
        if !status
            .context("cannot run apt-get: install the packages by hand")?
            .success()
        {
            bail!(
                "`{}` failed: install the packages by hand",
                crate::command::line(&apt)
            );
        }
    }
    Ok(())
}

fn missing(packages: &[Package], is_root: bool, exists: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let is_needed = |package: &&Package| !(is_root && package.name == FOR_USERS);
    let missing = packages
        .iter()
        .filter(is_needed)
        .filter(|package| !exists(package.program));
    missing.map(|package| package.name).collect()
}

fn agreed(install: &str) -> Result<bool> {
    print!("Run `{install}` now? [Y/n] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "" | "y" | "yes"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_packages_are_named_and_uidmap_only_to_users() {
        assert_eq!(
            missing(&MACHINES, true, |_| false),
            ["systemd", "dbus", "iproute2", "util-linux"]
        );
        assert_eq!(
            missing(&MACHINES, false, |program| program != "/usr/bin/newuidmap"),
            ["uidmap"]
        );
        assert!(missing(&MACHINES, false, |_| true).is_empty());
    }
}
