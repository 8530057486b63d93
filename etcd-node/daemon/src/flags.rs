//! Go's flag syntax on top of clap.
//!
//! The originals' users type `-name=x`, `-name x` and `-debug=true`; clap reads the first as a cluster of short
//! flags. So the arguments are rewritten before clap sees them: a single dash becomes two when the name is
//! a long flag of the command at hand, and nothing else changes. clap keeps the last word on what is valid.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::{Arg, ArgAction, Command};

/// Rewrites arguments in Go's flag syntax to what clap understands. The first argument is the program's name.
///
/// - `-name=x` and `-name x` become `--name=x` and `--name x` when `name` is a long flag (or its alias) of the
///   command, of the subcommand reached so far, or a global one. A real short flag wins over a long flag of
///   one letter.
/// - `-flag=true` and `-flag=false` (also `1 t T TRUE True` and their opposites, as Go reads them): a flag
///   that clap sets by presence is given or left out; one that takes an optional value gets `true` or `false`.
///   Declare a flag that must be able to override its own environment variable with
///   `num_args = 0..=1, require_equals = true, default_missing_value = "true"`.
/// - Everything from `--` on, and everything that belongs to a trailing argument, stays as it is.
pub fn go_style(command: &Command, args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut built = command.clone();
    built.build();
    let mut args = args.into_iter();
    let mut rewritten: Vec<OsString> = args.next().into_iter().collect();
    let mut reader = Reader {
        command: &built,
        positionals: 0,
    };
    while let Some(arg) = args.next() {
        if arg == "--" || reader.is_trailing(&arg) {
            rewritten.push(arg);
            rewritten.extend(args);
            return rewritten;
        }
        let Some(flag) = Flag::split(&arg) else {
            reader.pass_positional(&arg);
            rewritten.push(arg);
            continue;
        };
        let Some(known) = reader.find(&flag) else {
            rewritten.push(arg);
            continue;
        };
        rewritten.extend(flag.spell(known));
        if flag.value.is_none() && takes_next(known) {
            rewritten.extend(args.next());
        }
    }
    rewritten
}

/// Where we are in the command line.
struct Reader<'a> {
    command: &'a Command,
    /// Positional arguments of this command seen so far.
    positionals: usize,
}

impl<'a> Reader<'a> {
    /// Whether this and all that follows belongs to an argument that swallows the rest (`exec M CMD...`).
    fn is_trailing(&self, arg: &OsStr) -> bool {
        let waiting = self.command.get_positionals().nth(self.positionals);
        let swallows = waiting.is_some_and(Arg::is_trailing_var_arg_set);
        swallows && !arg.as_bytes().starts_with(b"-")
    }

    fn pass_positional(&mut self, arg: &OsStr) {
        match self.subcommand(arg) {
            Some(subcommand) => {
                *self = Self {
                    command: subcommand,
                    positionals: 0,
                }
            }
            None => self.positionals += 1,
        }
    }

    /// The subcommand of this name, alias or unique prefix. A command that infers no prefixes refuses the
    /// word itself, whatever we made of its flags.
    fn subcommand(&self, arg: &OsStr) -> Option<&'a Command> {
        if let Some(exact) = self.command.find_subcommand(arg) {
            return Some(exact);
        }
        let prefix = arg.to_str()?;
        let mut fitting = self
            .command
            .get_subcommands()
            .filter(|each| each.get_name().starts_with(prefix));
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }

    fn find(&self, flag: &Flag<'_>) -> Option<&'a Arg> {
        let mut known = self.command.get_arguments();
        if flag.dashes == 1 && flag.name.chars().count() == 1 {
            let short = flag.name.chars().next();
            if self.command.get_arguments().any(|each| each.get_short() == short) {
                return None;
            }
        }
        known.find(|each| {
            each.get_long() == Some(flag.name)
                || each
                    .get_all_aliases()
                    .is_some_and(|aliases| aliases.contains(&flag.name))
        })
    }
}

/// An argument that looks like a flag.
struct Flag<'a> {
    dashes: usize,
    name: &'a str,
    value: Option<&'a OsStr>,
}

impl<'a> Flag<'a> {
    fn split(arg: &'a OsStr) -> Option<Self> {
        let bytes = arg.as_bytes();
        let dashes = bytes.iter().take(2).take_while(|byte| **byte == b'-').count();
        let body = &bytes[dashes..];
        let name_end = body.iter().position(|byte| *byte == b'=').unwrap_or(body.len());
        let name = std::str::from_utf8(&body[..name_end]).ok()?;
        if dashes == 0 || name.is_empty() {
            return None;
        }
        let value = (name_end < body.len()).then(|| OsStr::from_bytes(&body[name_end + 1..]));
        Some(Self { dashes, name, value })
    }

