//! The `etcdctl` binary: a recorded session of etcdctl 2.3.8 is played again, command by command, and what
//! is printed is compared byte by byte. Where we differ on purpose stands in [`ours`], with the reasons.

#[cfg(test)]
mod golden;
#[cfg(test)]
mod support;

#[cfg(test)]
mod replay {
    use std::fs::File;
    use std::io::Write;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::process::{Child, Command, ExitStatus, Output, Stdio};
    use std::time::{Duration, Instant};

    use client::endpoint::Endpoint;
    use client::v2::{Client, Config, Member, Stats};

    use crate::golden::{self, Block};
    use crate::support::{Server, free_port, server_or_skip};

    /// Longer than anything here takes on a loaded machine.
    const SOON: Duration = Duration::from_secs(60);

    /// What `timeout` made of a watch that went on for ever.
    const STILL_RUNNING: i32 = 124;

    /// What the session's watches were shown while they waited, in the session's order. A watch without
    /// anything here finds its event in the past, sees none, or is refused.
    const SHOWN: [(&str, &[&str]); 16] = [
        ("watch w", &["set w 1"]),
        ("-o json watch w", &["set w 2"]),
        ("-o extended watch w", &["set w 3"]),
        ("watch w", &["rm w"]),
        ("watch --recursive wd", &["set wd/x 1"]),
        ("watch --recursive wd", &["mkdir wd/d"]),
        ("watch --forever --recursive wd", &["set wd/x 2"]),
        ("watch --after-index 1 w", &[]),
        ("watch", &[]),
        ("watch nosuchwatch", &[]),
        ("watch --forever wt", &["set --ttl 1 wt 1"]),
        (
            r"exec-watch w -- sh -c env\ \|\ grep\ ETCD\ \|\ sort",
            &["set w 4"],
        ),
        (
            r"exec-watch --recursive wd -- sh -c env\ \|\ grep\ ETCD\ \|\ sort\;\ kill\ -9\ \$PPID",
            &["set wd/x 3"],
        ),
        (
            r"exec-watch w -- sh -c env\ \|\ grep\ ETCD\ \|\ sort\;\ kill\ -9\ \$PPID",
            &["rm w"],
        ),
        ("exec-watch", &[]),
        ("exec-watch w", &[]),
    ];

