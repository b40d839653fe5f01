//! Operator tokens: made, listed, rotated, revoked, expired.

use std::time::Duration;

use credbroker::proto;

use super::scene::{DAY, HOUR, Minted, Scene, alex, grant, refused, span, token_apart, token_of};
use crate::support::broker::{MEMBER, ORG};

const UNKNOWN: &str = "CREDENTIAL_UNKNOWN";

// req: D1 D2
#[tokio::test]
async fn a_members_token_is_the_member_with_the_roles_of_the_moment() {
    let scene = Scene::start().await;
    let (minted, alex) = alex(&scene).await;
    assert!(minted.id.starts_with("opr_") && minted.token.starts_with("cbo_"));
    let who = alex.who().await.unwrap();
    assert!(who.actor.starts_with("mbr_") && who.actor == who.member);
    assert_eq!(
        (who.family.as_str(), who.shown.as_str()),
        ("member", "operator-token")
    );
    assert_eq!(who.shown_id, minted.id);
    assert_eq!(who.expire_time, minted.shown.expire_time);
    assert_eq!(who.roles[0].role(), proto::Role::Member);
    assert_eq!(who.roles[0].org, who.org);

    // What the member may changes with the member's roles, on the connection that is open.
    assert_eq!(refused(alex.read_journal().await), "PERMISSION_DENIED");
    let auditor = grant(proto::Role::Auditor, "");
    scene.operator.give(ORG, MEMBER, auditor.clone()).await.unwrap();
    alex.read_journal().await.unwrap();
    assert_eq!(alex.who().await.unwrap().roles.len(), 2);
    scene.operator.take(ORG, MEMBER, auditor).await.unwrap();
    assert_eq!(refused(alex.read_journal().await), "PERMISSION_DENIED");

    // What it does is journaled as the member's, with the token.
    let own = alex.mint(token_of("", "")).await.unwrap();
    let records = scene.operator.records().await;
    let made = records
        .iter()
        .rfind(|record| record.action == "operator.create")
        .unwrap();
    assert_eq!(made.actor, who.actor);
    let subject = format!("{:?}", made.subject);
    assert!(
        subject.contains(&minted.id) && subject.contains(&own.id),
        "{subject}"
    );
}

// req: D1
#[tokio::test]
async fn lives_are_bounded_by_default_at_most_and_by_the_token_that_made_them() {
    let scene = Scene::start().await;
    let life = |minted: &Minted| {
        let (begin, end) = (
            minted.shown.create_time.unwrap(),
            minted.shown.expire_time.unwrap(),
        );
        u64::try_from(end.seconds - begin.seconds).unwrap()
    };
    let days = |days: u64| days * DAY.as_secs();
    let usual = scene.operator.mint(token_of(ORG, MEMBER)).await.unwrap();
    assert_eq!(life(&usual), days(90));
    let with = |ttl| proto::CreateOperatorTokenRequest {
        ttl: span(ttl),
        ..token_of(ORG, MEMBER)
    };
    assert_eq!(
        life(&scene.operator.mint(with(365 * DAY)).await.unwrap()),
        days(365)
    );
    for ttl in [365 * DAY + HOUR, HOUR / 120] {
        assert_eq!(refused(scene.operator.mint(with(ttl)).await), "INVALID_ARGUMENT");
    }
    // The first operator's ends too.
    assert_eq!(
        scene.operator.who().await.unwrap().expire_time.unwrap().seconds / 86_400,
        (crate::support::broker::now() + 365 * DAY).seconds() / 86_400
    );

    // A token of one's own ends no later than the one it was made with, and rotating does not help.
    let short = scene.operator.mint(with(DAY)).await.unwrap();
    let alex = scene.caller(&short).await;
    let own = alex
        .mint(proto::CreateOperatorTokenRequest {
            ttl: span(30 * DAY),
            ..token_of("", "")
        })
        .await
        .unwrap();
    assert_eq!(own.shown.expire_time, short.shown.expire_time);
    let rotated = alex.rotate("", None, Some(30 * DAY)).await.unwrap();
    assert_eq!(rotated.shown.expire_time, short.shown.expire_time);
    // An admin over it may give it more.
    let renewed = scene
        .operator
        .rotate(&short.id, None, Some(30 * DAY))
        .await
        .unwrap();
    assert!(renewed.shown.expire_time.unwrap().seconds > short.shown.expire_time.unwrap().seconds);

    scene.clock.advance(2 * DAY);
    let own = scene.caller(&own).await;
    assert_eq!(own.who().await.unwrap_err(), UNKNOWN);
    assert!(scene.caller(&renewed).await.who().await.is_ok());
    assert!(scene.caller(&usual).await.who().await.is_ok());
    scene.clock.advance(89 * DAY);
    assert_eq!(scene.caller(&usual).await.who().await.unwrap_err(), UNKNOWN);
}

