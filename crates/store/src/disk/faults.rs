//! Makes calls to the file system fail, in tests. Each thread has its own faults, so tests do not affect each other.

use std::{cell::RefCell, io};

use rustix::io::Errno;

use super::Call;

/// Calls to make fail.
#[derive(Debug, Clone, Copy)]
struct Fault {
    /// Which kind; every kind if `None`.
    call: Option<Call>,
    /// Calls that still succeed.
    skip: usize,
    /// Calls that fail then.
    times: usize,
    errno: Errno,
}

thread_local! {
    static FAULTS: RefCell<Vec<Fault>> = const { RefCell::new(Vec::new()) };
    static CALLS: RefCell<Vec<Call>> = const { RefCell::new(Vec::new()) };
}

/// Records a call, and fails if a fault is set for it.
pub(super) fn attempt(call: Call) -> io::Result<()> {
    CALLS.with_borrow_mut(|calls| calls.push(call));
    FAULTS.with_borrow_mut(|faults| {
        for fault in faults.iter_mut().filter(|fault| fault.call.is_none_or(|kind| kind == call)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                return Err(fault.errno.into());
            }
        }
        Ok(())
    })
}

/// Makes the next `times` calls of a kind fail.
pub(crate) fn fail(call: Call, errno: Errno, times: usize) {
    FAULTS.with_borrow_mut(|faults| faults.push(Fault { call: Some(call), skip: 0, times, errno }));
}

/// Makes one call of a kind fail: the one after `skip` others.
pub(crate) fn fail_after(call: Call, skip: usize, errno: Errno) {
    FAULTS.with_borrow_mut(|faults| faults.push(Fault { call: Some(call), skip, times: 1, errno }));
}

/// Makes one call of any kind fail: the one after `skip` others.
pub(crate) fn fail_one(skip: usize, errno: Errno) {
    FAULTS.with_borrow_mut(|faults| faults.push(Fault { call: None, skip, times: 1, errno }));
}

/// Makes every call fail after this number of calls, as if the process had been killed.
pub(crate) fn kill_after(calls: usize) {
    let fault = Fault { call: None, skip: calls, times: usize::MAX, errno: Errno::IO };
    FAULTS.with_borrow_mut(|faults| faults.push(fault));
}

/// Ends all faults, and returns the calls since the last time. The last of them is the one that failed, if the test stopped
/// there.
pub(crate) fn end() -> Vec<Call> {
    FAULTS.take();
    CALLS.take()
}

/// Whether a fault waits for its call.
pub(crate) fn is_waiting() -> bool {
    FAULTS.with_borrow(|faults| faults.iter().any(|fault| fault.times > 0))
}
