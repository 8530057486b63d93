//! All disk work of the log and the checkpoints goes through the traits of this module, so that one seeded
//! simulator can lose, tear and refuse what a real disk can.

pub mod layout;
pub mod memory;
pub mod real;

use std::fmt;
use std::io;
use std::sync::Arc;

/// One directory. Changes of names (create, rename, remove) are durable after [`Disk::sync`] only.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// `NotFound` when there is none, else what the system says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Makes a new, empty file that only its owner can read.
    ///
    /// # Errors
    /// `AlreadyExists` when the name is taken, else what the system says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file a new name; a file that had it is gone. Open handles keep working.
    ///
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Open handles keep working.
    ///
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The names of the files in this directory, sorted; subdirectories are left out.
    ///
    /// # Errors
    /// What the system says.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes all changes of names durable.
    ///
    /// # Errors
    /// What the system says; after an error nothing is known about them.
    fn sync(&self) -> io::Result<()>;

    /// A directory below this one, made (for its owner only, durably) when missing.
    ///
    /// # Errors
    /// What the system says.
    fn directory(&self, name: &str) -> io::Result<Arc<dyn Disk>>;

    /// The full path of a name, for messages.
    fn describe(&self, name: &str) -> String;
}

/// One open file. Written bytes are durable after [`DiskFile::sync_data`] only; readers see them at once.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Reads up to the buffer's length; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes, growing the file when they reach beyond its end.
    ///
    /// # Errors
    /// What the system says; any part of the bytes may then stand in the file.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the content and length durable.
    ///
    /// # Errors
    /// What the system says. The caller must not try again: the system may have dropped what it could not
    /// write, and would then call the second attempt a success.
    fn sync_data(&self) -> io::Result<()>;

    /// Takes room for a file of this size, so that a full disk says so before anything is written. The content
    /// and its zeros are still to be written. A file system that cannot do this does nothing.
    ///
    /// # Errors
    /// `StorageFull` or `QuotaExceeded` when there is no room, else what the system says.
    fn reserve(&self, bytes: u64) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file or extends it with zeros.
    ///
    /// # Errors
    /// What the system says.
    fn set_length(&self, bytes: u64) -> io::Result<()>;
}

/// Whether an error says that the disk, or what this user may use of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// A file offset or length as an index into memory.
pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).expect("the caller bounds what it holds in memory")
}
