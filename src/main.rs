//! The edgerepl command.
fn main() {}
