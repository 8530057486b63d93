//! Where this checkout is, and how its programs are built.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of the product, and the package that holds it.
pub(crate) struct Program {
    pub(crate) package: &'static str,
    pub(crate) binary: &'static str,
}

/// Every program that is installed, in the order of the house.
pub(crate) const PROGRAMS: [Program; 5] = [
    Program {
        package: "etcd-node",
        binary: "etcd",
    },
    Program {
        package: "client",
        binary: "etcdctl",
    },
    Program {
        package: "fleet-agent",
        binary: "fleetd",
    },
    Program {
        package: "fleet-agent",
        binary: "fleetctl",
    },
    Program {
        package: "fleet-agent",
        binary: "cluster-init",
    },
];

/// The root of the checkout that this program was built from.
pub(crate) fn checkout() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Cargo's target directory: `CARGO_TARGET_DIR`, else `target` in the checkout.
pub(crate) fn target() -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty());
    named.map_or_else(
        || checkout().join("target"),
        |path| std::path::absolute(&path).unwrap_or(path.into()),
    )
}

/// Where the product's programs are: those of `given`, else a fresh release build, whose progress cargo shows.
pub(crate) fn binaries(given: Option<&Path>) -> Result<PathBuf> {
    let directory = match given {
        Some(directory) => std::path::absolute(directory)?,
        None => build_release()?,
    };
    for program in &PROGRAMS {
        let path = directory.join(program.binary);
        if !path.is_file() {
            bail!(
                "{} is missing: package `{}` did not build it",
                path.display(),
                program.package
            );
        }
    }
    Ok(directory)
}

fn build_release() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(checkout())
        .args(["build", "--release", "--bins"]);
    let mut packages: Vec<_> = PROGRAMS.iter().map(|program| program.package).collect();
    packages.dedup();
    for package in packages {
        command.args(["--package", package]);
    }
    let status = command.status().context("cannot run cargo")?;
    if !status.success() {
        bail!("`{}` ended with {status}", crate::command::line(&command));
    }
    Ok(target().join("release"))
}
