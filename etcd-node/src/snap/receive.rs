//! Takes a checkpoint from a peer: the bytes are checked as they come and become a checkpoint when all are there.

use proto::peer::RaftSnapshotMetadata;

use super::format::{Head, Parser, Part as Parsed};
use super::read::{check_head, parse_error};
use super::write::Part;
use super::{CheckpointName, Checkpoints, SnapError};

/// A checkpoint that is coming in. Dropped before [`Self::finish`], it leaves nothing.
#[derive(Debug)]
pub struct CheckpointReceiver {
    expected: Head,
    name: CheckpointName,
    bytes: u64,
    parser: Parser,
    part: Part,
}

impl CheckpointReceiver {
    pub(super) fn begin(
        checkpoints: Checkpoints,
        metadata: RaftSnapshotMetadata,
        bytes: u64,
    ) -> Result<Self, SnapError> {
        let name = CheckpointName::of(&metadata);
        let expected = Head {
            cluster: checkpoints.cluster,
            metadata,
        };
        let part = Part::create(checkpoints, name)?;
        Ok(Self {
            expected,
            name,
            bytes,
            parser: Parser::new(),
            part,
        })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`SnapError::Damaged`] (what came is not what was written), [`SnapError::Foreign`] (another cluster,
    /// position or membership than announced), [`SnapError::Length`], [`SnapError::NewerFormat`],
    /// [`SnapError::NoSpace`], [`SnapError::Io`]; the receiver is then to be dropped.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SnapError> {
        let received = self.part.written() + bytes.len() as u64;
        if received > self.bytes {
            return Err(self.length(received));
        }
        self.parser.push(bytes);
        let path = self.part.path();
        while let Some(parsed) = self.parser.next().map_err(|error| parse_error(&path, error))? {
            if let Parsed::Head(head) = parsed {
                check_head(&path, &head, &self.expected, self.name)?;
            }
        }
        self.part.write(bytes)
    }

    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.part.written()
    }

    /// Makes what came durable and gives it its name, when it is whole.
    ///
    /// # Errors
    /// [`SnapError::Length`] when bytes are missing, [`SnapError::Damaged`] when the end is, [`SnapError::NoSpace`],
    /// [`SnapError::Io`].
    pub fn finish(self) -> Result<CheckpointName, SnapError> {
        let received = self.part.written();
        if received != self.bytes {
            return Err(self.length(received));
        }
        if !self.parser.is_complete() {
            let (file, offset) = (self.part.path(), self.parser.offset());
            return Err(SnapError::Damaged {
                file,
                offset,
                detail: "the content has no end".to_owned(),
            });
        }
        self.part.publish()
    }

    fn length(&self, received: u64) -> SnapError {
        SnapError::Length {
            file: self.part.path(),
            announced: self.bytes,
            received,
        }
    }
}
