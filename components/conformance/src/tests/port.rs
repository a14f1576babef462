//! Ports.

use ipc::cap::Range;
use ipc::exit::Exception;
use ipc::status::Status;
use sysroot::syscall;

use super::event::{INPUT, OUTPUT, Prober};
use crate::check::{Failure, Outcome};
use crate::devices::exit_ports;
use crate::runner::group;

group!("port":
    what_is_not_held_faults,
    a_delegated_port_works_until_it_is_revoked,
    ranges,
);

/// A port that this component was given, and that takes writes without harm: the second one of
/// the emulator's exit device.
fn port() -> core::result::Result<u16, Failure> {
    exit_ports()
        .filter(|p| p.count() > 3)
        .map(|p| p.first() + 2)
        .ok_or(Failure::Skip("no exit device with four ports"))
}

const REFUSED: Result<u64, Exception> = Err(Exception { vector: 13, error: Some(0) });

fn what_is_not_held_faults() -> Outcome {
    let p = ok!(Prober::new());
    for port in [0, 0x20, 0x60, 0x3f8, 0xcf8, 0xffff] {
        same!(p.access(INPUT, port, 0)?, REFUSED);
        same!(p.access(OUTPUT, port, 0)?, REFUSED);
    }
    Ok(())
}

fn a_delegated_port_works_until_it_is_revoked() -> Outcome {
    let port = port()?;
    let p = ok!(Prober::new());
    for _ in 0..5 {
        same!(p.access(INPUT, port.into(), 0)?, REFUSED);
        ok!(syscall::delegate_ports(p.domain.pd, 0, port));
        check!(p.access(INPUT, port.into(), 0)?.is_ok());
        same!(p.access(INPUT, u64::from(port) + 1, 0)?, REFUSED);
        ok!(syscall::revoke_ports(0, port, false));
        same!(p.access(INPUT, port.into(), 0)?, REFUSED);
    }
    Ok(())
}

fn ranges() -> Outcome {
    let port = port()?;
    let p = ok!(Prober::new());
    let pd = p.domain.pd;
    refused!(syscall::delegate_ports(pd, 0, 0x3f8), BadCap);
    refused!(syscall::delegate_ports(pd, 1, port + 1), BadParam);
    refused!(syscall::delegate_ports(pd, 17, 0), BadParam);
    refused!(syscall::delegate_ports(pd, 16, 0), BadCap);
    ok!(syscall::delegate_ports(pd, 0, port));
    refused!(syscall::delegate_ports(pd, 0, port), Exists);
    refused!(syscall::delegate_ports(pd, 1, port), Exists);
    let moved = crate::domain::raw(
        ipc::syscall::Number::new(ipc::syscall::Call::Delegate).0,
        [pd.raw(), Range::port(0).0, port.into(), u64::from(port) + 1, 0],
    );
    same!(moved, Err(Status::BadParam));
    let (held, first) = ok!(syscall::query(Range::port(0), port.into()));
    same!(held.rights(), 1);
    check!(first <= u64::from(port));
    same!(ok!(syscall::query(Range::port(0), 0x60)).0.rights(), 0);
    refused!(syscall::query(Range::port(0), 0x1_0000), BadParam);
    Ok(())
}
