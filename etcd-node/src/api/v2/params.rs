//! The parameters of the keys API: taken from query and form as Go takes them, then validated in etcd's order,
//! so that a request with two mistakes gets the same error everywhere (section 1.2 of the v2 facts).

use bytes::Bytes;
use http::Method;

use super::error::{Code, Error};

/// The longest ttl in seconds that fits etcd's signed 64-bit nanoseconds; a longer one never ends.
const TTL_SECONDS_MAX: u64 = 9_223_372_036;

/// Names that mean something, in no particular order; the number is the slot in [`Form`].
#[derive(Clone, Copy)]
enum Name {
    PrevIndex,
    WaitIndex,
    Recursive,
    Sorted,
    Wait,
    Dir,
    Quorum,
    Stream,
    PrevValue,
    NoValueOnSuccess,
    Ttl,
    PrevExist,
    Refresh,
    Value,
}

const NAMES: [(&str, Name); 14] = [
    ("value", Name::Value),
    ("ttl", Name::Ttl),
    ("recursive", Name::Recursive),
    ("sorted", Name::Sorted),
    ("quorum", Name::Quorum),
    ("wait", Name::Wait),
    ("waitIndex", Name::WaitIndex),
    ("stream", Name::Stream),
    ("dir", Name::Dir),
    ("prevValue", Name::PrevValue),
    ("prevIndex", Name::PrevIndex),
    ("prevExist", Name::PrevExist),
    ("refresh", Name::Refresh),
    ("noValueOnSuccess", Name::NoValueOnSuccess),
];

/// What a request to `/v2/keys` asks for, whatever its method.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters {
    pub(super) recursive: bool,
    pub(super) wait: bool,
    pub(super) dir: bool,
    pub(super) quorum: bool,
    pub(super) stream: bool,
    /// 0 = from now on.
    pub(super) wait_index: u64,
    /// 0 = not compared.
    pub(super) prev_index: u64,
    /// Never empty; none = not compared.
    pub(super) prev_value: Option<Bytes>,
    pub(super) prev_exist: Option<bool>,
    pub(super) refresh: bool,
    pub(super) no_value_on_success: bool,
    /// Seconds; none = permanent.
    pub(super) ttl: Option<u64>,
    pub(super) value: Bytes,
}

impl Parameters {
    /// Reads query and form; values of the form win, and of several values the first.
    pub(super) fn parse(method: &Method, query: &str, form: Option<&Bytes>) -> Result<Self, Error> {
        let mut fields = Form::default();
        if let Some(form) = form {
            fields.add(form)?;
        }
        if !query.is_empty() {
            fields.add(&Bytes::copy_from_slice(query.as_bytes()))?;
        }
        fields.validate(method)
    }
}

/// The raw fields, each by its first value.
#[derive(Default)]
struct Form {
    slots: [Option<Bytes>; NAMES.len()],
}

impl Form {
    fn add(&mut self, source: &Bytes) -> Result<(), Error> {
        for pair in source.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let split = pair.iter().position(|byte| *byte == b'=');
            let (name, value) =
                split.map_or((pair, &pair[pair.len()..]), |at| (&pair[..at], &pair[at + 1..]));
            let name = unescape(&source.slice_ref(name))?;
            let value = unescape(&source.slice_ref(value))?;
            let known = NAMES.iter().find(|(text, _)| text.as_bytes() == name);
            if let Some((_, known)) = known {
                self.slots[*known as usize].get_or_insert(value);
            }
        }
        Ok(())
    }

    fn get(&self, name: Name) -> Option<&Bytes> {
        self.slots[name as usize].as_ref()
    }

    /// The checks, in etcd's order: the first failure answers.
    fn validate(mut self, method: &Method) -> Result<Parameters, Error> {
        let prev_index = self.index(Name::PrevIndex, "invalid value for \"prevIndex\"")?;
        let wait_index = self.index(Name::WaitIndex, "invalid value for \"waitIndex\"")?;
        let recursive = self.flag(Name::Recursive, "invalid value for \"recursive\"")?;
        self.flag(Name::Sorted, "invalid value for \"sorted\"")?;
        let wait = self.flag(Name::Wait, "invalid value for \"wait\"")?;
        let dir = self.flag(Name::Dir, "invalid value for \"dir\"")?;
        let quorum = self.flag(Name::Quorum, "invalid value for \"quorum\"")?;
        let stream = self.flag(Name::Stream, "invalid value for \"stream\"")?;
        if wait && method != Method::GET {
            return Err(Error::early(
                Code::InvalidField,
                "\"wait\" can only be used with GET requests",
            ));
        }
        if self.get(Name::PrevValue).is_some_and(Bytes::is_empty) {
            return Err(Error::early(
                Code::PrevValueRequired,
                "\"prevValue\" cannot be empty",
            ));
        }
        let no_value_on_success =
            self.flag(Name::NoValueOnSuccess, "invalid value for \"noValueOnSuccess\"")?;
        let ttl = self.ttl()?;
        let prev_exist = self.tristate(Name::PrevExist, "invalid value for prevExist")?;
        let refresh = self.refresh(ttl)?;
        Ok(Parameters {
            recursive,
            wait,
            dir,
            quorum,
            stream,
            wait_index,
            prev_index,
            prev_value: self.slots[Name::PrevValue as usize].take(),
            prev_exist,
            refresh,
            no_value_on_success,
            ttl: ttl.filter(|seconds| *seconds <= TTL_SECONDS_MAX),
            value: self.slots[Name::Value as usize].take().unwrap_or_default(),
        })
    }

    fn index(&self, name: Name, cause: &'static str) -> Result<u64, Error> {
        let Some(text) = self.get(name) else { return Ok(0) };
        decimal(text).ok_or_else(|| Error::early(Code::IndexNotANumber, cause))
    }

    fn flag(&self, name: Name, cause: &'static str) -> Result<bool, Error> {
        Ok(self.tristate(name, cause)?.unwrap_or(false))
    }

    fn tristate(&self, name: Name, cause: &'static str) -> Result<Option<bool>, Error> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        match text.as_ref() {
            b"1" | b"t" | b"T" | b"TRUE" | b"true" | b"True" => Ok(Some(true)),
            b"0" | b"f" | b"F" | b"FALSE" | b"false" | b"False" => Ok(Some(false)),
            _ => Err(Error::early(Code::InvalidField, cause)),
        }
    }

    /// Absent and empty mean none.
    fn ttl(&self) -> Result<Option<u64>, Error> {
        let Some(text) = self.get(Name::Ttl).filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let seconds = decimal(text);
        seconds
            .map(Some)
            .ok_or_else(|| Error::early(Code::TtlNotANumber, "invalid value for \"ttl\""))
    }

    fn refresh(&self, ttl: Option<u64>) -> Result<bool, Error> {
        let refresh = self
            .tristate(Name::Refresh, "invalid value for refresh")?
            .unwrap_or(false);
        if refresh && self.get(Name::Value).is_some_and(|value| !value.is_empty()) {
            return Err(Error::early(
                Code::RefreshWithValue,
                "A value was provided on a refresh",
            ));
        }
        if refresh && ttl.is_none() {
            return Err(Error::early(Code::RefreshWithoutTtl, "No TTL value set"));
        }
        Ok(refresh)
    }
}

