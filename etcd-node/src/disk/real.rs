//! A directory of the machine's file system.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{Disk, DiskFile};

/// Only the owner reads and writes state.
const FILE_MODE: u32 = 0o600;
/// Only the owner enters the directories of state.
const DIRECTORY_MODE: u32 = 0o700;

/// A directory of the file system.
#[derive(Debug)]
pub struct RealDisk {
    path: PathBuf,
}

impl RealDisk {
    /// The directory at this path, made with mode 0700 (and made durable in its parent) when missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Ok(()) => {
                // "name" alone has the empty parent, which is the working directory.
                let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
                sync_directory(parent.unwrap_or_else(|| Path::new(".")))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }
}

impl Disk for RealDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(FILE_MODE);
        Ok(Arc::new(RealFile(options.open(self.path.join(name))?)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        sync_directory(&self.path)
    }

    fn directory(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(Self::open(&self.path.join(name))?))
    }

    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[derive(Debug)]
struct RealFile(File);

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
            // The second is what old network file systems say.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn state_is_readable_by_its_owner_alone() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("state");
        let disk = RealDisk::open(&path).unwrap();
        disk.create("a").unwrap();
        disk.directory("below").unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("a")), 0o600);
        assert_eq!(mode(&path.join("below")), 0o700);
    }

    #[test]
    fn names_and_bytes_are_kept() {
        let temporary = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(temporary.path()).unwrap();
        let file = disk.create("a").unwrap();
        file.write_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync().unwrap();
        disk.directory("below").unwrap();
        assert_eq!(disk.list().unwrap(), ["b"]);
        assert_eq!(disk.create("b").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        file.reserve(1 << 20).unwrap();
        assert!(file.length().unwrap() >= 8);
        disk.open("b").unwrap().set_length(8).unwrap();
        let mut buffer = [9; 10];
        assert_eq!(disk.open("b").unwrap().read_at(&mut buffer, 0).unwrap(), 8);
        assert_eq!(&buffer[..8], b"\0\0\0hello");
        disk.remove("b").unwrap();
        assert_eq!(disk.open("b").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
