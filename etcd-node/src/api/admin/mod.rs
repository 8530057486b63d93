//! The admin front.
