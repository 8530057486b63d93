//! Paths with slashes, as Go's `path` package understands them: of keys and of URLs.

/// As `path.Clean` of an absolute path, whether or not it begins with a slash: no empty, `.` or `..` part and no
/// slash at its end. The root is empty.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.iter().map(|part| format!("/{part}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clean_path_has_no_part_that_means_nothing() {
        for (path, expected) in [
            ("/a/b", "/a/b"),
            ("a//b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../a", "/a"),
            ("/", ""),
            ("", ""),
        ] {
            assert_eq!(clean(path), expected, "of {path:?}");
        }
    }
}
