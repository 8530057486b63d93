//! The versions of one key or one directory, newest first at hand.
//!
//! A reader at revision r takes the newest version at or below r. What an unfinished entry has written
//! stands here already, one revision above the visible one, and no reader asks for it.

use proto::ids::Revision;

/// What a chain holds: a state that may also say "nothing is here".
pub(crate) trait State {
    /// Whether this version says that nothing is here.
    fn is_absent(&self) -> bool;
}

/// One version.
#[derive(Clone, Debug)]
pub(crate) struct Version<T> {
    /// The revision that made it.
    pub(crate) revision: Revision,
    /// What stands here from then on.
    pub(crate) state: T,
}

/// All versions that somebody may still read.
///
/// Invariant: revisions rise strictly from `older` to `newest`.
#[derive(Clone, Debug)]
pub(crate) struct Chain<T> {
    newest: Version<T>,
    older: Vec<Version<T>>,
}

impl<T: State> Chain<T> {
    pub(crate) fn new(revision: Revision, state: T) -> Self {
        Self {
            newest: Version { revision, state },
            older: Vec::new(),
        }
    }

    /// The newest version, visible or not.
    pub(crate) fn newest(&self) -> &Version<T> {
        &self.newest
    }

    /// The version that a reader at this revision sees.
    pub(crate) fn at(&self, revision: Revision) -> Option<&Version<T>> {
        if self.newest.revision <= revision {
            return Some(&self.newest);
        }
        let after = self.older.partition_point(|version| version.revision <= revision);
        after.checked_sub(1).map(|index| &self.older[index])
    }

    /// Adds a version; what the same revision wrote before is replaced. The version that was newest is
    /// answered with whether it stays readable at its own revision.
    pub(crate) fn push(&mut self, revision: Revision, state: T) -> Replaced<T>
    where
        T: Clone,
    {
        assert!(
            revision >= self.newest.revision,
            "a version went back: {} -> {revision}",
            self.newest.revision
        );
        if revision == self.newest.revision {
            let old = std::mem::replace(&mut self.newest.state, state);
            return Replaced::SameRevision(old);
        }
        let old = std::mem::replace(&mut self.newest, Version { revision, state });
        let state = old.state.clone();
        if !(old.state.is_absent() && self.older.is_empty()) {
            self.older.push(old);
        }
        Replaced::Superseded(state)
    }

    /// Drops the versions that no reader at or above `floor` sees; each dropped one is shown to `dropped`.
    pub(crate) fn forget_before(&mut self, floor: Revision, mut dropped: impl FnMut(&T)) {
        let mut count = if self.newest.revision <= floor {
            self.older.len()
        } else {
            self.older
                .partition_point(|version| version.revision <= floor)
                .saturating_sub(1)
        };
        if count < self.older.len()
            && self.older[count].revision <= floor
            && self.older[count].state.is_absent()
        {
            count += 1;
        }
        for version in self.older.drain(..count) {
            dropped(&version.state);
        }
        if self.older.is_empty() {
            self.older = Vec::new();
        }
    }

    /// Whether no reader at any revision finds anything here: what one revision made and took away again, alone
    /// or after everything before it was forgotten.
    pub(crate) fn is_void(&self) -> bool {
        self.older.is_empty() && self.newest.state.is_absent()
    }

    /// The versions that readers from `floor` to `top` see, oldest first; a leading absence is left out.
    pub(crate) fn readable(&self, floor: Revision, top: Revision) -> impl Iterator<Item = &Version<T>> {
        let start = self.at(floor).map_or(Revision::ZERO, |version| version.revision);
        self.older
            .iter()
            .chain(std::iter::once(&self.newest))
            .filter(move |version| version.revision >= start && version.revision <= top)
            .skip_while(|version| version.state.is_absent())
    }
}

/// What became of the version that was newest.
#[derive(Debug)]
pub(crate) enum Replaced<T> {
    /// It is older than the new one and stays readable.
    Superseded(T),
    /// The same revision had written it: nobody ever sees it.
    SameRevision(T),
}

#[cfg(test)]
mod tests {
    use super::*;

    impl State for Option<u32> {
        fn is_absent(&self) -> bool {
            self.is_none()
        }
    }

    fn revision(number: i64) -> Revision {
        Revision::new(number)
    }

    fn chain(versions: &[(i64, Option<u32>)]) -> Chain<Option<u32>> {
        let mut chain = Chain::new(revision(versions[0].0), versions[0].1);
        for (number, state) in &versions[1..] {
            chain.push(revision(*number), *state);
        }
        chain
    }

    fn seen(chain: &Chain<Option<u32>>, number: i64) -> Option<u32> {
        chain.at(revision(number)).and_then(|version| version.state)
    }

    #[test]
    fn a_reader_sees_the_newest_version_at_or_below_its_revision() {
        let chain = chain(&[(3, Some(30)), (5, None), (8, Some(80))]);
        let answers: Vec<_> = (2..=9).map(|number| seen(&chain, number)).collect();
        assert_eq!(
            answers,
            [None, Some(30), Some(30), None, None, None, Some(80), Some(80)]
        );
    }

    #[test]
    fn forgetting_changes_nothing_at_or_above_the_floor() {
        let versions = [(3, Some(30)), (5, None), (6, Some(60)), (8, Some(80)), (9, None)];
        for floor in 1..=10 {
            let whole = chain(&versions);
            let mut cut = whole.clone();
            cut.forget_before(revision(floor), |_| {});
            for number in floor..=11 {
                assert_eq!(
                    seen(&cut, number),
                    seen(&whole, number),
                    "floor {floor}, at {number}"
                );
            }
            assert_eq!(cut.is_void(), floor >= 9);
        }
    }

    #[test]
    fn one_revision_leaves_one_version() {
        let mut chain = chain(&[(3, Some(30))]);
        chain.push(revision(4), None);
        chain.push(revision(4), Some(41));
        assert_eq!((seen(&chain, 3), seen(&chain, 4)), (Some(30), Some(41)));
        assert_eq!(chain.readable(revision(0), revision(9)).count(), 2);
    }
}
