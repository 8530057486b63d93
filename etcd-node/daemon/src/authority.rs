//! HTTP/2 requests whose `:authority` is a whole URL, made readable.
//!
//! The Go client of etcd up to 3.4 names the server `http://HOST:PORT` there when it is told to talk to one
//! endpoint (`etcdctl --endpoints http://... endpoint status`). That is no authority, and the HTTP/2 library
//! resets such streams before anybody can look at them; servers written in Go never did. So the bytes of a
//! connection pass through here first: an authority that begins with `http://` or `https://` is overwritten,
//! in place, with as many `x`.
//!
//! Only what begins with those letters is touched; nothing is decoded, buffered, or made longer or shorter. A
//! field that is cut by the end of a read passes as it is. The sender's table of fields (RFC 7541, 2.3.2) counts
//! the original text, ours the `x`, which are never more than its characters: we evict later than the sender
//! thinks, and the fields that it still refers to are where it expects them.

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frames that carry fields of requests, and their flags (RFC 9113, 6.2 and 6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
const FRAME_HEAD_BYTES: usize = 9;

/// `:authority` in the table that both sides know (RFC 7541, appendix A).
const AUTHORITY_INDEX: u8 = 1;

/// The beginnings to look for: whole bytes, then the bits of the next one. The first two in the Huffman code of
/// RFC 7541, appendix B, the others as they are.
const HUFFMAN_HTTP: (&[u8], u8, u8) = (&[0x9d, 0x29, 0xae, 0xe3, 0x0c], 0x80, 0x00);
const HUFFMAN_HTTPS: (&[u8], u8, u8) = (&[0x9d, 0x29, 0xad, 0x17, 0x18], 0xfc, 0x60);
const PLAIN: [&[u8]; 2] = [b"http://", b"https://"];

/// The bit of a length that says "in the Huffman code".
const HUFFMAN: u8 = 0x80;

/// Follows what one client sends.
#[derive(Debug)]
pub(crate) struct Mender {
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// So many bytes of the preface were seen.
    Preface(usize),
    /// Not HTTP/2, or not as we understand it: nothing is touched any more.
    Asleep,
    /// So many bytes of a frame's head were seen.
    Head {
        seen: usize,
        head: [u8; FRAME_HEAD_BYTES],
        field: Field,
    },
    /// In a frame's content.
    Content { frame: Frame, field: Field },
}

/// What is left of a frame.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// The next byte says how many of the last are padding.
    has_pad_length: bool,
    /// Bytes before the fields.
    skip: usize,
    /// Bytes of fields.
    fields: usize,
    /// Bytes after the fields.
    rest: usize,
}

/// Where we are within a field. Fields go on from a frame into its continuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Start,
    /// In the further bytes of a number that matters to nobody; what comes after it.
    Number(Next),
    Length(Text),
    /// In the further bytes of a length.
    MoreLength {
        text: Text,
        length: usize,
        shift: u32,
    },
    Bytes {
        text: Text,
        left: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Field,
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Name,
    Value,
    Authority,
}

impl Default for Mender {
    fn default() -> Self {
        Self {
            phase: Phase::Preface(0),
        }
    }
}

impl Mender {
    /// Looks at the next bytes of the connection and changes what has to be.
    pub(crate) fn mend(&mut self, bytes: &mut [u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if matches!(self.phase, Phase::Asleep) {
                return;
            }
            at += self.step(&mut bytes[at..]);
        }
    }

    /// Goes on by at least one byte; how many.
    fn step(&mut self, bytes: &mut [u8]) -> usize {
        let (phase, used) = match self.phase {
            Phase::Preface(seen) => (preface(seen, bytes[0]), 1),
            Phase::Asleep => (Phase::Asleep, bytes.len()),
            Phase::Head {
                seen,
                mut head,
                field,
            } => {
                head[seen] = bytes[0];
                let is_whole = seen + 1 == FRAME_HEAD_BYTES;
                (
                    if is_whole {
                        begin(head, field)
                    } else {
                        Phase::Head {
                            seen: seen + 1,
                            head,
                            field,
                        }
                    },
                    1,
                )
            }
            Phase::Content { frame, field } => content(frame, field, bytes),
        };
        self.phase = match phase {
            Phase::Content { frame, field } if frame.is_over() => next_head(field),
            other => other,
        };
        used
    }
}

