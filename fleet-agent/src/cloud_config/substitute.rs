//! `$public_ipv4` and its kin: replaced in the text before YAML sees it, as the original did.
//!
//! There is no word boundary: `$public_ipv42` is the address and a 2. A backslash before the
//! dollar keeps the text and goes away. Unlike the original, two variables side by side are both
//! replaced, and nothing is ever replaced by an empty text unless that was asked for: an empty
//! address made `http://:2380`, the classic failure of these files.

use std::collections::BTreeMap;

/// A name that stands for one of the machine's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variable {
    /// The address that other machines reach us by.
    PublicIpv4,
    /// The address inside of the machines' own network; the same where there is one network.
    PrivateIpv4,
    /// The public IPv6 address.
    PublicIpv6,
    /// The private IPv6 address.
    PrivateIpv6,
}

impl Variable {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::PublicIpv4,
        Self::PrivateIpv4,
        Self::PublicIpv6,
        Self::PrivateIpv6,
    ];

    /// As written in a file.
    pub fn token(self) -> &'static str {
        match self {
            Self::PublicIpv4 => "$public_ipv4",
            Self::PrivateIpv4 => "$private_ipv4",
            Self::PublicIpv6 => "$public_ipv6",
            Self::PrivateIpv6 => "$private_ipv6",
        }
    }

    /// The environment variable of the same meaning, also in `/etc/environment`.
    pub fn environment(self) -> &'static str {
        match self {
            Self::PublicIpv4 => "COREOS_PUBLIC_IPV4",
            Self::PrivateIpv4 => "COREOS_PRIVATE_IPV4",
            Self::PublicIpv6 => "COREOS_PUBLIC_IPV6",
            Self::PrivateIpv6 => "COREOS_PRIVATE_IPV6",
        }
    }

    /// Whether its value is an IPv4 address.
    pub fn is_ipv4(self) -> bool {
        matches!(self, Self::PublicIpv4 | Self::PrivateIpv4)
    }
}

/// The variables that a text needs, each with the first line that needs it.
///
/// Lines of comment do not count: a file that only explains `$private_ipv4` does not need one.
pub fn needed(text: &str) -> BTreeMap<Variable, usize> {
    let mut lines = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with('#') {
            continue;
        }
        for piece in pieces(line) {
            if let Piece::Variable(variable) = piece {
                lines.entry(variable).or_insert(index + 1);
            }
        }
    }
    lines
}

/// Whether a value still holds a variable.
pub fn has_variable(text: &str) -> bool {
    Variable::ALL
        .iter()
        .any(|variable| text.contains(variable.token()))
}

/// Replaces the variables that have a value, and takes the backslash from escaped ones.
pub fn substitute(text: &str, values: &BTreeMap<Variable, String>) -> String {
    let mut result = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => result.push_str(text),
            Piece::Escaped(variable) => result.push_str(variable.token()),
            Piece::Variable(variable) => {
                let value = values.get(&variable).map(String::as_str);
                result.push_str(value.unwrap_or(variable.token()));
            }
        }
    }
    result
}

enum Piece<'a> {
    Text(&'a str),
    Escaped(Variable),
    Variable(Variable),
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut start = 0;
    while let Some(offset) = rest[start..].find('$') {
        let dollar = start + offset;
        let at_dollar = &rest[dollar..];
        let variable = Variable::ALL
            .into_iter()
            .find(|variable| at_dollar.starts_with(variable.token()));
        let Some(variable) = variable else {
            start = dollar + 1;
            continue;
        };
        let before = &rest[..dollar];
        let unescaped = before.strip_suffix('\\');
        pieces.push(Piece::Text(unescaped.unwrap_or(before)));
        pieces.push(match unescaped {
            Some(_) => Piece::Escaped(variable),
            None => Piece::Variable(variable),
        });
        rest = &at_dollar[variable.token().len()..];
        start = 0;
    }
    pieces.push(Piece::Text(rest));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> BTreeMap<Variable, String> {
        BTreeMap::from([
            (Variable::PublicIpv4, "203.0.113.7".to_owned()),
            (Variable::PrivateIpv4, "10.0.0.7".to_owned()),
        ])
    }

    #[test]
    fn variables_are_replaced_escaped_ones_and_strangers_are_not() {
        for (text, expected) in [
            ("addr: $public_ipv4:4001", "addr: 203.0.113.7:4001"),
            (r"\$public_ipv4", "$public_ipv4"),
            (r"a\$public_ipv4 $public_ipv4", "a$public_ipv4 203.0.113.7"),
            ("$public_ipv4$private_ipv4", "203.0.113.710.0.0.7"),
            ("$public_ipv42", "203.0.113.72"),
            ("$$public_ipv4", "$203.0.113.7"),
            ("$public_ipv6", "$public_ipv6"),
            ("${public_ipv4} $PUBLIC_IPV4 $", "${public_ipv4} $PUBLIC_IPV4 $"),
            ("", ""),
            ("é$public_ipv4é", "é203.0.113.7é"),
        ] {
            assert_eq!(substitute(text, &values()), expected, "{text}");
        }
    }

    #[test]
    fn needed_names_the_first_line_and_ignores_comments_and_escapes() {
        let text = "#cloud-config\n# $private_ipv4\na: \\$public_ipv6\nb: $public_ipv4\nc: $public_ipv4\n";
        assert_eq!(needed(text), BTreeMap::from([(Variable::PublicIpv4, 4)]));
    }
}
