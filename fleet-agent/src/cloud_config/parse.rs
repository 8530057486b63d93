//! From text to a checked [`Config`], with a message for every line that says something wrong.
//!
//! Reading goes on after a mistake, so that one run names them all. The text may still hold
//! `$public_ipv4` and its kin (`--validate` looks at the file as it is): values with such a
//! variable pass the checks of their form.

use super::config::{Command, Config, Located, Service, Setting, Unit};
use super::fields::{Fields, boolean, integer};
use super::message::Message;
use super::options::{
    COREOS_KEYS, DROP_IN_KEYS, Kind, OptionRule, Section, TOP_KEYS, TOP_PATH, UNIT_KEYS, USER_KEYS, guess,
};
use super::plan::{ETCD, ETCD_ALIAS};
use super::substitute::has_variable;
use super::yaml::{self, Node};
use super::{config, files};

/// Reads a `#cloud-config` text.
///
/// The messages are in the order of their lines. When one of them is an error, the configuration
/// is what could be read and must not be applied.
pub fn parse(text: &str) -> (Config, Vec<Message>) {
    let mut config = Config::default();
    let document = match yaml::read(text) {
        Ok(document) => document,
        Err(message) => return (config, vec![message]),
    };
    let mut messages = document.messages;
    if let Some(root) = &document.root {
        read_top(root, &mut config, &mut messages);
    }
    messages.sort_by_key(|message| message.line);
    (config, messages)
}

fn read_top(root: &Node, config: &mut Config, messages: &mut Vec<Message>) {
    let Some(top) = Fields::open(TOP_PATH, root, messages) else {
        return;
    };
    top.report_unknown(TOP_KEYS, messages);
    if let Some(hostname) = top.text("hostname", messages)
        && is_hostname(&hostname, messages)
    {
        config.hostname = Some(hostname);
    }
    config.files = files::read(top.list("write_files", messages), messages);
    read_unapplied(&top, config, messages);
    if let Some(coreos) = top.entry("coreos") {
        read_coreos(&coreos.node, config, messages);
    }
}

/// The sections of people and their keys: checked, and left to a later version.
fn read_unapplied(top: &Fields<'_>, config: &mut Config, messages: &mut Vec<Message>) {
    for item in top.list("ssh_authorized_keys", messages) {
        check_key(item, messages);
    }
    for item in top.list("users", messages) {
        check_user(item, messages);
    }
    if let Some(value) = top.text("manage_etc_hosts", messages)
        && value.value != "localhost"
    {
        let text = format!("manage_etc_hosts takes only localhost, not {:?}", value.value);
        messages.push(Message::error(value.line, text));
    }
    for key in ["ssh_authorized_keys", "users", "manage_etc_hosts"] {
        if let Some(entry) = top.entry(key) {
            let line = entry.line;
            config.unapplied.push(Located { line, value: key });
        }
    }
}

fn check_key(item: &Node, messages: &mut Vec<Message>) {
    let is_key = matches!(&item.value, yaml::Value::Scalar(scalar)
        if scalar.text.split_whitespace().count() >= 2);
    if !is_key {
        let text = "an ssh key is one line: its type, a blank, its text";
        messages.push(Message::error(item.line, text));
    }
}

fn check_user(item: &Node, messages: &mut Vec<Message>) {
    let Some(user) = Fields::open_item("users", item, messages) else {
        return;
    };
    user.report_unknown(USER_KEYS, messages);
    if user.text("name", messages).is_none() {
        let text = "a user without a name is skipped: add name";
        messages.push(Message::warning(item.line, text));
    }
    for key in ["system", "no_create_home", "no_user_group", "no_log_init"] {
        user.flag(key, messages);
    }
    for key in ["passwd", "gecos", "homedir", "primary_group", "shell"] {
        user.text(key, messages);
    }
    user.list("groups", messages);
    for key in user.list("ssh_authorized_keys", messages) {
        check_key(key, messages);
    }
}

fn read_coreos(node: &Node, config: &mut Config, messages: &mut Vec<Message>) {
    let Some(coreos) = Fields::open("coreos", node, messages) else {
        return;
    };
    coreos.report_unknown(COREOS_KEYS, messages);
    for section in Section::ALL {
        let Some(entry) = coreos.entry(section.key()) else {
            continue;
        };
        let Some(fields) = Fields::open(section.path(), &entry.node, messages) else {
            continue;
        };
        let line = entry.line;
        let service = read_service(section, line, &fields, messages);
        if section.service().is_some() {
            config.services.push(service);
        } else {
            let value = section.path();
            config.unapplied.push(Located { line, value });
        }
    }
    refuse_two_etcds(config, messages);
    for item in coreos.list("units", messages) {
        config.units.extend(read_unit(item, messages));
    }
    refuse_two_etcd_units(config, messages);
}