fn preface(seen: usize, byte: u8) -> Phase {
    match (PREFACE[seen] == byte, seen + 1 == PREFACE.len()) {
        (false, _) => Phase::Asleep,
        (true, false) => Phase::Preface(seen + 1),
        (true, true) => next_head(Field::Start),
    }
}

fn next_head(field: Field) -> Phase {
    Phase::Head {
        seen: 0,
        head: [0; FRAME_HEAD_BYTES],
        field,
    }
}

fn begin(head: [u8; FRAME_HEAD_BYTES], field: Field) -> Phase {
    let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
    let (kind, flags) = (head[3], head[4]);
    let frame = match kind {
        HEADERS => {
            let has_pad_length = flags & PADDED != 0;
            let skip = if flags & PRIORITY != 0 { PRIORITY_BYTES } else { 0 };
            let Some(fields) = length.checked_sub(skip + usize::from(has_pad_length)) else {
                return Phase::Asleep;
            };
            Frame {
                has_pad_length,
                skip,
                fields,
                rest: 0,
            }
        }
        CONTINUATION => Frame {
            has_pad_length: false,
            skip: 0,
            fields: length,
            rest: 0,
        },
        _ => Frame {
            has_pad_length: false,
            skip: 0,
            fields: 0,
            rest: length,
        },
    };
    // Fields begin anew with each request.
    let field = if kind == HEADERS { Field::Start } else { field };
    Phase::Content { frame, field }
}

impl Frame {
    fn is_over(&self) -> bool {
        !self.has_pad_length && self.skip == 0 && self.fields == 0 && self.rest == 0
    }
}

fn content(mut frame: Frame, field: Field, bytes: &mut [u8]) -> (Phase, usize) {
    if frame.has_pad_length {
        let padding = usize::from(bytes[0]);
        let Some(fields) = frame.fields.checked_sub(padding) else {
            return (Phase::Asleep, 1);
        };
        frame = Frame {
            has_pad_length: false,
            fields,
            rest: padding,
            ..frame
        };
        return (Phase::Content { frame, field }, 1);
    }
    let skipped = frame.skip.min(bytes.len());
    if skipped > 0 {
        frame.skip -= skipped;
        return (Phase::Content { frame, field }, skipped);
    }
    if frame.fields == 0 {
        let passed = frame.rest.min(bytes.len());
        frame.rest -= passed;
        return (Phase::Content { frame, field }, passed);
    }
    let within = frame.fields.min(bytes.len());
    let Some((field, used)) = walk(field, &mut bytes[..within]) else {
        return (Phase::Asleep, 1);
    };
    frame.fields -= used;
    (Phase::Content { frame, field }, used)
}

/// Goes on within the fields; none = not as we understand them.
fn walk(field: Field, bytes: &mut [u8]) -> Option<(Field, usize)> {
    let byte = bytes[0];
    match field {
        Field::Start => Some((begin_field(byte), 1)),
        Field::Number(next) => {
            let after = if next == Next::Field {
                Field::Start
            } else {
                Field::Length(Text::Value)
            };
            Some((if byte & 0x80 == 0 { after } else { field }, 1))
        }
        Field::Length(text) => {
            if text == Text::Authority {
                overwrite(bytes);
            }
            let length = usize::from(byte & 0x7f);
            let field = if length == 0x7f {
                Field::MoreLength {
                    text,
                    length,
                    shift: 0,
                }
            } else {
                after_length(text, length)
            };
            Some((field, 1))
        }
        Field::MoreLength { text, length, shift } => {
            // A length of more than 28 bits is no field of ours.
            let length = length.checked_add(
                usize::from(byte & 0x7f)
                    .checked_shl(shift)
                    .filter(|_| shift < 28)?,
            )?;
            let is_whole = byte & 0x80 == 0;
            let more = Field::MoreLength {
                text,
                length,
                shift: shift + 7,
            };
            Some((
                if is_whole {
                    after_length(text, length)
                } else {
                    more
                },
                1,
            ))
        }
        Field::Bytes { text, left } => {
            let used = left.min(bytes.len());
            Some((after_length(text, left - used), used))
        }
    }
}

