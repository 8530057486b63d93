//! Where each entry of the log stands on disk. Kept per stretch of about 64 KiB, not per entry: a million
//! entries of 300 bytes take some hundred kilobytes.

use std::collections::VecDeque;

use proto::ids::{LogIndex, Term};

use super::LogPosition;
use super::segment::SegmentId;

/// A stretch grows to this size. Reading one entry reads its stretch.
const STRETCH_BYTES_MAX: u64 = 64 * 1024;

/// What the entries of one frame do to the log, told entry by entry: an entry at or below the last one
/// replaces it and all after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    /// Lowest index in the frame: the log is cut before it.
    pub(super) first: Option<LogIndex>,
    /// The last entry afterwards.
    pub(super) last: LogIndex,
    /// Where terms begin, by index.
    terms: VecDeque<TermStart>,
}

type TermStart = (LogIndex, Term);

impl Summary {
    pub(super) fn push(&mut self, index: LogIndex, term: Term) {
        if self.first.is_none_or(|first| index < first) {
            self.first = Some(index);
        }
        self.last = index;
        push_term(&mut self.terms, index, term);
    }
}

fn push_term(terms: &mut VecDeque<TermStart>, index: LogIndex, term: Term) {
    cut_terms(terms, index);
    if terms.back().is_none_or(|(_, last)| *last != term) {
        terms.push_back((index, term));
    }
}

fn cut_terms(terms: &mut VecDeque<TermStart>, from: LogIndex) {
    while terms.back().is_some_and(|(start, _)| *start >= from) {
        terms.pop_back();
    }
}

/// Frames in one segment, one behind the other, that hold the entries `first..=last` (and, after `last` was
/// lowered, entries that later stretches replaced).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) first: LogIndex,
    pub(super) last: LogIndex,
    pub(super) segment: SegmentId,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// Where a frame stands: `from..to` in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) segment: SegmentId,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The entry before the log's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) index: LogIndex,
    /// Unknown when it was read from no frame.
    pub(super) term: Option<Term>,
    /// The segment that says so; none when it follows from the first entry.
    pub(super) segment: Option<SegmentId>,
}

/// The index of a log.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// None while nothing tells where the log begins.
    origin: Option<Origin>,
    stretches: VecDeque<Stretch>,
    terms: VecDeque<TermStart>,
}

/// A frame's first entry does not follow the log's last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryGap {
    pub(super) last: LogIndex,
    pub(super) first: LogIndex,
}

impl Index {
    /// The entry before the log's first; none in a log that never held anything.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// The last entry's index, or the origin's.
    pub(super) fn last(&self) -> Option<LogIndex> {
        let stretch = self.stretches.back().map(|stretch| stretch.last);
        stretch.or(self.origin.map(|origin| origin.index))
    }

    /// The term of an entry in the log, or of its origin when known.
    pub(super) fn term(&self, index: LogIndex) -> Option<Term> {
        let origin = self.origin?;
        if index == origin.index {
            return origin.term;
        }
        if index < origin.index || self.last().is_none_or(|last| index > last) {
            return None;
        }
        let after = self.terms.partition_point(|(start, _)| *start <= index);
        self.terms.get(after.checked_sub(1)?).map(|(_, term)| *term)
    }

    /// Takes in a frame's entries.
    pub(super) fn add(&mut self, place: Place, summary: &Summary) -> Result<(), EntryGap> {
        let Some(first) = summary.first else {
            self.step_over(place);
            return Ok(());
        };
        let before = LogIndex::new(first.get() - 1);
        let last = self.last().unwrap_or(before);
        if first > last.next() {
            return Err(EntryGap { last, first });
        }
        if self.origin.is_none_or(|origin| origin.index > before) {
            self.origin = Some(Origin {
                index: before,
                term: None,
                segment: None,
            });
        }
        let replaces = first <= last;
        self.cut(first);
        for (index, term) in &summary.terms {
            push_term(&mut self.terms, *index, *term);
        }
        match self.stretches.back_mut() {
            Some(stretch) if !replaces && stretch.takes(place) => {
                stretch.last = summary.last;
                stretch.to = place.to;
            }
            _ => self.stretches.push_back(Stretch {
                first,
                last: summary.last,
                segment: place.segment,
                from: place.from,
                to: place.to,
            }),
        }
        Ok(())
    }

    /// A frame without entries does not end a stretch, or a quiet log would have one for each entry.
    fn step_over(&mut self, place: Place) {
        if let Some(stretch) = self.stretches.back_mut()
            && stretch.takes(place)
        {
            stretch.to = place.to;
        }
    }

    /// Forgets the entries at and after an index.
    fn cut(&mut self, from: LogIndex) {
        while self.stretches.back().is_some_and(|stretch| stretch.first >= from) {
            self.stretches.pop_back();
        }
        if let Some(stretch) = self.stretches.back_mut()
            && stretch.last >= from
        {
            stretch.last = LogIndex::new(from.get() - 1);
        }
        cut_terms(&mut self.terms, from);
    }

    /// Forgets everything: the log begins after this place.
    pub(super) fn restart(&mut self, position: LogPosition, segment: SegmentId) {
        self.stretches.clear();
        self.terms.clear();
        self.origin = Some(Origin {
            index: position.index,
            term: Some(position.term),
            segment: Some(segment),
        });
    }

    /// The stretch that holds an entry.
    pub(super) fn find(&self, index: LogIndex) -> Option<Stretch> {
        let at = self.stretches.partition_point(|stretch| stretch.last < index);
        self.stretches
            .get(at)
            .copied()
            .filter(|stretch| stretch.first <= index)
    }

    /// The oldest segment that the entry at this index and all after it need; none when all segments are
    /// needed.
    pub(super) fn first_segment_needed(&self, index: LogIndex) -> Option<SegmentId> {
        let index = self.last().map_or(index, |last| last.min(index));
        match self.find(index) {
            Some(stretch) => Some(stretch.segment),
            None => self.origin.filter(|origin| origin.index == index)?.segment,
        }
    }

    /// Forgets what stood in segments before this one.
    pub(super) fn release(&mut self, first_kept: SegmentId) {
        let mut last_released = None;
        while self
            .stretches
            .front()
            .is_some_and(|stretch| stretch.segment < first_kept)
        {
            last_released = self.stretches.pop_front().map(|stretch| stretch.last);
        }
        let Some(index) = last_released else { return };
        let term = self
            .terms
            .partition_point(|(start, _)| *start <= index)
            .checked_sub(1);
        let term = term.map(|at| {
            let (_, term) = self.terms[at];
            self.terms.drain(..at);
            term
        });
        self.origin = Some(Origin {
            index,
            term,
            segment: None,
        });
    }

    /// Stretches and term starts held, the two things that take memory.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.stretches.len(), self.terms.len())
    }
}

impl Stretch {
    /// Whether a frame at this place may join.
    fn takes(&self, place: Place) -> bool {
        self.segment == place.segment && self.to == place.from && place.to - self.from <= STRETCH_BYTES_MAX
    }
}
