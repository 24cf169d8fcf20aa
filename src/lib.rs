//! edgerepl
