//! What all creation calls have in common.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use ipc::cap::Rights;
use ipc::status::{Result, Status};

use super::Obj;
use super::pd::Pd;
use crate::cap::{self, Object, ObjectHeader};
use crate::mem::account::Account;
use crate::mem::frames::Frames;
use crate::sync::{self, Guard};
use crate::syscall::{Caller, DONE, Handled};

/// A creation call whose common arguments were checked: `rdi` names an empty selector, `rsi` a
/// protection domain that is charged. Holds the kernel lock.
pub struct Creation<'a> {
    caller: &'a Caller<'a>,
    kernel: Guard,
    /// The protection domain that is charged.
    pub pd: Obj<Pd>,
}

impl<'a> Creation<'a> {
    /// Takes the kernel lock and checks the common arguments.
    ///
    /// # Errors
    /// `BadCap`, `BadRight`: the PD. `Exists`: the destination. `BadCap`: it is out of range.
    /// `BadState`: the PD is being destroyed.
    pub fn begin(caller: &'a Caller<'a>) -> Result<Self> {
        let kernel = sync::lock(caller.cpu);
        if caller.ec.is_dead() {
            return Err(Status::Aborted);
        }
        let own = &caller.ec.pd.spaces;
        let pd: Obj<Pd> = Obj::of(own.objects.lookup::<Pd>(caller.args.rsi, Rights::PD_CREATE)?);
        if pd.dying.get() {
            return Err(Status::BadState);
        }
        own.objects.check_vacant(caller.args.rdi)?;
        Ok(Self { caller, kernel, pd })
    }

    /// Where memory comes from.
    pub fn frames(&mut self) -> &mut Frames {
        &mut self.kernel.frames
    }

    /// Header for the new object.
    pub fn header<T: Object>(&self) -> ObjectHeader {
        ObjectHeader::new(T::TYPE)
    }

    /// Allocates the object and puts its first capability, with all rights, at the destination.
    ///
    /// # Errors
    /// `Quota`; the object comes back, so that what it holds can be given up.
    pub fn place<T: Object>(&mut self, object: T) -> core::result::Result<Obj<T>, (Status, T)> {
        let pd = self.pd;
        let frames = &mut self.kernel.frames;
        let slot = match pd.spaces.account.alloc(frames, MaybeUninit::<T>::uninit()) {
            Ok(slot) => slot,
            Err(status) => return Err((status, object)),
        };
        // SAFETY: the slot is fresh and of this type.
        unsafe { slot.cast::<T>().write(object) };
        if let Err(status) = self.install(slot.cast::<T>()) {
            // SAFETY: nobody has seen the object; it is moved out before its memory is freed.
            unsafe {
                let object = slot.cast::<T>().read();
                Account::free(&mut self.kernel.frames, slot);
                return Err((status, object));
            }
        }
        pd.header.add_use();
        // SAFETY: freshly allocated; freed only by `destroy` after a rendezvous.
        Ok(unsafe { Obj::new(slot.cast()) })
    }

    /// [`Self::place`] for objects that hold nothing.
    ///
    /// # Errors
    /// `Quota`.
    pub fn place_plain<T: Object>(&mut self, object: T) -> Result<Obj<T>> {
        self.place(object).map_err(|(status, _)| status)
    }

    fn install<T: Object>(&mut self, object: NonNull<T>) -> Result {
        let own = &self.caller.ec.pd.spaces;
        let selector = self.caller.args.rdi;
        // SAFETY: objects are freed by `destroy` only.
        unsafe { cap::install_object(&mut self.kernel.frames, own, selector, object, Rights::FULL) }
    }

    /// Ends the call.
    pub fn done(self) -> Handled {
        DONE
    }
}
