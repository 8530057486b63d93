//! Keys and values as they stand in URLs and forms.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What stands unescaped in a path besides letters and digits.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// What stands unescaped in a form besides letters and digits.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The target of a key: a leading slash may be missing, doubled slashes, `.` and `..` are resolved as a
/// shell would, because the server redirects what is not clean.
pub(super) fn of_key(key: &str) -> String {
    let mut components: Vec<&str> = Vec::new();
    for component in key.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    let mut target = String::from("/v2/keys/");
    for (position, component) in components.iter().enumerate() {
        let separator = if position == 0 { "" } else { "/" };
        let escaped = utf8_percent_encode(component, PATH);
        write!(target, "{separator}{escaped}").expect("a string takes what is written");
    }
    target
}

/// Pairs of a query or form.
#[derive(Debug, Default)]
pub(super) struct Pairs(String);

impl Pairs {
    pub(super) fn add(&mut self, name: &str, value: &str) {
        let separator = if self.0.is_empty() { "" } else { "&" };
        let escaped = utf8_percent_encode(value, FORM);
        write!(self.0, "{separator}{name}={escaped}").expect("a string takes what is written");
    }

    pub(super) fn into_form(self) -> String {
        self.0
    }

    /// Appends them to a target.
    pub(super) fn append_to(self, mut target: String) -> String {
        if !self.0.is_empty() {
            target.push('?');
            target.push_str(&self.0);
        }
        target
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_clean_escaped_paths() {
        for (key, target) in [
            ("/", "/v2/keys/"),
            ("", "/v2/keys/"),
            ("a", "/v2/keys/a"),
            ("/a/b/", "/v2/keys/a/b"),
            ("//a//./b/../c", "/v2/keys/a/c"),
            ("/sp ace", "/v2/keys/sp%20ace"),
            ("/uni\u{2603}", "/v2/keys/uni%E2%98%83"),
            ("/q?#%+", "/v2/keys/q%3F%23%25+"),
            ("/../..", "/v2/keys/"),
        ] {
            assert_eq!(of_key(key), target, "{key:?}");
        }
    }

    #[test]
    fn values_are_escaped_as_forms_are() {
        let mut pairs = Pairs::default();
        pairs.add("ttl", "5");
        pairs.add("value", "a b&c=d+\n");
        assert_eq!(
            pairs.append_to("/x".to_owned()),
            "/x?ttl=5&value=a%20b%26c%3Dd%2B%0A"
        );
        assert_eq!(Pairs::default().append_to("/x".to_owned()), "/x");
    }
}
