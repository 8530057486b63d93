//! The v3 front.