    /// What stood on stdin; nothing for the other commands.
    fn stdin_of(command: &str) -> &'static str {
        match command {
            "set piped" => "frompipe\n",
            "set piped2" => "nonl",
            _ => "",
        }
    }

    /// The session as ours goes: everywhere the original's, except here.
    fn ours(mut block: Block) -> Block {
        match block.command.as_str() {
            // A lone dash stays where it was typed; the original takes it for a flag and moves it to the
            // front, so that the key is called "-".
            "set dashed -" | "get dashed" => {
                (block.stdout, block.stderr, block.exit) = ("-\n".into(), "".into(), 0);
            }
            _ if block.words().contains(&"ls".to_owned()) => {
                block.stdout = block.stdout.replace("/-\n", "/dashed\n");
            }
            // etcdctl 3.4 and 0.4 have these short and old forms; we take them, too.
            "get -q foo" | "get --consistent foo" => block.stdout = "swapped\n".into(),
            "rm -r /nosuch" => {
                let refusal = "Error:  100: Key not found (/nosuch) [51]\n";
                (block.stdout, block.stderr, block.exit) = (String::new(), refusal.into(), 4);
            }
            // Usage errors are told on stderr, with an exit code that scripts can see.
            "bogus" => {
                let unknown = "unknown command \"bogus\": etcdctl --help lists those that there are\n";
                (block.stdout, block.stderr, block.exit) = (String::new(), unknown.into(), 1);
            }
            "-o bogus get foo" => block.exit = 1,
            _ if block.stdout.starts_with("Incorrect Usage.") => {
                (block.stdout, block.stderr, block.exit) = (String::new(), ANY_TEXT.into(), 1);
            }
            _ => {}
        }
        block
    }

    /// Stands for an explanation in our own words.
    const ANY_TEXT: &str = "(some text)";

    struct Session {
        server: Server,
        member: Member,
        client: Client,
        runtime: tokio::runtime::Runtime,
        directory: tempfile::TempDir,
    }

    #[test]
    fn the_recorded_session_of_2_3_8_plays_again() {
        let Some(server) = server_or_skip("etcdctl golden session") else {
            return;
        };
        let session = Session::new(server);
        let mut shown = SHOWN.iter();
        let mut wrong = Vec::new();
        for recorded in golden::parse(include_str!("golden/etcdctl-2.3.8.txt")) {
            let section = recorded.section.clone();
            let expected = session.here(ours(recorded));
            let actual = if section == "watch" {
                let (command, follow_up) = shown.next().expect("a watch that the list does not know");
                assert_eq!(&expected.command, command, "line {}", expected.line);
                session.watch(&expected, follow_up)
            } else {
                session.run(&expected)
            };
            if let Some(difference) = compare(&expected, &actual) {
                wrong.push(difference);
            }
        }
        assert!(
            shown.next().is_none(),
            "a watch of the list is missing in the session"
        );
        assert!(
            wrong.is_empty(),
            "{} commands differ:\n{}",
            wrong.len(),
            wrong.join("\n")
        );
    }

    /// What a command printed and how it ended.
    struct Actual {
        stdout: String,
        stderr: String,
        exit: i32,
    }

    impl Actual {
        fn of(output: &Output) -> Self {
            Self {
                stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
                exit: exit_code(output.status),
            }
        }
    }

    fn exit_code(status: ExitStatus) -> i32 {
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap())
    }

    fn compare(expected: &Block, actual: &Actual) -> Option<String> {
        let is_unsorted = expected.words().contains(&"ls".to_owned()) && !expected.command.contains("--sort");
        let normal = |text: &str| {
            if is_unsorted {
                sorted(text)
            } else {
                without_times(text)
            }
        };
        let said = if expected.stderr == ANY_TEXT {
            !actual.stderr.is_empty()
        } else {
            expected.stderr == actual.stderr
        };
        if normal(&expected.stdout) == normal(&actual.stdout) && said && expected.exit == actual.exit {
            return None;
        }
        Some(format!(
            "line {}: etcdctl {}\n  expected {:?} {:?} [{}]\n  got      {:?} {:?} [{}]",
            expected.line,
            expected.command,
            expected.stdout,
            expected.stderr,
            expected.exit,
            actual.stdout,
            actual.stderr,
            actual.exit
        ))
    }

    /// The original lists in an order that changes from run to run.
    fn sorted(text: &str) -> String {
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    /// Takes the moment out of expirations, and the seconds that passed out of a TTL of 100.
    fn without_times(text: &str) -> String {
        const MARK: &str = "\"expiration\":\"";
        let mut pieces = text.split(MARK);
        let mut result = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (_, after) = piece.split_once('"').unwrap();
            result = format!("{result}{MARK}\"{after}");
        }
        for ttl in 70..100 {
            result = result.replace(&format!("\"ttl\":{ttl}}}"), "\"ttl\":100}");
            result = result.replace(&format!("TTL: {ttl}\n"), "TTL: 100\n");
        }
        result
    }

    impl Session {
        fn new(server: Server) -> Self {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let endpoint = Endpoint::parse(&server.url()).unwrap();
            let client = Client::new(Config::new(vec![endpoint])).unwrap();
            let member = runtime.block_on(client.members()).unwrap().remove(0);
            Self {
                server,
                member,
                client,
                runtime,
                directory: tempfile::tempdir().unwrap(),
            }
        }

        /// The names of the recorded cluster become those of this one.
        fn here(&self, block: Block) -> Block {
            let translate = |text: &str| {
                text.replace("http://127.0.0.1:4002", &self.server.url())
                    .replace("http://127.0.0.1:7002", &self.member.peer_urls[0])
                    .replace("2f74aac306f9093a", &self.member.id)
            };
            Block {
                stdout: translate(&block.stdout),
                stderr: translate(&block.stderr),
                ..block
            }
        }

        fn command(&self, block: &Block) -> Command {
            // The recorded answer names the endpoint where nobody listens.
            let nobody = block.stderr.contains("dial tcp 127.0.0.1:1:");
            let url = if nobody {
                "http://127.0.0.1:1".to_owned()
            } else {
                self.server.url()
            };
            let mut command = etcdctl(&block.words());
            command.env("ETCDCTL_ENDPOINTS", url);
            command
        }

        fn run(&self, block: &Block) -> Actual {
            let mut child = self
                .command(block)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut stdin = child.stdin.take().unwrap();
            // A command that does not read its stdin may be gone already.
            let _written = stdin.write_all(stdin_of(&block.command).as_bytes());
            drop(stdin);
            Actual::of(&child.wait_with_output().unwrap())
        }

        /// Runs a command that waits, shows it what happened in the session, and takes what it prints.
        fn watch(&self, block: &Block, follow_up: &[&str]) -> Actual {
            if follow_up.is_empty() && block.exit != STILL_RUNNING {
                return self.run(block);
            }
            until("the watchers before are gone", || self.watchers() == 0);
            let (out, err) = (
                self.directory.path().join("out"),
                self.directory.path().join("err"),
            );
            let mut words = block.words();
            words.splice(0..0, ["--endpoints".to_owned(), self.server.url()]);
            let mut command = etcdctl(&words);
            command.stdin(Stdio::null());
            command
                .stdout(File::create(&out).unwrap())
                .stderr(File::create(&err).unwrap());
            let mut child = Watching(command.spawn().unwrap());
            until("it waits", || self.watchers() > 0);
            for words in follow_up {
                let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
                let shown = etcdctl(&words)
                    .env("ETCDCTL_ENDPOINTS", self.server.url())
                    .output()
                    .unwrap();
                assert!(shown.status.success(), "{words:?}: {shown:?}");
            }
            let exit = if block.exit == STILL_RUNNING {
                // An event that prints nothing is past when the watch waits again.
                until("it has printed and waits again", || {
                    read(&out) == block.stdout && self.watchers() > 0
                });
                child.ended().unwrap_or(STILL_RUNNING)
            } else {
                until("it ends", || child.ended().is_some());
                child.ended().unwrap()
            };
            Actual {
                stdout: read(&out),
                stderr: read(&err),
                exit,
            }
        }

        fn watchers(&self) -> u64 {
            self.runtime.block_on(self.client.stats(Stats::Store)).unwrap()["watchers"]
                .as_u64()
                .unwrap()
        }
    }

    /// A command that waits; it is ended with its handle.
    struct Watching(Child);

    impl Watching {
        fn ended(&mut self) -> Option<i32> {
            self.0.try_wait().unwrap().map(exit_code)
        }
    }

    impl Drop for Watching {
        fn drop(&mut self) {
            if self.ended().is_none() {
                self.0.kill().unwrap();
                self.0.wait().unwrap();
            }
        }
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    fn etcdctl<S: AsRef<std::ffi::OsStr>>(words: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcdctl"));
        command
            .args(words)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("ETCDCTL_API", "2");
        command
    }

    #[test]
    fn endpoints_come_from_every_flag_and_variable_and_fail_over() {
        let Some(server) = server_or_skip("etcdctl endpoints") else {
            return;
        };
        let url = server.url();
        let bare = url.trim_start_matches("http://");
        let dead = format!("http://127.0.0.1:{}", free_port());
        let both = format!("{dead},{url}");
        assert!(
            etcdctl(&["--endpoints", &url, "set", "k", "v"])
                .output()
                .unwrap()
                .status
                .success()
        );
        for words in [
            vec!["--endpoints", &url, "get", "k"],
            vec!["--endpoint", &url, "get", "k"],
            vec!["--peers", bare, "get", "k"],
            vec!["-C", bare, "get", "k"],
            vec!["-C", &dead, "-C", bare, "get", "k"],
            vec!["-endpoints", &both, "get", "k"],
            vec!["get", "k", "-no-sync", &format!("-peers={both}")],
        ] {
            let output = etcdctl(&words).output().unwrap();
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "v\n",
                "{words:?}: {output:?}"
            );
        }
        for name in ["ETCDCTL_ENDPOINTS", "ETCDCTL_ENDPOINT", "ETCDCTL_PEERS"] {
            let output = etcdctl(&["get", "k"]).env(name, &both).output().unwrap();
            assert_eq!(
                String::from_utf8_lossy(&output.stdout),
                "v\n",
                "{name}: {output:?}"
            );
        }
        let written = etcdctl(&["--no-sync", "--endpoints", &both, "set", "k", "w", "--ttl", "50"])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&written.stdout),
            "w\n",
            "a write goes past who cannot be reached"
        );
    }

    #[test]
    fn without_a_server_there_are_answers_too() {
        let said =
            |words: &[&str], api: &str| Actual::of(&etcdctl(words).env("ETCDCTL_API", api).output().unwrap());
        let version = said(&["--version"], "3");
        let ours = env!("CARGO_PKG_VERSION");
        assert_eq!(
            version.stdout,
            format!("etcdctl version {ours}\nHawser Version: {ours}\n")
        );
        let v3 = said(&["get", "k"], "3");
        assert_eq!((v3.stdout.as_str(), v3.exit), ("", 2));
        assert!(
            v3.stderr
                .starts_with("etcdctl speaks the v2 verbs in this version; not yet: get put del ")
        );
        assert_eq!(v3.stderr.lines().count(), 1);
        let help = said(&[], "2");
        assert!(help.exit == 0 && help.stdout.contains("cluster-health") && help.stderr.is_empty());
        let tls = said(&["--ca-file", "/x", "ls"], "2");
        assert_eq!((tls.exit, tls.stderr.lines().count()), (1, 1), "{}", tls.stderr);
        let variable = etcdctl(&["ls"]).env("ETCDCTL_CERT_FILE", "/x").output().unwrap();
        assert_eq!(Actual::of(&variable).exit, 1, "{variable:?}");
        let https = said(&["--endpoints", "https://127.0.0.1:2379", "ls"], "2");
        assert_eq!(
            (https.exit, https.stderr.lines().count()),
            (1, 1),
            "{}",
            https.stderr
        );
        let complete = said(&["--generate-completion", "bash"], "2");
        assert!(complete.exit == 0 && complete.stdout.contains("exec-watch"));
        let page = said(&["--generate-man"], "3");
        assert!(
            page.exit == 0 && page.stdout.contains("cluster\\-health"),
            "{}",
            page.stdout
        );
    }

    #[test]
    fn a_write_into_silence_ends_as_one_that_may_have_happened() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let dead = format!("http://127.0.0.1:{}", free_port());
        let output = etcdctl(&["--no-sync", "--total-timeout", "300ms", "set", "k", "v"])
            .env("ETCDCTL_ENDPOINTS", format!("{url},{dead}"))
            .output()
            .unwrap();
        let said = Actual::of(&output);
        assert_eq!(said.exit, 4);
        assert!(
            said.stderr.starts_with("Error:  the write may have happened: "),
            "{}",
            said.stderr
        );
    }
}
