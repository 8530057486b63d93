//! Files below a root: compared first, written only when they differ, replaced in one step.
//!
//! Under another root, links are followed inside of it: `/var/run -> /run` must not lead a write
//! for an image to the machine that builds it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Gid, Uid};

use super::accounts::Owner;
use super::plan::{Mask, PlannedFile};

/// Most links on the way to one file, as in Linux (`MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// Largest small text that is read, like `/etc/passwd` or a record.
const TEXT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Permissions of directories that have to be made on the way to a file.
const DIRECTORY_MODE: u32 = 0o755;

/// Permission bits as chmod knows them.
const MODE_MASK: u32 = 0o7777;

/// How a file on disk differs from the planned one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    Same,
    /// There is nothing at its place.
    Absent,
    /// Other content, or no regular file.
    Content,
    /// Same content, other permissions or owner.
    Attributes,
}

/// The file system below a root.
#[derive(Clone, Debug)]
pub struct Disk {
    root: PathBuf,
}

impl Disk {
    /// The file system below this directory; `/` is the machine's own.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Whether it is the machine's own.
    pub fn is_own(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A small text file; empty when it can not be read.
    pub fn read_text(&self, path: &str) -> String {
        let mut bytes = Vec::new();
        let read = self
            .locate(Path::new(path))
            .and_then(File::open)
            .and_then(|file| file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes));
        match read {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(_) => String::new(),
        }
    }

    /// Whether something is there.
    pub fn exists(&self, path: &str) -> bool {
        self.locate(Path::new(path)).is_ok_and(|path| path.exists())
    }

    /// Names in a directory; none when it can not be read.
    pub fn names(&self, path: &str) -> Vec<String> {
        let entries = self.locate(Path::new(path)).and_then(fs::read_dir);
        let names = entries.into_iter().flatten().filter_map(Result::ok);
        names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    }

