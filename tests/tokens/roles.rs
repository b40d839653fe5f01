//! Roles: given, taken, listed, and what each can and cannot do.

use credbroker::proto;

use super::scene::{Scene, grant, refused, token_apart, token_of};
use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::raw::told;

fn on(role: proto::Role, org: &str, project: &str) -> proto::RoleGrant {
    proto::RoleGrant {
        role: role as i32,
        org: org.to_owned(),
        project: project.to_owned(),
    }
}

fn make_key(org: &str) -> proto::CreateApiKeyRequest {
    proto::CreateApiKeyRequest {
        org: org.to_owned(),
        ..Default::default()
    }
}

// req: D2
#[tokio::test]
async fn each_role_can_what_it_is_for_and_no_more() {
    let scene = Scene::start().await;
    let boss = scene
        .member_with(ORG, "boss", grant(proto::Role::OrgAdmin, ""))
        .await;
    let plain = scene
        .member_with(ORG, "plain", grant(proto::Role::Member, ""))
        .await;
    let auditor = scene
        .member_with(ORG, "audit", grant(proto::Role::Auditor, ""))
        .await;
    let approver = scene
        .member_with(ORG, "ok", grant(proto::Role::Approver, ""))
        .await;

    // Makes things: the org admin.
    boss.access().create_api_key(make_key("")).await.unwrap();
    for caller in [&plain, &auditor, &approver] {
        assert_eq!(
            refused(caller.access().create_api_key(make_key("")).await),
            "PERMISSION_DENIED"
        );
    }
    // Makes orgs: none of them.
    for caller in [&boss, &plain, &auditor, &approver] {
        let request = proto::CreateOrgRequest {
            name: "new".to_owned(),
            ..Default::default()
        };
        let made = caller.directory().create_org(request).await;
        assert_eq!(refused(made), "PERMISSION_DENIED");
    }
    // Reads everything: org admin and auditor; the member sees itself.
    for caller in [&boss, &auditor] {
        caller.read_journal().await.unwrap();
        assert_eq!(caller.list_members("").await.unwrap().len(), 5);
        assert!(caller.tokens("", "").await.unwrap().len() >= 4);
    }
    assert_eq!(plain.list_members("").await.unwrap(), ["plain"]);
    for caller in [&plain, &approver] {
        assert_eq!(refused(caller.read_journal().await), "PERMISSION_DENIED");
        assert_eq!(caller.tokens("", "").await.unwrap().len(), 1);
    }
    // Revokes others' tokens: the org admin.
    let token = plain.mint(token_of("", "")).await.unwrap();
    assert_eq!(refused(auditor.revoke_token(&token.id).await), "NOT_FOUND");
    boss.revoke_token(&token.id).await.unwrap();
}

// req: D2
#[tokio::test]
async fn a_role_bites_from_the_next_call_and_is_journaled() {
    let scene = Scene::start().await;
    let admin = grant(proto::Role::OrgAdmin, "");
    let boss = scene.member_with(ORG, "boss", admin.clone()).await;
    let held = boss
        .give("", MEMBER, grant(proto::Role::Auditor, PROJECT))
        .await
        .unwrap();
    assert_eq!(held.name, MEMBER);
    let roles: Vec<_> = held
        .roles
        .iter()
        .map(|role| (role.role(), role.project.is_empty()))
        .collect();
    assert_eq!(
        roles,
        [(proto::Role::Member, true), (proto::Role::Auditor, false)]
    );
    // Again, and taking what is not there: nothing changes.
    let done = scene.operator.records().await.len();
    let again = boss
        .give("", MEMBER, grant(proto::Role::Auditor, PROJECT))
        .await
        .unwrap();
    assert_eq!(again, held);
    let none = boss
        .take("", MEMBER, grant(proto::Role::Approver, ""))
        .await
        .unwrap();
    assert_eq!(none, held);
    assert_eq!(scene.operator.records().await.len(), done);

    scene.operator.take(ORG, "boss", admin).await.unwrap();
    let after = boss.give("", MEMBER, grant(proto::Role::Auditor, "")).await;
    assert_eq!(refused(after), "PERMISSION_DENIED");
    assert_eq!(refused(boss.tokens("", "").await), "PERMISSION_DENIED");
    let records = scene.operator.records().await;
    let taken = records
        .iter()
        .rfind(|record| record.action == "role.revoke")
        .unwrap();
    assert!(
        format!("{:?}", taken.subject).contains("org-admin@org_"),
        "{taken:?}"
    );
}

