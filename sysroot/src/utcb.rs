//! The message buffer of the current thread.
//!
//! A thread finds its UTCB by rounding its stack pointer down to the start of its thread block
//! (see [`ipc::proto::start::THREAD_BLOCK`]): one instruction, and no register is set aside.
//!
//! Two areas are handed out, each to one user at a time: the message area, which every call
//! overwrites, and the state area, which belongs to the handler of an event for as long as it
//! runs. So a handler may log or call services while it holds the state.

use ipc::proto::service::{Area, Buffer};
use ipc::state::State;
use ipc::status::Result;
use ipc::utcb::{Message, Utcb, Window};

use crate::cap::{Call, Cap, Holds, Portal};
use crate::{process, syscall};

/// In `Utcb.user[1]`: CPU number in bits 0..16, and who uses what.
const CPU: u64 = 0xffff;
const MESSAGE_BUSY: u64 = 1 << 16;
const STATE_BUSY: u64 = 1 << 17;

/// The UTCB of the current thread.
#[cfg(target_os = "none")]
#[inline(always)]
#[must_use]
pub fn current() -> *mut Utcb {
    core::ptr::with_exposed_provenance_mut(crate::num::usize_of(crate::arch::thread_block()))
}

/// On the host there is one, for everybody.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn current() -> *mut Utcb {
    use core::cell::UnsafeCell;
    struct Shared(UnsafeCell<Utcb>);
    // SAFETY: host tests do not reach into it from two threads.
    unsafe impl Sync for Shared {}
    static UTCB: Shared = Shared(UnsafeCell::new(Utcb::new()));
    UTCB.0.get()
}

/// Takes a busy bit for as long as it lives.
struct Claim(u64);

impl Claim {
    /// `None` where somebody has it.
    #[inline(always)]
    fn new(bit: u64) -> Option<Self> {
        let word = flags();
        // SAFETY: the word belongs to this thread.
        let old = unsafe { word.read() };
        if old & bit != 0 {
            return None;
        }
        // SAFETY: as above.
        unsafe { word.write(old | bit) };
        Some(Self(bit))
    }
}

impl Drop for Claim {
    #[inline(always)]
    fn drop(&mut self) {
        let word = flags();
        // SAFETY: the word belongs to this thread.
        unsafe { word.write(word.read() & !self.0) };
    }
}

#[inline(always)]
fn flags() -> *mut u64 {
    // SAFETY: the UTCB is mapped for as long as its thread runs; this forms a place only.
    unsafe { &raw mut (*current()).user[1] }
}

/// The CPU that the current thread runs on.
#[inline]
#[must_use]
pub fn cpu() -> u16 {
    // SAFETY: the word belongs to this thread.
    let word = unsafe { flags().read() };
    u16::try_from(word & CPU).unwrap_or(0)
}

/// Prepares the UTCB of a thread that does not run yet, or of this one.
///
/// # Safety
/// `utcb` is mapped and nobody else uses it.
pub(crate) unsafe fn prepare(utcb: *mut Utcb, cpu: u16, user: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        (&raw mut (*utcb).user[0]).write(user);
        (&raw mut (*utcb).user[1]).write(u64::from(cpu));
    }
}

/// The word that [`prepare`] stored.
#[inline(always)]
pub(crate) fn user() -> u64 {
    // SAFETY: the UTCB is mapped and the word belongs to this thread.
    unsafe { (&raw const (*current()).user[0]).read() }
}

/// Runs `f` on the message area, unless somebody further up the stack has it.
pub fn try_with_message<R>(f: impl FnOnce(Area<'_>) -> R) -> Option<R> {
    let _claim = Claim::new(MESSAGE_BUSY)?;
    let utcb = current();
    // SAFETY: words and items are plain memory of this thread, and the claim keeps others out.
    let area = unsafe { Area { words: &mut (*utcb).words, items: &mut (*utcb).items } };
    Some(f(area))
}

/// Runs `f` on the message area. Within `f` nothing else may use it; that is a bug and fatal.
pub fn with_message<R>(f: impl FnOnce(Area<'_>) -> R) -> R {
    match try_with_message(f) {
        Some(result) => result,
        None => process::fatal("message area used while it is in use"),
    }
}

/// Runs `f` on the state area. Within `f` nothing else may use that area; that is a bug and fatal.
pub fn with_state<R>(f: impl FnOnce(&mut State) -> R) -> R {
    let Some(_claim) = Claim::new(STATE_BUSY) else {
        process::fatal("state area used while it is in use")
    };
    // SAFETY: the state is plain memory of this thread, and the claim keeps others out.
    f(unsafe { &mut (*current()).state })
}

/// Opens or closes the receive window for capabilities of a space.
pub fn set_window(space: ipc::cap::Space, window: Window) {
    // SAFETY: windows are plain memory of this thread; no reference to them is ever handed out.
    unsafe { write_window(current(), space, window) };
}

/// Sets a window of a UTCB.
///
/// # Safety
/// It is mapped, and nobody else uses its windows.
pub(crate) unsafe fn write_window(utcb: *mut Utcb, space: ipc::cap::Space, window: Window) {
    // SAFETY: there is a window for each space.
    unsafe {
        let first = (&raw mut (*utcb).windows).cast::<Window>();
        first.add(usize::from(space.number())).write(window);
    }
}

/// The message area of the current thread, for the generic side of services.
#[derive(Clone, Copy, Debug, Default)]
pub struct Current;

impl Buffer for Current {
    fn with<R>(&mut self, f: impl FnOnce(Area<'_>) -> R) -> R {
        with_message(f)
    }
}

/// Calls a portal: `prepare` writes the message, `finish` reads the reply.
///
/// # Errors
/// What the call returned.
pub fn call<R: Holds<Call>, T>(
    portal: Cap<Portal, R>,
    prepare: impl FnOnce(Area<'_>) -> Message,
    finish: impl FnOnce(Message, Area<'_>) -> T,
) -> Result<T> {
    let message = with_message(prepare);
    // SAFETY: `with_message` has given back the area.
    let reply = unsafe { syscall::call(portal, message) }?;
    Ok(with_message(|area| finish(reply, area)))
}
