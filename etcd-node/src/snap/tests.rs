//! The table of damage.
