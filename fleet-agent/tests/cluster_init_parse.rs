//! What is said about a user-data file, message by message, and what is read out of a good one.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as the tests do")]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use fleet_agent::cloud_config::config::{Command, Config};
use fleet_agent::cloud_config::input::{Input, USER_DATA_BYTES_MAX, recognise};
use fleet_agent::cloud_config::message::{Severity, has_error, make_strict};
use fleet_agent::cloud_config::parse::parse;
use fleet_agent::cloud_config::plan::{Facts, plan};

const CORE: &str = include_str!("cloud_config/core.yaml");
const WORKER: &str = include_str!("cloud_config/worker.yaml");

/// The messages about a file whose second line is the first of `body`.
fn messages(body: &str) -> Vec<String> {
    let text = format!("#cloud-config\n{body}");
    let (_, messages) = parse(&text);
    messages.iter().map(ToString::to_string).collect()
}

/// The configuration of a file that nothing is said about.
fn clean(body: &str) -> Config {
    let (config, messages) = parse(&format!("#cloud-config\n{body}"));
    assert_eq!(messages, [], "{body}");
    config
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_two_files_of_the_story_are_valid() {
    for text in [CORE, WORKER] {
        let (config, messages) = parse(text);
        assert_eq!(messages, []);
        assert_eq!(config.units.len(), 2);
    }
}

#[test]
fn the_first_line_decides_what_a_file_is() {
    let cloud_config = |text: &str| Ok(Input::CloudConfig(text.to_owned()));
    for (text, expected) in [
        ("", Ok(Input::Empty)),
        ("\n  \n", Ok(Input::Empty)),
        ("#cloud-config", cloud_config("#cloud-config")),
        (
            "#cloud-config \t\r\na: b\n",
            cloud_config("#cloud-config \t\r\na: b\n"),
        ),
        (
            "#!/bin/sh\ntrue\n",
            Ok(Input::Script("#!/bin/sh\ntrue\n".to_owned())),
        ),
        (r#"{"ignition":{"version":"3.0.0"}}"#, Ok(Input::Ignition)),
        (r#"{"ignitionVersion":1}"#, Ok(Input::Ignition)),
        (
            "\n#cloud-config\n",
            Err(", here it is line 2: remove what stands before it"),
        ),
        (" #cloud-config\n", Err(": remove the blanks before it")),
        (
            "\u{feff}#cloud-config\n",
            Err(": remove the byte order mark before it"),
        ),
        ("# cloud-config\n", Err(", not \"# cloud-config\"")),
        ("#Cloud-Config\n", Err(", not \"#Cloud-Config\"")),
        (
            "Content-Type: multipart/mixed\n\n#cloud-config\n",
            Err(": this is a multi-part message, give its cloud-config part"),
        ),
        ("hostname: a\n", Err(" (or #! for a script), not \"hostname: a\"")),
        (r#"{"a":1}"#, Err(" (or #! for a script), not \"{\\\"a\\\":1}\"")),
    ] {
        let expected = expected
            .map_err(|hint| format!("line 1: error: the first line must be exactly #cloud-config{hint}"));
        let found = recognise(text.as_bytes()).map_err(|message| message.to_string());
        assert_eq!(found, expected, "{text:?}");
    }
}

#[test]
fn gzip_is_unpacked_and_size_is_bounded_before_and_after() {
    let text = "#cloud-config\nhostname: a\n";
    let packed = gzip(text.as_bytes());
    assert_eq!(recognise(&packed), Ok(Input::CloudConfig(text.to_owned())));

    let too_large = "line 1: error: user-data is larger than 10 MiB: move large contents elsewhere";
    let mut fill = b"#cloud-config\n".to_vec();
    fill.resize(USER_DATA_BYTES_MAX, b'#');
    assert!(recognise(&fill).is_ok());
    fill.push(b'#');
    assert_eq!(recognise(&fill).unwrap_err().to_string(), too_large);
    assert_eq!(recognise(&gzip(&fill)).unwrap_err().to_string(), too_large);

    let cut = &packed[..packed.len() - 6];
    let error = recognise(cut).unwrap_err().to_string();
    assert!(error.starts_with("line 1: error: damaged gzip data: "), "{error}");
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_line() {
    let error = recognise(b"#cloud-config\na: 1\nb: \xff\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "line 3: error: byte 0xff is not UTF-8: save the file as UTF-8"
    );
}

#[test]
fn broken_yaml_is_refused_with_the_line_of_the_mistake() {
    let nested = format!("a: {}{}\n", "[".repeat(65), "]".repeat(65));
    let very_nested = format!("a: {}\n", "[".repeat(100_000));
    let many: String = (0..20_001).map(|index| format!("key{index}: 1\n")).collect();
    let aliases = "a: &a [x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n\
                   c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c]\n\
                   e: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e, *e, *e, *e, *e, *e, *e]\n";
    for (body, expected) in [
        (
            "coreos:\n\tetcd:\n\t\taddr: a\n",
            "line 3: error: a tab in the indentation: YAML takes spaces only",
        ),
        (
            "coreos:\n  etcd:\n\taddr: a\n",
            "line 4: error: a tab in the indentation: YAML takes spaces only",
        ),
        (
            "coreos:\n  etcd:\n    addr:\ta\n",
            "line 4: error: not YAML: ':' must be followed by a valid YAML whitespace (the line holds a tab: use spaces)",
        ),
        (
            "hostname: a: b\n",
            "line 2: error: not YAML: mapping values are not allowed in this context",
        ),
        (
            "hostname: \"a\n",
            "line 2: error: not YAML: while scanning a quoted scalar, found unexpected end of stream",
        ),
        (
            "coreos:\n    etcd:\n        addr: a\n      name: b\n",
            "line 5: error: not YAML: while parsing a block mapping, did not find expected key",
        ),
        (
            "hostname: a\nhostname: b\n",
            "line 3: error: hostname is given twice, here and in line 2: keep one",
        ),
        (
            "coreos:\n  etcd:\n    peer-addr: a\n    peer_addr: b\n",
            "line 5: error: peer_addr is given twice, here and in line 4: keep one",
        ),
        (
            "[a]: b\n",
            "line 2: error: a key must be a single word, not a list",
        ),
        (
            "a: &a [*a]\n",
            "line 2: error: an alias inside of what it stands for has no end",
        ),
        (
            "a: *b\n",
            "line 2: error: not YAML: while parsing node, found unknown anchor",
        ),
        (
            "a:\n  <<: 3\n",
            "line 3: error: << takes an alias of a mapping, or a list of them",
        ),
        (&nested, "line 2: error: nested more than 64 levels deep"),
        (&very_nested, "line 2: error: not YAML: recursion limit exceeded"),
        (
            &many,
            "line 10001: error: too many values, or aliases that stand for too many",
        ),
        (
            aliases,
            "line 6: error: too many values, or aliases that stand for too many",
        ),
    ] {
        let start: String = body.chars().take(60).collect();
        assert_eq!(messages(body), [expected], "{start}");
    }
}

#[test]
fn every_mistake_is_told_with_its_line_in_one_go() {
    let body = "hostname: [a]
write_files: {path: /a}
coreos:
  etcd: [a]
  fleet:
    etcd_servers: [http://a, http://b]
    verbosity: much
    engine_reconcile_interval: soon
    disable_engine: maybe
    public_ip: {a: b}
  units:
    - name: a.service
      enable: perhaps
      command: begin
    - b.service
    - command: start
    - name: b
    - name: ../../etc/passwd.service
    - name: c.service
      command: restrat
      drop-ins:
        - name: x
        - name: a/b.conf
        - content: y
";
    assert_eq!(
        messages(body),
        [
            "line 2: error: hostname must be a single value, not a list: write the parts with commas between them",
            "line 3: error: write_files must be a list (lines that start with -), not a mapping",
            "line 5: error: coreos.etcd must be a mapping (key: value), not a list",
            "line 7: error: etcd_servers must be a single value, not a list: write the parts with commas between them",
            "line 8: error: verbosity must be a whole number, not \"much\"",
            "line 9: error: engine_reconcile_interval must be a number, not \"soon\"",
            "line 10: error: disable_engine must be true or false, not \"maybe\"",
            "line 11: error: public_ip must be a single value, not a mapping: mind the indentation, or put it in quotes",
            "line 14: error: enable must be true or false, not \"perhaps\"",
            "line 15: error: command \"begin\" is not known: use one of start, stop, restart, reload, try-restart, reload-or-restart, reload-or-try-restart",
            "line 16: error: an entry of coreos.units must be a mapping (key: value), not a single value",
            "line 17: warning: a unit without a name is skipped: add name",
            "line 18: error: unit name \"b\" has no known ending: did you mean b.service",
            "line 19: error: unit name \"../../etc/passwd.service\" is not one that systemd takes: letters, digits and :-_.\\@ only",
            "line 21: error: command \"restrat\" is not known: did you mean restart",
            "line 23: error: drop-in name \"x\" must be a file name that ends in .conf: systemd reads no other",
            "line 24: error: drop-in name \"a/b.conf\" must be a file name that ends in .conf: systemd reads no other",
            "line 25: warning: a drop-in without a name is skipped: add name",
        ]
    );
    assert_eq!(
        messages("- a\n"),
        ["line 2: error: the top of the file must be a mapping (key: value), not a list"]
    );
}

#[test]
fn unknown_and_misplaced_keys_get_a_guess() {
    let body = "units:
  - name: a.service
write_file: []
runcmd: [a]
coreos:
  etcd:
    units:
      - name: a.service
    etcd_servers: x
    discvery: http://a
  write_files: []
  fleet:
    etcd_hosts: x
    etcd-sevrers: y
    foo: bar
  etcd3: {}
  units:
    - name: a.service
      enabled: true
";
    assert_eq!(
        messages(body),
        [
            "line 2: warning: units has no effect at the top of the file: it belongs to coreos, mind the indentation",
            "line 4: warning: unknown key write_file at the top of the file: did you mean write_files",
            "line 5: info: runcmd is for cloud-init and not read here",
            "line 8: warning: units has no effect in coreos.etcd: it belongs to coreos, mind the indentation",
            "line 10: warning: etcd_servers has no effect in coreos.etcd: it belongs to coreos.fleet, mind the indentation",
            "line 11: warning: unknown key discvery in coreos.etcd: did you mean discovery",
            "line 12: warning: write_files has no effect in coreos: it belongs to the top of the file, mind the indentation",
            "line 14: warning: unknown key etcd_hosts in coreos.fleet: did you mean etcd_servers",
            "line 15: warning: unknown key etcd-sevrers in coreos.fleet: did you mean etcd_servers",
            "line 16: warning: unknown key foo in coreos.fleet has no effect: remove it",
            "line 17: warning: unknown key etcd3 in coreos: did you mean etcd",
            "line 20: warning: unknown key enabled in coreos.units: did you mean enable",
        ]
    );
}

#[test]
fn strict_refuses_unknown_keys_and_nothing_else() {
    let (_, mut messages) = parse(
        "#cloud-config\nruncmd: [a]\ncoreos:\n  fleet:\n    etcd_hosts: x\n  units:\n    - command: start\n",
    );
    assert!(!has_error(&messages));
    make_strict(&mut messages);
    let severities: Vec<_> = messages.iter().map(|it| (it.line, it.severity)).collect();
    assert_eq!(
        severities,
        [(2, Severity::Info), (5, Severity::Error), (7, Severity::Warning)]
    );
}

#[test]
fn two_etcds_are_refused_with_both_lines() {
    let body = "coreos:
  etcd:
    addr: a
  etcd2:
    name: b
  units:
    - name: etcd.service
      mask: true
    - name: etcd2.service
";
    assert_eq!(
        messages(body),
        [
            "line 5: error: coreos.etcd (line 3) and coreos.etcd2 (line 5) configure the same etcd: keep one",
            "line 10: error: etcd.service (line 8) and etcd2.service (line 10) are the same unit here: keep one",
        ]
    );
}

#[test]
fn values_that_can_not_work_are_refused_early() {
    for (body, expected) in [
        (
            "coreos:\n  etcd:\n    discovery: https://discovery.etcd.io/<token>\n",
            "line 4: error: discovery must be a URL with a token of its own (uuidgen makes one) in place of <...>, not \"https://discovery.etcd.io/<token>\"",
        ),
        (
            "coreos:\n  etcd2:\n    discovery: discovery.etcd.io/abc\n",
            "line 4: error: discovery must be a URL like http://HOST:PORT/v2/keys/TOKEN, not \"discovery.etcd.io/abc\"",
        ),
        (
            "coreos:\n  etcd2:\n    discovery: http://:4001/v2/keys/a\n",
            "line 4: error: discovery must be a URL like http://HOST:PORT/v2/keys/TOKEN, not \"http://:4001/v2/keys/a\"",
        ),
        (
            "coreos:\n  etcd2:\n    proxy: maybe\n",
            "line 4: error: proxy must be one of on, off, readonly, not \"maybe\"",
        ),
        (
            "coreos:\n  etcd:\n    name: \"a\\x01b\"\n",
            "line 4: error: name holds the control character '\\u{1}': remove it",
        ),
        (
            "hostname: -a_b\n",
            "line 2: error: hostname \"-a_b\" is not one: letters, digits and -, with dots between, at most 64",
        ),
        (
            "manage_etc_hosts: true\n",
            "line 2: error: manage_etc_hosts takes only localhost, not \"true\"",
        ),
        (
            "ssh_authorized_keys: [broken]\n",
            "line 2: error: an ssh key is one line: its type, a blank, its text",
        ),
        (
            "hostname: a\n---\nhostname: b\n",
            "line 3: warning: only the first document of the file is read, not what follows this ---",
        ),
        (
            "coreos:\n  etcd:\n    listen-client-urls: http://a\n",
            "line 4: info: listen_client_urls is an option of etcd 2: better in coreos.etcd2",
        ),
        (
            "coreos:\n  units:\n    - name: a.service\n      mask: true\n      content: x\n",
            "line 6: warning: a.service is masked, so its content has no effect",
        ),
    ] {
        assert_eq!(messages(body), [expected]);
    }
}

#[test]
fn files_with_a_mistake_are_refused_with_its_line() {
    for (entry, expected) in [
        ("path: a", "line 3: error: path \"a\" must start with /"),
        (
            "path: /a/../b",
            "line 3: error: path \"/a/../b\" must name a file, without . and ..",
        ),
        (
            "path: /d/",
            "line 3: error: path \"/d/\" must name a file, without . and ..",
        ),
        ("content: x", "line 3: error: a file without a path: add path"),
        (
            "path: /a\n    permissions: 0999",
            "line 4: error: permissions \"0999\" must be three or four octal digits like 0644",
        ),
        (
            "path: /a\n    permissions: rw-r--r--",
            "line 4: error: permissions \"rw-r--r--\" must be three or four octal digits like 0644",
        ),
        (
            "path: /a\n    permissions: 77777",
            "line 4: error: permissions \"77777\" must be three or four octal digits like 0644",
        ),
        (
            "path: /a\n    encoding: b64\n    content: '&&&'",
            "line 4: error: content can not be decoded: damaged base64: invalid symbol 38, offset 0",
        ),
        (
            "path: /a\n    content: !!binary '&&&'",
            "line 4: error: content can not be decoded: damaged base64: invalid symbol 38, offset 0",
        ),
        (
            "path: /a\n    encoding: rot13\n    content: abc",
            "line 4: error: content can not be decoded: encoding \"rot13\" is not known: use base64, gzip or gzip+base64",
        ),
        (
            "path: /usr/bin/x",
            "line 3: warning: /usr/bin/x belongs to the packages of the system: better in /usr/local or /etc",
        ),
    ] {
        assert_eq!(messages(&format!("write_files:\n  - {entry}\n")), [expected]);
    }
    let body = "write_files:\n  - path: /a\n    encoding: gzip\n    content: abc\n";
    let message = messages(body).join("\n");
    assert!(
        message.starts_with("line 4: error: content can not be decoded: damaged gzip data: "),
        "{message}"
    );
}

#[test]
fn permissions_are_octal_however_they_are_written() {
    for (text, mode) in [
        ("644", 0o644),
        ("0644", 0o644),
        ("'0644'", 0o644),
        ("\"644\"", 0o644),
        ("0o755", 0o755),
        ("1777", 0o1777),
        ("04755", 0o4755),
        ("000", 0),
        ("~", 0o644),
        ("''", 0o644),
    ] {
        let body = format!("write_files:\n  - path: /a\n    permissions: {text}\n");
        assert_eq!(clean(&body).files[0].mode, mode, "{text}");
    }
}

#[test]
fn every_encoding_gives_the_same_bytes() {
    use base64::Engine as _;
    let plain = "hello\n";
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let encoded = encode(plain.as_bytes());
    let packed = encode(&gzip(plain.as_bytes()));
    let mut bodies = vec![
        "content: |\n      hello".to_owned(),
        format!("content: !!binary {encoded}"),
        format!("encoding: base64\n    content: {}", encoded.trim_end_matches('=')),
        "encoding: b64\n    content: |\n      aGVs\n      bG8K".to_owned(),
    ];
    for name in ["gz", "gzip"] {
        bodies.push(format!("encoding: {name}\n    content: !!binary {packed}"));
    }
    for name in ["gz+b64", "gz+base64", "gzip+b64", "gzip+base64"] {
        bodies.push(format!("encoding: {name}\n    content: {packed}"));
    }
    for body in bodies {
        let config = clean(&format!("write_files:\n  - path: /a\n    {body}\n"));
        assert_eq!(config.files[0].content, plain.as_bytes(), "{body}");
    }
}

#[test]
fn dashes_and_underscores_in_keys_are_the_same() {
    let dashed = clean("coreos:\n  etcd:\n    peer-addr: a\n    peer-bind-addr: b\n");
    let underscored = clean("coreos:\n  etcd:\n    peer_addr: a\n    peer_bind_addr: b\n");
    assert_eq!(dashed, underscored);
}

#[test]
fn booleans_of_yaml_1_1_are_flags_in_flags_and_text_in_texts() {
    for (word, expected) in [
        ("yes", true),
        ("on", true),
        ("True", true),
        ("\"true\"", true),
        ("y", true),
        ("no", false),
        ("off", false),
        ("FALSE", false),
        ("~", false),
    ] {
        let body = format!("coreos:\n  units:\n    - name: a.service\n      enable: {word}\n");
        assert_eq!(clean(&body).units[0].enable, expected, "{word}");
    }
    let config = clean("coreos:\n  etcd2:\n    proxy: on\n    name: yes\n    cors: 0644\n");
    let values: Vec<&str> = ["proxy", "name", "cors"]
        .into_iter()
        .filter_map(|key| config.services[0].value(key))
        .collect();
    assert_eq!(values, ["on", "yes", "0644"]);
}

#[test]
fn merge_keys_and_aliases_fill_what_is_not_given() {
    let config = clean(
        "coreos:
  units:
    - &base
      name: a.service
      command: start
      enable: true
    - <<: *base
      name: b.service
      command: restart
    - <<: [*base, {runtime: true, enable: false}]
      name: c.service
",
    );
    let read: Vec<_> = config
        .units
        .iter()
        .map(|unit| {
            let command = unit.command.as_ref().map(|it| it.value);
            (unit.name.as_str(), command, unit.enable, unit.runtime)
        })
        .collect();
    assert_eq!(
        read,
        [
            ("a.service", Some(Command::Start), true, false),
            ("b.service", Some(Command::Restart), true, false),
            ("c.service", Some(Command::Start), true, true),
        ]
    );
}

#[test]
fn all_seven_commands_are_read() {
    for word in Command::WORDS {
        let body = format!("coreos:\n  units:\n    - name: a.service\n      command: {word}\n");
        let command = clean(&body).units[0].command.clone().unwrap();
        assert_eq!(command.value.word(), word);
    }
}

#[test]
fn files_may_be_empty_and_end_lines_as_windows_does() {
    for body in [
        "",
        "# only a comment\n",
        "coreos:\n",
        "---\ncoreos: {}\n",
        "%YAML 1.1\n---\n",
    ] {
        assert_eq!(clean(body), Config::default(), "{body:?}");
    }
    let config = clean("hostname: a\r\ncoreos:\r\n  etcd:\r\n    addr: b\r\n");
    assert_eq!(config.hostname.unwrap().value, "a");
    assert_eq!(config.services[0].value("addr"), Some("b"));
}

/// A small generator of our own, so that a failing round can be run again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

#[test]
fn damaged_files_are_read_or_refused_with_a_line_of_theirs() {
    const PIECES: [&str; 18] = [
        "\t", "\n", "  ", "-", ":", ": ", "'", "\"", "[", "]", "{", "}", "&a", "*a", "|", "<<: ", "# ",
        "\u{e9}",
    ];
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut refused = 0;
    for round in 0..3_000 {
        let mut text: Vec<char> = [CORE, WORKER][round % 2].chars().collect();
        for _ in 0..=dice.below(3) {
            let place = dice.below(text.len());
            let end = (place + dice.below(4)).min(text.len());
            let piece = PIECES[dice.below(PIECES.len())];
            text.splice(place..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        let Ok(Input::CloudConfig(text)) = recognise(text.as_bytes()) else {
            continue;
        };
        let lines = text.lines().count();
        let (config, messages) = parse(&text);
        for message in &messages {
            assert!(message.line <= lines, "round {round}: {message} in {text}");
        }
        refused += usize::from(has_error(&messages));
        if !has_error(&messages) {
            plan(&config, &Facts::default());
        }
    }
    assert!(refused > 300, "only {refused} rounds did damage");
}
