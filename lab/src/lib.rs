//! The device lab.
