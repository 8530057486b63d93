//! The v3 grammar: ranges, writes, transactions.

pub mod range;
pub mod refusal;

pub use range::RangeScan;
pub use refusal::Refusal;
