//! What another does amid a call, or a disk before a start: nobody is left untold, and nothing is handed out or kept
//! that is no longer good.

use std::sync::Arc;
use std::time::Duration;

use credbroker::domain::credential::Credential;
use credbroker::domain::id::{CredentialId, Id};
use credbroker::domain::journal::{Action, Phase as Part, Position, Record};
use credbroker::domain::lineage::{Fingerprint, Lineage, Link, Origin};
use credbroker::domain::reason::Reason;
use credbroker::domain::rotation::{Death, Phase};
use credbroker::domain::secret::Secret;
use credbroker::domain::watch::Event;
use credbroker::journal::OpenEffect;
use credbroker::service::{ImportGrant, OwnerRef, Watch, WatchInput, What};
use credbroker::store::model::Pointer;
use credbroker::store::record::Changes;
use credbroker::store::{Batch, Kv as _, Write, keys};

use crate::bench::{Bench, ORG, granted, live_operator, operator};

async fn watch(bench: &Bench) -> Watch {
    let watcher = live_operator(&bench.broker, "watcher").await;
    let input = WatchInput { cursor: "", org: ORG };
    let mut watch = bench.broker.watch(&watcher, input).await.ok().unwrap();
    assert!(matches!(watch.next().await.unwrap().what, What::Heartbeat(_)));
    watch
}

async fn event(watch: &mut Watch) -> Event {
    match watch.next().await.unwrap().what {
        What::Event(event) => event,
        other => panic!("{other:?}"),
    }
}

/// Runs `call` until its commit that puts a key with `part` in it, drops it there, and lets the commit go on.
async fn dropped<T: Send + 'static>(
    bench: &Bench,
    part: &str,
    call: impl Future<Output = T> + Send + 'static,
) {
    let (is_there, go_on) = bench.hold(part);
    let calling = tokio::spawn(call);
    is_there.await.unwrap();
    calling.abort();
    assert!(calling.await.err().unwrap().is_cancelled());
    go_on.send(()).unwrap();
}

/// Whoever waits for a member to sign in again waits on the watch, and the member's browser may be closed at once.
// req: N4 N8
#[tokio::test]
async fn a_sign_in_and_a_removal_are_told_though_their_callers_go_away() {
    let bench = Arc::new(Bench::start(granted).await);
    let (_, id) = bench.import().await;
    let mut watch = watch(&bench).await;
    let again = {
        let bench = Arc::clone(&bench);
        async move { bench.import().await }
    };
    dropped(&bench, "credential-secret/", again).await;
    let rotated = Event::CredentialRotated {
        credential: id,
        generation: 2,
    };
    assert_eq!(event(&mut watch).await, rotated);

    let removal = {
        let broker = Arc::clone(&bench.broker);
        async move {
            let (caller, id) = (operator(), id.to_string());
            broker.remove_credential(&caller, ORG, &id).await
        }
    };
    dropped(&bench, "effect/", removal).await;
    assert!(matches!(event(&mut watch).await, Event::AccessEnded { .. }));
}

/// The record that an open effect is read off is damaged: that effect is settled as failed, and all else goes on.
// req: N6
#[tokio::test]
async fn a_damaged_record_does_not_keep_the_broker_from_starting() {
    let bench = Bench::start(granted).await;
    let (org, _) = bench.import().await;
    let damaged: CredentialId = Id::from_bytes([5; 16]);
    let write = Write::Put(keys::credential(org, damaged).into_bytes(), vec![7; 64]);
    let batch = Batch {
        guards: Vec::new(),
        writes: vec![write],
    };
    let _applied = bench.store.kv.commit(batch).await.unwrap();
    let begin = Record::new(Action::Refresh, "broker", Some(org))
        .about("credential", damaged)
        .about("generation", 1)
        .about("fence", 1)
        .phase(Part::Begin);
    bench.append(&begin).await;
    let open = bench.open().await.into_iter().map(|record| OpenEffect {
        position: record.position,
        time: record.time,
        entry: record.entry,
    });
    let open: Vec<_> = open.collect();
    assert_eq!(open.len(), 1);
    let position: Position = open[0].position;
    bench.broker.recover(open).await.unwrap();
    let settled = bench.journal().await.pop().unwrap().entry;
    assert_eq!(settled.phase, Part::Finish(position));
    assert_eq!(
        (settled.verdict.name(), settled.reason.as_str()),
        ("failed", "INTERNAL")
    );
    assert!(bench.resolve().await.is_ok());
}