fn refuse_two_etcds(config: &Config, messages: &mut Vec<Message>) {
    let line_of = |section| {
        let service = config.services.iter().find(|it| it.section == section);
        service.map(|service| service.line)
    };
    if let (Some(etcd), Some(etcd2)) = (line_of(Section::Etcd), line_of(Section::Etcd2)) {
        let text = format!(
            "coreos.etcd (line {etcd}) and coreos.etcd2 (line {etcd2}) configure the same etcd: keep one"
        );
        messages.push(Message::error(etcd.max(etcd2), text));
    }
}

/// A file that masks one of them to start the other meant CoreOS's two packages; here that would
/// mask what it starts.
fn refuse_two_etcd_units(config: &Config, messages: &mut Vec<Message>) {
    let line_of = |name: &str| {
        let unit = config.units.iter().find(|unit| unit.name == name);
        unit.map(|unit| unit.line)
    };
    if let (Some(etcd), Some(etcd2)) = (line_of(ETCD), line_of(ETCD_ALIAS)) {
        let text =
            format!("{ETCD} (line {etcd}) and {ETCD_ALIAS} (line {etcd2}) are the same unit here: keep one");
        messages.push(Message::error(etcd.max(etcd2), text));
    }
}

fn read_service(section: Section, line: usize, fields: &Fields<'_>, messages: &mut Vec<Message>) -> Service {
    let known: Vec<&str> = section.rules().iter().map(|rule| rule.key).collect();
    fields.report_unknown(&known, messages);
    let prefix = section.service().map_or("", |(_, prefix)| prefix);
    let mut settings = Vec::new();
    for rule in section.rules() {
        let Some(given) = fields.text(rule.key, messages) else {
            continue;
        };
        if rule.is_newer {
            let text = format!("{} is an option of etcd 2: better in coreos.etcd2", rule.key);
            messages.push(Message::info(given.line, text));
        }
        let Some(value) = option_value(rule, &given, messages) else {
            continue;
        };
        let suffix = rule
            .variable
            .map_or_else(|| rule.key.to_uppercase(), str::to_owned);
        settings.push(Setting {
            key: rule.key,
            variable: format!("{prefix}{suffix}"),
            value,
            line: given.line,
        });
    }
    Service {
        section,
        line,
        settings,
    }
}

/// An option's value as the daemon gets it; None for zero values, which the original never passed
/// on, and with a message for what does not fit.
fn option_value(rule: &OptionRule, given: &Located<String>, messages: &mut Vec<Message>) -> Option<String> {
    let text = given.value.as_str();
    if text.is_empty() {
        return None;
    }
    if has_variable(text) {
        return Some(text.to_owned());
    }
    if let Some(control) = text
        .chars()
        .find(|it| it.is_control() && !matches!(it, '\n' | '\t'))
    {
        let message = format!("{} holds the control character {control:?}: remove it", rule.key);
        messages.push(Message::error(given.line, message));
        return None;
    }
    match typed(rule.kind, text) {
        Ok(value) => value,
        Err(expected) => {
            let message = format!("{} must be {expected}, not {text:?}", rule.key);
            messages.push(Message::error(given.line, message));
            None
        }
    }
}

/// The text of a value of this kind, None for zero, or what was expected.
fn typed(kind: Kind, text: &str) -> Result<Option<String>, String> {
    match kind {
        Kind::Text => Ok(Some(text.to_owned())),
        Kind::Flag => match boolean(text) {
            Some(is_set) => Ok(is_set.then(|| "true".to_owned())),
            None => Err("true or false".to_owned()),
        },
        Kind::Integer => match integer(text) {
            Some(number) => Ok((number != 0).then(|| number.to_string())),
            None => Err("a whole number".to_owned()),
        },
        Kind::Number => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok((number != 0.0).then(|| number.to_string())),
            Ok(_) | Err(_) => Err("a number".to_owned()),
        },
        Kind::OneOf(words) if words.contains(&text) => Ok(Some(text.to_owned())),
        Kind::OneOf(words) => Err(format!("one of {}", words.join(", "))),
        Kind::Url if text.contains(['<', '>']) => {
            Err("a URL with a token of its own (uuidgen makes one) in place of <...>".to_owned())
        }
        Kind::Url if is_url(text) => Ok(Some(text.to_owned())),
        Kind::Url => Err("a URL like http://HOST:PORT/v2/keys/TOKEN".to_owned()),
    }
}

