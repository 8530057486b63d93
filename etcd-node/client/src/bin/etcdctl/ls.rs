//! `etcdctl ls`: always sorted, unlike the original, whose order was a new one each time.

use clap::Args;
use client::v2::{Node, Read};

use crate::arguments::Global;
use crate::exit::Failure;
use crate::words::Key;
use crate::{connection, output};

/// Retrieve a directory.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Return the result in sorted order; it always is
    #[arg(long)]
    sort: bool,
    /// Return all key names below the given path
    #[arg(long)]
    recursive: bool,
    /// Append a slash to directories
    #[arg(short = 'p')]
    mark_directories: bool,
    /// Ask for what the cluster agrees on now, not for what the member asked last heard
    #[arg(long, short, alias = "consistent")]
    quorum: bool,
    #[command(flatten)]
    key: Key,
}

pub(crate) async fn run(global: &Global, ls: Ls) -> Result<(), Failure> {
    let key = ls.key.or_root();
    let client = connection::synced(global).await?;
    let read = Read {
        is_recursive: ls.recursive,
        is_sorted: true,
        is_quorum: ls.quorum,
    };
    let answer = client
        .get(key, read)
        .await
        .map_err(|error| Failure::server(&error))?;
    let node = &answer.event.node;
    let mut text = String::new();
    if node.dir {
        list(&node.nodes, ls.mark_directories, &mut text);
    } else {
        list(std::slice::from_ref(node), ls.mark_directories, &mut text);
    }
    output::text(&text)
}

/// One key per line, each directory before what is in it.
fn list(nodes: &[Node], mark_directories: bool, text: &mut String) {
    for node in nodes {
        let mark = if node.dir && mark_directories { "/" } else { "" };
        text.push_str(&node.key);
        text.push_str(mark);
        text.push('\n');
        list(&node.nodes, mark_directories, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_stands_before_what_is_in_it() {
        let file = |key: &str| Node {
            key: key.to_owned(),
            ..Node::default()
        };
        let directory = Node {
            dir: true,
            nodes: vec![file("/c/x")],
            ..file("/c")
        };
        let mut text = String::new();
        list(&[file("/b"), directory, file("/d")], true, &mut text);
        assert_eq!(text, "/b\n/c/\n/c/x\n/d\n");
    }
}
