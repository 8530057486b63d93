//! The form of one frame: a header of 32 bytes and a body. All numbers are little endian.
//!
//! | bytes | |
//! |---|---|
//! | 0..4 | magic `HWLF` |
//! | 4..6 | format version |
//! | 6 | kind |
//! | 7 | flags; bit 0: this node cut a torn tail and has not caught up since |
//! | 8..12 | length of the body |
//! | 12..16 | crc32c of seed, sequence, body |
//! | 16..24 | sequence |
//! | 24..28 | zero |
//! | 28..32 | crc32c of seed and the 28 bytes before |
//!
//! The seed is the checksum of the segment's identity (cluster, node, segment id and a salt that is drawn
//! once per log). The salt keeps values that clients wrote from ever looking like frames to the scan after a
//! damaged one.

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use proto::ids::{LogIndex, Term};
use proto::peer::{LogFrame, RaftEntry, RaftHardState};

use super::{LogPosition, Sequence};

pub(super) const HEADER_BYTES: usize = 32;
pub(super) const MAGIC: [u8; 4] = *b"HWLF";
const VERSION: u16 = 1;
const FLAG_BEHIND: u8 = 1;
/// Key bytes of `LogFrame` (field number and wire type): entries are written one by one as they are staged.
const KEY_ENTRY: u8 = 0x0a;
const KEY_HARD_STATE: u8 = 0x12;
/// Before the `LogFrame` of a restart frame: index and term.
const RESTART_BYTES: usize = 16;
/// Largest encoding of a hard state with its key: three varints of ten bytes, their keys, key and length.
pub(super) const HARD_STATE_BYTES_MAX: usize = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Entries and hard state.
    Data = 1,
    /// The log begins anew after a place that a received checkpoint covers; entries and hard state may follow.
    Restart = 2,
    /// The log goes on in the next segment, which is there.
    Roll = 3,
    /// The log was closed cleanly and ends here.
    End = 4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) is_behind: bool,
    pub(super) length: u32,
    pub(super) sequence: Sequence,
    body_crc: u32,
}

/// What stands where a header may stand.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing was written here, or it was wiped.
    Zero,
    /// Not a header of this segment.
    Bad,
    /// A header whose own checksum is right, of a format that we do not read.
    Newer(u16),
    Valid(Header),
}

impl Header {
    pub(super) fn new(kind: Kind, is_behind: bool, sequence: Sequence, body: &[u8], seed: u32) -> Self {
        let length = u32::try_from(body.len()).expect("a body is at most FRAME_BYTES_MAX");
        Self {
            kind,
            is_behind,
            length,
            sequence,
            body_crc: body_crc(seed, sequence, body),
        }
    }

    pub(super) fn encode(&self, seed: u32) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut out = &mut bytes[..];
        out.put_slice(&MAGIC);
        out.put_u16_le(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u8(if self.is_behind { FLAG_BEHIND } else { 0 });
        out.put_u32_le(self.length);
        out.put_u32_le(self.body_crc);
        out.put_u64_le(self.sequence.get());
        out.put_u32_le(0);
        let crc = crc32c::crc32c_append(seed, &bytes[..HEADER_BYTES - 4]);
        bytes[HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Whether these bytes are the body that this header was written for.
    pub(super) fn covers(&self, body: &[u8], seed: u32) -> bool {
        body.len() as u64 == u64::from(self.length) && self.body_crc == body_crc(seed, self.sequence, body)
    }

    /// Header and body.
    pub(super) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }
}

impl Look {
    /// Reads what should be a header; fewer than its 32 bytes are bad unless they are all zero.
    pub(super) fn at(bytes: &[u8], seed: u32) -> Self {
        if bytes.iter().all(|byte| *byte == 0) {
            return Self::Zero;
        }
        if bytes.len() < HEADER_BYTES || bytes[..4] != MAGIC {
            return Self::Bad;
        }
        let (covered, mut crc) = bytes[..HEADER_BYTES].split_at(HEADER_BYTES - 4);
        if crc32c::crc32c_append(seed, covered) != crc.get_u32_le() {
            return Self::Bad;
        }
        let mut fields = &covered[4..];
        let version = fields.get_u16_le();
        let (kind, flags) = (fields.get_u8(), fields.get_u8());
        let kind = match kind {
            _ if version != VERSION => return Self::Newer(version),
            1 => Kind::Data,
            2 => Kind::Restart,
            3 => Kind::Roll,
            4 => Kind::End,
            _ => return Self::Bad,
        };
        let (length, body_crc) = (fields.get_u32_le(), fields.get_u32_le());
        let sequence = Sequence::new(fields.get_u64_le());
        Self::Valid(Header {
            kind,
            is_behind: flags & FLAG_BEHIND != 0,
            length,
            sequence,
            body_crc,
        })
    }
}

fn body_crc(seed: u32, sequence: Sequence, body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &sequence.get().to_le_bytes()), body)
}

