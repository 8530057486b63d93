//! The form of a segment's header and name. The header fills the file's first 4 KiB, so that no frame shares
//! a sector with it. Magic, version, the eight fields and their checksum keep their places in all versions.
//!
//! | bytes | |
//! |---|---|
//! | 0..8 | magic `HAWSERWL` |
//! | 8..12 | format version |
//! | 12..16 | flags; bit 0: the file was used before, so bytes after the last frame may be anything |
//! | 16..24, 24..32 | cluster, node |
//! | 32..40, 40..48 | segment id, sequence of the first frame |
//! | 48..56, 56..64 | size of the file, salt of the log |
//! | 64..68 | crc32c of the 64 bytes before |

use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use proto::ids::{ClusterId, NodeId};

use super::frame::HEADER_BYTES;
use super::{Identity, Sequence, WalError};
use crate::disk::{DiskFile, to_usize};

/// Version of the log's files that this release writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Where the first frame begins.
pub(super) const FRAMES_FROM: u64 = 4096;
/// Kept free at the end of each segment for the frame that says where the log goes on or ends.
pub(super) const RESERVE_BYTES: u64 = HEADER_BYTES as u64;
pub(super) const MAGIC: [u8; 8] = *b"HAWSERWL";
const COVERED_BYTES: usize = 64;
const FLAG_RECYCLED: u32 = 1;
const SUFFIX: &str = ".segment";

/// Number of a segment in its log; the first is 1 and none is missing between two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentId(u64);

impl SegmentId {
    pub(super) const FIRST: Self = Self(1);

    pub(super) const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    pub(super) fn file_name(self) -> String {
        format!("{:016x}{SUFFIX}", self.0)
    }

    /// Reads what [`Self::file_name`] writes; none for any other name.
    pub(super) fn of_file_name(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(SUFFIX)?;
        let id = Self(u64::from_str_radix(digits, 16).ok()?);
        (id.file_name() == name).then_some(id)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) identity: Identity,
    pub(super) id: SegmentId,
    pub(super) first_sequence: Sequence,
    pub(super) bytes: u64,
    pub(super) salt: u64,
    pub(super) is_recycled: bool,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; to_usize(FRAMES_FROM)];
        let mut covered = &mut bytes[..COVERED_BYTES];
        covered.put_slice(&MAGIC);
        covered.put_u32_le(FORMAT_VERSION);
        covered.put_u32_le(if self.is_recycled { FLAG_RECYCLED } else { 0 });
        covered.put_u64_le(self.identity.cluster.get());
        covered.put_u64_le(self.identity.node.get());
        covered.put_u64_le(self.id.0);
        covered.put_u64_le(self.first_sequence.get());
        covered.put_u64_le(self.bytes);
        covered.put_u64_le(self.salt);
        let crc = crc32c::crc32c(&bytes[..COVERED_BYTES]);
        bytes[COVERED_BYTES..COVERED_BYTES + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the header of a file under a segment's name and checks that it is ours and that name's.
    pub(super) fn read(
        file: &dyn DiskFile,
        path: &str,
        expected: (SegmentId, Identity),
    ) -> Result<Self, WalError> {
        let mut bytes = [0; COVERED_BYTES + 4];
        let count = file
            .read_at(&mut bytes, 0)
            .map_err(|error| WalError::io("read", path.to_owned(), error))?;
        let (covered, mut crc) = bytes.split_at(COVERED_BYTES);
        if count < bytes.len() || covered[..8] != MAGIC || crc32c::crc32c(covered) != crc.get_u32_le() {
            return Err(WalError::DamagedHeader {
                file: path.to_owned(),
            });
        }
        let mut fields = &covered[8..];
        let version = fields.get_u32_le();
        if version != FORMAT_VERSION {
            return Err(WalError::NewerFormat {
                file: path.to_owned(),
                found: version,
                known: FORMAT_VERSION,
            });
        }
        let is_recycled = fields.get_u32_le() & FLAG_RECYCLED != 0;
        let (cluster, node) = (
            ClusterId::new(fields.get_u64_le()),
            NodeId::new(fields.get_u64_le()),
        );
        let header = Self {
            identity: Identity { cluster, node },
            id: SegmentId(fields.get_u64_le()),
            first_sequence: Sequence::new(fields.get_u64_le()),
            bytes: fields.get_u64_le(),
            salt: fields.get_u64_le(),
            is_recycled,
        };
        header.check_owner(path, expected)?;
        Ok(header)
    }

    fn check_owner(&self, path: &str, (id, identity): (SegmentId, Identity)) -> Result<(), WalError> {
        let owner = |id: SegmentId, identity: Identity| {
            format!(
                "node {} of cluster {} as segment {id}",
                identity.node, identity.cluster
            )
        };
        if (self.id, self.identity) == (id, identity) {
            return Ok(());
        }
        let (found, expected) = (owner(self.id, self.identity), owner(id, identity));
        Err(WalError::Foreign {
            file: path.to_owned(),
            found,
            expected,
        })
    }

    /// What the checksums of this segment's frames begin with.
    pub(super) fn seed(&self) -> u32 {
        let mut bytes = [0; 32];
        let mut out = &mut bytes[..];
        out.put_u64_le(self.salt);
        out.put_u64_le(self.identity.cluster.get());
        out.put_u64_le(self.identity.node.get());
        out.put_u64_le(self.id.0);
        crc32c::crc32c(&bytes)
    }
}

