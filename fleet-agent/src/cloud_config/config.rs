//! What a cloud-config file asks for, checked but not yet planned.

use super::options::Section;

/// A value with the line that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located<T> {
    /// Counted from 1.
    pub line: usize,
    /// The value.
    pub value: T,
}

/// A whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The machine's name.
    pub hostname: Option<Located<String>>,
    /// Files in the order of the list.
    pub files: Vec<File>,
    /// Units in the order of the list.
    pub units: Vec<Unit>,
    /// `coreos.etcd`, `coreos.etcd2` and `coreos.fleet`, those present.
    pub services: Vec<Service>,
    /// Sections that were read and checked and that this version does not apply: path and line.
    pub unapplied: Vec<Located<&'static str>>,
}

/// The settings of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which section.
    pub section: Section,
    /// The line of the section's key.
    pub line: usize,
    /// Options with a value that is not zero, in the order of the section's table.
    pub settings: Vec<Setting>,
}

/// One option of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The key in its `_` form.
    pub key: &'static str,
    /// The environment variable that carries it.
    pub variable: String,
    /// Its value as the daemon will see it.
    pub value: String,
    /// The line of the option.
    pub line: usize,
}

impl Service {
    /// The value of an option, None when it is not set.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.settings
            .iter()
            .find(|setting| setting.key == key)
            .map(|setting| setting.value.as_str())
    }
}

/// An entry of `write_files`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute, without `.` and `..`.
    pub path: String,
    /// Decoded.
    pub content: Vec<u8>,
    /// Permission bits; 0644 when none are given.
    pub mode: u32,
    /// `user`, `user:group` or `:group`, names or numbers.
    pub owner: Option<Located<String>>,
    /// The line of the entry.
    pub line: usize,
}

/// An entry of `coreos.units`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The unit's name with its suffix, as written.
    pub name: String,
    /// The unit file.
    pub content: Option<Located<String>>,
    /// Drop-ins in the order of the list.
    pub drop_ins: Vec<DropIn>,
    /// What to do with it at the end.
    pub command: Option<Located<Command>>,
    /// Whether its `[Install]` section is followed.
    pub enable: bool,
    /// Whether its files are for this boot only, in `/run`.
    pub runtime: bool,
    /// Whether it can not be started at all.
    pub mask: bool,
    /// The line of the entry.
    pub line: usize,
}

/// A drop-in of a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropIn {
    /// The file's name.
    pub name: String,
    /// The file's content.
    pub content: String,
    /// The line of the entry.
    pub line: usize,
}

/// What can be asked of a unit, in systemctl's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Command {
    /// Start it unless it runs.
    Start,
    /// Stop it.
    Stop,
    /// Stop it if it runs, then start it.
    Restart,
    /// Have it read its configuration again.
    Reload,
    /// Restart it only if it runs.
    TryRestart,
    /// Reload it if it can, else restart it.
    ReloadOrRestart,
    /// The same, only if it runs.
    ReloadOrTryRestart,
}

impl Command {
    /// All seven words.
    pub const WORDS: [&'static str; 7] = [
        "start",
        "stop",
        "restart",
        "reload",
        "try-restart",
        "reload-or-restart",
        "reload-or-try-restart",
    ];

    /// Reads systemctl's word.
    pub fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "start" => Self::Start,
            "stop" => Self::Stop,
            "restart" => Self::Restart,
            "reload" => Self::Reload,
            "try-restart" => Self::TryRestart,
            "reload-or-restart" => Self::ReloadOrRestart,
            "reload-or-try-restart" => Self::ReloadOrTryRestart,
            _ => return None,
        })
    }

    /// systemctl's word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Reload => "reload",
            Self::TryRestart => "try-restart",
            Self::ReloadOrRestart => "reload-or-restart",
            Self::ReloadOrTryRestart => "reload-or-try-restart",
        }
    }
}
