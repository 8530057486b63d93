//! The v2 front.
