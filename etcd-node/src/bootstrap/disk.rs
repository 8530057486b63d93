//! The data directory: whose it is, that only one process uses it, and that it is ours to touch.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bytes::Bytes;
use daemon::backoff::random_seed;
use proto::ids::{ClusterId, NodeId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::disk::layout::{FORMAT_FILE, Layout, ROOT};
use crate::disk::real::RealDisk;

/// Who is in this directory; written last, when everything before it is durable.
const MEMBER_FILE: &str = "member.json";
/// What this directory is going to become.
const INTENT_FILE: &str = "intent.json";
/// Held by the process that uses the directory.
const LOCK_FILE: &str = "lock";
/// Our small files are below a kibibyte.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What a stock etcd leaves behind: 2.x and 3.x, then 0.4.
const STOCK_NAMES: [&str; 4] = ["member", "proxy", "snapshot", "conf"];

/// Whose data this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The cluster, in hexadecimal.
    pub cluster: String,
    /// The member, in hexadecimal.
    pub node: String,
    /// The disk's own name, in hexadecimal.
    pub incarnation: String,
    /// The cluster was founded through a discovery URL that has not been told so yet: nobody may be served.
    #[serde(default)]
    pub is_unconfirmed: bool,
    /// The other members when this one was admitted: its log and checkpoints are empty then, and it must answer
    /// somebody.
    #[serde(default)]
    pub peers: Vec<KnownPeer>,
}

/// Another member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    /// Its id, in hexadecimal.
    pub id: String,
    /// Where it is reached.
    pub peer_urls: Vec<String>,
}

/// What an empty directory is going to become; kept so that a start that was cut short goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The disk's own name, in hexadecimal.
    pub incarnation: String,
    /// Names the cluster that this node would found.
    pub cluster_seed: String,
    /// The peer URLs that go with it.
    pub peer_urls: Vec<String>,
}

/// A locked data directory.
pub struct DataDir {
    path: PathBuf,
    /// The lock lives as long as this file is open.
    _lock: File,
}

