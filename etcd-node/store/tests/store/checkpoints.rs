//! Checkpoints: what comes back is the same store.

use proto::log::V2Command;
use proto::log::v2_command::Operation;

use crate::support::{Machine, all, v2};

#[test]
fn a_restored_store_answers_as_the_first_one() {
    let mut machine = Machine::new();
    machine.slice = 1;
    assert_eq!(
        machine.set("/foo/bar", "x").index.get(),
        4,
        "the first user write is index 4"
    );
    machine.put("/foo/baz", "y");
    machine.put("plain", "z");
    machine
        .v2(V2Command {
            recursive: true,
            ..v2(Operation::Delete, "/foo")
        })
        .unwrap();
    machine.put("/later/on", "1");
    let restored = machine.restored();
    assert_eq!(restored.tree(), ["/later/", "/later/on"]);
    assert_eq!(restored.events(4), machine.events(4));
    assert_eq!(restored.range(all()), machine.range(all()));
    assert_eq!(restored.store.view().hash(), machine.store.view().hash());
    let changes = |machine: &Machine| {
        machine
            .store
            .view()
            .changes_since(crate::support::revision(1), 100)
            .unwrap()
    };
    assert_eq!(changes(&restored), changes(&machine));
}
