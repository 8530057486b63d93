//! Where things stand in the registry, built as Go's `path.Join` builds them.

use crate::path::clean;

/// The keys below one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    /// Clean, with a leading slash, without a trailing one.
    prefix: String,
}

/// What a key below `machines/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MachineKey<'a> {
    /// `machines/<id>/object`.
    Object {
        /// The directory's name.
        id: &'a str,
    },
    /// `machines/<id>/metadata/<key>`.
    Metadata {
        /// The directory's name.
        id: &'a str,
        /// The last part.
        key: &'a str,
    },
}

impl Keys {
    /// The keys below this prefix, however many slashes it has.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            prefix: clean(prefix),
        }
    }

    /// Where a machine describes itself.
    pub(super) fn machine_object(&self, id: &str) -> String {
        format!("{}{id}/object", self.machines())
    }

    /// The prefix of all machines' keys, with a trailing slash.
    pub(super) fn machines(&self) -> String {
        format!("{}/machines/", self.prefix)
    }

    /// What this key below `machines/` is; none for anything that we do not know.
    pub(super) fn read_machine_key<'a>(&self, key: &'a [u8]) -> Option<MachineKey<'a>> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.machines())?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts[..] {
            [id, "object"] => Some(MachineKey::Object { id }),
            [id, "metadata", key] => Some(MachineKey::Metadata { id, key }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_of_the_prefix_do_not_matter() {
        for prefix in [
            "/_coreos.com/fleet/",
            "/_coreos.com/fleet",
            "_coreos.com//fleet/",
            "/x/../_coreos.com/./fleet",
        ] {
            let keys = Keys::new(prefix);
            assert_eq!(
                keys.machine_object("abc"),
                "/_coreos.com/fleet/machines/abc/object",
                "of {prefix:?}"
            );
        }
        assert_eq!(Keys::new("/").machine_object("abc"), "/machines/abc/object");
    }

    #[test]
    fn keys_are_told_apart_and_strangers_ignored() {
        let keys = Keys::new("/f");
        assert_eq!(
            keys.read_machine_key(b"/f/machines/a/object"),
            Some(MachineKey::Object { id: "a" })
        );
        let metadata = MachineKey::Metadata { id: "a", key: "k" };
        assert_eq!(keys.read_machine_key(b"/f/machines/a/metadata/k"), Some(metadata));
        for stranger in [
            "/f/machines/a",
            "/f/machines/a/other",
            "/f/machines/a/metadata/k/l",
            "/g/machines/a/object",
        ] {
            assert_eq!(keys.read_machine_key(stranger.as_bytes()), None, "{stranger}");
        }
        assert_eq!(keys.read_machine_key(b"/f/machines/\xff/object"), None);
    }
}
