//! Where grants come from, what reports of rejections have done to them, and what tests of credentials found.

use credbroker::domain::key_test::{Checked, Verdict};
use credbroker::domain::lease::Holder;
use credbroker::domain::lineage::{Fingerprint, Lineage, Link, Origin};
use credbroker::domain::rejection::{Failing, Forced, Share, Window};
use credbroker::domain::rotation::Fence;
use credbroker::store::model::Reported;

use super::bytes::{check, older};
use super::{at, id};

#[test]
fn the_generations_of_a_grant() {
    for origin in [Origin::Brought, Origin::Refreshed, Origin::Recovered] {
        let link = Link {
            generation: 3,
            at: at(20),
            origin,
            refresh: Some(Fingerprint([21; 16])),
            access: None,
            fence: (origin != Origin::Brought).then_some(Fence(23)),
        };
        let value = Lineage {
            links: vec![link],
            refresh_expires: Some(at(22)),
        };
        check(&format!("lineage-{}", origin.name()), &value, &[1]);
    }
}

#[test]
fn forced_rotations() {
    let window = Window {
        began: at(1),
        count: 2,
    };
    check("forced-by", &window, &[]);
    let holders = [
        Holder::Agent(id(3)),
        Holder::ApiKey(id(4)),
        Holder::Operator(id(5)),
    ];
    let forced = Forced {
        window,
        generation: 3,
        connected: 4,
        failing: holders.map(|holder| Failing { holder, at: at(5) }).to_vec(),
        shares: None,
    };
    older("forced", &forced);
    let forced = Forced {
        shares: Some(holders.map(|holder| Share { holder, count: 6 }).to_vec()),
        ..forced
    };
    check("forced-2", &forced, &[4]);
}

#[test]
fn the_last_report_of_a_key() {
    for (name, by) in [
        ("reported", Some(Holder::Agent(id(3)))),
        ("reported-tested", None),
    ] {
        let value = Reported {
            generation: 2,
            at: at(7),
            by,
            message: "invalid x-api-key".to_owned(),
        };
        check(name, &value, &[2]);
    }
}

#[test]
fn what_tests_of_credentials_found() {
    for outcome in Verdict::ALL {
        let value = Checked {
            at: at(30),
            generation: 3,
            outcome,
            status: 401,
            message: "because".to_owned(),
            facts: vec![("label".to_owned(), "value".to_owned())],
            facts_at: None,
        };
        older(&format!("checked-{}", outcome.name()), &value);
        let value = Checked {
            facts_at: Some(at(20)),
            ..value
        };
        check(&format!("checked-{}-2", outcome.name()), &value, &[6]);
    }
}
