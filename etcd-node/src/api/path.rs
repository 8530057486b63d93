//! The path of a request before anybody routes it: decoded once, and clean or else redirected.
//!
//! Encoded dots and slashes are decoded first, so they take part; nothing ever runs on a path that is not
//! clean, because `/v2/keys/a/../b` would otherwise mean different keys to different readers.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What Go leaves alone when it prints a path.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// Why a path cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A `%` without two hexadecimal digits.
    #[error("invalid URL escape in the path")]
    Escape,
    /// Keys are UTF-8; other bytes would have to be changed, and then name another key.
    #[error("the path is not UTF-8")]
    NotUtf8,
}

/// Decodes the percent escapes, once; `+` is a plus.
///
/// # Errors
/// [`PathError`].
pub fn decode(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if !raw.contains('%') {
        return Ok(Cow::Borrowed(raw));
    }
    if !has_whole_escapes(raw.as_bytes()) {
        return Err(PathError::Escape);
    }
    percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| PathError::NotUtf8)
}

fn has_whole_escapes(raw: &[u8]) -> bool {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return false,
        }
    }
    true
}

/// Where a decoded path should have pointed, escaped for a `Location`; none when it is clean. A trailing slash
/// stays.
pub fn cleaned(path: &str) -> Option<String> {
    if is_clean(path) {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    let mut clean = String::with_capacity(path.len() + 1);
    for part in &parts {
        clean.push('/');
        clean.push_str(part);
    }
    if clean.is_empty() || path.ends_with('/') {
        clean.push('/');
    }
    Some(utf8_percent_encode(&clean, ESCAPED).to_string())
}

fn is_clean(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    (rest.is_empty() && path == "/") || rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_decoded_once_and_plus_is_a_plus() {
        let cases = [
            ("/v2/keys/a", Ok("/v2/keys/a")),
            ("/x%20y", Ok("/x y")),
            ("/x+y", Ok("/x+y")),
            ("/x%2Fy", Ok("/x/y")),
            ("/x%252Fy", Ok("/x%2Fy")),
            ("/%E2%98%83", Ok("/☃")),
            ("/%00nul", Ok("/\0nul")),
            ("/%zz", Err(PathError::Escape)),
            ("/%2", Err(PathError::Escape)),
            ("/%", Err(PathError::Escape)),
            ("/%ff", Err(PathError::NotUtf8)),
        ];
        for (raw, expected) in cases {
            assert_eq!(decode(raw).as_deref(), expected.as_deref(), "{raw}");
        }
    }

    #[test]
    fn paths_that_are_not_clean_are_sent_elsewhere() {
        let cases = [
            ("/", None),
            ("/v2/keys", None),
            ("/v2/keys/", None),
            ("/v2/keys/a.b/..c", None),
            ("//", Some("/")),
            ("/v2/keys//a", Some("/v2/keys/a")),
            ("/v2/keys/a//", Some("/v2/keys/a/")),
            ("/v2/keys/dot/./x", Some("/v2/keys/dot/x")),
            ("/v2/keys/dot/../y", Some("/v2/keys/y")),
            ("/v2/keys/../keys/foo", Some("/v2/keys/foo")),
            ("/../..", Some("/")),
            ("/v2/keys/.", Some("/v2/keys")),
            ("/v2//keys/a b?c☃", Some("/v2/keys/a%20b%3Fc%E2%98%83")),
            ("/a//b+c:d;e=f@g&h$i,j", Some("/a/b+c:d;e=f@g&h$i,j")),
        ];
        for (path, expected) in cases {
            assert_eq!(cleaned(path).as_deref(), expected, "{path}");
        }
    }
}