/// Appends one entry to a body.
pub(super) fn put_entry(body: &mut Vec<u8>, entry: &RaftEntry) {
    body.push(KEY_ENTRY);
    entry
        .encode_length_delimited(body)
        .expect("a vector takes any length");
}

/// Appends the hard state to a body; once, because a reader merges two field by field.
pub(super) fn put_hard_state(body: &mut Vec<u8>, hard_state: &RaftHardState) {
    body.push(KEY_HARD_STATE);
    hard_state
        .encode_length_delimited(body)
        .expect("a vector takes any length");
}

/// Begins the body of a restart frame.
pub(super) fn put_restart(body: &mut Vec<u8>, position: LogPosition) {
    body.put_u64_le(position.index.get());
    body.put_u64_le(position.term.get());
}

/// What a body says.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub(super) restart: Option<LogPosition>,
    pub(super) entries: Vec<RaftEntry>,
    pub(super) hard_state: Option<RaftHardState>,
}

impl Body {
    /// Reads the body of a frame whose checksum is right.
    pub(super) fn decode(kind: Kind, mut bytes: Bytes) -> Result<Self, String> {
        let restart = match kind {
            Kind::Roll | Kind::End if bytes.is_empty() => return Ok(Self::default()),
            Kind::Roll | Kind::End => return Err("a frame of this kind has no body".to_owned()),
            Kind::Data => None,
            Kind::Restart if bytes.len() < RESTART_BYTES => return Err("the body is too short".to_owned()),
            Kind::Restart => {
                let index = LogIndex::new(bytes.get_u64_le());
                Some(LogPosition {
                    index,
                    term: Term::new(bytes.get_u64_le()),
                })
            }
        };
        let LogFrame { entries, hard_state } = LogFrame::decode(bytes).map_err(|error| error.to_string())?;
        Ok(Self {
            restart,
            entries,
            hard_state,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> RaftEntry {
        RaftEntry {
            index,
            term: 3,
            data: Bytes::from_static(b"value"),
            ..RaftEntry::default()
        }
    }

    #[test]
    fn a_body_staged_piece_by_piece_is_the_encoded_log_frame() {
        let hard_state = RaftHardState {
            term: u64::MAX,
            vote: u64::MAX,
            commit: u64::MAX,
        };
        let mut body = Vec::new();
        put_entry(&mut body, &entry(1));
        put_entry(&mut body, &entry(2));
        let before = body.len();
        put_hard_state(&mut body, &hard_state);
        assert!(body.len() - before <= HARD_STATE_BYTES_MAX);
        let whole = LogFrame {
            entries: vec![entry(1), entry(2)],
            hard_state: Some(hard_state),
        };
        assert_eq!(body, whole.encode_to_vec());
    }

    #[test]
    fn a_header_is_valid_in_its_own_segment_only() {
        let header = Header::new(Kind::Restart, true, Sequence::new(7), b"body", 1);
        let bytes = header.encode(1);
        assert_eq!(Look::at(&bytes, 1), Look::Valid(header));
        assert_eq!(Look::at(&bytes, 2), Look::Bad);
        assert!(header.covers(b"body", 1));
        assert!(!header.covers(b"bodz", 1));
        assert!(!header.covers(b"body", 2));
    }

    #[test]
    fn each_flipped_bit_of_a_header_is_seen() {
        let bytes = Header::new(Kind::Data, false, Sequence::new(7), b"body", 1).encode(1);
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Look::at(&flipped, 1), Look::Bad, "bit {bit}");
        }
    }
}
