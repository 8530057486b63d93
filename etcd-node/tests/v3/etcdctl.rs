//! Debian's `etcdctl` 3.4 against our program: what people type, and what they read. With both of its API
//! versions, because the keyspace is one.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::support::deadline;
use crate::support::ours::Ours;
use crate::support::stock::is_installed;

const ETCDCTL: &str = "/usr/bin/etcdctl";

/// A node and the client that talks to it.
struct Console {
    ours: Ours,
}

impl Console {
    /// None when there is no `etcdctl`.
    async fn open() -> Option<Self> {
        if !is_installed(ETCDCTL) {
            return None;
        }
        Some(Self {
            ours: Ours::start().await,
        })
    }

    fn command(&self, api: &str, words: &[&str]) -> Command {
        let mut command = Command::new(ETCDCTL);
        command
            .env_clear()
            .env("ETCDCTL_API", api)
            .args(["--endpoints", &self.ours.url])
            .args(words);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end: what it printed, or what it complained of.
    async fn run(&self, api: &str, words: &[&str], input: &str) -> Result<String, String> {
        let mut child = self.command(api, words).spawn().expect("etcdctl starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).await.expect("it reads");
        drop(stdin);
        let output = deadline("etcdctl", child.wait_with_output())
            .await
            .expect("its output");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    async fn v3(&self, words: &[&str]) -> String {
        self.run("3", words, "")
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    async fn v2(&self, words: &[&str]) -> String {
        self.run("2", words, "")
            .await
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Starts it, to read line by line.
    fn follow(&self, api: &str, words: &[&str]) -> Followed {
        let mut child = self.command(api, words).spawn().expect("etcdctl starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Followed { child, lines }
    }
}

/// An `etcdctl` that goes on.
struct Followed {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Followed {
    async fn lines(&mut self, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        while all.len() < count {
            let line = deadline("a line of etcdctl", self.lines.next_line())
                .await
                .expect("its output");
            all.push(line.expect("it goes on"));
        }
        all
    }

    async fn stop(mut self) {
        self.child.kill().await.expect("it is ours");
    }
}

/// The id in "lease 6bf1 granted with TTL(60s)".
fn lease_id(granted: &str) -> String {
    granted.split(' ').nth(1).expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_written_read_and_deleted() {
    let Some(console) = Console::open().await else {
        return;
    };
    assert_eq!(console.v3(&["put", "foo", "bar"]).await, "OK\n");
    assert_eq!(
        console.v3(&["put", "--prev-kv", "foo", "baz"]).await,
        "OK\nfoo\nbar\n"
    );
    assert_eq!(console.v3(&["get", "foo"]).await, "foo\nbaz\n");
    assert_eq!(console.v3(&["get", "--rev", "2", "foo"]).await, "foo\nbar\n");
    for key in ["fop", "fo", "g"] {
        console.v3(&["put", key, key]).await;
    }
    assert_eq!(
        console.v3(&["get", "--prefix", "fo", "--keys-only"]).await,
        "fo\n\nfoo\n\nfop\n\n"
    );
    assert_eq!(
        console
            .v3(&["get", "--from-key", "fop", "--print-value-only"])
            .await,
        "fop\ng\n"
    );
    let sorted = [
        "get",
        "--prefix",
        "",
        "--sort-by",
        "modify",
        "--order",
        "descend",
        "--limit",
        "2",
        "--keys-only",
    ];
    assert_eq!(console.v3(&sorted).await, "g\n\nfo\n\n");
    assert_eq!(
        console.v3(&["del", "--prefix", "fo", "--prev-kv"]).await,
        "3\nfo\nfo\nfoo\nbaz\nfop\nfop\n"
    );
    assert_eq!(console.v3(&["get", "foo"]).await, "");
    let future = console.run("3", &["get", "--rev", "1000", "foo"], "").await;
    assert!(
        future
            .expect_err("no such revision")
            .contains("required revision is a future revision")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_compactions_and_their_refusals() {
    let Some(console) = Console::open().await else {
        return;
    };
    let create = "mod(\"k\") = \"0\"\n\nput k 1\nget k\n\nget k\n\n";
    assert_eq!(
        console.run("3", &["txn"], create).await.as_deref(),
        Ok("SUCCESS\n\nOK\n\nk\n1\n")
    );
    assert_eq!(
        console.run("3", &["txn"], create).await.as_deref(),
        Ok("FAILURE\n\nk\n1\n")
    );
    let twice = console
        .run("3", &["txn"], "\nput a 1\nput a 2\n\n\n")
        .await
        .expect_err("a key twice");
    assert!(twice.contains("duplicate key given in txn request"), "{twice}");
    console.v3(&["put", "k", "2"]).await;
    assert_eq!(console.v3(&["compact", "3"]).await, "compacted revision 3\n");
    let again = console.run("3", &["compact", "2"], "").await.expect_err("it was");
    assert!(again.contains("required revision has been compacted"), "{again}");
    let gone = console
        .run("3", &["get", "--rev", "2", "k"], "")
        .await
        .expect_err("it was");
    assert!(gone.contains("required revision has been compacted"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_show_history_and_what_happens() {
    let Some(console) = Console::open().await else {
        return;
    };
    console.v3(&["put", "w/a", "1"]).await;
    let mut watch = console.follow("3", &["watch", "--prefix", "w/", "--rev", "2", "--prev-kv"]);
    assert_eq!(watch.lines(3).await, ["PUT", "w/a", "1"]);
    console.v3(&["put", "w/a", "2"]).await;
    // etcdctl prints what stood there first.
    assert_eq!(watch.lines(5).await, ["PUT", "w/a", "1", "w/a", "2"]);
    console.v3(&["del", "w/a"]).await;
    assert_eq!(watch.lines(5).await, ["DELETE", "w/a", "2", "w/a", ""]);
    watch.stop().await;
    console.v3(&["compact", "4"]).await;
    let compacted = console
        .run("3", &["watch", "--prefix", "w/", "--rev", "1"], "")
        .await
        .expect_err("too late");
    assert!(
        compacted.contains("required revision has been compacted"),
        "{compacted}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_hold_keys_and_let_them_go() {
    let Some(console) = Console::open().await else {
        return;
    };
    let granted = console.v3(&["lease", "grant", "300"]).await;
    let lease = lease_id(&granted);
    assert_eq!(granted, format!("lease {lease} granted with TTL(300s)\n"));
    console.v3(&["put", "l", "1", "--lease", &lease]).await;
    assert_eq!(
        console.v3(&["lease", "list"]).await,
        format!("found 1 leases\n{lease}\n")
    );
    let told = console.v3(&["lease", "timetolive", &lease, "--keys"]).await;
    assert!(
        told.starts_with(&format!("lease {lease} granted with TTL(300s), remaining(2")),
        "{told}"
    );
    assert!(told.ends_with("attached keys([l])\n"), "{told}");
    let kept = console.v3(&["lease", "keep-alive", "--once", &lease]).await;
    assert_eq!(kept, format!("lease {lease} keepalived with TTL(300)\n"));
    assert_eq!(
        console.v3(&["lease", "revoke", &lease]).await,
        format!("lease {lease} revoked\n")
    );
    assert_eq!(console.v3(&["get", "l"]).await, "");
    let gone = console.v3(&["lease", "timetolive", &lease]).await;
    assert_eq!(gone, format!("lease {lease} already expired\n"));
    let unknown = console
        .run("3", &["put", "l", "1", "--lease", &lease], "")
        .await
        .expect_err("it ended");
    assert!(unknown.contains("requested lease not found"), "{unknown}");
    // A lock is a lease, a transaction and a watch.
    let locked = console.v3(&["lock", "door", "/bin/echo", "inside"]).await;
    assert_eq!(locked, "inside\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_ends_by_itself_and_takes_its_keys_along() {
    let Some(console) = Console::open().await else {
        return;
    };
    let lease = lease_id(&console.v3(&["lease", "grant", "2"]).await);
    let mut watch = console.follow("3", &["watch", "/e"]);
    let mut two = console.follow("2", &["watch", "--forever", "--recursive", "/e"]);
    // The first write that the watches show proves that they have begun.
    let begun = async {
        loop {
            console.v3(&["put", "/e", "0"]).await;
            if tokio::time::timeout(std::time::Duration::from_millis(200), watch.lines(3))
                .await
                .is_ok()
            {
                break;
            }
        }
    };
    deadline("the watch to begin", begun).await;
    console.v3(&["put", "/e", "1", "--lease", &lease]).await;
    let shown = async {
        loop {
            if watch.lines(1).await == ["DELETE"] {
                break;
            }
        }
    };
    deadline("the lease to end", shown).await;
    assert_eq!(watch.lines(1).await, ["/e"]);
    assert_eq!(console.v3(&["get", "/e"]).await, "");
    watch.stop().await;
    let expired = async { while two.lines(1).await != ["[expire] /e"] {} };
    deadline("v2 to tell of the end", expired).await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_status_and_health() {
    let Some(console) = Console::open().await else {
        return;
    };
    let members = console.v3(&["member", "list"]).await;
    let columns: Vec<&str> = members.trim_end().split(", ").collect();
    assert_eq!(columns[1..3], ["started", "default"], "{members}");
    assert_eq!(columns[4..], [console.ours.url.as_str(), "false"], "{members}");
    let status = console.v3(&["endpoint", "status"]).await;
    let columns: Vec<&str> = status.trim_end().split(", ").collect();
    assert_eq!(columns[0], console.ours.url, "{status}");
    assert_eq!(columns[2], "3.6.5", "{status}");
    assert_eq!(columns[4..6], ["true", "false"], "leads, is no learner: {status}");
    console.v3(&["endpoint", "health"]).await;
}

/// One keyspace: what one API writes, the other reads.
#[tokio::test(flavor = "multi_thread")]
async fn both_api_versions_see_the_same_keys() {
    let Some(console) = Console::open().await else {
        return;
    };
    assert_eq!(
        console.v2(&["set", "/mykey", "this is awesome"]).await,
        "this is awesome\n"
    );
    assert_eq!(console.v3(&["get", "/mykey"]).await, "/mykey\nthis is awesome\n");
    console.v3(&["put", "/dir/a", "from three"]).await;
    assert_eq!(console.v2(&["get", "/dir/a"]).await, "from three\n");
    assert_eq!(console.v2(&["ls", "/dir"]).await, "/dir/a\n");
    let lease = lease_id(&console.v3(&["lease", "grant", "300"]).await);
    console.v3(&["put", "/dir/leased", "1", "--lease", &lease]).await;
    let shown = console.v2(&["-o", "extended", "get", "/dir/leased"]).await;
    let ttl: i64 = shown
        .lines()
        .find_map(|line| line.strip_prefix("TTL: "))
        .and_then(|ttl| ttl.parse().ok())
        .unwrap_or_else(|| panic!("a ttl in {shown}"));
    assert!((250..=300).contains(&ttl), "{shown}");
    console.v2(&["rm", "--recursive", "/dir"]).await;
    assert_eq!(console.v3(&["get", "--prefix", "/dir"]).await, "");
}

/// A v3 transaction over three keys is three v2 events.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_three_keys_is_three_events_to_a_v2_watcher() {
    let Some(console) = Console::open().await else {
        return;
    };
    let mut watch = console.follow("2", &["watch", "--forever", "--recursive", "/t"]);
    let begun = async {
        loop {
            console.v2(&["set", "/t/begin", "0"]).await;
            if tokio::time::timeout(std::time::Duration::from_millis(200), watch.lines(1))
                .await
                .is_ok()
            {
                break;
            }
        }
    };
    deadline("the watch to begin", begun).await;
    let three = "\nput /t/1 one\nput /t/2 two\nput /t/3 three\n\n\n";
    console.run("3", &["txn"], three).await.expect("a transaction");
    let mut shown = Vec::new();
    while shown.len() < 6 {
        let line = watch.lines(1).await.remove(0);
        let is_begin = line.contains("/t/begin") || line == "0";
        shown.extend((!is_begin).then_some(line));
    }
    assert_eq!(
        shown,
        ["[set] /t/1", "one", "[set] /t/2", "two", "[set] /t/3", "three"]
    );
    watch.stop().await;
}
