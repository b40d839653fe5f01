//! Orgs, what belongs to them, and the actors that are not agents.

use credbroker::domain::agent::KeyFingerprint;
use credbroker::domain::approval::Posture;
use credbroker::domain::directory::{
    ApiKey, Environment, Group, Member, MemberOf, Operator, Org, PreviousToken, Project,
};
use credbroker::domain::role::{Grant, Role, Scope};

use crate::bytes::{check, older};
use crate::{at, hash, id};

#[test]
fn the_directory() {
    let operator = Operator {
        id: id(1),
        token: hash(2),
        display_name: "First operator".into(),
        created: at(3),
        expires: Some(at(4)),
        revoked: Some(at(5)),
        member: None,
        grants: None,
        previous: None,
    };
    older("operator", &operator);
    let previous = Some(PreviousToken {
        token: hash(6),
        until: at(7),
    });
    let scopes = [
        (Role::SystemAdmin, Scope::Broker),
        (Role::OrgAdmin, Scope::Org(id(8))),
        (Role::Member, Scope::Project(id(8), id(9))),
        (Role::Auditor, Scope::Broker),
        (Role::Approver, Scope::Org(id(8))),
    ];
    let grants: Vec<_> = scopes.map(|(role, scope)| Grant { role, scope }).to_vec();
    let operator = Operator {
        member: Some(MemberOf {
            org: id(8),
            member: id(9),
        }),
        grants: Some(grants.clone()),
        previous,
        ..operator
    };
    older("operator-2", &operator);
    let mut all_roles = grants.clone();
    all_roles.push(Grant {
        role: Role::ModelProxy,
        scope: Scope::Broker,
    });
    let operator = Operator {
        grants: Some(all_roles),
        ..operator
    };
    check("operator-3", &operator, &[4, 5, 6, 7, 8]);
    let org = Org {
        id: id(1),
        name: "acme".into(),
        display_name: "Acme".into(),
        created: at(2),
    };
    check("org", &org, &[]);
    let project = Project {
        id: id(1),
        org: id(2),
        name: "web".into(),
        display_name: "Web".into(),
        created: at(3),
    };
    check("project", &project, &[]);
    let environment = Environment {
        id: id(1),
        org: id(2),
        project: id(3),
        name: "ci".into(),
        display_name: "CI".into(),
        created: at(4),
        approval: None,
    };
    older("environment", &environment);
    let environment = Environment {
        approval: Some(Posture::Required),
        ..environment
    };
    check("environment-2", &environment, &[6]);
    let member = Member {
        id: id(1),
        org: id(2),
        name: "alex".into(),
        display_name: "Alex".into(),
        identities: vec!["github:alex".into(), "linear:alex@example.org".into()],
        created: at(3),
        grants: None,
        removed: None,
    };
    older("member", &member);
    let member = Member {
        grants: Some(grants),
        removed: Some(at(4)),
        ..member
    };
    check("member-2", &member, &[6, 7]);
    let api_key = ApiKey {
        id: id(1),
        org: id(2),
        token: hash(3),
        display_name: "CI".into(),
        created: at(4),
        expires: at(5),
        revoked: Some(at(6)),
        projects: None,
        groups: None,
        certificate: None,
        previous: None,
        previous_certificate: None,
    };
    older("api-key", &api_key);
    let api_key = ApiKey {
        projects: Some(vec![id(7)]),
        groups: Some(Group::ALL[..10].to_vec()),
        certificate: Some(KeyFingerprint([8; 32])),
        previous,
        ..api_key
    };
    older("api-key-2", &api_key);
    let api_key = ApiKey {
        previous_certificate: Some(KeyFingerprint([9; 32])),
        ..api_key
    };
    older("api-key-3", &api_key);
    let api_key = ApiKey {
        groups: Some(Group::ALL[..11].to_vec()),
        ..api_key
    };
    older("api-key-4", &api_key);
    let api_key = ApiKey {
        groups: Some(Group::ALL.to_vec()),
        ..api_key
    };
    check("api-key-5", &api_key, &[6, 7, 8, 9, 10, 11]);
}
