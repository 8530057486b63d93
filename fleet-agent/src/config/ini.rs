//! The file format of `fleet.conf`: one `key = value` a line, as the original's parser reads it.
//!
//! Keys stand before any section; what follows a `[section]` is somebody else's. A value may stand in quotes;
//! a bare one ends at `#` or `;`. A line that ends in `\` goes on in the next.

/// A line that is no `key = value`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}: {text:?}")]
pub struct SyntaxError {
    /// Its number, from 1; of the first of joined lines.
    pub line: usize,
    /// What is wrong with it.
    pub reason: &'static str,
    /// What it says.
    pub text: String,
}

/// A key with its value and the line where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// In lower case.
    pub key: String,
    /// Without its quotes or trailing comment.
    pub value: String,
    /// From 1.
    pub line: usize,
}

/// Reads the global part of the file, in its order. A key that stands twice is there twice: the later one
/// counts.
///
/// # Errors
/// At the first line that is neither empty, a comment, a section nor `key = value`.
pub fn parse(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let mut entries = Vec::new();
    for (line, text) in joined_lines(text) {
        let text = text.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            continue;
        }
        if text.starts_with('[') {
            break;
        }
        let error = |reason| SyntaxError {
            line,
            reason,
            text: text.to_owned(),
        };
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| error("expected key = value"))?;
        let key = key.trim().to_lowercase();
        if key.is_empty() {
            return Err(error("a key is missing before \"=\""));
        }
        let value = unquote(value.trim()).ok_or_else(|| error("the quote is not closed"))?;
        entries.push(Entry { key, value, line });
    }
    Ok(entries)
}

/// Lines with those that end in `\` joined to the next, each with the number of its first.
fn joined_lines(text: &str) -> Vec<(usize, String)> {
    let mut joined: Vec<(usize, String)> = Vec::new();
    let mut goes_on = false;
    for (index, line) in text.lines().enumerate() {
        let body = line.strip_suffix('\\');
        let piece = body.unwrap_or(line);
        match joined.last_mut() {
            Some((_, last)) if goes_on => last.push_str(piece),
            _ => joined.push((index + 1, piece.to_owned())),
        }
        goes_on = body.is_some();
    }
    joined
}

/// The value itself; none when a quote is opened and never closed.
fn unquote(value: &str) -> Option<String> {
    let Some(quote) = value.chars().next().filter(|first| matches!(first, '"' | '\'')) else {
        return Some(bare(value));
    };
    let (inner, rest) = value[1..].split_once(quote)?;
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with(['#', ';']) {
        return Some(inner.to_owned());
    }
    // `"http://a","http://b"`: the quotes belong to the items of a list.
    Some(bare(value))
}

fn bare(value: &str) -> String {
    let end = value.find(['#', ';']).unwrap_or(value.len());
    value[..end].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(&str, &str)]) {
        let entries = parse(text).unwrap();
        let pairs: Vec<(&str, &str)> = entries
            .iter()
            .map(|entry| (entry.key.as_str(), entry.value.as_str()))
            .collect();
        assert_eq!(pairs, expected, "of {text:?}");
    }

    #[test]
    fn values_are_bare_or_quoted() {
        check("a = b", &[("a", "b")]);
        check("a=\"b c\"", &[("a", "b c")]);
        check("a='b # c' ; comment", &[("a", "b # c")]);
        check("a=\"b;c\"", &[("a", "b;c")]);
        check("a = b # comment", &[("a", "b")]);
        check("a=b;c", &[("a", "b")]);
        check("a=", &[("a", "")]);
        check("Public_IP=10.0.0.1", &[("public_ip", "10.0.0.1")]);
        check("metadata=k=v,l=w", &[("metadata", "k=v,l=w")]);
        check(
            "etcd_servers=[\"http://a:1\", \"http://b:2\"]",
            &[("etcd_servers", "[\"http://a:1\", \"http://b:2\"]")],
        );
        check(
            "etcd_servers=\"http://a:1\",\"http://b:2\"",
            &[("etcd_servers", "\"http://a:1\",\"http://b:2\"")],
        );
    }

    #[test]
    fn comments_empty_lines_and_sections_are_skipped() {
        check(
            "# one\n; two\n\n  \na=1\n[section]\nb=2\nnot a line\n",
            &[("a", "1")],
        );
        check("", &[]);
    }

    #[test]
    fn a_backslash_joins_lines() {
        check("a=one,\\\ntwo\nb=3", &[("a", "one,two"), ("b", "3")]);
        assert_eq!(parse("a=1,\\\n2\nb=3").unwrap()[1].line, 3);
    }

    #[test]
    fn other_lines_are_errors_with_their_number() {
        let error = parse("a=1\n\njust words\n").unwrap_err();
        assert_eq!(error.to_string(), "line 3: expected key = value: \"just words\"");
        assert_eq!(parse("=1").unwrap_err().reason, "a key is missing before \"=\"");
        assert_eq!(parse("a=\"b").unwrap_err().reason, "the quote is not closed");
    }
}