fn is_url(text: &str) -> bool {
    let rest = text
        .strip_prefix("http://")
        .or_else(|| text.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    host.is_some_and(|host| !host.is_empty() && !host.starts_with(':')) && !text.contains(char::is_whitespace)
}

fn read_unit(item: &Node, messages: &mut Vec<Message>) -> Option<Unit> {
    let fields = Fields::open_item("coreos.units", item, messages)?;
    fields.report_unknown(UNIT_KEYS, messages);
    let Some(name) = fields.text("name", messages) else {
        let text = "a unit without a name is skipped: add name";
        messages.push(Message::warning(item.line, text));
        return None;
    };
    let drop_ins = fields
        .list("drop_ins", messages)
        .iter()
        .filter_map(|item| read_drop_in(item, messages))
        .collect();
    let unit = Unit {
        content: fields.text("content", messages),
        drop_ins,
        command: read_command(&fields, messages),
        enable: fields.flag("enable", messages),
        runtime: fields.flag("runtime", messages),
        mask: fields.flag("mask", messages),
        name: name.value,
        line: item.line,
    };
    if let Err(text) = check_unit_name(&unit.name) {
        messages.push(Message::error(name.line, text));
        return None;
    }
    if let (true, Some(content)) = (unit.mask, &unit.content) {
        let text = format!("{} is masked, so its content has no effect", unit.name);
        messages.push(Message::warning(content.line, text));
    }
    Some(unit)
}

fn read_command(fields: &Fields<'_>, messages: &mut Vec<Message>) -> Option<Located<Command>> {
    let word = fields.text("command", messages)?;
    let line = word.line;
    if word.value.is_empty() {
        return None;
    }
    if let Some(value) = Command::from_word(&word.value) {
        return Some(Located { line, value });
    }
    let meant = match guess(&word.value, &Command::WORDS) {
        Some(meant) => format!("did you mean {meant}"),
        None => format!("use one of {}", Command::WORDS.join(", ")),
    };
    let text = format!("command {:?} is not known: {meant}", word.value);
    messages.push(Message::error(line, text));
    None
}

fn read_drop_in(item: &Node, messages: &mut Vec<Message>) -> Option<config::DropIn> {
    let fields = Fields::open_item("drop_ins", item, messages)?;
    fields.report_unknown(DROP_IN_KEYS, messages);
    let content = fields.text("content", messages);
    let Some(name) = fields.text("name", messages) else {
        let text = "a drop-in without a name is skipped: add name";
        messages.push(Message::warning(item.line, text));
        return None;
    };
    let is_name = name.value.len() > ".conf".len()
        && name.value.ends_with(".conf")
        && name.value.len() <= NAME_BYTES_MAX
        && !name.value.contains(['/', '\0']);
    if !is_name {
        let text = format!(
            "drop-in name {:?} must be a file name that ends in .conf: systemd reads no other",
            name.value
        );
        messages.push(Message::error(name.line, text));
        return None;
    }
    Some(config::DropIn {
        name: name.value,
        content: content.map(|content| content.value).unwrap_or_default(),
        line: item.line,
    })
}

/// Longest name of a unit or file that systemd and Linux take.
const NAME_BYTES_MAX: usize = 255;

/// What a unit's name may end in, and networkd's files that travel in the same list.
const UNIT_SUFFIXES: [&str; 14] = [
    "service",
    "socket",
    "device",
    "mount",
    "automount",
    "swap",
    "target",
    "path",
    "timer",
    "slice",
    "scope",
    "network",
    "netdev",
    "link",
];

fn check_unit_name(name: &str) -> Result<(), String> {
    let (stem, suffix) = name.rsplit_once('.').unwrap_or((name, ""));
    if !UNIT_SUFFIXES.contains(&suffix) {
        return Err(format!(
            "unit name {name:?} has no known ending: did you mean {name}.service"
        ));
    }
    let is_allowed = |it: char| it.is_ascii_alphanumeric() || ":-_.\\@".contains(it);
    let is_good = !stem.is_empty()
        && !stem.starts_with(['.', '-'])
        && name.len() <= NAME_BYTES_MAX
        && name.chars().all(is_allowed);
    if is_good {
        Ok(())
    } else {
        Err(format!(
            "unit name {name:?} is not one that systemd takes: letters, digits and :-_.\\@ only"
        ))
    }
}

/// Checks a host name as sethostname(2) and RFC 1123 want it.
fn is_hostname(hostname: &Located<String>, messages: &mut Vec<Message>) -> bool {
    /// Linux's limit (`HOST_NAME_MAX`).
    const BYTES_MAX: usize = 64;
    let name = hostname.value.as_str();
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|it| it.is_ascii_alphanumeric() || it == '-')
    };
    if has_variable(name) || (name.len() <= BYTES_MAX && name.split('.').all(is_label)) {
        return true;
    }
    let text = format!(
        "hostname {name:?} is not one: letters, digits and -, with dots between, at most {BYTES_MAX}"
    );
    messages.push(Message::error(hostname.line, text));
    false
}
