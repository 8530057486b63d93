//! The machine object: what a machine says about itself in the registry, as fleet 1.0 writes it.
//!
//! fleet's readers are lenient and so are we: names in any case, `null` and missing fields. What we write is
//! byte for byte what fleet 1.0 writes: its field order, sorted maps, Go's escapes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One machine, as it stands at `machines/<id>/object`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineObject {
    /// The machine's id: the content of its `/etc/machine-id`.
    pub id: String,
    /// Where others reach it; empty when nobody knows.
    pub public_ip: String,
    /// What its configuration says about it.
    pub metadata: BTreeMap<String, String>,
    /// What its fleetd can do.
    pub capabilities: BTreeMap<String, bool>,
    /// Of its fleetd, with a leading `v`: without it an older fleetctl would compare it with its own.
    pub version: String,
}

/// A value at `machines/<id>/object` that is no machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a machine object: {0}")]
pub struct ObjectError(String);

impl MachineObject {
    /// Reads what any version of fleet wrote.
    ///
    /// # Errors
    /// When it is not a JSON object, or a field is of the wrong type.
    pub fn parse(json: &[u8]) -> Result<Self, ObjectError> {
        let value: Value = serde_json::from_slice(json).map_err(|error| ObjectError(error.to_string()))?;
        let Value::Object(fields) = value else {
            return Err(ObjectError("no JSON object".to_owned()));
        };
        Ok(Self {
            id: text(&fields, "ID")?,
            public_ip: text(&fields, "PublicIP")?,
            metadata: map(&fields, "Metadata", |value| value.as_str().map(str::to_owned))?,
            capabilities: map(&fields, "Capabilities", Value::as_bool)?,
            version: text(&fields, "Version")?,
        })
    }

    /// As fleet 1.0 writes it.
    pub fn to_json(&self) -> String {
        let mut json = String::from("{\"ID\":");
        push_string(&mut json, &self.id);
        json.push_str(",\"PublicIP\":");
        push_string(&mut json, &self.public_ip);
        json.push_str(",\"Metadata\":");
        push_map(&mut json, &self.metadata, |json, value| push_string(json, value));
        json.push_str(",\"Capabilities\":");
        push_map(&mut json, &self.capabilities, |json, flag| {
            json.push_str(if *flag { "true" } else { "false" });
        });
        json.push_str(",\"Version\":");
        push_string(&mut json, &self.version);
        json.push('}');
        json
    }

    /// What everybody sees of this machine: its metadata overlaid by what was set from outside. There an
    /// empty value means that the key is gone.
    #[must_use]
    pub fn overlaid(mut self, dynamic: BTreeMap<String, String>) -> Self {
        for (key, value) in dynamic {
            if value.is_empty() {
                self.metadata.remove(&key);
            } else {
                self.metadata.insert(key, value);
            }
        }
        self
    }
}

