//! What succeeded on this boot, so that a second run restarts nothing.
//!
//! It lives in `/run`, which a boot empties; the boot's id is kept with it for machines whose
//! `/run` outlives a boot. A record that can not be read counts as none: the worst that follows is
//! one restart too many.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use sha1::{Digest as _, Sha1};

use super::disk::Disk;
use super::plan::{Job, Plan};

/// Where it is kept.
const PATH: &str = "/run/cluster-init/record.json";

/// Jobs that succeeded, with what they succeeded for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The boot that it speaks of.
    boot: String,
    /// Fingerprint of the plan's files by job.
    done: BTreeMap<String, String>,
}

impl Record {
    /// Reads the record of a boot, an empty one when there is none.
    pub fn load(disk: &Disk, boot: &str) -> Self {
        let empty = Self {
            boot: boot.to_owned(),
            done: BTreeMap::new(),
        };
        let text = disk.read_text(PATH);
        match serde_json::from_str::<Self>(&text) {
            Ok(record) if record.boot == boot => record,
            Ok(_) | Err(_) => empty,
        }
    }

    /// Writes it, readable by its owner only.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self, disk: &Disk) -> io::Result<()> {
        let text = serde_json::to_string(self).expect("strings are always JSON");
        disk.replace(PATH, text.as_bytes(), 0o600)
    }

    /// Whether the job succeeded for these files.
    pub fn is_done(&self, job: &Job, fingerprint: &str) -> bool {
        self.done.get(&key(job)).map(String::as_str) == Some(fingerprint)
    }

    /// Remembers a success.
    pub fn set_done(&mut self, job: &Job, fingerprint: &str) {
        self.done.insert(key(job), fingerprint.to_owned());
    }

    /// Forgets one, after a failure.
    pub fn set_failed(&mut self, job: &Job) {
        self.done.remove(&key(job));
    }
}

fn key(job: &Job) -> String {
    format!("{} {}", job.command.word(), job.unit)
}

/// A short name for everything that a plan puts on disk.
pub fn fingerprint(plan: &Plan) -> String {
    let mut hash = Sha1::new();
    let mut add = |bytes: &[u8]| {
        hash.update(bytes.len().to_be_bytes());
        hash.update(bytes);
    };
    add(plan.hostname.as_deref().unwrap_or_default().as_bytes());
    for file in &plan.files {
        add(file.path.as_bytes());
        add(&file.content);
        add(&file.mode.to_be_bytes());
    }
    for mask in &plan.masks {
        add(mask.path.as_bytes());
        add(&[u8::from(mask.is_masked)]);
    }
    let digest = hash.finalize();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