/// Digits alone: Rust would also take a sign.
fn decimal(text: &[u8]) -> Option<u64> {
    let is_plain = text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok()
}

/// Undoes the escapes of a form; shares the bytes when there are none.
fn unescape(text: &Bytes) -> Result<Bytes, Error> {
    let Some(first) = text.iter().position(|byte| matches!(byte, b'%' | b'+')) else {
        return Ok(text.clone());
    };
    let mut plain = Vec::with_capacity(text.len());
    plain.extend_from_slice(&text[..first]);
    let mut rest = &text[first..];
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'+' => plain.push(b' '),
            b'%' => {
                let decoded = rest.get(..2).and_then(hex_byte).ok_or_else(|| bad_escape(rest))?;
                plain.push(decoded);
                rest = &rest[2..];
            }
            other => plain.push(*other),
        }
    }
    Ok(plain.into())
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

/// Go names the escape by at most three bytes, quoted.
fn bad_escape(after_percent: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(&after_percent[..after_percent.len().min(2)]);
    Error::early(
        Code::InvalidForm,
        format!("invalid URL escape {:?}", format!("%{shown}")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(query: &str) -> Result<Parameters, Error> {
        Parameters::parse(&Method::GET, query, None)
    }

    fn put(query: &str, form: &str) -> Result<Parameters, Error> {
        Parameters::parse(
            &Method::PUT,
            query,
            Some(&Bytes::copy_from_slice(form.as_bytes())),
        )
    }

    fn cause(result: Result<Parameters, Error>) -> String {
        String::from_utf8(result.unwrap_err().to_json()).unwrap()
    }

    /// Checks 8 to 11 and 26 of the v2 facts.
    #[test]
    fn the_form_wins_over_the_query_and_the_first_value_over_the_second() {
        assert_eq!(put("value=q", "value=b").unwrap().value, "b");
        assert_eq!(put("value=q&ttl=5", "value=b").unwrap().ttl, Some(5));
        assert_eq!(put("", "value=x&value=y").unwrap().value, "x");
        assert_eq!(put("", "value=a%2Bb+c").unwrap().value, "a+b c");
        assert_eq!(put("", "value=TRUE").unwrap().value, "TRUE");
        assert_eq!(put("", "value").unwrap().value, "");
        assert_eq!(put("", "&&value=a=b&").unwrap().value, "a=b");
        assert_eq!(put("", "value=a;b").unwrap().value, "a;b");
        assert_eq!(
            put("", "v%61lue=named+by+escape").unwrap().value,
            "named by escape"
        );
        assert_eq!(put("", "value=%ff%00").unwrap().value.as_ref(), b"\xff\0");
    }

    /// Checks 53 to 56, 64 to 69, 79 to 85, 97 to 100, 112, 166 to 169, 173, 177, 229 and 230: the number and
    /// the cause of each.
    #[test]
    fn every_bad_value_has_its_number_and_cause() {
        let cases = [
            ("prevIndex=abc", 203, "invalid value for \\\"prevIndex\\\""),
            ("prevIndex=", 203, "invalid value for \\\"prevIndex\\\""),
            ("prevIndex=-1", 203, "invalid value for \\\"prevIndex\\\""),
            ("prevIndex=%2B1", 203, "invalid value for \\\"prevIndex\\\""),
            (
                "prevIndex=18446744073709551616",
                203,
                "invalid value for \\\"prevIndex\\\"",
            ),
            ("waitIndex=abc", 203, "invalid value for \\\"waitIndex\\\""),
            ("recursive=maybe", 209, "invalid value for \\\"recursive\\\""),
            ("sorted=", 209, "invalid value for \\\"sorted\\\""),
            ("wait=xx", 209, "invalid value for \\\"wait\\\""),
            ("dir=x", 209, "invalid value for \\\"dir\\\""),
            ("quorum=tRUE", 209, "invalid value for \\\"quorum\\\""),
            ("stream=2", 209, "invalid value for \\\"stream\\\""),
            ("prevValue=", 201, "\\\"prevValue\\\" cannot be empty"),
            (
                "noValueOnSuccess=x",
                209,
                "invalid value for \\\"noValueOnSuccess\\\"",
            ),
            ("ttl=-1", 202, "invalid value for \\\"ttl\\\""),
            ("ttl=abc", 202, "invalid value for \\\"ttl\\\""),
            ("ttl=1.5", 202, "invalid value for \\\"ttl\\\""),
            ("ttl=99999999999999999999", 202, "invalid value for \\\"ttl\\\""),
            ("prevExist=yes", 209, "invalid value for prevExist"),
            ("prevExist=", 209, "invalid value for prevExist"),
            ("refresh=maybe", 209, "invalid value for refresh"),
            (
                "refresh=true&ttl=5&value=x",
                211,
                "A value was provided on a refresh",
            ),
            ("refresh=true", 212, "No TTL value set"),
            ("refresh=true&ttl=", 212, "No TTL value set"),
            ("bad=%zz", 210, "invalid URL escape \\\"%zz\\\""),
            ("value=%z", 210, "invalid URL escape \\\"%z\\\""),
            ("value=%", 210, "invalid URL escape \\\"%\\\""),
            ("%zzz=1", 210, "invalid URL escape \\\"%zz\\\""),
        ];
        for (text, number, shown) in cases {
            for json in [cause(get(text)), cause(put("", text)), cause(put(text, ""))] {
                assert!(
                    json.starts_with(&format!("{{\"errorCode\":{number},")),
                    "{text}: {json}"
                );
                assert!(
                    json.ends_with(&format!("\"cause\":\"{shown}\",\"index\":0}}\n")),
                    "{text}: {json}"
                );
            }
        }
    }

    /// Section 1.2: a request with every mistake at once, mended one by one, shows them in etcd's order.
    #[test]
    fn mistakes_are_found_in_etcds_order() {
        let mut mistakes = vec![
            ("x=%zz", "invalid URL escape"),
            ("prevIndex=x", "prevIndex"),
            ("waitIndex=x", "waitIndex"),
            ("recursive=x", "recursive"),
            ("sorted=x", "sorted"),
            ("wait=x", "invalid value for \\\"wait"),
            ("dir=x", "dir"),
            ("quorum=x", "quorum"),
            ("stream=x", "stream"),
            ("wait=true", "can only be used with GET"),
            ("prevValue=", "prevValue"),
            ("noValueOnSuccess=x", "noValueOnSuccess"),
            ("ttl=x", "ttl"),
            ("prevExist=x", "prevExist"),
            ("refresh=x", "invalid value for refresh"),
            ("refresh=true&value=x", "A value was provided"),
        ];
        while !mistakes.is_empty() {
            let all: Vec<&str> = mistakes.iter().map(|(text, _)| *text).collect();
            let (_, expected) = mistakes.remove(0);
            let json = cause(put(&all.join("&"), ""));
            assert!(json.contains(expected), "expected {expected}: {json}");
        }
        assert!(cause(Parameters::parse(&Method::HEAD, "wait=true", None)).contains("GET requests"));
    }

    #[test]
    fn flags_are_read_as_go_reads_them() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(
                get(&format!("prevExist={text}")).unwrap().prev_exist,
                Some(true),
                "{text}"
            );
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(
                get(&format!("prevExist={text}")).unwrap().prev_exist,
                Some(false),
                "{text}"
            );
        }
        assert_eq!(get("").unwrap(), Parameters::default());
        assert_eq!(get("unknown=param&consistent=xx").unwrap(), Parameters::default());
    }

    #[test]
    fn a_ttl_that_etcd_cannot_count_is_permanent() {
        assert_eq!(put("", "ttl=9999999999").unwrap().ttl, None);
        assert_eq!(put("", "ttl=9223372036").unwrap().ttl, Some(9_223_372_036));
        assert_eq!(put("", "ttl=0").unwrap().ttl, Some(0));
        assert_eq!(put("", "ttl=").unwrap().ttl, None);
        assert!(put("", "refresh=true&ttl=5&value=").unwrap().refresh);
    }
}