/// The field of this name, in any case as Go's decoder has it; the exact name first.
fn field<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a Value {
    let exact = fields.get(name);
    let found = exact.or_else(|| {
        fields
            .iter()
            .find(|(each, _)| each.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    });
    found.unwrap_or(&Value::Null)
}

fn text(fields: &Map<String, Value>, name: &str) -> Result<String, ObjectError> {
    match field(fields, name) {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        _ => Err(ObjectError(format!("{name} is no text"))),
    }
}

fn map<T>(
    fields: &Map<String, Value>,
    name: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<BTreeMap<String, T>, ObjectError> {
    let wrong = || ObjectError(format!("{name} is not a map of the expected kind"));
    match field(fields, name) {
        Value::Null => Ok(BTreeMap::new()),
        Value::Object(entries) => entries
            .iter()
            .map(|(key, value)| Some((key.clone(), read(value)?)))
            .collect::<Option<_>>()
            .ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

fn push_map<T>(json: &mut String, map: &BTreeMap<String, T>, push: impl Fn(&mut String, &T)) {
    json.push('{');
    for (position, (key, value)) in map.iter().enumerate() {
        if position > 0 {
            json.push(',');
        }
        push_string(json, key);
        json.push(':');
        push(json, value);
    }
    json.push('}');
}

/// A string as Go's encoder writes it: beside what JSON demands, it escapes what could end a script or a line
/// in a browser.
fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                json.push_str(&format!("\\u{:04x}", u32::from(character)));
            }
            other => json.push(other),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> MachineObject {
        MachineObject {
            id: "11111111111111111111111111111111".to_owned(),
            public_ip: "127.0.0.11".to_owned(),
            metadata: BTreeMap::from(
                [("zone", "z1"), ("role", "node1")].map(|(k, v)| (k.to_owned(), v.to_owned())),
            ),
            capabilities: BTreeMap::from([("GRPC".to_owned(), false), ("DISABLE_ENGINE".to_owned(), false)]),
            version: "1.0.0".to_owned(),
        }
    }

    /// Recorded from fleetd 1.0.0.
    const RECORDED: &str = "{\"ID\":\"11111111111111111111111111111111\",\"PublicIP\":\"127.0.0.11\",\
        \"Metadata\":{\"role\":\"node1\",\"zone\":\"z1\"},\
        \"Capabilities\":{\"DISABLE_ENGINE\":false,\"GRPC\":false},\"Version\":\"1.0.0\"}";

    #[test]
    fn an_object_is_byte_for_byte_what_fleet_writes_and_reads_back() {
        assert_eq!(machine().to_json(), RECORDED);
        assert_eq!(MachineObject::parse(RECORDED.as_bytes()).unwrap(), machine());
        let bare = MachineObject {
            metadata: BTreeMap::new(),
            ..machine()
        };
        assert!(bare.to_json().contains("\"Metadata\":{},"));
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let mut json = String::new();
        push_string(
            &mut json,
            "<a&b> \"q\" \\ \n\r\t \u{8}\u{c}\u{1} \u{2028}\u{2029} é",
        );
        assert_eq!(
            json,
            "\"\\u003ca\\u0026b\\u003e \\\"q\\\" \\\\ \\n\\r\\t \\u0008\\u000c\\u0001 \\u2028\\u2029 é\""
        );
        let hard = MachineObject {
            metadata: BTreeMap::from([("<k>".to_owned(), "a&b\n".to_owned())]),
            ..machine()
        };
        assert_eq!(MachineObject::parse(hard.to_json().as_bytes()).unwrap(), hard);
    }

    #[test]
    fn older_and_sloppier_objects_are_read() {
        // fleet 0.8.3, recorded.
        let old = "{\"ID\":\"1\",\"PublicIP\":\"127.0.0.11\",\"Metadata\":{},\"Version\":\"0.8.3\"}";
        assert!(
            MachineObject::parse(old.as_bytes())
                .unwrap()
                .capabilities
                .is_empty()
        );
        let sloppy =
            MachineObject::parse(b"{\"id\":\"1\",\"publicip\":null,\"Metadata\":null,\"Other\":[1]}")
                .unwrap();
        assert_eq!(
            sloppy,
            MachineObject {
                id: "1".to_owned(),
                ..MachineObject::default()
            }
        );
    }

    #[test]
    fn what_is_no_machine_says_why() {
        for (json, why) in [
            ("", "EOF"),
            ("[]", "no JSON object"),
            ("{\"ID\":1}", "ID is no text"),
            ("{\"Metadata\":{\"k\":1}}", "Metadata"),
            ("{\"Capabilities\":[]}", "Capabilities"),
        ] {
            let error = MachineObject::parse(json.as_bytes()).unwrap_err().to_string();
            assert!(
                error.starts_with("not a machine object: ") && error.contains(why),
                "{json:?}: {error}"
            );
        }
    }

    #[test]
    fn dynamic_metadata_wins_and_an_empty_value_removes() {
        let dynamic = BTreeMap::from(
            [("role", "new"), ("zone", ""), ("more", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())),
        );
        let merged = machine().overlaid(dynamic).metadata;
        let expected =
            BTreeMap::from([("role", "new"), ("more", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert_eq!(merged, expected);
    }
}
