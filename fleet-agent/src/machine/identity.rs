//! Who this machine is: the content of `/etc/machine-id`.

use std::io;
use std::path::{Path, PathBuf};

/// What systemd leaves in the place of an id until the first boot is through (machine-id(5)).
const UNINITIALIZED: &str = "uninitialized";

/// Why the machine has no id.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error("the machine's id cannot be read: {}: {source}; systemd-machine-id-setup creates it", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds no id, as before a machine's first boot.
    #[error("the machine has no id: {} holds none; systemd-machine-id-setup fills it", path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
    /// The content cannot be a part of a key.
    #[error("the machine's id {id:?} in {} contains \"/\" or a space", path.display())]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// Its content.
        id: String,
    },
}

/// Reads the machine's id. Any word will do, as with fleet.
///
/// # Errors
/// When there is none, or it could not stand in a key.
pub fn machine_id(path: &Path) -> Result<String, IdentityError> {
    let path = path.to_owned();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(source) => return Err(IdentityError::Read { path, source }),
    };
    let id = text.trim();
    if id.is_empty() || id == UNINITIALIZED {
        return Err(IdentityError::Empty { path });
    }
    let id = id.to_owned();
    if id.contains(['/', ' ', '\n', '\t']) || id == "." || id == ".." {
        return Err(IdentityError::Unusable { path, id });
    }
    Ok(id)
}

/// The first eight characters and an ellipsis, as fleet shows an id.
pub fn short(id: &str) -> String {
    let head: String = id.chars().take(8).collect();
    format!("{head}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_trimmed_word() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machine-id");
        assert!(matches!(machine_id(&path), Err(IdentityError::Read { .. })));
        for none in [" \n", "uninitialized\n"] {
            std::fs::write(&path, none).unwrap();
            assert!(
                matches!(machine_id(&path), Err(IdentityError::Empty { .. })),
                "{none:?}"
            );
        }
        std::fs::write(&path, "a/b\n").unwrap();
        assert!(matches!(machine_id(&path), Err(IdentityError::Unusable { .. })));
        std::fs::write(&path, "4de7ad5d37334bd1983fbd3ab7ee7cf9\n").unwrap();
        assert_eq!(machine_id(&path).unwrap(), "4de7ad5d37334bd1983fbd3ab7ee7cf9");
    }

    #[test]
    fn a_short_id_always_has_its_ellipsis() {
        assert_eq!(short("4de7ad5d37334bd1983fbd3ab7ee7cf9"), "4de7ad5d...");
        assert_eq!(short("abc"), "abc...");
    }
}
