//! The rules of roles against a second evaluator, written for clarity: what a caller may touch, and what it may
//! give away.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use credbroker::domain::id::{Id, MemberId, OrgId, ProjectId};
use credbroker::domain::role::{Extent, Grant, Reach, Role, Rule, Scope, Standing};
use proptest::prelude::*;

const ORGS: u8 = 3;
const PROJECTS: u8 = 3;

fn org(number: u8) -> OrgId {
    Id::from_bytes([number; 16])
}

fn project(org: u8, number: u8) -> ProjectId {
    Id::from_bytes([10 * org + number + 100; 16])
}

fn member(number: u8) -> MemberId {
    Id::from_bytes([200 + number; 16])
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        Just(Scope::Broker),
        (0..ORGS).prop_map(|it| Scope::Org(org(it))),
        (0..ORGS, 0..PROJECTS).prop_map(|(it, number)| Scope::Project(org(it), project(it, number))),
    ]
}

fn grant() -> impl Strategy<Value = Grant> {
    let fitting = |scope| Role::ALL.into_iter().filter(move |role| role.fits(scope));
    scope().prop_flat_map(move |scope| {
        let roles: Vec<_> = fitting(scope).collect();
        prop::sample::select(roles).prop_map(move |role| Grant { role, scope })
    })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let extent = prop::sample::select(vec![Extent::All, Extent::Own]);
    prop::collection::vec((prop::sample::select(&Role::ALL[1..]), extent), 0..4)
}

/// A thing in an org: of a project, of a member, of both or of neither.
#[derive(Clone, Copy, Debug)]
struct Thing {
    org: u8,
    project: Option<u8>,
    member: Option<u8>,
}

fn thing() -> impl Strategy<Value = Thing> {
    let project = prop::option::of(0..PROJECTS);
    let member = prop::option::of(0..2u8);
    (0..ORGS, project, member).prop_map(|(org, project, member)| Thing { org, project, member })
}

/// Whether somebody with these grants, who is member 0 of org 0, may touch the thing in a call with these rules.
fn may_touch(grants: &[Grant], rules: &[Rule], thing: Thing) -> bool {
    let mine = thing.org == 0 && thing.member == Some(0);
    grants.iter().any(|grant| {
        let contains = match grant.scope {
            Scope::Broker => true,
            Scope::Org(id) => id == org(thing.org),
            Scope::Project(_, id) => thing
                .project
                .is_some_and(|number| id == project(thing.org, number)),
        };
        let allows = rules
            .iter()
            .any(|(role, extent)| *role == grant.role && (*extent == Extent::All || mine));
        contains && (grant.role == Role::SystemAdmin || allows)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    // req: D2
    #[test]
    fn reach_is_what_the_grants_say(
        grants in prop::collection::vec(grant(), 0..5),
        rules in rules(),
        thing in thing(),
    ) {
        let me = (thing.org == 0).then(|| member(0));
        let touched = Reach::of(&grants, &rules).is_some_and(|reach| match reach.within(org(thing.org), me) {
            Standing::Within(within) => within.admits(
                thing.project.map(|number| project(thing.org, number)),
                thing.member.map(member),
            ),
            Standing::Seen | Standing::Outside => false,
        });
        prop_assert_eq!(touched, may_touch(&grants, &rules, thing));
    }

    // An org that a caller has no role in is not to be told from one that does not exist.
    // req: D2
    #[test]
    fn an_org_without_a_grant_is_outside(grants in prop::collection::vec(grant(), 0..5), rules in rules()) {
        let Some(reach) = Reach::of(&grants, &rules) else { return Ok(()) };
        for number in 0..ORGS {
            let known = grants.iter().any(|grant| grant.scope.org().is_none_or(|it| it == org(number)));
            let outside = reach.within(org(number), None) == Standing::Outside;
            prop_assert_eq!(outside, !known);
            if let Some(orgs) = reach.orgs() {
                prop_assert!(known || !orgs.contains(&org(number)));
            }
        }
    }

    // Whatever is given away reaches nothing, in any call, that the giver does not reach itself; approving is the
    // one thing an admin gives without having it.
    // req: D2
    #[test]
    fn nobody_gives_what_reaches_further(giver in grant(), given in grant(), rules in rules(), thing in thing()) {
        if !giver.may_give(given) {
            return Ok(());
        }
        let admins: Vec<Rule> = vec![(Role::OrgAdmin, Extent::All)];
        let rules: Vec<Rule> = rules.into_iter().chain(admins).collect();
        if may_touch(&[given], &rules, thing) {
            prop_assert!(may_touch(&[giver], &rules, thing));
        }
    }
}