    /// Opens a file that only we use, making it and its directory (0700) when needed.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn open_private(&self, path: &str) -> io::Result<File> {
        let place = self.place(path)?;
        make_private_directory(parent(&place))?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(&place).map_err(|error| named(&place, &error))
    }

    /// Compares a planned file with what is there.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn compare(&self, file: &PlannedFile) -> io::Result<Difference> {
        let place = self.place(&file.path)?;
        let metadata = match fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Difference::Absent),
            Err(error) => return Err(named(&place, &error)),
        };
        if metadata.is_dir() {
            let error = io::Error::new(io::ErrorKind::IsADirectory, "a directory is in the way");
            return Err(named(&place, &error));
        }
        if !metadata.is_file() || metadata.len() != file.content.len() as u64 {
            return Ok(Difference::Content);
        }
        let content = fs::read(&place).map_err(|error| named(&place, &error))?;
        let has_owner = |owner: Owner| {
            owner.uid.is_none_or(|uid| uid == metadata.uid())
                && owner.gid.is_none_or(|gid| gid == metadata.gid())
        };
        Ok(if content != file.content {
            Difference::Content
        } else if metadata.mode() & MODE_MASK != file.mode || !file.owner.is_none_or(has_owner) {
            Difference::Attributes
        } else {
            Difference::Same
        })
    }

    /// Makes a file what the plan says.
    ///
    /// # Errors
    /// The file system's, with the path; what was there before is then still there.
    pub fn write(&self, file: &PlannedFile, difference: Difference) -> io::Result<()> {
        let place = self.place(&file.path)?;
        match difference {
            Difference::Same => Ok(()),
            Difference::Attributes => File::open(&place)
                .and_then(|handle| set_attributes(&handle, file.mode, file.owner))
                .map_err(|error| named(&place, &error)),
            Difference::Absent | Difference::Content => {
                make_directories(parent(&place))?;
                replace(&place, &file.content, file.mode, file.owner)
            }
        }
    }

    /// Replaces a file of ours.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn replace(&self, path: &str, content: &[u8], mode: u32) -> io::Result<()> {
        let place = self.place(path)?;
        make_directories(parent(&place))?;
        replace(&place, content, mode, None)
    }

    /// Whether a mask has to be changed to be as planned.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn is_mask_due(&self, mask: &Mask) -> io::Result<bool> {
        let place = self.place(&mask.path)?;
        let metadata = match fs::symlink_metadata(&place) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(mask.is_masked),
            Err(error) => return Err(named(&place, &error)),
        };
        let is_null = metadata.is_symlink()
            && fs::read_link(&place).is_ok_and(|target| target == Path::new("/dev/null"));
        let is_empty = metadata.is_file() && metadata.len() == 0;
        Ok(if mask.is_masked {
            !is_null
        } else {
            is_null || is_empty
        })
    }

    /// Links a unit to `/dev/null`, or removes such a link.
    ///
    /// # Errors
    /// The file system's, with the path.
    pub fn change_mask(&self, mask: &Mask) -> io::Result<()> {
        let place = self.place(&mask.path)?;
        match fs::remove_file(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(named(&place, &error));
            }
            Ok(()) | Err(_) => {}
        }
        if mask.is_masked {
            make_directories(parent(&place))?;
            symlink("/dev/null", &place).map_err(|error| named(&place, &error))?;
        }
        Ok(())
    }

    /// Where a file stands: its directory resolved, its own name not followed.
    fn place(&self, path: &str) -> io::Result<PathBuf> {
        let path = Path::new(path);
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let directory = self.locate(parent(path));
        Ok(directory.map_err(|error| named(path, &error))?.join(name))
    }

    /// Resolves a path inside of the root.
    fn locate(&self, path: &Path) -> io::Result<PathBuf> {
        if self.is_own() {
            return Ok(path.to_owned());
        }
        let mut pending: Vec<PathBuf> = vec![path.to_owned()];
        let mut inside = PathBuf::new();
        let mut links = 0;
        while let Some(path) = pending.pop() {
            let mut components = path.components();
            let Some(component) = components.next() else {
                continue;
            };
            pending.push(components.as_path().to_owned());
            match component {
                Component::RootDir | Component::Prefix(_) => inside.clear(),
                Component::CurDir => {}
                Component::ParentDir => {
                    inside.pop();
                }
                Component::Normal(name) => {
                    let next = self.root.join(&inside).join(name);
                    match fs::read_link(&next) {
                        Ok(target) => {
                            links += 1;
                            if links > LINKS_MAX {
                                return Err(io::Error::other("too many links"));
                            }
                            pending.push(target);
                        }
                        Err(_) => inside.push(name),
                    }
                }
            }
        }
        Ok(self.root.join(inside))
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Keeps the kind of an error and says which file it was.
fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Makes a missing directory that only its owner sees, and what is missing above it.
fn make_private_directory(path: &Path) -> io::Result<()> {
    make_directories(parent(path))?;
    make_directory(path, 0o700)
}

/// Makes missing directories.
fn make_directories(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_directories(parent)?;
    }
    make_directory(path, DIRECTORY_MODE)
}

/// Makes a directory with these permissions, whatever the umask; one that is there stays as it is.
fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(named(path, &error)),
        Ok(()) => {
            fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|error| named(path, &error))
        }
    }
}

/// Writes beside the place, syncs, renames: readers see the old file or the new one, never half.
fn replace(place: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    let short: String = name.chars().take(NAME_CHARS_KEPT).collect();
    let temporary = place.with_file_name(format!(".{short}.cluster-init"));
    let written = write_new(&temporary, content, mode, owner).and_then(|()| fs::rename(&temporary, place));
    written.map_err(|error| {
        // Best effort: the error that led here is the one to tell.
        fs::remove_file(&temporary).ok();
        named(place, &error)
    })
}

/// So that a long name and our suffix stay below the 255 bytes of a file name.
const NAME_CHARS_KEPT: usize = 50;

fn write_new(path: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    // A file of that name is what a run that was killed left behind.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    set_attributes(&file, mode, owner)?;
    file.sync_all()
}

fn set_attributes(file: &File, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    if let Some(owner) = owner {
        let uid = owner.uid.map(Uid::from_raw);
        let gid = owner.gid.map(Gid::from_raw);
        rustix::fs::fchown(file, uid, gid)?;
    }
    // After the owner: a change of owner clears set-user-id.
    file.set_permissions(Permissions::from_mode(mode))
}