    /// The flag as clap wants it; nothing when it is a presence flag that is switched off.
    fn spell(&self, known: &Arg) -> Option<OsString> {
        let mut spelled = format!("--{}", self.name).into_bytes();
        let Some(value) = self.value else {
            return Some(OsString::from_vec(spelled));
        };
        let switch = value.to_str().and_then(go_bool);
        match (known.get_action(), switch) {
            (ArgAction::SetTrue | ArgAction::SetFalse | ArgAction::Help | ArgAction::Version, Some(on)) => {
                return on.then(|| OsString::from_vec(spelled));
            }
            (ArgAction::Set, Some(on)) if is_optional_bool(known) => {
                spelled.extend_from_slice(if on { b"=true" } else { b"=false" });
            }
            _ => {
                spelled.push(b'=');
                spelled.extend_from_slice(value.as_bytes());
            }
        }
        Some(OsString::from_vec(spelled))
    }
}

/// Whether the flag's value is the next argument when none stands after `=`.
fn takes_next(known: &Arg) -> bool {
    let takes_values = matches!(known.get_action(), ArgAction::Set | ArgAction::Append);
    takes_values && known.get_num_args().is_none_or(|range| range.min_values() > 0)
}

fn is_optional_bool(known: &Arg) -> bool {
    !takes_next(known) && known.get_value_parser().type_id() == clap::builder::ValueParser::bool().type_id()
}

/// Reads the words that Go's `strconv.ParseBool` knows; none for any other.
pub fn go_bool(word: &str) -> Option<bool> {
    match word {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command() -> Command {
        Command::new("prog")
            .version("1")
            .infer_subcommands(true)
            .arg(Arg::new("name").long("name").alias("old-name"))
            .arg(
                Arg::new("debug")
                    .long("debug")
                    .action(ArgAction::SetTrue)
                    .global(true),
            )
            .arg(
                Arg::new("v2")
                    .long("enable-v2")
                    .num_args(0..=1)
                    .require_equals(true)
                    .default_missing_value("true")
                    .value_parser(clap::value_parser!(bool)),
            )
            .subcommand(
                Command::new("list-machines")
                    .arg(
                        Arg::new("full")
                            .long("full")
                            .short('l')
                            .action(ArgAction::SetTrue),
                    )
                    .arg(Arg::new("fields").long("fields")),
            )
            .subcommand(
                Command::new("run").arg(Arg::new("machine")).arg(
                    Arg::new("words")
                        .num_args(0..)
                        .trailing_var_arg(true)
                        .allow_hyphen_values(true),
                ),
            )
    }

    #[track_caller]
    fn check(given: &str, expected: &str) {
        let args = std::iter::once("prog")
            .chain(given.split_whitespace())
            .map(OsString::from);
        let rewritten = go_style(&command(), args);
        let texts: Vec<&str> = rewritten[1..].iter().map(|each| each.to_str().unwrap()).collect();
        assert_eq!(texts.join(" "), expected, "of {given:?}");
    }

    #[test]
    fn a_single_dash_becomes_two_for_long_flags_only() {
        check("-name=x", "--name=x");
        check("-name x", "--name x");
        check("--name=x", "--name=x");
        check("-old-name=x", "--old-name=x");
        check("-nam=x", "-nam=x");
        check("-version", "--version");
        check("-help", "--help");
        check("-", "-");
    }

    #[test]
    fn a_value_is_never_taken_for_a_flag() {
        check("-name -debug", "--name -debug");
        check("--name -name=x", "--name -name=x");
    }

    #[test]
    fn booleans_take_the_words_of_go() {
        check("-debug=true", "--debug");
        check("--debug=T", "--debug");
        check("-debug=false -name=x", "--name=x");
        check("-debug=maybe", "--debug=maybe");
        check("-enable-v2=0", "--enable-v2=false");
        check("-enable-v2 -name x", "--enable-v2 --name x");
    }

    #[test]
    fn subcommands_have_their_own_flags_and_the_global_ones() {
        check("list-machines -full -debug", "list-machines --full --debug");
        check("list-m -fields=ip", "list-m --fields=ip");
        check("list-machines -l", "list-machines -l");
        check("list-machines -name=x", "list-machines -name=x");
        check(
            "-name=x list-machines -full=true",
            "--name=x list-machines --full",
        );
    }

    #[test]
    fn what_follows_two_dashes_or_belongs_to_a_trailing_argument_stays() {
        check("-debug -- -debug", "--debug -- -debug");
        check("run -debug m ls -debug", "run --debug m ls -debug");
    }

    #[test]
    fn clap_reads_the_result() {
        let args = ["prog", "-name", "n", "-enable-v2=f", "list", "-l"].map(OsString::from);
        let matches = command()
            .try_get_matches_from(go_style(&command(), args))
            .unwrap();
        assert_eq!(matches.get_one::<String>("name").map(String::as_str), Some("n"));
        assert_eq!(matches.get_one::<bool>("v2"), Some(&false));
        let (verb, inner) = matches.subcommand().unwrap();
        assert_eq!((verb, inner.get_flag("full")), ("list-machines", true));
    }
}
