//! Reads a checkpoint: its checked content to restore from, or its bytes to send.

use std::sync::Arc;

use bytes::Bytes;
use proto::peer::RaftSnapshotMetadata;

use super::format::{FORMAT_VERSION, Head, ParseError, Parser, Part};
use super::{CheckpointName, Checkpoints, SnapError};
use crate::disk::{DiskFile, to_usize};

/// Files are read in pieces of this size.
const READ_BYTES: usize = 1 << 20;

/// Reads a checkpoint's content, block by block, each checked. What was read may be used only after the iterator
/// came to its end without an error.
#[derive(Debug)]
pub struct CheckpointReader {
    path: String,
    file: Arc<dyn DiskFile>,
    metadata: RaftSnapshotMetadata,
    parser: Parser,
    /// Bytes read from the file.
    offset: u64,
    is_over: bool,
    buffer: Vec<u8>,
}

impl CheckpointReader {
    pub(super) fn open(checkpoints: &Checkpoints, name: CheckpointName) -> Result<Self, SnapError> {
        let path = checkpoints.dir.describe(&name.file_name());
        let file = checkpoints
            .dir
            .open(&name.file_name())
            .map_err(|error| SnapError::io("open", &path, error))?;
        let mut reader = Self {
            path,
            file,
            metadata: RaftSnapshotMetadata::default(),
            parser: Parser::new(),
            offset: 0,
            is_over: false,
            buffer: vec![0; READ_BYTES],
        };
        match reader.part()? {
            Part::Head(head) => {
                check_head(
                    &reader.path,
                    &head,
                    &Head {
                        cluster: checkpoints.cluster,
                        ..head.clone()
                    },
                    name,
                )?;
                reader.metadata = head.metadata;
                Ok(reader)
            }
            Part::Block(_) | Part::End => unreachable!("a parser gives the head first"),
        }
    }

    /// Where the checkpoint ends, and the membership there.
    pub fn metadata(&self) -> &RaftSnapshotMetadata {
        &self.metadata
    }

    /// The next block of content, at most 1 MiB; none at the end, which is checked too.
    ///
    /// # Errors
    /// [`SnapError::Damaged`], [`SnapError::Io`].
    pub fn next_block(&mut self) -> Result<Option<Bytes>, SnapError> {
        if self.is_over {
            return Ok(None);
        }
        match self.part() {
            Ok(Part::Block(block)) => Ok(Some(block)),
            Ok(Part::End) => {
                self.is_over = true;
                self.check_nothing_follows()?;
                Ok(None)
            }
            Ok(Part::Head(_)) => unreachable!("a parser gives one head"),
            Err(error) => {
                self.is_over = true;
                Err(error)
            }
        }
    }

    fn part(&mut self) -> Result<Part, SnapError> {
        loop {
            if let Some(part) = self
                .parser
                .next()
                .map_err(|error| parse_error(&self.path, error))?
            {
                return Ok(part);
            }
            let count = self.read()?;
            if count == 0 {
                return Err(self.damaged("the file ends too early"));
            }
            self.parser.push(&self.buffer[..count]);
        }
    }

    fn read(&mut self) -> Result<usize, SnapError> {
        let count = self
            .file
            .read_at(&mut self.buffer, self.offset)
            .map_err(|error| SnapError::io("read", &self.path, error))?;
        self.offset += count as u64;
        Ok(count)
    }

    fn check_nothing_follows(&mut self) -> Result<(), SnapError> {
        if self.read()? > 0 {
            Err(self.damaged("bytes follow the footer"))
        } else {
            Ok(())
        }
    }

    fn damaged(&self, detail: &str) -> SnapError {
        let (file, detail) = (self.path.clone(), detail.to_owned());
        SnapError::Damaged {
            file,
            offset: self.parser.offset(),
            detail,
        }
    }
}

/// The blocks; after an error nothing more.
impl Iterator for CheckpointReader {
    type Item = Result<Bytes, SnapError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_block().transpose()
    }
}

/// A checkpoint's file as it is, for sending.
#[derive(Debug)]
pub struct CheckpointFile {
    path: String,
    file: Arc<dyn DiskFile>,
    metadata: RaftSnapshotMetadata,
    bytes: u64,
}

impl CheckpointFile {
    pub(super) fn open(checkpoints: &Checkpoints, name: CheckpointName) -> Result<Self, SnapError> {
        let CheckpointReader {
            path, file, metadata, ..
        } = CheckpointReader::open(checkpoints, name)?;
        let bytes = file
            .length()
            .map_err(|error| SnapError::io("read length of", &path, error))?;
        Ok(Self {
            path,
            file,
            metadata,
            bytes,
        })
    }

    /// Where the checkpoint ends, and the membership there.
    pub fn metadata(&self) -> &RaftSnapshotMetadata {
        &self.metadata
    }

    /// Length of the file in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Up to `count` bytes at an offset; fewer only at the end of the file, none after it.
    ///
    /// # Errors
    /// [`SnapError::Io`].
    pub fn chunk(&self, offset: u64, count: usize) -> Result<Bytes, SnapError> {
        let left = self.bytes.saturating_sub(offset);
        let mut buffer = vec![0; to_usize(left.min(count as u64))];
        let filled = self
            .file
            .read_at(&mut buffer, offset)
            .map_err(|error| SnapError::io("read", &self.path, error))?;
        buffer.truncate(filled);
        Ok(Bytes::from(buffer))
    }
}

/// Checks whose checkpoint it is, and that it is of the position that its name says.
pub(super) fn check_head(
    path: &str,
    found: &Head,
    expected: &Head,
    name: CheckpointName,
) -> Result<(), SnapError> {
    let position = CheckpointName::of(&found.metadata).position;
    if found == expected && position == name.position {
        return Ok(());
    }
    let say = |head: &Head, position| format!("cluster {} at {position}", head.cluster);
    let (found, expected) = (say(found, position), say(expected, name.position));
    Err(SnapError::Foreign {
        file: path.to_owned(),
        found,
        expected,
    })
}

pub(super) fn parse_error(path: &str, error: ParseError) -> SnapError {
    let file = path.to_owned();
    match error {
        ParseError::Damaged { offset, detail } => SnapError::Damaged { file, offset, detail },
        ParseError::Newer(found) => SnapError::NewerFormat {
            file,
            found,
            known: FORMAT_VERSION,
        },
    }
}
