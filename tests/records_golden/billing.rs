//! Accounts, what was taken, sums of spend.

use credbroker::domain::billing::{Account, Entitlement, Micros, Subscription};
use credbroker::domain::cost::Spend;
use credbroker::store::model::{SpendCheckpoint, Taken};

use super::bytes::check;
use super::{at, id};

#[test]
fn accounts_and_what_they_pay_for() {
    for (name, subscription, metered) in [
        ("default", Subscription::Active, Entitlement::Default),
        ("granted", Subscription::Inactive, Entitlement::Granted),
        ("withdrawn", Subscription::Inactive, Entitlement::Withdrawn),
    ] {
        let account = Account {
            org: id(1),
            subscription,
            metered,
            shared_per_day: Some(200),
            balance: Micros(-25_000_000),
            updated: Some(at(2)),
        };
        check(&format!("account-{name}"), &account, &[3, 5]);
    }
    let taken = Taken {
        content: [1; 32].into(),
        at: at(3),
    };
    check("taken", &taken, &[]);
    let spend = Spend {
        dispatches: 7,
        micros: Micros(1_500_000),
        events: 9,
    };
    check("spend", &spend, &[]);
    check("spend-checkpoint", &SpendCheckpoint { position: 70_000 }, &[]);
}
