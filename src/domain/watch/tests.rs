//! Who hears of what, by the topics alone.

use proptest::prelude::*;

use super::*;
use crate::domain::actor::{AgentActor, Shown};
use crate::domain::id::{Id, Kind};
use crate::domain::mode::{AuthMode, CredentialKind};
use crate::domain::oidc::Link;
use crate::domain::role::{Extent, Grant, Reach, Role, Rule, Scope};
use crate::domain::rotation::{Death, Fence, Incarnation, Rotation, Sent};

fn id<K: Kind>(byte: u8) -> Id<K> {
    Id::from_bytes([byte; 16])
}

fn hears(topics: &[Topic], notice: &Notice) -> bool {
    notice.topics.iter().any(|topic| topics.contains(topic))
}

fn agent(byte: u8, org: u8, environment: u8) -> Caller {
    let actor = AgentActor {
        id: id(byte),
        org: id(org),
        environment: id(environment),
    };
    Caller::new(
        Actor::Agent(actor),
        Shown::RuntimeKey(id(byte)),
        None,
        Reach::org(id(org)),
    )
}

fn member(org: u8, byte: u8, grants: &[Grant]) -> Option<Caller> {
    const RULES: &[Rule] = &[(Role::OrgAdmin, Extent::All), (Role::Member, Extent::Own)];
    let actor = Actor::Member {
        id: id(byte),
        org: id(org),
    };
    Some(Caller::new(
        actor,
        Shown::IdToken(Link::of(id(org), "https://id.example:one")),
        None,
        Reach::of(grants, RULES)?,
    ))
}

fn credential(org: u8, owner: Owner, generation: u64, phase: Phase) -> Credential {
    Credential {
        id: id(50),
        org: id(org),
        owner,
        provider: "demo".to_owned(),
        kind: CredentialKind::OAuthGrant,
        connector: "demo".to_owned(),
        rotation: Rotation {
            generation,
            fence: Fence(1),
            failures: 0,
            phase,
        },
        expires: None,
        created: Time::from_seconds(0),
        refreshed: Time::from_seconds(0),
        hint: String::new(),
        scopes: Vec::new(),
        token_type: "Bearer".to_owned(),
        account: Vec::new(),
        executor: None,
        region: None,
    }
}

fn lease(credential: u8) -> Lease {
    Lease {
        id: id(70),
        org: id(1),
        holder: Holder::Agent(id(60)),
        task: None,
        member: id(9),
        credential: Some(id(credential)),
        mode: AuthMode::OAuth,
        provider: "demo".to_owned(),
        model: String::new(),
        permit_position: 0,
        created: Time::from_seconds(0),
        expires: Time::from_seconds(100),
        ended: None,
        handed: None,
        approval: None,
        project: None,
        rejections: None,
    }
}

fn rotated(org: u8, owner: Owner) -> Notice {
    let (before, after) = (
        credential(org, owner, 1, Phase::rested()),
        credential(org, owner, 2, Phase::rested()),
    );
    let mut told = Notice::credential(Some(&before), &after);
    assert_eq!(told.len(), 1, "{told:?}");
    told.remove(0)
}

#[test]
fn an_agent_hears_of_itself_and_of_what_it_holds_only() {
    let me = listens_to(&agent(60, 1, 30), None);
    let ended = |org: u8, ended| Notice::ended(id(org), ended, Reason::CredentialUnknown, false);
    for (own, notice) in [
        (true, ended(1, Ended::Org)),
        (false, ended(2, Ended::Org)),
        (true, ended(1, Ended::Environment(id(30), id(20)))),
        (false, ended(1, Ended::Environment(id(31), id(20)))),
        (true, ended(1, Ended::Agent(id(60), Some(id(20))))),
        (false, ended(1, Ended::Agent(id(61), Some(id(20))))),
        (false, ended(1, Ended::ApiKey(id(40)))),
        (false, ended(1, Ended::Member(id(9)))),
        (false, ended(1, Ended::Task(id(80), id(20), id(9)))),
        (true, ended(1, Ended::Lease(id(70), Holder::Agent(id(60)), id(9)))),
        (
            false,
            ended(1, Ended::Lease(id(70), Holder::Agent(id(61)), id(9))),
        ),
        (false, rotated(1, Owner::Org)),
        (false, rotated(1, Owner::Member(id(9)))),
        (true, Notice::policy(None, 2)),
        (true, Notice::policy(Some(id(1)), 2)),
        (false, Notice::policy(Some(id(2)), 2)),
        (
            true,
            Notice::approval(id(1), Some(id(20)), Some(id(9)), [60; 16], id(90), true),
        ),
        (
            false,
            Notice::approval(id(1), Some(id(20)), Some(id(9)), [61; 16], id(90), true),
        ),
    ] {
        assert_eq!(hears(&me, &notice), own, "{notice:?}");
    }
    // A lease brings its credential, and nobody else's.
    let held = Interest::lease(&lease(50)).unwrap();
    assert!(hears(&[held.topic], &rotated(1, Owner::Org)));
    assert!(!hears(
        &[Interest::lease(&lease(51)).unwrap().topic],
        &rotated(1, Owner::Org)
    ));
    assert!(held.holds(Time::from_seconds(99)) && !held.holds(Time::from_seconds(100)));
}

