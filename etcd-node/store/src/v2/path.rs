//! The only mapping between v2 paths and v3 keys: `/a/b` *is* the key `/a/b` (keyspace rules, section 2).

/// Longest path that v2 shows, in bytes. A directory's record holds its whole path, so that a key of d
/// components costs its length d times; with the depth's limit a key costs at most half a megabyte.
pub const PATH_BYTES_MAX: usize = 4096;

/// Deepest path that v2 shows, in components. Nothing that recurses along a path goes deeper.
pub const PATH_COMPONENTS_MAX: usize = 128;

/// Whether a key is a clean path, so that v2 shows it: UTF-8, a leading `/`, no empty, `.` or `..`
/// component, no trailing `/`, within the two limits. The root itself is no key.
pub fn is_clean(key: &[u8]) -> bool {
    of_key(key).is_some()
}

/// The path of a key that is a clean path.
pub fn of_key(key: &[u8]) -> Option<&str> {
    if key.first() != Some(&b'/') || key.len() > PATH_BYTES_MAX {
        return None;
    }
    let path = std::str::from_utf8(key).ok()?;
    let mut components = 0;
    for component in path[1..].split('/') {
        components += 1;
        if matches!(component, "" | "." | "..") || components > PATH_COMPONENTS_MAX {
            return None;
        }
    }
    Some(path)
}

/// The directory that a path stands in; none for what stands in the root, and for the root.
pub(crate) fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/')
        .map(|(parent, _)| parent)
        .filter(|parent| !parent.is_empty())
}

/// Cleans what stands behind `/v2/keys`: empty components vanish, `.` and `..` are resolved; `/` for the root.
pub fn clean(raw: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in raw.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let mut path = String::with_capacity(raw.len() + 1);
    for part in parts {
        path.push('/');
        path.push_str(part);
    }
    if path.is_empty() { "/".to_owned() } else { path }
}

/// Whether the last component starts with `_`: left out of every listing.
pub fn is_hidden(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|last| last.starts_with('_'))
}

/// Whether `path` lies strictly below `directory`, by whole components.
pub fn is_below(path: &str, directory: &str) -> bool {
    if directory == "/" {
        return path != "/";
    }
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_paths_and_others() {
        for good in ["/a", "/a/b", "/_h", "/a.b", "/ü/x y"] {
            assert!(is_clean(good.as_bytes()), "{good}");
        }
        for bad in ["", "/", "a", "/a/", "//a", "/a//b", "/./a", "/a/.."] {
            assert!(!is_clean(bad.as_bytes()), "{bad}");
        }
        assert!(!is_clean(b"/\xff"));
        assert!(is_clean("/x".repeat(128).as_bytes()) && !is_clean("/x".repeat(129).as_bytes()));
        assert!(!is_clean(format!("/{}", "x".repeat(4096)).as_bytes()));
    }

    #[test]
    fn cleaning_resolves_dots_and_empty_components() {
        for (raw, path) in [
            ("", "/"),
            ("//", "/"),
            ("/a//b/", "/a/b"),
            ("/a/./../b", "/b"),
            ("/../..", "/"),
        ] {
            assert_eq!(clean(raw), path);
        }
    }

    #[test]
    fn below_respects_component_boundaries() {
        assert!(is_below("/a/b", "/a") && is_below("/a", "/"));
        assert!(!is_below("/ab", "/a") && !is_below("/a", "/a") && !is_below("/", "/"));
    }
}