// req: D1 K6
#[tokio::test]
async fn a_rotated_token_stays_good_for_the_overlap_and_makes_no_other() {
    let scene = Scene::start().await;
    let (first, alex) = alex(&scene).await;
    let second = alex.rotate("", None, None).await.unwrap();
    assert_eq!((&second.id, second.token == first.token), (&first.id, false));
    assert_eq!(second.shown.expire_time, first.shown.expire_time);
    assert!(second.shown.previous_expire_time.is_some());
    let new = scene.caller(&second).await;
    assert_eq!(new.who().await.unwrap().shown_id, first.id);
    // The old one still calls, says until when, and neither mints nor rotates: it must not outlive its end so.
    let who = alex.who().await.unwrap();
    assert_eq!(who.expire_time, second.shown.previous_expire_time);
    assert_eq!(refused(alex.rotate("", None, None).await), "TOKEN_REPLACED");
    assert_eq!(refused(alex.mint(token_of("", "")).await), "TOKEN_REPLACED");

    scene.clock.advance(HOUR + HOUR / 60);
    assert_eq!(alex.who().await.unwrap_err(), UNKNOWN);
    assert!(new.who().await.is_ok());

    // No overlap: the old one ends with the answer. A second rotation ends what the first left.
    let third = new.rotate("", Some(DAY), None).await.unwrap();
    let fourth = scene
        .caller(&third)
        .await
        .rotate("", Some(Duration::ZERO), None)
        .await
        .unwrap();
    for old in [&second, &third] {
        assert_eq!(scene.caller(old).await.who().await.unwrap_err(), UNKNOWN);
    }
    assert!(fourth.shown.previous_expire_time.is_none());
    let last = scene.caller(&fourth).await;
    assert!(last.who().await.is_ok());
    assert_eq!(
        refused(last.rotate("", Some(8 * DAY), None).await),
        "INVALID_ARGUMENT"
    );
}

// req: D1 D6
#[tokio::test]
async fn a_revoked_token_is_refused_at_once_and_its_siblings_are_not() {
    let scene = Scene::start().await;
    let (first, alex) = alex(&scene).await;
    let other = alex.mint(token_of("", "")).await.unwrap();
    let other_caller = scene.caller(&other).await;
    let revoked = other_caller.revoke_token(&first.id).await.unwrap();
    assert!(revoked.revoke_time.is_some());
    assert_eq!(alex.who().await.unwrap_err(), UNKNOWN);
    assert!(other_caller.who().await.is_ok());
    assert_eq!(other_caller.revoke_token(&first.id).await.unwrap(), revoked);
    assert_eq!(
        refused(other_caller.rotate(&first.id, None, None).await),
        "TOKEN_REVOKED"
    );

    let shown = other_caller.tokens("", "").await.unwrap();
    let ids: Vec<_> = shown.iter().map(|token| &token.id).collect();
    assert_eq!(ids, [&first.id, &other.id]);
    assert!(
        shown
            .iter()
            .all(|token| token.prefix == "cbo_" && token.member == shown[0].member)
    );
}

// req: D2
#[tokio::test]
async fn the_last_system_admin_stays_whoever_asks() {
    let scene = Scene::start().await;
    let me = scene.operator.who().await.unwrap().actor;
    let admin = grant(proto::Role::SystemAdmin, "");
    assert_eq!(
        refused(scene.operator.revoke_token(&me).await),
        "LAST_SYSTEM_ADMIN"
    );
    let strip = scene.operator.take_operator(&me, admin.clone()).await;
    assert_eq!(refused(strip), "LAST_SYSTEM_ADMIN");
    // One whose token has expired, or is a mere auditor's, is no other.
    let request = proto::CreateOperatorTokenRequest {
        ttl: span(HOUR),
        ..token_apart(&[(proto::Role::SystemAdmin, "")])
    };
    scene.operator.mint(request).await.unwrap();
    let auditor = token_apart(&[(proto::Role::Auditor, "")]);
    scene.operator.mint(auditor).await.unwrap();
    scene.clock.advance(2 * HOUR);
    assert_eq!(
        refused(scene.operator.revoke_token(&me).await),
        "LAST_SYSTEM_ADMIN"
    );
    let denied = scene.operator.records().await;
    assert!(
        denied
            .iter()
            .any(|record| record.action == "operator.revoke" && record.outcome == "denied")
    );

    // Two who revoke each other at the same moment: one of them stays.
    let second = scene
        .operator
        .mint(token_apart(&[(proto::Role::SystemAdmin, "")]))
        .await
        .unwrap();
    let second_caller = scene.caller(&second).await;
    let (one, two) = tokio::join!(
        scene.operator.revoke_token(&second.id),
        second_caller.revoke_token(&me)
    );
    assert_ne!(one.is_ok(), two.is_ok(), "{one:?} {two:?}");
    let left = [scene.operator.who().await, second_caller.who().await];
    assert_eq!(left.iter().filter(|who| who.is_ok()).count(), 1);
}

// req: D1 N6
#[tokio::test]
async fn a_members_tokens_are_bounded_and_dead_ones_make_room() {
    let scene = Scene::start().await;
    let mut last = None;
    for _ in 0..64 {
        last = Some(scene.operator.mint(token_of(ORG, MEMBER)).await.unwrap());
    }
    let more = scene.operator.mint(token_of(ORG, MEMBER)).await;
    assert_eq!(refused(more), "TOO_MANY_TOKENS");
    scene.operator.revoke_token(&last.unwrap().id).await.unwrap();
    scene.operator.mint(token_of(ORG, MEMBER)).await.unwrap();
    let more = scene.operator.mint(token_of(ORG, MEMBER)).await;
    assert_eq!(refused(more), "TOO_MANY_TOKENS");
    assert_eq!(scene.operator.tokens(ORG, MEMBER).await.unwrap().len(), 64);
    // Lists are paged, and tell nothing of tokens.
    let request = proto::ListOperatorTokensRequest {
        org: ORG.to_owned(),
        page_size: 10,
        ..Default::default()
    };
    let page = scene
        .operator
        .access()
        .list_operator_tokens(request)
        .await
        .unwrap();
    let page = page.into_inner();
    assert_eq!(page.operator_tokens.len(), 10);
    assert!(!page.next_page_token.is_empty());
}
