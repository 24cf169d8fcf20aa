//! Memory that is free again goes back to the kernel.
//!
//! Owns the one declaration of the project that the compiler can't check. Never changes what a program
//! computes, and holds nothing.

/// Gives the free pages of the heap back, also those between others that are in use.
///
/// glibc gives back by itself only what lies at the heap's end. What a hundred connections to SQLite leave
/// free, each for a moment, would stay with a process that runs for years. Other C libraries have no such
/// call; they return free pages by themselves.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    malloc_trim(0);
}

// glibc's manual, malloc_trim(3): any number of bytes may be left at the end, and any thread may call it.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no crate has a safe declaration of it")]
unsafe extern "C" {
    safe fn malloc_trim(left_at_the_end: usize) -> std::ffi::c_int;
}
