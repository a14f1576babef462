//! What a test says.

use alloc::string::String;

/// Why a test failed; `Ok` where it passed.
pub(crate) type Outcome = Result<(), Failure>;

/// Why a test failed, or that it cannot run here.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something was not as it should be.
    Wrong(String),
    /// The machine or the configuration lacks what the test needs.
    Skip(&'static str),
}

impl From<ipc::status::Status> for Failure {
    fn from(status: ipc::status::Status) -> Self {
        Self::Wrong(alloc::format!("unexpected status {status}"))
    }
}

/// Fails unless the condition holds.
macro_rules! check {
    ($condition:expr) => {
        if !$condition {
            return Err($crate::check::Failure::Wrong(alloc::format!(
                "line {}: {}",
                line!(),
                stringify!($condition)
            )));
        }
    };
}

/// How long a case waits for what is sure to come: generous, as an emulator's CPUs may be many and
/// the machine's few and busy.
const PATIENCE_MS: u64 = 60_000;

/// The end of such a wait that begins now.
pub(crate) fn patience() -> u64 {
    sysroot::time::deadline_in_ms(PATIENCE_MS)
}

/// Waits until the condition holds; fails where it does not within a generous time.
macro_rules! eventually {
    ($condition:expr) => {{
        let limit = $crate::check::patience();
        while !$condition {
            if sysroot::time::now() > limit {
                return Err($crate::check::Failure::Wrong(alloc::format!(
                    "line {}: never {}",
                    line!(),
                    stringify!($condition)
                )));
            }
            sysroot::time::sleep_ms(1);
        }
    }};
}

/// Fails unless both sides are equal.
macro_rules! same {
    ($left:expr, $right:expr) => {{
        let (left, right) = (&$left, &$right);
        if left != right {
            return Err($crate::check::Failure::Wrong(alloc::format!(
                "line {}: {} is {:?}, not {:?}",
                line!(),
                stringify!($left),
                left,
                right
            )));
        }
    }};
}

/// Fails unless the call gives this error.
macro_rules! refused {
    ($call:expr, $status:ident) => {
        match $call {
            Err(ipc::status::Status::$status) => {}
            other => {
                return Err($crate::check::Failure::Wrong(alloc::format!(
                    "line {}: {} gives {:?}, not {}",
                    line!(),
                    stringify!($call),
                    other.map(drop),
                    stringify!($status)
                )));
            }
        }
    };
}

/// Fails with the status unless the call succeeds; its value otherwise.
macro_rules! ok {
    ($call:expr) => {
        match $call {
            Ok(value) => value,
            Err(status) => {
                return Err($crate::check::Failure::Wrong(alloc::format!(
                    "line {}: {} gives {}",
                    line!(),
                    stringify!($call),
                    status
                )));
            }
        }
    };
}
