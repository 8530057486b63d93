//! `write_files`: paths, encodings and permissions.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::config::File;
use super::fields::{Fields, scalar_text};
use super::input::gunzip;
use super::message::Message;
use super::options::FILE_KEYS;
use super::yaml::{Node, Value};

/// Permissions of a file that names none.
const MODE_DEFAULT: u32 = 0o644;

/// Standard alphabet, padding or not: files from the time have both.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads the list; entries with a mistake are left out, with a message.
pub(super) fn read(items: &[Node], messages: &mut Vec<Message>) -> Vec<File> {
    items
        .iter()
        .filter_map(|item| read_file(item, messages))
        .collect()
}

fn read_file(item: &Node, messages: &mut Vec<Message>) -> Option<File> {
    let fields = Fields::open_item("write_files", item, messages)?;
    fields.report_unknown(FILE_KEYS, messages);
    let mode = read_mode(&fields, messages);
    let content = read_content(&fields, messages);
    let owner = fields.text("owner", messages).filter(|it| !it.value.is_empty());
    let Some(path) = fields.text("path", messages) else {
        let text = "a file without a path: add path";
        messages.push(Message::error(item.line, text));
        return None;
    };
    if let Err(text) = check_path(&path.value) {
        messages.push(Message::error(path.line, text));
        return None;
    }
    if path.value.starts_with("/usr/") && !path.value.starts_with("/usr/local/") {
        let text = format!(
            "{} belongs to the packages of the system: better in /usr/local or /etc",
            path.value
        );
        messages.push(Message::warning(path.line, text));
    }
    Some(File {
        path: path.value,
        content: content?,
        mode: mode?,
        owner,
        line: item.line,
    })
}

/// Longest path that Linux takes (`PATH_MAX`, with its end mark).
const PATH_BYTES_MAX: usize = 4095;

fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("path {path:?} must start with /"));
    }
    let has_dots = path.split('/').any(|part| part == "." || part == "..");
    if path.ends_with('/') || path.contains('\0') || has_dots || path.len() > PATH_BYTES_MAX {
        return Err(format!("path {path:?} must name a file, without . and .."));
    }
    Ok(())
}

/// Permissions are octal whatever YAML thinks: `644`, `0644`, `"0644"` and `0o644` are one.
fn read_mode(fields: &Fields<'_>, messages: &mut Vec<Message>) -> Option<u32> {
    let Some(given) = fields.text("permissions", messages) else {
        return Some(MODE_DEFAULT);
    };
    if given.value.is_empty() {
        return Some(MODE_DEFAULT);
    }
    let digits = given.value.strip_prefix("0o").unwrap_or(&given.value);
    let digits = match digits.len() {
        5 => digits.strip_prefix('0').unwrap_or_default(),
        _ => digits,
    };
    let mode = match digits.len() {
        3 | 4 if digits.bytes().all(|it| it.is_ascii_digit()) => u32::from_str_radix(digits, 8).ok(),
        _ => None,
    };
    if mode.is_none() {
        let text = format!(
            "permissions {:?} must be three or four octal digits like 0644",
            given.value
        );
        messages.push(Message::error(given.line, text));
    }
    mode
}

fn read_content(fields: &Fields<'_>, messages: &mut Vec<Message>) -> Option<Vec<u8>> {
    let encoding = fields.text("encoding", messages);
    let Some(entry) = fields.entry("content") else {
        return Some(Vec::new());
    };
    let text = scalar_text(entry, messages)?;
    let is_binary = matches!(&entry.node.value, Value::Scalar(scalar) if scalar.is_binary);
    let raw = if is_binary {
        decode_base64(&text)
    } else {
        Ok(text.into_bytes())
    };
    let name = encoding.as_ref().map_or("", |it| it.value.as_str());
    let decoded = raw.and_then(|raw| match name {
        "" => Ok(raw),
        "b64" | "base64" => decode_base64_bytes(&raw),
        "gz" | "gzip" => gunzip(&raw),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" => {
            decode_base64_bytes(&raw).and_then(|packed| gunzip(&packed))
        }
        other => Err(format!(
            "encoding {other:?} is not known: use base64, gzip or gzip+base64"
        )),
    });
    match decoded {
        Ok(content) => Some(content),
        Err(text) => {
            let line = encoding.map_or(entry.line, |it| it.line);
            messages.push(Message::error(
                line,
                format!("content can not be decoded: {text}"),
            ));
            None
        }
    }
}

fn decode_base64_bytes(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "base64 is plain text".to_owned())?;
    decode_base64(text)
}

fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let compact: String = text.split_whitespace().collect();
    BASE64.decode(compact).map_err(|error| {
        format!("damaged base64: {error}")
            .trim_end_matches('.')
            .to_lowercase()
    })
}
