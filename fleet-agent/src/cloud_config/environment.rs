//! The text of `20-cloudinit.conf`: a service's settings as `Environment=` lines.
//!
//! The original put values between quotes as they were, so that systemd ate `%`, `"` and `\`.
//! Here they are escaped: what stands in the file is what the daemon sees.

use super::config::Setting;

/// A drop-in with one line per setting; None when there is no setting.
pub fn drop_in(settings: &[Setting]) -> Option<String> {
    if settings.is_empty() {
        return None;
    }
    let mut text = String::from("[Service]\n");
    for setting in settings {
        text.push_str("Environment=\"");
        text.push_str(&setting.variable);
        text.push('=');
        text.push_str(&escape(&setting.value));
        text.push_str("\"\n");
    }
    Some(text)
}

/// Escapes a value for the inside of a quoted `Environment=` word (systemd.exec(5), systemd.unit(5)).
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '%' => escaped.push_str("%%"),
            '"' => escaped.push_str("\\\""),
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '\t' => escaped.push_str("\\t"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The line of a setting for a person's eyes: secrets hidden.
pub fn describe(setting: &Setting) -> String {
    if setting.key.ends_with("password") {
        format!("{}=(hidden)", setting.variable)
    } else {
        format!("{}={}", setting.variable, setting.value.escape_debug())
    }
}
