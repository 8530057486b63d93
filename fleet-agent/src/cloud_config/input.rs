//! What kind of user-data a file holds, decided by its first line as coreos-cloudinit did.
//!
//! The header rule is strict on purpose: a file whose first line is not exactly `#cloud-config`
//! may be anything, and applying half of it would be worse than a clear refusal.

use std::io::Read as _;

use super::message::Message;

/// Largest user-data that is read, also after unpacking: clouds allow 16 to 64 KiB, so this leaves
/// room for embedded files and still bounds what a compressed bomb can ask of us.
pub const USER_DATA_BYTES_MAX: usize = 10 * 1024 * 1024;

/// First line of a file that is for us.
pub const HEADER: &str = "#cloud-config";

/// The two bytes that every gzip stream starts with (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// User-data by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Nothing in it, nothing to do.
    Empty,
    /// YAML after the header line; the text includes that line, so that line numbers hold.
    CloudConfig(String),
    /// Starts with `#!`: run by `/bin/bash`, whatever interpreter it names.
    Script(String),
    /// Ignition's JSON: for another program.
    Ignition,
}

/// Recognises user-data by its bytes.
///
/// # Errors
/// Anything that is none of the four kinds, with a hint for the usual slips.
pub fn recognise(bytes: &[u8]) -> Result<Input, Message> {
    let text = decode(bytes)?;
    if text.trim().is_empty() {
        return Ok(Input::Empty);
    }
    let first = text.lines().next().unwrap_or_default();
    if first.trim_end() == HEADER {
        Ok(Input::CloudConfig(text))
    } else if first.starts_with("#!") {
        Ok(Input::Script(text))
    } else if is_ignition(&text) {
        Ok(Input::Ignition)
    } else {
        Err(Message::error(1, header_hint(&text)))
    }
}

fn decode(bytes: &[u8]) -> Result<String, Message> {
    if bytes.len() > USER_DATA_BYTES_MAX {
        return Err(Message::error(1, too_large()));
    }
    let unpacked;
    let mut plain = bytes;
    if bytes.starts_with(&GZIP_MAGIC) {
        unpacked = gunzip(bytes).map_err(|text| Message::error(1, text))?;
        plain = &unpacked;
    }
    match std::str::from_utf8(plain) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let valid = &plain[..error.valid_up_to()];
            let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
            let byte = plain[error.valid_up_to()];
            Err(Message::error(
                line,
                format!("byte 0x{byte:02x} is not UTF-8: save the file as UTF-8"),
            ))
        }
    }
}

fn too_large() -> String {
    let mebibytes = USER_DATA_BYTES_MAX / (1024 * 1024);
    format!("user-data is larger than {mebibytes} MiB: move large contents elsewhere")
}

/// Unpacks gzip, bounded like the file itself.
///
/// # Errors
/// A damaged stream, or one that unpacks to more than [`USER_DATA_BYTES_MAX`].
pub fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    let limit = USER_DATA_BYTES_MAX as u64 + 1;
    flate2::read::MultiGzDecoder::new(bytes)
        .take(limit)
        .read_to_end(&mut unpacked)
        .map_err(|error| format!("damaged gzip data: {error}"))?;
    if unpacked.len() > USER_DATA_BYTES_MAX {
        return Err(too_large());
    }
    Ok(unpacked)
}

fn is_ignition(text: &str) -> bool {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else {
        return false;
    };
    let version = json.get("ignition").and_then(|ignition| ignition.get("version"));
    version.is_some_and(serde_json::Value::is_string) || json.get("ignitionVersion").is_some()
}

fn header_hint(text: &str) -> String {
    const RULE: &str = "the first line must be exactly #cloud-config";
    let first = text.lines().next().unwrap_or_default();
    if first.starts_with('\u{feff}') {
        return format!("{RULE}: remove the byte order mark before it");
    }
    if first.trim() == HEADER {
        return format!("{RULE}: remove the blanks before it");
    }
    if first.starts_with("Content-Type:") || first.starts_with("MIME-Version:") {
        return format!("{RULE}: this is a multi-part message, give its cloud-config part");
    }
    let squeezed: String = first.split_whitespace().collect();
    if squeezed.eq_ignore_ascii_case(HEADER) {
        return format!("{RULE}, not {:?}", first.trim_end());
    }
    match text.lines().position(|line| line.trim() == HEADER) {
        Some(index) => format!(
            "{RULE}, here it is line {}: remove what stands before it",
            index + 1
        ),
        None => format!("{RULE} (or #! for a script), not {:?}", shorten(first)),
    }
}

/// The start of a line, for messages.
fn shorten(line: &str) -> String {
    const CHARS_MAX: usize = 40;
    let mut short: String = line.trim_end().chars().take(CHARS_MAX).collect();
    if short.len() < line.trim_end().len() {
        short.push_str("...");
    }
    short
}