impl DataDir {
    /// Opens and locks a directory, makes it with mode 0700 when it is missing. Nothing else is touched.
    ///
    /// # Errors
    /// When it belongs to a stock etcd, is in use, or cannot be used.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        refuse_stock_data(path)?;
        if !path.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .with_context(|| format!("cannot make the data directory {}", path.display()))?;
        }
        let root = path.join(ROOT);
        let has_root = root.exists();
        if !has_root {
            DirBuilder::new()
                .mode(0o700)
                .create(&root)
                .with_context(|| format!("cannot write to the data directory {}", path.display()))?;
        }
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("{} is not ours to use", root.display()))?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(root.join(LOCK_FILE))
            .with_context(|| format!("cannot open the lock of {}", path.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "the data directory {} is in use by another process: stop that etcd, or name another --data-dir",
                path.display()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its parts on disk.
    ///
    /// # Errors
    /// When it is of a newer release or cannot be used.
    pub fn layout(&self) -> anyhow::Result<Layout> {
        let disk = RealDisk::open(&self.path)
            .with_context(|| format!("cannot open the data directory {}", self.path.display()))?;
        Ok(Layout::open(&disk)?)
    }

    /// Whose data this is; none while it has not come to a cluster.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn member(&self) -> anyhow::Result<Option<Member>> {
        self.read(MEMBER_FILE)
    }

    /// Binds the directory to a member for good.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn bind(&self, member: &Member) -> anyhow::Result<()> {
        self.write(MEMBER_FILE, member)
    }

    /// The intent of an earlier start, or a new one, durable.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn intent(&self, peer_urls: &[String]) -> anyhow::Result<Intent> {
        if let Some(intent) = self.read::<Intent>(INTENT_FILE)?
            && intent.peer_urls == peer_urls
        {
            return Ok(intent);
        }
        let intent = Intent {
            incarnation: random_hex(),
            cluster_seed: random_hex(),
            peer_urls: peer_urls.to_vec(),
        };
        self.write(INTENT_FILE, &intent)?;
        Ok(intent)
    }

    /// Unbinds the directory from a cluster that nobody was ever served by.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn unbind(&self) -> anyhow::Result<()> {
        assert!(
            matches!(self.member(), Ok(Some(member)) if member.is_unconfirmed),
            "only a cluster that nobody was told of is thrown away"
        );
        let path = self.path.join(ROOT).join(MEMBER_FILE);
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        self.clear_unbound()
    }

    /// Removes a log and checkpoints of a start that was cut short before the directory was bound: nobody was
    /// promised anything of them.
    ///
    /// # Errors
    /// What the disk refuses.
    pub fn clear_unbound(&self) -> anyhow::Result<()> {
        assert!(
            matches!(self.member(), Ok(None)),
            "a bound directory is never cleared"
        );
        for name in [
            crate::disk::layout::WAL_DIRECTORY,
            crate::disk::layout::CHECKPOINT_DIRECTORY,
        ] {
            let path = self.path.join(ROOT).join(name);
            match fs::remove_dir_all(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot clear {}", path.display()));
                }
            }
        }
        Ok(())
    }

    fn read<T: for<'a> Deserialize<'a>>(&self, name: &str) -> anyhow::Result<Option<T>> {
        let path = self.path.join(ROOT).join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
        };
        let mut text = String::new();
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let value = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is damaged: restore it, or name another --data-dir and join as a new member",
                path.display()
            )
        })?;
        Ok(Some(value))
    }

    /// Whole or not at all: a crash leaves the old file or the new one.
    fn write<T: Serialize>(&self, name: &str, value: &T) -> anyhow::Result<()> {
        let root = self.path.join(ROOT);
        let (path, part) = (root.join(name), root.join(format!("{name}.part")));
        let written = || -> io::Result<()> {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&part)?;
            file.write_all(serde_json::to_string_pretty(value)?.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(&root)?.sync_all()?;
            File::open(&self.path)?.sync_all()
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Member {
    /// The ids.
    ///
    /// # Errors
    /// When the file says something that is no id.
    pub fn ids(&self) -> anyhow::Result<(ClusterId, NodeId, Bytes)> {
        let damaged = || format!("{MEMBER_FILE} is damaged");
        Ok((
            ClusterId::parse(&self.cluster).with_context(damaged)?,
            NodeId::parse(&self.node).with_context(damaged)?,
            incarnation(&self.incarnation).with_context(damaged)?,
        ))
    }
}

/// The bytes of an incarnation.
///
/// # Errors
/// When it is not 32 hexadecimal digits.
pub fn incarnation(text: &str) -> anyhow::Result<Bytes> {
    let value = u128::from_str_radix(text, 16)?;
    Ok(Bytes::copy_from_slice(&value.to_be_bytes()))
}

fn random_hex() -> String {
    format!("{:016x}{:016x}", random_seed(), random_seed())
}

/// A directory with another program's data and without ours is left exactly as it is.
fn refuse_stock_data(path: &Path) -> anyhow::Result<()> {
    if path.join(ROOT).join(FORMAT_FILE).exists() {
        return Ok(());
    }
    for name in STOCK_NAMES {
        if path.join(name).exists() {
            bail!(
                "{} is the data directory of another etcd (it has {name:?}); it is left untouched. Name another --data-dir here; \
                 to take the data along, start the old etcd on other ports and copy its keys with a client",
                path.display()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_used_by_one_process_at_a_time() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("n.etcd");
        let first = DataDir::open(&path).unwrap();
        let error = DataDir::open(&path).err().unwrap().to_string();
        assert!(error.contains("in use"), "{error}");
        drop(first);
        DataDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn stock_data_is_refused_untouched() {
        for name in STOCK_NAMES {
            let home = tempfile::tempdir().unwrap();
            fs::create_dir(home.path().join(name)).unwrap();
            let error = DataDir::open(home.path()).err().unwrap().to_string();
            assert!(error.contains("left untouched"), "{error}");
            let names: Vec<_> = fs::read_dir(home.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert_eq!(names, [name], "nothing was added");
        }
    }

    #[test]
    fn an_intent_is_kept_until_the_peer_urls_change() {
        let home = tempfile::tempdir().unwrap();
        let directory = DataDir::open(home.path()).unwrap();
        let urls = ["http://a:1".to_owned()];
        let first = directory.intent(&urls).unwrap();
        assert_eq!(directory.intent(&urls).unwrap(), first);
        assert_ne!(
            directory.intent(&["http://b:1".to_owned()]).unwrap().incarnation,
            first.incarnation
        );
        assert_eq!(incarnation(&first.incarnation).unwrap().len(), 16);
    }

    #[test]
    fn a_binding_is_read_back() {
        let home = tempfile::tempdir().unwrap();
        let directory = DataDir::open(home.path()).unwrap();
        assert_eq!(directory.member().unwrap(), None);
        let member = Member {
            cluster: "1f".into(),
            node: "2f".into(),
            incarnation: "3f".into(),
            is_unconfirmed: true,
            peers: Vec::new(),
        };
        directory.bind(&member).unwrap();
        assert_eq!(directory.member().unwrap(), Some(member.clone()));
        assert_eq!(member.ids().unwrap().1, NodeId::new(0x2f));
        directory.unbind().unwrap();
        assert_eq!(directory.member().unwrap(), None);
    }
}