#[test]
fn health_is_told_when_it_changes_and_refreshing_is_no_change() {
    let sent = |unanswered| Sent {
        first: Time::from_seconds(0),
        unanswered,
    };
    let claimed = |unanswered| Phase::Claimed {
        by: Incarnation([0; 16]),
        deadline: Time::from_seconds(9),
        sent: sent(unanswered),
    };
    let ambiguous = Phase::Ambiguous {
        sent: sent(1),
        not_before: Time::from_seconds(2),
        message: String::new(),
    };
    let dead = Phase::Dead {
        since: Time::from_seconds(0),
        cause: Death::Refused,
        message: String::new(),
    };
    let change = |before: &Phase, after: &Phase, generation| {
        let [before, after] =
            [(before, 1), (after, generation)].map(|(phase, g)| credential(1, Owner::Org, g, phase.clone()));
        Notice::credential(Some(&before), &after)
            .into_iter()
            .map(|notice| match notice.event {
                Event::CredentialRotated { generation, .. } => generation.to_string(),
                Event::CredentialHealthChanged { health, .. } => health.name().to_owned(),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    let live = Phase::rested();
    assert_eq!(change(&claimed(0), &live, 2), ["2"]);
    assert_eq!(change(&claimed(0), &live, 1), [""; 0], "not processed");
    assert_eq!(change(&claimed(0), &ambiguous, 1), ["ambiguous"]);
    assert_eq!(change(&claimed(1), &ambiguous, 1), [""; 0], "still");
    assert_eq!(change(&claimed(1), &live, 2), ["2", "ok"]);
    assert_eq!(change(&claimed(1), &dead, 1), ["reauth-required"]);
    assert_eq!(change(&dead, &live, 2), ["2", "ok"]);
}

/// Whether the agents of member 9's tasks and those of org 1 hear of it, without a lease on the credential.
fn heard_without_a_lease(before: Option<&Credential>, after: &Credential) -> (bool, bool) {
    let notices = Notice::credential(before, after);
    let hears = |topics: &[Topic]| notices.iter().any(|notice| hears(topics, notice));
    let elsewhere = [listens_to(&agent(60, 2, 30), None), vec![Topic::Member(id(8))]];
    assert!(elsewhere.iter().all(|topics| !hears(topics)));
    (
        hears(&[Topic::Member(id(9))]),
        hears(&listens_to(&agent(60, 1, 30), None)),
    )
}

#[test]
fn that_a_credential_can_be_had_is_told_to_who_was_refused_for_want_of_it() {
    let dead = Phase::Dead {
        since: Time::from_seconds(1),
        cause: Death::Refused,
        message: String::new(),
    };
    let live = Phase::rested;
    for (owner, theirs) in [(Owner::Member(id(9)), (true, false)), (Owner::Org, (false, true))] {
        let new = credential(1, owner, 1, live());
        let broken = credential(1, owner, 1, dead.clone());
        let healed = credential(1, owner, 2, live());
        assert_eq!(heard_without_a_lease(None, &new), theirs, "new");
        assert_eq!(
            heard_without_a_lease(Some(&broken), &healed),
            theirs,
            "signed in again"
        );
        // What is no news to those without a lease.
        assert_eq!(
            heard_without_a_lease(Some(&new), &healed),
            (false, false),
            "rotated"
        );
        assert_eq!(
            heard_without_a_lease(Some(&new), &broken),
            (false, false),
            "broken"
        );
    }
}

#[test]
fn an_operator_hears_everything_and_of_one_org_where_it_asks_for_one() {
    let operator = Caller::local_operator(id(7));
    let (all, one) = (listens_to(&operator, None), listens_to(&operator, Some(id(1))));
    for org in [1, 2] {
        for notice in [
            rotated(org, Owner::Org),
            Notice::policy(Some(id(org)), 3),
            Notice::ended(id(org), Ended::Org, Reason::PermissionDenied, true),
        ] {
            assert!(hears(&all, &notice), "{notice:?}");
            // That an org as such ended is told to who follows everything; who follows the org has it too.
            assert_eq!(hears(&one, &notice), org == 1, "{notice:?}");
        }
    }
}

prop_compose! {
    fn grants()(held in prop::collection::vec((0..2_usize, 1..3_u8, prop::option::of(1..4_u8)), 0..4)) -> Vec<Grant> {
        held.into_iter()
            .map(|(role, org, project)| Grant {
                role: [Role::OrgAdmin, Role::Member][role],
                scope: project.map_or(Scope::Org(id(org)), |project| Scope::Project(id(org), id(project))),
            })
            .collect()
    }
}

proptest! {
    /// Topics say the same as the rule by which calls are let through.
    #[test]
    fn topics_reach_as_far_as_calls_do(
        grants in grants(),
        me in 1..3_u8,
        org in 1..3_u8,
        project in prop::option::of(1..4_u8),
        member_of in prop::option::of(1..3_u8),
        only in prop::option::of(1..3_u8),
    ) {
        let Some(caller) = member(1, me, &grants) else { return Ok(()) };
        let topics = listens_to(&caller, only.map(id));
        let notice = Notice { event: Event::PolicyChanged { version: 1 }, topics: reached(id(org), project.map(id), member_of.map(id)) };
        let within = caller.reach().within(id(org), caller.member_of(id(org)));
        let admits = matches!(within, Standing::Within(within) if within.admits(project.map(id), member_of.map(id)));
        // A member is of one org: the ids of members, like all ids, are unique over orgs; here 1 and 2 are not.
        let mine = org == 1 || member_of != Some(me);
        // So are those of projects.
        let of_org = |grant: &Grant| grant.scope.org() == Some(id(org));
        let clear = project.is_none() || grants.iter().all(of_org);
        if mine && clear {
            prop_assert_eq!(hears(&topics, &notice), admits && only.is_none_or(|only| only == org));
        }
    }
}
