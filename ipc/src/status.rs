//! The result of a system call.

numbered! {
    /// What a system call reports in `rax`.
    pub enum Status: u8 {
        /// Done.
        Ok = 0,
        /// The deadline of `Down` passed before a signal came in.
        Timeout = 1,
        /// The callee died, its portal was revoked, or it faulted before it replied; or the
        /// semaphore died while the caller waited on it.
        Aborted = 2,
        /// No such system call.
        BadCall = 3,
        /// A selector is empty, out of range, or names an object of another type.
        BadCap = 4,
        /// The capability lacks a right that the call needs.
        BadRight = 5,
        /// An argument is out of range or misaligned.
        BadParam = 6,
        /// The CPU does not exist, or the portal's execution context is bound to another one.
        BadCpu = 7,
        /// The charged protection domain has no kernel memory left.
        Quota = 8,
        /// The destination selector, page or port is already in use.
        Exists = 9,
        /// The receiver opened no window that the item fits into.
        NoWindow = 10,
        /// The machine or this kernel lacks the feature.
        NotSupported = 11,
        /// The object is in a state that does not allow the operation.
        BadState = 12,
        /// The semaphore's counter is at its maximum.
        Overflow = 13,
    }
}

/// Result of a call: the error is any [`Status`] but [`Status::Ok`].
pub type Result<T = ()> = core::result::Result<T, Status>;

impl Status {
    /// `Ok(())` for [`Status::Ok`], the status itself otherwise. Unknown numbers (from a newer
    /// kernel) count as [`Status::NotSupported`].
    ///
    /// # Errors
    /// Every status but [`Status::Ok`].
    #[inline]
    pub const fn from_register(rax: u64) -> Result {
        match rax {
            0 => Ok(()),
            n if n > 0xff => Err(Self::NotSupported),
            #[expect(clippy::cast_possible_truncation, reason = "checked above")]
            n => match Self::from_number(n as u8) {
                Some(status) => Err(status),
                None => Err(Self::NotSupported),
            },
        }
    }
}

impl core::fmt::Display for Status {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}
