//! The form of a checkpoint file, and one parser of it for files and for transfers. All numbers are little
//! endian.
//!
//! | part | bytes | |
//! |---|---|---|
//! | header | 0..8 | magic `HAWSERCP` |
//! | | 8..12 | format version |
//! | | 12..20 | cluster |
//! | | 20..24 | length of the metadata |
//! | | 24..28 | crc32c of the 24 bytes before and the metadata |
//! | | 28.. | metadata: an encoded `RaftSnapshotMetadata`, the same on every node |
//! | block | 0..4 | length of its content, 1 to 1 MiB |
//! | | 4..12 | its number; the first is 0 |
//! | | 12..16 | crc32c of the header's checksum, the 12 bytes before, the content |
//! | | 16.. | content |
//! | footer | 0..16 | as a block, with length 0 and the number of blocks |
//! | | 16..24 | length of all content |
//! | | 24..28 | crc32c of all content |
//!
//! Nothing follows the footer. The header's checksum in each block's keeps blocks of two checkpoints apart. Magic
//! and version keep their places in all versions.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use proto::ids::ClusterId;
use proto::peer::RaftSnapshotMetadata;

/// Version of checkpoint files that this release writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Largest content of one block, which is what a reader holds in memory.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;

const MAGIC: [u8; 8] = *b"HAWSERCP";
const HEADER_BYTES: usize = 28;
const HEADER_COVERED: usize = 24;
const BLOCK_HEADER_BYTES: usize = 16;
const BLOCK_COVERED: usize = 12;
const FOOTER_BYTES: usize = 12;
/// The ids of some thousand members.
const METADATA_BYTES_MAX: usize = 64 << 10;

/// What the header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) cluster: ClusterId,
    pub(super) metadata: RaftSnapshotMetadata,
}

/// Builds the parts of a file, in order.
#[derive(Debug)]
pub(super) struct Encoder {
    seed: u32,
    blocks: u64,
    content_bytes: u64,
    content_crc: u32,
}

impl Encoder {
    /// Appends the header.
    pub(super) fn begin(head: &Head, out: &mut Vec<u8>) -> Self {
        let metadata = head.metadata.encode_to_vec();
        let from = out.len();
        out.put_slice(&MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u64_le(head.cluster.get());
        out.put_u32_le(u32::try_from(metadata.len()).expect("a membership fits into 64 KiB"));
        let seed = crc32c::crc32c_append(crc32c::crc32c(&out[from..]), &metadata);
        out.put_u32_le(seed);
        out.put_slice(&metadata);
        Self {
            seed,
            blocks: 0,
            content_bytes: 0,
            content_crc: 0,
        }
    }

    /// Appends a block with this content.
    ///
    /// # Panics
    /// When the content is empty or longer than [`BLOCK_BYTES_MAX`].
    pub(super) fn block(&mut self, content: &[u8], out: &mut Vec<u8>) {
        assert!(!content.is_empty(), "an empty block is a footer");
        assert!(
            content.len() <= BLOCK_BYTES_MAX,
            "a block of {} bytes",
            content.len()
        );
        let length = u32::try_from(content.len()).expect("a block is at most 1 MiB");
        put_block(out, self.seed, (length, self.blocks), content);
        self.blocks += 1;
        self.content_bytes += content.len() as u64;
        self.content_crc = crc32c::crc32c_append(self.content_crc, content);
    }

    /// Appends the footer.
    pub(super) fn end(self, out: &mut Vec<u8>) {
        let mut footer = Vec::with_capacity(FOOTER_BYTES);
        footer.put_u64_le(self.content_bytes);
        footer.put_u32_le(self.content_crc);
        put_block(out, self.seed, (0, self.blocks), &footer);
    }
}

fn put_block(out: &mut Vec<u8>, seed: u32, (length, number): (u32, u64), body: &[u8]) {
    let from = out.len();
    out.put_u32_le(length);
    out.put_u64_le(number);
    let crc = block_crc(seed, &out[from..], body);
    out.put_u32_le(crc);
    out.put_slice(body);
}

fn block_crc(seed: u32, covered: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, covered), body)
}

/// What a parser gives, in order: one head, blocks, one end.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    Head(Head),
    Block(Bytes),
    End,
}

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ParseError {
    Damaged { offset: u64, detail: String },
    Newer(u32),
}

