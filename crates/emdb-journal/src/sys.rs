//! What the operating systems do differently, behind one set of functions.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
pub(crate) use unix::*;

#[cfg(not(unix))]
mod other;
#[cfg(not(unix))]
pub(crate) use other::*;

#[cfg(all(
    feature = "iouring",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
mod ring;
#[cfg(all(
    feature = "iouring",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
pub(crate) use ring::SyncRing;

#[cfg(not(all(
    feature = "iouring",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
mod no_ring;
#[cfg(not(all(
    feature = "iouring",
    target_os = "linux",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
pub(crate) use no_ring::SyncRing;
