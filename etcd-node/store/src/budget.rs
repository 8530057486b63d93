//! How many records one slice of work may still touch.

/// A count that runs down; at zero the work stops and goes on in the next slice.
#[derive(Debug)]
pub(crate) struct Budget {
    left: usize,
}

impl Budget {
    /// A budget of at least one record, so that every slice gets on.
    pub(crate) fn new(records_max: usize) -> Self {
        Self {
            left: records_max.max(1),
        }
    }

    /// Pays for one record; false = the slice is over.
    pub(crate) fn take(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// How many are left.
    pub(crate) fn left(&self) -> usize {
        self.left
    }
}
