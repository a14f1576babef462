use ipc::proto::counter::{Add, Server};
use ipc::proto::service::{Fault, Incoming};
use ipc::proto::start::MAX_CLIENTS;

use super::Counts;

#[test]
fn each_client_has_a_count_of_its_own() {
    let counts = Counts::default();
    let add = |session, amount| {
        counts.add(&mut Incoming::new(session), Add { amount }).map(|count| count.total)
    };
    assert_eq!([add(0, 1), add(1, 40), add(0, 1), add(1, 2)], [Ok(1), Ok(40), Ok(2), Ok(42)]);
    assert_eq!(add(MAX_CLIENTS as u64, 1), Err(Fault::Internal));
    assert_eq!(add(u64::MAX, 1), Err(Fault::Internal));
}
