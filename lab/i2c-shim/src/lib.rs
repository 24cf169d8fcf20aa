//! Preloaded into a process (`LD_PRELOAD`): where that opens `/dev/i2c-N`, it gets the lab's bus.
//!
//! Owns the five functions of the C library that a user of I2C calls, and nothing of what goes over
//! the bus: each transfer is a message to the socket that `EDGEREPL_LAB_I2C` names, as the lab's own
//! `i2c` has it. All other descriptors go to the kernel as they came.

use std::ffi::{CStr, c_char, c_int, c_long, c_ulong, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

/// Chooses the address on the bus.
const I2C_SLAVE: c_ulong = 0x0703;

/// Whether a descriptor is a bus. One beyond these is not.
static IS_BUS: [AtomicBool; 1024] = [const { AtomicBool::new(false) }; 1024];

/// # Safety
/// As open(2); so it is throughout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    if unsafe { CStr::from_ptr(path) }
        .to_bytes()
        .starts_with(b"/dev/i2c-")
    {
        return connect();
    }
    let (at, path) = (c_long::from(libc::AT_FDCWD), path as c_long);
    let done = unsafe {
        libc::syscall(
            libc::SYS_openat,
            at,
            path,
            c_long::from(flags),
            c_long::from(mode),
        )
    };
    done as c_int
}

/// # Safety
/// As open(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_int) -> c_int {
    unsafe { open(path, flags | libc::O_LARGEFILE, mode) }
}

/// # Safety
/// As ioctl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: c_long) -> c_int {
    if !is_bus(fd) {
        let done = unsafe { libc::syscall(libc::SYS_ioctl, fd, request, argument) };
        return done as c_int;
    }
    match (request, u8::try_from(argument)) {
        (I2C_SLAVE, Ok(address)) => transfer(fd, &[0, address], &mut []).map_or(-1, |()| 0),
        _ => {
            fail(libc::EINVAL);
            -1
        }
    }
}

/// # Safety
/// As write(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, count: usize) -> isize {
    if !is_bus(fd) {
        let done = unsafe { libc::syscall(libc::SYS_write, fd, bytes, count) };
        return done as isize;
    }
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), count) };
    let message = [&[1], bytes].concat();
    transfer(fd, &message, &mut []).map_or(-1, |()| count as isize)
}

/// # Safety
/// As read(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, count: usize) -> isize {
    if !is_bus(fd) {
        let done = unsafe { libc::syscall(libc::SYS_read, fd, buffer, count) };
        return done as isize;
    }
    let count = count.min(usize::from(u8::MAX));
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), count) };
    transfer(fd, &[2, count as u8], buffer).map_or(-1, |()| count as isize)
}

/// # Safety
/// As close(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    if let Some(is_bus) = entry(fd) {
        is_bus.store(false, Ordering::Relaxed);
    }
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

fn entry(fd: c_int) -> Option<&'static AtomicBool> {
    usize::try_from(fd).ok().and_then(|fd| IS_BUS.get(fd))
}

fn is_bus(fd: c_int) -> bool {
    entry(fd).is_some_and(|is_bus| is_bus.load(Ordering::Relaxed))
}

/// A descriptor that is the lab's bus. Without a lab there is no such device.
fn connect() -> c_int {
    let Some(path) = std::env::var_os("EDGEREPL_LAB_I2C") else {
        fail(libc::ENOENT);
        return -1;
    };
    let mut address = libc::sockaddr_un {
        sun_family: libc::AF_UNIX as libc::sa_family_t,
        sun_path: [0; 108],
    };
    for (to, from) in address.sun_path.iter_mut().zip(path.as_encoded_bytes()) {
        *to = *from as c_char;
    }
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0) };
    let connected = unsafe {
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        libc::connect(fd, (&raw const address).cast(), length)
    };
    match entry(fd).filter(|_| connected == 0) {
        Some(is_bus) => {
            is_bus.store(true, Ordering::Relaxed);
            fd
        }
        None => {
            unsafe { close(fd) };
            fail(libc::ENOENT);
            -1
        }
    }
}

/// Sends a message, and takes the answer's bytes; without them errno is set.
fn transfer(fd: c_int, message: &[u8], buffer: &mut [u8]) -> Option<()> {
    let mut answer = [0u8; 512];
    let length = unsafe {
        if libc::send(
            fd,
            message.as_ptr().cast(),
            message.len(),
            libc::MSG_NOSIGNAL,
        ) < 0
        {
            return None;
        }
        libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0)
    };
    let answer = answer.get(..usize::try_from(length).ok()?)?;
    match answer.split_first() {
        Some((0, bytes)) if bytes.len() == buffer.len() => {
            buffer.copy_from_slice(bytes);
            Some(())
        }
        Some((code, _)) if *code != 0 => {
            fail(c_int::from(*code));
            None
        }
        _ => {
            fail(libc::EIO);
            None
        }
    }
}

fn fail(code: c_int) {
    unsafe { *libc::__errno_location() = code };
}
