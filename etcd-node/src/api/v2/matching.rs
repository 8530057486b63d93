//! Whom an event wakes: the one rule for live events and for history (section 2.3 and 2.5 of the v2 facts).

use store::Change;
use store::v2::path::is_below;
use store::v2::{Action, Event};

use proto::ids::V2Index;

/// What a watch waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector {
    /// Clean path.
    pub(super) path: String,
    /// Also what lies below the path.
    pub(super) recursive: bool,
    /// Events with a lower index do not count.
    pub(super) from: V2Index,
}

impl Selector {
    /// Whether a live event of this change wakes the watch.
    pub(super) fn selects_live(&self, event: &Event, change: &Change) -> bool {
        self.is_due(event)
            && (self.sees(event) || (self.may_vanish_with(event) && self.was_removed_by(change)))
    }

    /// Whether an event of the window answers the watch. What existed below a removed directory is not known
    /// any more, so its removal counts for every path below it.
    pub(super) fn selects_past(&self, event: &Event) -> bool {
        self.is_due(event) && (self.sees(event) || self.may_vanish_with(event))
    }

    fn is_due(&self, event: &Event) -> bool {
        event.index >= self.from && !event.is_refresh
    }

    /// The path itself always; what is below it for a recursive watch, unless a hidden component leads there.
    fn sees(&self, event: &Event) -> bool {
        let key = event.node.key.as_str();
        key == self.path || (self.recursive && is_below(key, &self.path) && !self.is_hidden_from_here(key))
    }

    fn is_hidden_from_here(&self, key: &str) -> bool {
        let below = key.strip_prefix(self.path.as_str()).unwrap_or(key);
        below.split('/').any(|part| part.starts_with('_'))
    }

    /// Whether the event removes a directory above the watched path.
    fn may_vanish_with(&self, event: &Event) -> bool {
        let is_removal = matches!(event.action, Action::Delete | Action::Expire);
        is_removal && event.node.dir && is_below(&self.path, &event.node.key)
    }

    fn was_removed_by(&self, change: &Change) -> bool {
        change.removed_directories.contains(&self.path)
            || change
                .writes
                .iter()
                .any(|write| write.record.is_none() && write.key == self.path.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proto::ids::Revision;
    use store::KeyWrite;
    use store::v2::Node;

    use super::*;

    fn event(action: Action, key: &str, dir: bool) -> Event {
        Event {
            action,
            node: Node {
                key: key.into(),
                dir,
                ..Node::default()
            },
            prev_node: None,
            index: V2Index::new(10),
            is_refresh: false,
        }
    }

    fn change(removed_directories: &[&str], removed_files: &[&str]) -> Change {
        let write = |key: &&str| KeyWrite {
            key: Bytes::copy_from_slice(key.as_bytes()),
            record: None,
            prev: None,
        };
        Change {
            revision: Revision::new(5),
            writes: removed_files.iter().map(write).collect(),
            events: Vec::new(),
            removed_directories: removed_directories.iter().map(|&path| path.into()).collect(),
        }
    }

    fn watch(path: &str, recursive: bool) -> Selector {
        Selector {
            path: path.into(),
            recursive,
            from: V2Index::new(1),
        }
    }

    /// Checks 206 to 213 and 218 of the v2 facts. One rule for both: (path, recursive, event's key) -> woken.
    #[test]
    fn a_write_wakes_the_path_itself_and_recursive_watches_above() {
        let cases = [
            ("/a", false, "/a", true),
            ("/a", true, "/a", true),
            ("/d", false, "/d/k", false),
            ("/d", true, "/d/k", true),
            ("/d", true, "/d/x/y/z", true),
            ("/", true, "/a", true),
            ("/", false, "/a", false),
            ("/a", true, "/ab", false),
            ("/a/b", true, "/a", false),
            ("/d", true, "/d/_h", false),
            ("/d", true, "/d/_h/x", false),
            ("/d", true, "/d/x/_h/y", false),
            ("/", true, "/_coreos.com/fleet/x", false),
            ("/d/_h", false, "/d/_h", true),
            ("/d/_h", true, "/d/_h/x", true),
            ("/_coreos.com/fleet", true, "/_coreos.com/fleet/job/x", true),
            ("/d", true, "/d/a_b", true),
        ];
        for (path, recursive, key, woken) in cases {
            let set = event(Action::Set, key, false);
            assert_eq!(
                watch(path, recursive).selects_past(&set),
                woken,
                "past {path} {recursive} {key}"
            );
            let live = watch(path, recursive).selects_live(&set, &change(&[], &[]));
            assert_eq!(live, woken, "live {path} {recursive} {key}");
        }
    }

    /// Checks 91 and 213 to 216.
    #[test]
    fn a_removed_directory_wakes_whoever_watched_something_in_it() {
        let gone = change(&["/d", "/d/sub"], &["/d/k", "/d/_h", "/d/sub/x"]);
        let cases = [
            ("/d", false, true, true),
            ("/d/k", false, true, true),
            ("/d/_h", false, true, true),
            ("/d/sub", true, true, true),
            ("/d/sub/x", true, true, true),
            // Nothing stood there: history cannot tell, the live rule can.
            ("/d/never", false, true, false),
            ("/", true, true, true),
            ("/", false, false, false),
            ("/dd", false, false, false),
        ];
        for (path, recursive, past, live) in cases {
            for action in [Action::Delete, Action::Expire] {
                let removal = event(action, "/d", true);
                assert_eq!(watch(path, recursive).selects_past(&removal), past, "past {path}");
                assert_eq!(
                    watch(path, recursive).selects_live(&removal, &gone),
                    live,
                    "live {path}"
                );
            }
        }
        let file = event(Action::Delete, "/d", false);
        assert!(
            !watch("/d/k", false).selects_past(&file),
            "a file has nothing below it"
        );
        let update = event(Action::Update, "/d", true);
        assert!(
            !watch("/d/k", false).selects_live(&update, &gone),
            "an update removes nothing"
        );
    }

    /// Checks 101, 102 and 204.
    #[test]
    fn refreshes_and_earlier_events_wake_nobody() {
        let refresh = Event {
            is_refresh: true,
            ..event(Action::Set, "/a", false)
        };
        assert!(!watch("/a", false).selects_past(&refresh));
        assert!(!watch("/a", false).selects_live(&refresh, &change(&[], &[])));
        let later = Selector {
            from: V2Index::new(11),
            ..watch("/a", false)
        };
        assert!(!later.selects_past(&event(Action::Set, "/a", false)));
        let exactly = Selector {
            from: V2Index::new(10),
            ..watch("/a", false)
        };
        assert!(exactly.selects_past(&event(Action::Set, "/a", false)));
    }
}
