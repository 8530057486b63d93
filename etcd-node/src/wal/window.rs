//! Looks into a segment: frame by frame, or through everything for a frame that is still valid.

use bytes::Bytes;

use super::frame::{HEADER_BYTES, Header, Look, MAGIC};
use super::segment::Segment;
use super::{Sequence, WalError};
use crate::disk::to_usize;

/// Segments are read in pieces of this size, larger only for a larger frame.
const READ_BYTES: usize = 1 << 20;
/// What the scan compares at once against zeros.
const PAGE_BYTES: usize = 4096;

/// A segment's bytes, read piece by piece.
pub(super) struct Window<'a> {
    segment: &'a Segment,
    from: u64,
    bytes: Vec<u8>,
}

/// What stands at an offset.
pub(super) enum Found {
    Zero,
    Bad,
    Frame(Header, Bytes),
}

/// What a scan saw.
pub(super) struct Rest {
    /// The first valid frame.
    pub(super) frame_at: Option<u64>,
    /// After the last byte that is not zero.
    pub(super) written_to: u64,
}

impl<'a> Window<'a> {
    pub(super) fn new(segment: &'a Segment) -> Self {
        Self {
            segment,
            from: 0,
            bytes: Vec::new(),
        }
    }

    /// Up to `count` bytes at an offset; fewer at the end of the file or of the segment.
    fn get(&mut self, offset: u64, count: usize) -> Result<&[u8], WalError> {
        let count = count.min(to_usize(self.segment.header.bytes.saturating_sub(offset)));
        let held = offset.checked_sub(self.from).map(to_usize);
        if held.is_none_or(|at| at + count > self.bytes.len()) {
            let room = to_usize(self.segment.header.bytes.saturating_sub(offset));
            self.bytes = vec![0; count.max(READ_BYTES).min(room)];
            let filled = self
                .segment
                .file
                .read_at(&mut self.bytes, offset)
                .map_err(|error| WalError::io("read", self.segment.path.clone(), error))?;
            self.bytes.truncate(filled);
            self.from = offset;
        }
        let at = to_usize(offset - self.from);
        Ok(&self.bytes[at..(at + count).min(self.bytes.len())])
    }

    pub(super) fn frame(&mut self, offset: u64) -> Result<Found, WalError> {
        let seed = self.segment.seed;
        let header = match Look::at(self.get(offset, HEADER_BYTES)?, seed) {
            Look::Zero => return Ok(Found::Zero),
            Look::Bad => return Ok(Found::Bad),
            Look::Newer(version) => {
                let (file, found) = (self.segment.path.clone(), u32::from(version));
                return Err(WalError::NewerFormat {
                    file,
                    found,
                    known: super::FORMAT_VERSION,
                });
            }
            Look::Valid(header) => header,
        };
        let length = to_usize(u64::from(header.length));
        let body = self.get(offset + HEADER_BYTES as u64, length)?;
        if header.covers(body, seed) {
            Ok(Found::Frame(header, Bytes::copy_from_slice(body)))
        } else {
            Ok(Found::Bad)
        }
    }

    /// Looks through everything from an offset on for a valid frame with at least this sequence.
    pub(super) fn scan(&mut self, from: u64, sequence_min: Sequence) -> Result<Rest, WalError> {
        let mut rest = Rest {
            frame_at: None,
            written_to: from,
        };
        let seed = self.segment.seed;
        let mut at = from;
        while at < self.segment.header.bytes {
            // A header may begin in one page and end in the next.
            let bytes = self.get(at, PAGE_BYTES + HEADER_BYTES - 1)?;
            if bytes.is_empty() {
                break;
            }
            let page = &bytes[..bytes.len().min(PAGE_BYTES)];
            let Some(last) = last_written(page) else {
                at += page.len() as u64;
                continue;
            };
            rest.written_to = at + last as u64 + 1;
            let step = page.len() as u64;
            for candidate in candidates(bytes, page.len(), seed, sequence_min) {
                if let Found::Frame(..) = self.frame(at + candidate)? {
                    rest.frame_at = Some(at + candidate);
                    return Ok(rest);
                }
            }
            at += step;
        }
        Ok(rest)
    }
}

fn last_written(page: &[u8]) -> Option<usize> {
    const ZEROS: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
    if *page == ZEROS[..page.len()] {
        return None;
    }
    page.iter().rposition(|byte| *byte != 0)
}

/// Where in the first `starts` bytes a header with a right checksum and a high enough sequence begins.
fn candidates(bytes: &[u8], starts: usize, seed: u32, sequence_min: Sequence) -> Vec<u64> {
    let mut found = Vec::new();
    for start in 0..starts {
        if bytes[start] != MAGIC[0] || !bytes[start..].starts_with(&MAGIC) {
            continue;
        }
        let end = (start + HEADER_BYTES).min(bytes.len());
        if let Look::Valid(header) = Look::at(&bytes[start..end], seed)
            && header.sequence >= sequence_min
        {
            found.push(start as u64);
        }
    }
    found
}