/// Checks a stream of bytes and takes it apart. Holds at most one block and what was pushed last.
#[derive(Debug)]
pub(super) struct Parser {
    buffer: BytesMut,
    /// Where in the file the buffer begins.
    offset: u64,
    state: State,
    content_bytes: u64,
    content_crc: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Blocks { seed: u32, number: u64 },
    Ended,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self {
            buffer: BytesMut::new(),
            offset: 0,
            state: State::Header,
            content_bytes: 0,
            content_crc: 0,
        }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where the bytes not yet taken apart begin.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the footer was reached and nothing follows it.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Ended && self.buffer.is_empty()
    }

    /// The next part; none when more bytes are needed, or after the end.
    pub(super) fn next(&mut self) -> Result<Option<Part>, ParseError> {
        match self.state {
            State::Header => self.header(),
            State::Blocks { seed, number } => self.block(seed, number),
            State::Ended if self.buffer.is_empty() => Ok(None),
            State::Ended => Err(self.damaged("bytes follow the footer")),
        }
    }

    fn header(&mut self) -> Result<Option<Part>, ParseError> {
        if self.buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        if self.buffer[..8] != MAGIC {
            return Err(self.damaged("it does not begin as a checkpoint"));
        }
        let mut fields = &self.buffer[8..HEADER_BYTES];
        let version = fields.get_u32_le();
        let cluster = ClusterId::new(fields.get_u64_le());
        let (length, crc) = (fields.get_u32_le() as usize, fields.get_u32_le());
        if version != FORMAT_VERSION {
            return Err(ParseError::Newer(version));
        }
        if length > METADATA_BYTES_MAX {
            return Err(self.damaged("its metadata is too long"));
        }
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let metadata = &self.buffer[HEADER_BYTES..HEADER_BYTES + length];
        if crc32c::crc32c_append(crc32c::crc32c(&self.buffer[..HEADER_COVERED]), metadata) != crc {
            return Err(self.damaged("its header does not match its checksum"));
        }
        let Ok(metadata) = RaftSnapshotMetadata::decode(metadata) else {
            return Err(self.damaged("its metadata cannot be read"));
        };
        self.take(HEADER_BYTES + length);
        self.state = State::Blocks { seed: crc, number: 0 };
        Ok(Some(Part::Head(Head { cluster, metadata })))
    }

    fn block(&mut self, seed: u32, expected: u64) -> Result<Option<Part>, ParseError> {
        if self.buffer.len() < BLOCK_HEADER_BYTES {
            return Ok(None);
        }
        let mut fields = &self.buffer[..BLOCK_HEADER_BYTES];
        let length = fields.get_u32_le() as usize;
        let (number, crc) = (fields.get_u64_le(), fields.get_u32_le());
        if length > BLOCK_BYTES_MAX || number != expected {
            return Err(self.damaged("no block is where one should be"));
        }
        let body = if length == 0 { FOOTER_BYTES } else { length };
        if self.buffer.len() < BLOCK_HEADER_BYTES + body {
            return Ok(None);
        }
        let (covered, content) = (
            &self.buffer[..BLOCK_COVERED],
            &self.buffer[BLOCK_HEADER_BYTES..][..body],
        );
        if block_crc(seed, covered, content) != crc {
            return Err(self.damaged("a block does not match its checksum"));
        }
        if length == 0 {
            return self.footer();
        }
        self.content_crc = crc32c::crc32c_append(self.content_crc, content);
        self.content_bytes += length as u64;
        self.state = State::Blocks {
            seed,
            number: number + 1,
        };
        let mut block = self.take(BLOCK_HEADER_BYTES + length);
        block.advance(BLOCK_HEADER_BYTES);
        Ok(Some(Part::Block(block)))
    }

    fn footer(&mut self) -> Result<Option<Part>, ParseError> {
        let mut fields = &self.buffer[BLOCK_HEADER_BYTES..][..FOOTER_BYTES];
        let (content_bytes, content_crc) = (fields.get_u64_le(), fields.get_u32_le());
        if (content_bytes, content_crc) != (self.content_bytes, self.content_crc) {
            return Err(self.damaged("the footer does not match the content"));
        }
        self.take(BLOCK_HEADER_BYTES + FOOTER_BYTES);
        self.state = State::Ended;
        if !self.buffer.is_empty() {
            return Err(self.damaged("bytes follow the footer"));
        }
        Ok(Some(Part::End))
    }

    fn take(&mut self, count: usize) -> Bytes {
        self.offset += count as u64;
        self.buffer.split_to(count).freeze()
    }

    fn damaged(&self, detail: &str) -> ParseError {
        ParseError::Damaged {
            offset: self.offset,
            detail: detail.to_owned(),
        }
    }
}
