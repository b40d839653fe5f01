//! What is the platform's own.

use credbroker::store::model::{StoredGrantKey, StoredManagedKey};

use crate::bytes::check;
use crate::{at, fake};

#[test]
fn the_platforms_own() {
    let key = StoredManagedKey {
        provider: "anthropic".into(),
        generation: 2,
        key: fake("managed-key"),
        hint: "-key".into(),
        updated: at(1),
        previous_until: Some(at(2)),
        removed: true,
    };
    check("managed-key", &key, &[5]);
    let grant_key = StoredGrantKey {
        key: fake("grant-key"),
    };
    check("grant-key", &grant_key, &[]);
}
