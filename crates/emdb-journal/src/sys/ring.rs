//! Syncs through an io_uring whose submission queue a kernel thread polls.
//!
//! Promises: what was handed to the ring is waited for, and its result is what
//! `fdatasync` would have returned. A ring that cannot be used says so before it is
//! handed anything. So a sync is never tried twice, by whichever way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, opcode, squeue, types};

/// A ring for one request at a time.
///
/// The file is named anew with each request and not registered with the ring: the
/// kernel gives registered files back some time after the process has ended, and with
/// them the journal's lock.
pub(crate) struct SyncRing {
    ring: IoUring,
    /// Requests made; the newest one's name.
    requests: u64,
}

impl SyncRing {
    /// A ring whose polling thread sleeps after `idle_ms` without a request; `None`
    /// where the kernel refuses one.
    pub(crate) fn open(idle_ms: u32) -> Option<Self> {
        let ring = IoUring::builder().setup_sqpoll(idle_ms).build(1).ok()?;
        let parameters = ring.params();
        // Older kernels poll for registered files only, or stop polling when the
        // thread ends that made the ring.
        if !parameters.is_feature_sqpoll_nonfixed() || !parameters.is_feature_native_workers() {
            return None;
        }
        let mut ring = Self { ring, requests: 0 };
        // The worker that will sync is started for this and stays, so that a limit on
        // threads shows here, where nothing is lost.
        let trial = opcode::Nop::new().build().flags(squeue::Flags::ASYNC);
        match ring.run(trial) {
            Some(Ok(_)) => Some(ring),
            _ => None,
        }
    }

    /// Makes the file's bytes survive power loss. `None` if the kernel refuses the
    /// ring by now; nothing has been tried then.
    pub(crate) fn sync_data(&mut self, file: &File) -> Option<io::Result<()>> {
        let file = types::Fd(file.as_raw_fd());
        let sync = opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC);
        Some(self.run(sync.build())?.map(drop))
    }

    /// Hands one request, which must not point at memory, to the kernel, and waits for
    /// its result. `None` if it was not handed over.
    fn run(&mut self, request: squeue::Entry) -> Option<io::Result<i32>> {
        // Room is always there; asking for it is a call that hands nothing over. A
        // sandbox that was put on since the last request shows here.
        while let Err(error) = self.ring.submitter().squeue_wait() {
            if error.kind() != io::ErrorKind::Interrupted {
                return None;
            }
        }
        self.requests = self.requests.wrapping_add(1);
        let request = request.user_data(self.requests);
        // SAFETY: the request has no pointers (`run` is private, and its callers name a
        // descriptor at most); the kernel checks the descriptor when it looks at it.
        if unsafe { self.ring.submission().push(&request) }.is_err() {
            return None;
        }
        loop {
            let waited = self.ring.submit_and_wait(1);
            let name = self.requests;
            if let Some(done) = self.ring.completion().find(|done| done.user_data() == name) {
                let result = done.result();
                return Some(match result {
                    0.. => Ok(result),
                    _ => Err(io::Error::from_raw_os_error(result.saturating_neg())),
                });
            }
            match waited {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel may have it or not: whoever asked must not believe another
                // sync, and does not, since this one failed.
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl std::fmt::Debug for SyncRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SyncRing")
            .field("requests", &self.requests)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
