//! Who has a place on a personal subscription.

use credbroker::domain::parallelism::Parallel;

use super::bytes::check;
use super::id;

#[test]
fn places() {
    let parallel = Parallel {
        cap: Some(5),
        leases: vec![id(1), id(2)],
    };
    check("parallel", &parallel, &[0]);
}
