//! Identifiers and counters, each a type of its own, so that a call site cannot mix them up.

use std::fmt;
use std::num::ParseIntError;

use sha1::{Digest, Sha1};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Before the first one.
            pub const ZERO: Self = Self(0);

            /// The counter with this value.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The plain number, for wires and formats.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The one after this.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// Position in the Raft log; the first entry has index 1.
    LogIndex
);
counter!(
    /// Raft's epoch; a fresh node has term 0.
    Term
);
counter!(
    /// The v2 event counter: beside the revision and never computed from it (keyspace rules, section 1).
    V2Index
);

/// Version of the keyspace: 1 on a fresh store, one more per successful change. Never negative; `i64`
/// because the v3 API says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(i64);

impl Revision {
    /// Before the first revision; nothing was ever written at it.
    pub const ZERO: Self = Self(0);
    /// Of a fresh store.
    pub const FIRST: Self = Self(1);

    /// The revision with this number.
    ///
    /// # Panics
    /// If the number is negative: such input must be refused where it enters.
    pub const fn new(value: i64) -> Self {
        assert!(value >= 0, "a revision is never negative");
        Self(value)
    }

    /// The plain number, for wires and formats.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The one after this.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Nobody: never given to anyone.
            pub const NONE: Self = Self(0);

            /// The id with this value.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The plain number, for wires.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// Reads the hexadecimal form; leading zeros are fine.
            ///
            /// # Errors
            /// When the text is not at most 16 hexadecimal digits.
            pub fn parse(text: &str) -> Result<Self, ParseIntError> {
                u64::from_str_radix(text, 16).map(Self)
            }
        }

        /// Lower-case hexadecimal without padding, as etcd prints ids.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:x}", self.0)
            }
        }
    };
}

hex_id!(
    /// A member of the Raft configuration. Never 0, never given twice.
    NodeId
);
hex_id!(
    /// A cluster; two clusters never exchange Raft messages.
    ClusterId
);

impl NodeId {
    /// The id that etcd derives at founding: the first eight bytes of SHA-1 over the sorted peer URLs
    /// followed by the cluster token.
    pub fn derive(peer_urls: &[String], token: &str) -> Self {
        let mut sorted = peer_urls.to_vec();
        sorted.sort();
        let mut hash = Sha1::new();
        for url in &sorted {
            hash.update(url.as_bytes());
        }
        hash.update(token.as_bytes());
        Self(first_eight(&hash.finalize()))
    }
}

impl ClusterId {
    /// The id that etcd derives at founding: the first eight bytes of SHA-1 over the sorted member ids,
    /// eight bytes each, big endian.
    pub fn derive(members: &[NodeId]) -> Self {
        let mut sorted = members.to_vec();
        sorted.sort();
        let mut hash = Sha1::new();
        for id in sorted {
            hash.update(id.get().to_be_bytes());
        }
        Self(first_eight(&hash.finalize()))
    }
}

fn first_eight(digest: &[u8]) -> u64 {
    let bytes: [u8; 8] = digest[..8].try_into().expect("a SHA-1 digest has 20 bytes");
    u64::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vector recorded with etcd 3.4.23 (bootstrap facts, check 25 and 26).
    #[test]
    fn ids_derive_as_etcd_derives_them() {
        let token = "http://127.0.0.1:45379/v2/keys/disc/tokA";
        let ids: Vec<NodeId> = ["45411", "45421", "45431"]
            .iter()
            .map(|port| NodeId::derive(&[format!("http://127.0.0.1:{port}")], token))
            .collect();
        let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            ["8076a377d315145d", "1bf2d651a7dd800e", "7c65f6a7629dc604"]
        );
        assert_eq!(ClusterId::derive(&ids).to_string(), "ae1901eae6ebb0b9");
    }

    #[test]
    fn ids_read_what_they_print() {
        assert_eq!(NodeId::parse("00ff").unwrap(), NodeId::new(255));
        assert_eq!(NodeId::new(255).to_string(), "ff");
        assert!(NodeId::parse("xyz").is_err());
    }
}