// req: D2
#[tokio::test]
async fn operators_who_are_no_members_hold_roles_in_orgs_and_see_those_only() {
    let scene = Scene::start().await;
    scene.operator.make_org("other").await;
    let minted = scene
        .operator
        .mint(token_apart(&[(proto::Role::OrgAdmin, ORG)]))
        .await
        .unwrap();
    let helper = scene.caller(&minted).await;
    assert_eq!(helper.who().await.unwrap().family, "operator");
    assert_eq!(helper.list_members(ORG).await.unwrap(), [MEMBER]);
    let hidden = helper.list_members("other").await.unwrap_err();
    assert_eq!(
        told(&hidden),
        told(&helper.list_members("nowhere").await.unwrap_err())
    );
    // It makes tokens for the org's members, and sees its own.
    helper.mint(token_of(ORG, MEMBER)).await.unwrap();
    let own: Vec<_> = helper.tokens("", "").await.unwrap();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0].id, minted.id);

    let auditor = on(proto::Role::Auditor, "other", "");
    scene
        .operator
        .give_operator(&minted.id, auditor.clone())
        .await
        .unwrap();
    assert_eq!(helper.list_members("other").await.unwrap(), [MEMBER]);
    assert_eq!(refused(helper.mint(token_of("other", MEMBER)).await), "NOT_FOUND");
    scene.operator.take_operator(&minted.id, auditor).await.unwrap();
    assert_eq!(refused(helper.list_members("other").await), "NOT_FOUND");

    // Scopes that a role cannot have, and holders that there are not.
    for role in [
        on(proto::Role::SystemAdmin, ORG, ""),
        on(proto::Role::OrgAdmin, "", ""),
        on(proto::Role::OrgAdmin, ORG, PROJECT),
        on(proto::Role::Member, "", ""),
        on(proto::Role::Auditor, "", PROJECT),
        on(proto::Role::Unspecified, ORG, ""),
    ] {
        let given = scene.operator.give_operator(&minted.id, role.clone()).await;
        assert_eq!(refused(given), "INVALID_ARGUMENT", "{role:?}");
    }
    let nobody = format!("opr_{}", "0".repeat(32));
    let given = scene
        .operator
        .give_operator(&nobody, on(proto::Role::Auditor, "", ""))
        .await;
    assert_eq!(refused(given), "NOT_FOUND");
}

// req: D2 N6
#[tokio::test]
async fn lists_of_roles_are_paged_and_roles_are_bounded() {
    let scene = Scene::start().await;
    for number in 0..12 {
        scene.operator.make_member(ORG, &format!("m{number}")).await;
    }
    let mut request = proto::ListRolesRequest {
        org: ORG.to_owned(),
        page_size: 5,
        ..Default::default()
    };
    let mut names = Vec::new();
    loop {
        let page = scene
            .operator
            .access()
            .list_roles(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(page.holders.len() <= 5);
        names.extend(page.holders.into_iter().map(|holder| holder.name));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(names.len(), 13);
    let operators = proto::ListRolesRequest::default();
    let operators = scene
        .operator
        .access()
        .list_roles(operators)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(operators.holders.len(), 1);
    assert!(operators.holders[0].operator.starts_with("opr_"));

    // As many roles as fit.
    let mut given = 0;
    let full = loop {
        let project = format!("p{given}");
        let request = proto::CreateProjectRequest {
            org: ORG.to_owned(),
            name: project.clone(),
            ..Default::default()
        };
        scene.operator.directory().create_project(request).await.unwrap();
        match scene
            .operator
            .give(ORG, MEMBER, grant(proto::Role::Auditor, &project))
            .await
        {
            Ok(holder) => given = holder.roles.len(),
            Err(status) => break status,
        }
        assert!(given < 100, "no end");
    };
    assert_eq!(crate::support::reason(&full), "TOO_MANY_ROLES");
    assert_eq!(given, 64);
}