/// One damaged credential is missing from the metrics, and not those that are read with it.
// req: N9
#[tokio::test]
async fn a_damaged_credential_hides_no_others_from_the_counts() {
    let bench = Bench::start(granted).await;
    let (org, _) = bench.import().await;
    bench
        .set_key(OwnerRef::Org, "demo", "a-key-of-the-org-0123456789")
        .await;
    for id in [[0; 16], [5; 16], [255; 16]] {
        let damaged: CredentialId = Id::from_bytes(id);
        let write = Write::Put(keys::credential(org, damaged).into_bytes(), vec![7; 64]);
        let batch = Batch {
            guards: Vec::new(),
            writes: vec![write],
        };
        let _applied = bench.store.kv.commit(batch).await.unwrap();
    }
    bench.broker.count_credentials().await.unwrap();
    let text = bench.broker.metrics_text().await;
    let rows = text
        .lines()
        .filter(|line| line.starts_with("credbroker_credentials{") && line.ends_with(" 1"));
    assert_eq!(rows.count(), 2, "{text}");
}

/// The provider refuses a grant for good while its token is on the way to a caller.
// req: B6
#[tokio::test]
async fn what_died_meanwhile_is_not_handed_out() {
    let bench = Arc::new(Bench::start(granted).await);
    let at = bench.import().await;
    let (is_there, go_on) = bench.hold("lease-for/");
    let resolving = tokio::spawn({
        let bench = Arc::clone(&bench);
        async move { bench.resolve().await.map(|_| ()) }
    });
    is_there.await.unwrap();
    let mut dead = Credential::clone(&*bench.credential(at).await);
    dead.rotation.phase = Phase::Dead {
        since: crate::bench::START,
        cause: Death::Withdrawn,
        message: "signed out".to_owned(),
    };
    let changes = Changes::new().put(&keys::credential(at.0, at.1), &dead);
    let _applied = bench.records.commit(changes).await.unwrap();
    go_on.send(()).unwrap();
    let refused = resolving.await.unwrap().unwrap_err();
    assert_eq!(refused.reason, Reason::ReauthRequired);
}

/// A token that somebody brings may be the rest of a longer life: it is not taken for all that the provider gives.
// req: B6
#[tokio::test]
async fn a_token_that_is_brought_again_lasts_as_long_as_was_asked_for() {
    let bench = Bench::start(granted).await;
    let at = bench.import().await;
    bench.resolve().await.ok().unwrap();
    assert_eq!(
        (bench.credential(at).await.rotation.generation, bench.calls()),
        (2, 1)
    );
    let import = ImportGrant {
        org: ORG,
        owner: OwnerRef::Member("alex"),
        connector: "demo",
        refresh: Secret::from("fake-rt-brought".to_owned()),
        access: Some(Secret::from("fake-at-brought".to_owned())),
        expires: Some(crate::bench::START + Duration::from_secs(30)),
        scopes: Vec::new(),
        account: Vec::new(),
    };
    bench.broker.import_grant(&operator(), import).await.unwrap();
    // A minute is asked for.
    let resolved = bench.resolve().await.ok().unwrap();
    let handed = Arc::clone(resolved.vended.material.credential().unwrap());
    assert_eq!((handed.rotation.generation, bench.calls()), (4, 2));
}

/// An answer of the provider comes in amid a member's removal: nothing of the grant stays behind.
// req: D6
#[tokio::test]
async fn a_removal_leaves_nothing_of_a_grant_that_was_refreshed_meanwhile() {
    let bench = Arc::new(Bench::start(granted).await);
    let (org, id) = bench.import_for("bo").await;
    // The first of its effects marks the member, and takes nothing away yet.
    let (is_there, go_on) = bench.hold("leaving/");
    let removing = tokio::spawn({
        let broker = Arc::clone(&bench.broker);
        async move { broker.remove_member(&operator(), ORG, "bo").await.map(|_| ()) }
    });
    is_there.await.unwrap();
    let (is_next, go_on_then) = bench.hold("effect/");
    go_on.send(()).unwrap();
    is_next.await.unwrap();

    let before = bench.credential((org, id)).await;
    let key = keys::credential_lineage(org, id);
    let lineage = bench.records.get::<Lineage>(&key).await.unwrap().unwrap().value;
    let mut after = Credential::clone(&before);
    after.rotation.generation += 1;
    let refresh = Fingerprint([9; 16]);
    let link = Link {
        generation: after.rotation.generation,
        at: after.refreshed,
        origin: Origin::Refreshed,
        refresh: Some(refresh),
        access: None,
        fence: None,
    };
    let pointer = Pointer {
        id: (*id.as_bytes()).into(),
    };
    let changes = Changes::new()
        .put(&keys::credential(org, id), &after)
        .put(&key, &lineage.with(link, None))
        .put(&keys::grant(org, refresh), &pointer);
    let _applied = bench.records.commit(changes).await.unwrap();
    go_on_then.send(()).unwrap();
    removing.await.unwrap().unwrap();
    let left = bench.records.get::<Pointer>(&keys::grant(org, refresh)).await;
    assert!(left.unwrap().is_none(), "it would point at nothing for good");
    assert!(
        bench
            .records
            .get::<Credential>(&keys::credential(org, id))
            .await
            .unwrap()
            .is_none()
    );
}