/// An open segment.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: SegmentHeader,
    pub(super) seed: u32,
    /// Full path, for messages.
    pub(super) path: String,
    pub(super) file: Arc<dyn DiskFile>,
}

impl Segment {
    pub(super) fn new(header: SegmentHeader, path: String, file: Arc<dyn DiskFile>) -> Self {
        Self {
            seed: header.seed(),
            header,
            path,
            file,
        }
    }

    pub(super) fn id(&self) -> SegmentId {
        self.header.id
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), WalError> {
        self.file
            .write_at(bytes, offset)
            .map_err(|error| WalError::io("write", self.path.clone(), error))
    }

    pub(super) fn sync(&self) -> Result<(), WalError> {
        self.file
            .sync_data()
            .map_err(|error| WalError::io("fsync", self.path.clone(), error))
    }

    pub(super) fn length(&self) -> Result<u64, WalError> {
        self.file
            .length()
            .map_err(|error| WalError::io("read the length of", self.path.clone(), error))
    }

    pub(super) fn damaged(&self, offset: u64, detail: impl Into<String>) -> WalError {
        WalError::Damaged {
            file: self.path.clone(),
            offset,
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_segment_of_each_log_has_its_own_seed() {
        let identity = Identity {
            cluster: ClusterId::new(1),
            node: NodeId::new(2),
        };
        let header = SegmentHeader {
            identity,
            id: SegmentId(3),
            first_sequence: Sequence::new(4),
            bytes: 5,
            salt: 6,
            is_recycled: false,
        };
        let others = [
            SegmentHeader {
                identity: Identity {
                    cluster: ClusterId::new(9),
                    ..identity
                },
                ..header
            },
            SegmentHeader {
                identity: Identity {
                    node: NodeId::new(9),
                    ..identity
                },
                ..header
            },
            SegmentHeader {
                id: SegmentId(9),
                ..header
            },
            SegmentHeader { salt: 9, ..header },
        ];
        for other in others {
            assert_ne!(header.seed(), other.seed(), "{other:?}");
        }
    }

    #[test]
    fn only_names_that_we_give_are_segments() {
        let id = SegmentId(0xab);
        assert_eq!(id.file_name(), "00000000000000ab.segment");
        assert_eq!(SegmentId::of_file_name("00000000000000ab.segment"), Some(id));
        for name in [
            "ab.segment",
            "00000000000000AB.segment",
            "00000000000000ab.wal",
            "spare-1.segment",
            "x",
        ] {
            assert_eq!(SegmentId::of_file_name(name), None, "{name}");
        }
    }
}
