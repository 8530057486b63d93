//! Reading nodes and listings of the v2 tree, in slices at a pinned revision.
//!
//! A directory is listed by two walks side by side, one over the keys and one over the directories. Both
//! seek past the subtree of each child, so that depth never costs. A recursive listing does the same for
//! each child in turn.

use std::ops::Bound;

use bytes::Bytes;
use proto::ids::{Revision, V2Index};
use proto::time::Timestamp;

use super::event::{self, Action, Node};
use super::locate::{FirstShown, Located, locate};
use super::path;
use crate::View;
use crate::budget::Budget;
use crate::mvcc::{Cursor, Directory, Keyspace, Pin};
use crate::v2::{Error, Event};

/// What a v2 GET asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeQuery {
    /// Clean path, `/` for the root.
    pub path: String,
    /// The whole subtree instead of one level.
    pub recursive: bool,
    /// Cluster time by which `ttl` is shown.
    pub now: Timestamp,
}

/// A v2 GET under way; reads at the revision of its first step.
#[derive(Debug)]
pub struct Listing {
    query: NodeQuery,
    under_way: Option<UnderWay>,
}

#[derive(Debug)]
struct UnderWay {
    at: Revision,
    index: V2Index,
    /// From the named directory down to the one being listed.
    frames: Vec<Frame>,
    pin: Option<Pin>,
}

/// One directory being listed.
#[derive(Debug)]
struct Frame {
    node: Node,
    /// What its key and those of its children begin with.
    prefix: String,
    stage: Stage,
    /// Whether its children are wanted.
    lists: bool,
    /// Directories in it that are still to be listed, the last one first.
    directories: Vec<String>,
}

#[derive(Debug)]
enum Stage {
    Indexes(FirstShown),
    Files(Cursor),
    /// The directories in it, from this path on.
    Directories(Bound<String>),
    Children,
}

impl Listing {
    /// Begins reading.
    pub fn new(query: NodeQuery) -> Self {
        Self {
            query,
            under_way: None,
        }
    }

    /// Reads on, at most `records_max` records. The answer is an event with action `get` whose `index` is
    /// the v2 index at the first step; none = call again with a later view. If a snapshot replaced the store
    /// in between, it begins anew.
    ///
    /// # Errors
    /// 100 with the first missing component, or 104 with the file in the way.
    pub fn step(&mut self, view: &View<'_>, records_max: usize) -> Result<Option<Event>, Error> {
        let keyspace = view.keyspace();
        let resumed = self.under_way.take().filter(|under_way| {
            under_way
                .pin
                .as_ref()
                .is_some_and(|pin| pin.belongs_to(&keyspace.pins))
        });
        let mut under_way = match resumed {
            Some(under_way) => under_way,
            None => match self.begin(keyspace)? {
                Begun::File(event) => return Ok(Some(*event)),
                Begun::Directory(under_way) => under_way,
            },
        };
        let mut reader = Reader {
            keyspace,
            at: under_way.at,
            query: &self.query,
        };
        match reader.list(&mut under_way.frames, &mut Budget::new(records_max)) {
            Some(node) => Ok(Some(answer(node, under_way.index))),
            None => {
                if under_way.pin.is_none() {
                    under_way.pin = Some(keyspace.pins.pin(under_way.at));
                }
                self.under_way = Some(under_way);
                Ok(None)
            }
        }
    }

    fn begin(&self, keyspace: &Keyspace) -> Result<Begun, Error> {
        let (at, index) = (keyspace.revision, keyspace.v2_index);
        let NodeQuery { path, now, .. } = &self.query;
        match locate(keyspace, path, at) {
            Err(nothing) => Err(Error {
                code: nothing.code,
                cause: nothing.cause,
                index,
            }),
            Ok(Located::File(record)) => {
                let node = event::file(path, record, keyspace.expires_at(record), *now);
                Ok(Begun::File(Box::new(answer(node, index))))
            }
            Ok(Located::Directory(directory)) => {
                let frame = Frame::new(path.clone(), directory, true, *now);
                Ok(Begun::Directory(UnderWay {
                    at,
                    index,
                    frames: vec![frame],
                    pin: None,
                }))
            }
        }
    }
}

enum Begun {
    File(Box<Event>),
    Directory(UnderWay),
}

fn answer(node: Node, index: V2Index) -> Event {
    Event {
        action: Action::Get,
        node,
        prev_node: None,
        index,
        is_refresh: false,
    }
}

impl Frame {
    fn new(path: String, directory: &Directory, lists: bool, now: Timestamp) -> Self {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let bare = |path| Node {
            key: path,
            dir: true,
            ..Node::default()
        };
        let (node, stage) = match directory.record() {
            Some(record) => (
                event::directory(&path, record, now),
                Stage::Files(Cursor::below(&path)),
            ),
            None if path == "/" => (bare(path), Stage::Files(Cursor::below("/"))),
            None => {
                let search = FirstShown::new(&path);
                (bare(path), Stage::Indexes(search))
            }
        };
        Self {
            node,
            prefix,
            stage,
            lists,
            directories: Vec::new(),
        }
    }
}