fn after_length(text: Text, left: usize) -> Field {
    match (left, text) {
        (0, Text::Name) => Field::Length(Text::Value),
        (0, Text::Value | Text::Authority) => Field::Start,
        (left, text) => Field::Bytes { text, left },
    }
}

/// Reads the first byte of a field (RFC 7541, 6): a number in its last bits names an entry of the table.
fn begin_field(byte: u8) -> Field {
    let (bits, next) = match byte {
        0x80.. => (7, Next::Field),
        0x40.. => (6, Next::Value),
        0x20.. => (5, Next::Field),
        _ => (4, Next::Value),
    };
    let most = (1_u8 << bits) - 1;
    let index = byte & most;
    match (next, index) {
        (next, index) if index == most => Field::Number(next),
        (Next::Field, _) => Field::Start,
        (Next::Value, 0) => Field::Length(Text::Name),
        (Next::Value, AUTHORITY_INDEX) => Field::Length(Text::Authority),
        (Next::Value, _) => Field::Length(Text::Value),
    }
}

/// A length and a text: when the text is whole and begins like a URL, `x` instead.
fn overwrite(bytes: &mut [u8]) {
    let (head, text) = bytes.split_at_mut(1);
    let length = usize::from(head[0] & 0x7f);
    let Some(text) = text.get_mut(..length).filter(|_| length < 0x7f) else {
        return;
    };
    let is_huffman = head[0] & HUFFMAN != 0;
    let begins = |(whole, mask, bits): (&[u8], u8, u8)| {
        text.starts_with(whole) && text.get(whole.len()).is_some_and(|byte| byte & mask == bits)
    };
    let is_url = if is_huffman {
        begins(HUFFMAN_HTTP) || begins(HUFFMAN_HTTPS)
    } else {
        PLAIN.iter().any(|beginning| text.starts_with(beginning))
    };
    if is_url {
        head[0] &= !HUFFMAN;
        text.fill(b'x');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `http://127.0.0.1:2379` and `https://www.example.com` in the Huffman code; the second is an example of
    /// RFC 7541 (C.6.1).
    const HTTP: [u8; 16] = [
        0x9d, 0x29, 0xae, 0xe3, 0x0c, 0x08, 0x91, 0x70, 0x02, 0xe0, 0x04, 0xe0, 0x05, 0x70, 0xac, 0xff,
    ];
    const HTTPS: [u8; 17] = [
        0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3,
    ];
    /// `www.example.com` (C.4.1).
    const HOST: [u8; 12] = [
        0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
    ];

    fn frame(kind: u8, flags: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        frame.extend_from_slice(content);
        frame
    }

    /// A method, a path under an index of its own, an authority, and a name and value spelled out.
    fn fields(authority: &[u8], is_huffman: bool) -> Vec<u8> {
        let mut fields = vec![0x83, 0x44, 0x03, b'/', b'a', b'b', 0x41];
        fields.push(u8::try_from(authority.len()).unwrap() | if is_huffman { HUFFMAN } else { 0 });
        fields.extend_from_slice(authority);
        fields.extend_from_slice(&[
            0x00, 0x02, b't', b'e', 0x02, 0x41, 0x41, 0x3f, 0xe1, 0x1f, 0x7f, 0x01, 0x01, b'v',
        ]);
        fields
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = PREFACE.to_vec();
        frames.iter().for_each(|frame| bytes.extend_from_slice(frame));
        bytes
    }

    fn mended(mut bytes: Vec<u8>, chunk: usize) -> Vec<u8> {
        let mut mender = Mender::default();
        bytes.chunks_mut(chunk).for_each(|chunk| mender.mend(chunk));
        bytes
    }

    #[test]
    fn an_authority_that_is_a_url_is_overwritten() {
        for (authority, is_huffman) in [
            (&HTTP[..], true),
            (&HTTPS[..], true),
            (b"http://a:1", false),
            (b"https://a", false),
        ] {
            let before = connection(&[
                frame(4, 0, &[]),
                frame(HEADERS, 4, &fields(authority, is_huffman)),
            ]);
            let crosses = vec![b'x'; authority.len()];
            let after = connection(&[frame(4, 0, &[]), frame(HEADERS, 4, &fields(&crosses, false))]);
            assert_eq!(mended(before, usize::MAX), after);
        }
    }

    #[test]
    fn everything_else_passes_unchanged() {
        let data = frame(0, 0, &fields(&HTTP, true));
        let cases = [
            connection(&[frame(HEADERS, 4, &fields(&HOST, true))]),
            connection(&[frame(HEADERS, 4, &fields(b"127.0.0.1:2379", false))]),
            connection(&[frame(HEADERS, 4, &fields(b"", false))]),
            connection(&[frame(HEADERS, 4, &fields(&HTTP[..5], true))]),
            // The same bytes as content, and without the preface.
            connection(&[data]),
            frame(HEADERS, 4, &fields(&HTTP, true)),
            b"GET http://a/ HTTP/1.1\r\nhost: http://a\r\n\r\n".to_vec(),
            // Lengths that do not fit: the HTTP/2 library will say so.
            connection(&[
                frame(HEADERS, PADDED, &[200, 0x41, 0x82]),
                frame(HEADERS, 4, &fields(&HTTP, true)),
            ]),
        ];
        for bytes in cases {
            for chunk in [1, 7, usize::MAX] {
                assert_eq!(mended(bytes.clone(), chunk), bytes);
            }
        }
    }

    #[test]
    fn padding_priority_and_continuation_are_followed() {
        let crosses = vec![b'x'; HTTP.len()];
        let wrap = |fields: &[u8]| {
            let mut padded = vec![3, 0, 0, 0, 0, 16];
            padded.extend_from_slice(&fields[..5]);
            padded.extend_from_slice(&[0; 3]);
            connection(&[
                frame(HEADERS, PADDED | PRIORITY, &padded),
                frame(CONTINUATION, 4, &fields[5..]),
            ])
        };
        let (before, after) = (wrap(&fields(&HTTP, true)), wrap(&fields(&crosses, false)));
        assert_eq!(mended(before, usize::MAX), after);
    }

    #[test]
    fn the_second_request_is_found_however_the_bytes_arrive() {
        let crosses = vec![b'x'; HTTP.len()];
        let frames = |second: &[u8]| {
            connection(&[
                frame(HEADERS, 4, &fields(&HOST, true)),
                frame(0, 1, b"body"),
                frame(HEADERS, 4, second),
            ])
        };
        let (before, after) = (frames(&fields(&HTTP, true)), frames(&fields(&crosses, false)));
        let authority = before.len() - fields(&HTTP, true).len() + 7;
        for cut in 1..before.len() {
            let mut bytes = before.clone();
            let mut mender = Mender::default();
            let (first, second) = bytes.split_at_mut(cut);
            mender.mend(first);
            mender.mend(second);
            // A field that the cut goes through passes as it is.
            let is_cut = (authority + 1..authority + 1 + HTTP.len()).contains(&cut);
            assert_eq!(
                bytes,
                if is_cut { before.clone() } else { after.clone() },
                "cut at {cut}"
            );
        }
    }
}
