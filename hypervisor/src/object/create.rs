//! What all creation calls have in common.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

use heapless::Vec;
use ipc::cap::Rights;
use ipc::status::{Result, Status};

use super::pd::Pd;
use super::{Obj, charge};
use crate::cap::{self, Object, ObjectHeader};
use crate::mem::account::Account;
use crate::mem::pool::Page;
use crate::sync::Guard;
use crate::syscall::Caller;

/// A creation call whose common arguments were checked: `rdi` names an empty selector, `rsi` a
/// protection domain that is charged. Holds the kernel lock.
pub struct Creation<'a> {
    caller: &'a Caller<'a>,
    /// The kernel lock.
    pub kernel: Guard,
    /// The protection domain that is charged.
    pub pd: Obj<Pd>,
    /// Pages for an object that is not placed yet.
    pages: Vec<NonNull<Page>, 2>,
}

impl<'a> Creation<'a> {
    /// Takes the kernel lock and checks the common arguments.
    ///
    /// # Errors
    /// `BadCap`, `BadRight`: the PD. `Exists`: the destination. `BadCap`: it is out of range.
    /// `BadState`: the PD is being destroyed.
    pub fn begin(caller: &'a Caller<'a>) -> Result<Self> {
        let kernel = caller.lock()?;
        let pd = Obj::of(caller.object::<Pd>(caller.args.rsi, Rights::PD_CREATE)?);
        if pd.dying.get() {
            return Err(Status::BadState);
        }
        caller.ec.pd.spaces.objects.check_vacant(caller.args.rdi)?;
        Ok(Self { caller, kernel, pd, pages: Vec::new() })
    }

    /// A zeroed page for the new object, at most two. It is freed where no object is placed.
    ///
    /// # Errors
    /// `Quota`.
    pub fn page(&mut self) -> Result<NonNull<Page>> {
        let page = self.pd.spaces.account.alloc_page(&mut self.kernel.frames)?;
        self.pages.push(page).map_err(|_| Status::Quota)?;
        Ok(page)
    }

    /// Allocates the object and puts its first capability, with all rights, at the destination.
    ///
    /// # Errors
    /// `Quota`; the object comes back, so that what it holds can be given up.
    pub fn place<T: Object>(&mut self, object: T) -> core::result::Result<Obj<T>, (Status, T)> {
        let (frames, own) = (&mut self.kernel.frames, &self.caller.ec.pd.spaces);
        let slot = match self.pd.spaces.account.alloc(frames, MaybeUninit::<T>::uninit()) {
            Ok(slot) => slot.cast::<T>(),
            Err(status) => return Err((status, object)),
        };
        // SAFETY: the slot is fresh and of this type; from now on only `destroy` frees it, or, if
        // nobody has seen the object, the code below, which moves it out before.
        unsafe {
            slot.write(object);
            let selector = self.caller.args.rdi;
            if let Err(status) = cap::install_object(frames, own, selector, slot, Rights::FULL) {
                let object = slot.read();
                Account::free(frames, slot.cast::<MaybeUninit<T>>());
                return Err((status, object));
            }
            charge(slot.cast::<ObjectHeader>().as_ref(), self.pd);
            self.pages.clear();
            Ok(Obj::new(slot))
        }
    }

    /// [`Self::place`] for objects that hold nothing but pages.
    ///
    /// # Errors
    /// `Quota`.
    pub fn place_plain<T: Object>(&mut self, object: T) -> Result<Obj<T>> {
        self.place(object).map_err(|(status, _)| status)
    }
}

impl Drop for Creation<'_> {
    fn drop(&mut self) {
        for &page in &self.pages {
            // SAFETY: the page came from `page`. It was mapped at most for the time of this call,
            // in which nobody could know of it.
            unsafe { self.pd.spaces.account.free_page(&mut self.kernel.frames, page) };
        }
    }
}