struct Reader<'a> {
    keyspace: &'a Keyspace,
    at: Revision,
    query: &'a NodeQuery,
}

impl Reader<'_> {
    /// Lists on; the named node once it is complete, none = the budget ended first.
    fn list(&mut self, frames: &mut Vec<Frame>, budget: &mut Budget) -> Option<Node> {
        loop {
            let frame = frames.last_mut().expect("a listing ends with its first frame");
            if !self.advance(frame, budget) {
                return None;
            }
            if let Some(path) = frame.directories.pop() {
                let directory = self.keyspace.directories.at(&path, self.at);
                let child = Frame::new(path, directory, self.query.recursive, self.query.now);
                frames.push(child);
                continue;
            }
            let mut done = frames.pop().expect("it was just seen");
            done.node
                .nodes
                .sort_unstable_by(|one, other| one.key.cmp(&other.key));
            match frames.last_mut() {
                Some(parent) => parent.node.nodes.push(done.node),
                None => return Some(done.node),
            }
        }
    }

    /// Brings a frame to the stage where only its child directories are left; false = the budget ended first.
    fn advance(&mut self, frame: &mut Frame, budget: &mut Budget) -> bool {
        loop {
            match &mut frame.stage {
                Stage::Indexes(search) => {
                    let Some((created, modified)) = search.step(self.keyspace, self.at, budget) else {
                        return false;
                    };
                    (frame.node.created_index, frame.node.modified_index) = (created, modified);
                    frame.stage = Stage::Files(Cursor::below(&frame.node.key));
                }
                Stage::Files(_) | Stage::Directories(_) if !frame.lists => frame.stage = Stage::Children,
                Stage::Files(cursor) => {
                    if !self.list_files(&frame.prefix, &mut frame.node, (cursor, budget)) {
                        return false;
                    }
                    frame.stage = Stage::Directories(Bound::Unbounded);
                }
                Stage::Directories(from) => {
                    if !self.list_directories(&frame.prefix, &mut frame.directories, (from, budget)) {
                        return false;
                    }
                    frame.directories.reverse();
                    frame.stage = Stage::Children;
                }
                Stage::Children => return true,
            }
        }
    }

    fn list_files(
        &self,
        prefix: &str,
        node: &mut Node,
        (cursor, budget): (&mut Cursor, &mut Budget),
    ) -> bool {
        while !cursor.is_done() {
            let mut stopped_at = None;
            for (key, versions) in self.keyspace.keys.scan(cursor) {
                if !budget.take() {
                    cursor.stop_at(Some(key.clone()));
                    return false;
                }
                let name = &key[prefix.len()..];
                if let Some(end) = name.iter().position(|byte| *byte == b'/') {
                    stopped_at = Some(past_subtree(&key[..prefix.len() + end]));
                    break;
                }
                if name.first() == Some(&b'_') {
                    continue;
                }
                let Some(record) = versions.at(self.at).and_then(|version| version.state.as_ref()) else {
                    continue;
                };
                let Some(path) = path::of_key(key) else { continue };
                if !self.keyspace.directories.at(path, self.at).exists() {
                    let expires_at = self.keyspace.expires_at(record);
                    node.nodes
                        .push(event::file(path, record, expires_at, self.query.now));
                }
            }
            cursor.stop_at(stopped_at);
        }
        true
    }

    fn list_directories(
        &self,
        prefix: &str,
        found: &mut Vec<String>,
        (from, budget): (&mut Bound<String>, &mut Budget),
    ) -> bool {
        loop {
            let mut seek = None;
            for (path, chain) in self
                .keyspace
                .directories
                .below(prefix, from.as_ref().map(String::as_str))
            {
                if !budget.take() {
                    *from = Bound::Included(path.to_string());
                    return false;
                }
                let name = &path[prefix.len()..];
                if let Some(end) = name.find('/') {
                    seek = Some(format!("{}0", &path[..prefix.len() + end]));
                    break;
                }
                if !name.starts_with('_') && chain.at(self.at).is_some_and(|version| version.state.exists()) {
                    found.push(path.to_string());
                }
            }
            match seek {
                Some(seek) => *from = Bound::Included(seek),
                None => return true,
            }
        }
    }
}

/// The first key after everything that lies below this one: `0` is the byte after `/`.
fn past_subtree(key: &[u8]) -> Bytes {
    let mut past = Vec::with_capacity(key.len() + 1);
    past.extend_from_slice(key);
    past.push(b'0');
    Bytes::from(past)
}
