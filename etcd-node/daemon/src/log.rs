//! The log of a daemon: lines on stderr, as text or JSON.
//!
//! When stderr is the journal (systemd says so in `JOURNAL_STREAM`), each line starts with its priority as
//! `<N>` and carries no time, since the journal has its own.

use std::fmt;
use std::io::IsTerminal;

use clap::ValueEnum;
use rustix::fs::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::{self, Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, message, fields.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// The flags that every daemon has for its log; flatten it into the program's arguments.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct LogConfig {
    /// What to log: error, warn, info, debug or trace; or per module, as in "info,raft=debug"
    #[arg(long = "log-level", value_name = "LEVEL", default_value = "info")]
    pub level: String,
    /// How to log: text or json
    #[arg(
        long = "log-format",
        value_name = "FORMAT",
        value_enum,
        default_value_t,
        hide_possible_values = true
    )]
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is none.
    #[error(
        "log level {0:?} is not one of error, warn, info, debug, trace, nor a list like \"info,raft=debug\""
    )]
    Level(String),
    /// Something else took the place of the process's log.
    #[error("the log was set up twice")]
    Twice,
}

/// Starts the log of this process. Call it once, before anything is logged.
///
/// # Errors
/// When the level cannot be read, or a log exists already.
pub fn init(config: &LogConfig) -> Result<(), LogError> {
    let filter = filter(&config.level)?;
    let destination = Destination::of_stderr();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(destination == Destination::Terminal);
    let installed = match config.format {
        LogFormat::Text => builder.event_format(Lines::text(destination)).try_init(),
        LogFormat::Json => builder
            .fmt_fields(format::JsonFields::new())
            .event_format(Lines::json(destination))
            .try_init(),
    };
    installed.map_err(|_| LogError::Twice)
}

/// Reads a level or a list of directives. etcd's own words `panic` and `fatal` mean "errors only".
fn filter(level: &str) -> Result<EnvFilter, LogError> {
    let unreadable = || LogError::Level(level.to_owned());
    let directives = match level {
        "panic" | "fatal" | "dpanic" => "error",
        other => other,
    };
    let names_a_level = directives.split(',').all(|each| {
        let word = each.rsplit('=').next().unwrap_or(each).trim();
        matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace")
    });
    if !names_a_level {
        return Err(unreadable());
    }
    EnvFilter::builder().parse(directives).map_err(|_| unreadable())
}

/// Where stderr leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    Journal,
    Terminal,
    Other,
}

impl Destination {
    fn of_stderr() -> Self {
        let stderr = std::io::stderr();
        let identity = fstat(&stderr).map(|stat| (stat.st_dev, stat.st_ino)).ok();
        let announced = std::env::var("JOURNAL_STREAM").ok();
        if identity.is_some() && announced.as_deref().and_then(journal_identity) == identity {
            Self::Journal
        } else if stderr.is_terminal() {
            Self::Terminal
        } else {
            Self::Other
        }
    }
}

/// Device and inode of the journal's socket, from `JOURNAL_STREAM`. It is inherited by children whose stderr
/// leads elsewhere, so its presence alone means nothing.
fn journal_identity(announced: &str) -> Option<(u64, u64)> {
    let (device, inode) = announced.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// A line format with the journal's priority in front when the journal reads it.
struct Lines<F> {
    format: F,
    destination: Destination,
}

impl Lines<TextFormat> {
    fn text(destination: Destination) -> Self {
        let format = match destination {
            Destination::Journal => TextFormat::Journal(format::format().with_level(false).without_time()),
            Destination::Terminal | Destination::Other => TextFormat::Timed(format::format()),
        };
        Self { format, destination }
    }
}

impl Lines<JsonFormat> {
    fn json(destination: Destination) -> Self {
        let json = format::format().json().flatten_event(true);
        let format = match destination {
            Destination::Journal => JsonFormat::Journal(json.without_time()),
            Destination::Terminal | Destination::Other => JsonFormat::Timed(json),
        };
        Self { format, destination }
    }
}

enum TextFormat {
    Journal(Format<format::Full, ()>),
    Timed(Format),
}

enum JsonFormat {
    Journal(Format<format::Json, ()>),
    Timed(Format<format::Json>),
}

impl<S, N> FormatEvent<S, N> for Lines<TextFormat>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write_priority(self.destination, &mut writer, event)?;
        match &self.format {
            TextFormat::Journal(format) => format.format_event(context, writer, event),
            TextFormat::Timed(format) => format.format_event(context, writer, event),
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines<JsonFormat>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write_priority(self.destination, &mut writer, event)?;
        match &self.format {
            JsonFormat::Journal(format) => format.format_event(context, writer, event),
            JsonFormat::Timed(format) => format.format_event(context, writer, event),
        }
    }
}

fn write_priority(destination: Destination, writer: &mut Writer<'_>, event: &Event<'_>) -> fmt::Result {
    if destination != Destination::Journal {
        return Ok(());
    }
    write!(writer, "<{}>", priority(*event.metadata().level()))
}

/// The syslog priority of a level (sd-daemon(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(destination: Destination, format: LogFormat) -> String {
        let sink = Sink::default();
        let writer = sink.clone();
        let builder = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let emit = || {
            tracing::info!(term = 3, "role changed");
            tracing::error!("disk is full");
        };
        match format {
            LogFormat::Text => {
                let subscriber = builder.event_format(Lines::text(destination)).finish();
                tracing::subscriber::with_default(subscriber, emit);
            }
            LogFormat::Json => {
                let fields = builder.fmt_fields(format::JsonFields::new());
                let subscriber = fields.event_format(Lines::json(destination)).finish();
                tracing::subscriber::with_default(subscriber, emit);
            }
        }
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_journal_gets_priorities_and_no_time() {
        let text = logged(Destination::Journal, LogFormat::Text);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "<6>daemon::log::tests: role changed term=3");
        assert_eq!(lines[1], "<3>daemon::log::tests: disk is full");
    }

    #[test]
    fn elsewhere_a_line_starts_with_the_time() {
        let text = logged(Destination::Other, LogFormat::Text);
        let (time, rest) = text.lines().next().unwrap().split_once(' ').unwrap();
        assert!(time.ends_with('Z') && time.contains('T'), "{time}");
        assert_eq!(rest.trim_start(), "INFO daemon::log::tests: role changed term=3");
    }

    #[test]
    fn json_lines_are_objects_with_the_fields_at_the_top() {
        let text = logged(Destination::Other, LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(line["message"], "role changed");
        assert_eq!(line["term"], 3);
        assert_eq!(line["level"], "INFO");
        assert!(line["timestamp"].is_string());
        let text = logged(Destination::Journal, LogFormat::Json);
        let body = text.lines().next().unwrap().strip_prefix("<6>").unwrap();
        let line: serde_json::Value = serde_json::from_str(body).unwrap();
        assert!(line.get("timestamp").is_none());
    }

    #[test]
    fn levels_are_words_or_lists_and_nothing_else() {
        for good in ["info", "warn", "info,raft=debug", "fatal", "off"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,raft=loud", "raft", "9"] {
            assert!(
                matches!(filter(bad), Err(LogError::Level(text)) if text == bad),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_journals_socket_is_told_by_device_and_inode() {
        assert_eq!(journal_identity("9:1234"), Some((9, 1234)));
        assert_eq!(journal_identity("9"), None);
        assert_eq!(journal_identity("a:b"), None);
    }
}
