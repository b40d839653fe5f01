//! Every call by every kind of caller, over the port, against the policy in words.

use std::collections::{BTreeMap, BTreeSet};

use credbroker::domain::grant_token::{GrantClaims, GrantKey, KEY_LENGTH};
use credbroker::domain::id::{ApprovalId, Id};
use credbroker::domain::secret::{Exposure, Secret};
use credbroker::domain::time::Time;
use credbroker::domain::token::{ApprovalFamily, Token};
use credbroker::proto;
use credbroker::rpc::ACCESS;

use crate::support::broker::{MEMBER, ORG};
use crate::support::raw::methods;
use crate::support::{Caller, TestBroker, reason};

const POLICY: &str = include_str!("policy.txt");

/// The words after each call.
fn policy() -> BTreeMap<String, BTreeSet<&'static str>> {
    let lines = POLICY
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let mut policy = BTreeMap::new();
    for line in lines {
        let (call, who) = line.split_once(' ').unwrap();
        let words: BTreeSet<_> = who.split_whitespace().collect();
        assert!(
            policy.insert(format!("/credbroker.v1.{call}"), words).is_none(),
            "{call} twice"
        );
    }
    policy
}

// req: D1
#[test]
fn every_call_has_one_row_and_every_row_is_a_call() {
    let calls: BTreeSet<String> = methods().into_iter().map(|(path, _)| path).collect();
    assert!(calls.len() > 80, "the descriptors were not read");
    let ours = |path: &&str| !path.starts_with("/grpc.");
    let rows: Vec<&str> = ACCESS.iter().map(|row| row.path).filter(ours).collect();
    let set: BTreeSet<String> = rows.iter().map(|path| (*path).to_owned()).collect();
    assert_eq!(set, calls);
    assert_eq!(set.len(), rows.len(), "a call has two rows");
    assert_eq!(policy().into_keys().collect::<BTreeSet<_>>(), calls);
    // Health and reflection tell nothing about anybody, and are the only ones beside ours.
    for row in ACCESS.iter().filter(|row| !ours(&row.path)) {
        assert!(row.path.starts_with("/grpc.health.v1.") || row.path.starts_with("/grpc.reflection."));
    }
}

/// A caller, the words of the policy that mean it, and what it is told everywhere else.
struct Kind {
    name: String,
    words: Vec<String>,
    refusal: &'static str,
    /// What it is told where the words would let it in, if it lacks something else.
    lacks: Option<&'static str>,
    caller: Caller,
}

const DENIED: &str = "PERMISSION_DENIED";
const WRONG_FAMILY: &str = "WRONG_CREDENTIAL_FAMILY";

const GROUPS: [&str; 12] = [
    "tasks",
    "resolve",
    "enrollment",
    "agents",
    "directory",
    "credentials",
    "approvals",
    "introspect",
    "watch",
    "secrets",
    "proxy",
    "accounts",
];

/// A member who holds this role, and no other.
async fn human(broker: &TestBroker, operator: &Caller, role: proto::Role, word: &str) -> Kind {
    let name = word.to_owned();
    operator.make_member(ORG, &name).await;
    let grant = |role: proto::Role| {
        Some(proto::RoleGrant {
            role: role as i32,
            ..Default::default()
        })
    };
    if role != proto::Role::Member {
        let request = proto::GrantRoleRequest {
            org: ORG.to_owned(),
            member: name.clone(),
            role: grant(role),
            ..Default::default()
        };
        operator.access().grant_role(request).await.unwrap();
        let request = proto::RevokeRoleRequest {
            org: ORG.to_owned(),
            member: name.clone(),
            role: grant(proto::Role::Member),
            ..Default::default()
        };
        operator.access().revoke_role(request).await.unwrap();
    }
    let request = proto::CreateOperatorTokenRequest {
        org: ORG.to_owned(),
        member: name.clone(),
        ..Default::default()
    };
    let made = operator.access().create_operator_token(request).await.unwrap();
    let token = made.into_inner().token.unwrap();
    Kind {
        caller: broker.caller(Some(&token.value)).await,
        words: vec![name.clone()],
        name,
        refusal: DENIED,
        lacks: None,
    }
}

/// A service that holds the role of the model proxy in the whole broker.
async fn model_proxy(broker: &TestBroker, operator: &Caller) -> Kind {
    let request = proto::CreateOperatorTokenRequest {
        roles: vec![proto::RoleGrant {
            role: proto::Role::ModelProxy as i32,
            ..Default::default()
        }],
        ..Default::default()
    };
    let made = operator.access().create_operator_token(request).await.unwrap();
    let token = made.into_inner().token.unwrap();
    Kind {
        words: vec!["model-proxy".to_owned()],
        ..stranger("model-proxy", DENIED, broker.caller(Some(&token.value)).await)
    }
}

async fn key(broker: &TestBroker, operator: &Caller, number: usize) -> Kind {
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        groups: vec![number as i32 + 1],
        ..Default::default()
    };
    let made = operator.access().create_api_key(request).await.unwrap();
    let token = made.into_inner().token.unwrap();
    let word = format!("key:{}", GROUPS[number]);
    Kind {
        caller: broker.caller(Some(&token.value)).await,
        name: word.clone(),
        words: vec![word, "key".to_owned()],
        refusal: DENIED,
        lacks: None,
    }
}

fn stranger(name: &str, refusal: &'static str, caller: Caller) -> Kind {
    Kind {
        name: name.to_owned(),
        words: Vec::new(),
        refusal,
        lacks: None,
        caller,
    }
}

async fn kinds(broker: &TestBroker) -> Vec<Kind> {
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let enrolled = broker.enroll(&operator, &task).await;
    let agent = broker.agent(&enrolled).await;
    let enrollment = operator.enrollment_token(ORG, "").await;
    let grant = GrantClaims {
        org: Id::from_bytes([7; 16]),
        lease: Id::from_bytes([7; 16]),
        expires: Time::from_seconds(4_000_000_000),
    };
    let grant = grant.mint(&GrantKey::new(&Secret::new(vec![7; KEY_LENGTH])), [9; 8]);
    let approval = Token::<ApprovalFamily>::new(ApprovalId::from_bytes([7; 16]), [9; 32]).reveal();
    let approval = approval.expose_str(Exposure::Inspect).unwrap();
    let (address, identity) = (broker.address.to_string(), enrolled.identity());
    let certificate_alone = Caller::connect(&address, broker.trust(), Some(identity), None).await;

    let mut kinds = vec![
        human(broker, &operator, proto::Role::OrgAdmin, "org-admin").await,
        human(broker, &operator, proto::Role::Auditor, "auditor").await,
        human(broker, &operator, proto::Role::Approver, "approver").await,
        human(broker, &operator, proto::Role::Member, "members").await,
        model_proxy(broker, &operator).await,
    ];
    for number in 0..GROUPS.len() {
        kinds.push(key(broker, &operator, number).await);
    }
    kinds.push(Kind {
        words: vec!["agent".to_owned()],
        ..stranger("agent", WRONG_FAMILY, agent)
    });
    kinds.push(Kind {
        words: vec!["agent".to_owned()],
        lacks: Some("CLIENT_CERTIFICATE_REQUIRED"),
        ..stranger(
            "agent without its certificate",
            WRONG_FAMILY,
            broker.caller(Some(&enrolled.runtime_key)).await,
        )
    });
    kinds.push(Kind {
        words: vec!["system-admin".to_owned()],
        ..stranger("system-admin", WRONG_FAMILY, operator)
    });
    let missing = "CREDENTIAL_MISSING";
    kinds.push(stranger("nobody", missing, broker.caller(None).await));
    kinds.push(stranger("certificate alone", missing, certificate_alone));
    for (name, token) in [
        ("enrollment token", enrollment.as_str()),
        ("approval", approval),
        ("proxy grant", grant.expose_str(Exposure::Inspect).unwrap()),
        ("nonsense", "sk-ant-api03-hello"),
    ] {
        kinds.push(stranger(name, WRONG_FAMILY, broker.caller(Some(token)).await));
    }
    kinds
}

/// What the gate tells, and handlers never do to an empty message of somebody who may call.
const GATE: [&str; 8] = [
    "CREDENTIAL_MISSING",
    "CREDENTIAL_MALFORMED",
    "CREDENTIAL_UNKNOWN",
    WRONG_FAMILY,
    "CLIENT_CERTIFICATE_REQUIRED",
    "CERTIFICATE_MISMATCH",
    DENIED,
    "UNKNOWN_METHOD",
];

/// System admins, for messages that ask for the scope of the system.
const AT_SYSTEM_SCOPE: &str = "system-admin:system-scope";

// req: E6 D1
#[tokio::test]
async fn at_the_scope_of_the_system_only_system_admins_are_let_in() {
    let broker = TestBroker::start().await;
    let kinds = kinds(&broker).await;
    let scoped: Vec<_> = policy()
        .into_iter()
        .filter(|(_, who)| who.contains(AT_SYSTEM_SCOPE))
        .collect();
    let [(path, _)] = &scoped[..] else {
        panic!("{scoped:?}")
    };
    let message = proto::ResolveCredentialRequest {
        system_scope: true,
        ..Default::default()
    };
    let message = prost::Message::encode_to_vec(&message);
    for kind in &kinds {
        let told = kind.caller.raw(path, message.clone()).await;
        let told = told.as_ref().err().map(reason).unwrap_or_default();
        if kind.name == "system-admin" {
            assert!(!GATE.contains(&told.as_str()) && told != "INTERNAL", "{told}");
        } else {
            assert!(GATE.contains(&told.as_str()), "{}: {told}", kind.name);
        }
    }
}

// req: D1 D2 D3 K6 K2
#[tokio::test]
async fn every_kind_of_caller_gets_what_it_may_and_nothing_else() {
    let broker = TestBroker::start().await;
    let kinds = kinds(&broker).await;
    let mut wrong = Vec::new();
    for (path, who) in policy() {
        let at_system_scope = who.contains(AT_SYSTEM_SCOPE);
        let has_humans = who.contains("system-admin") || at_system_scope;
        let has_keys = who.iter().any(|word| word.starts_with("key"));
        for kind in &kinds {
            let named = kind.words.iter().any(|word| who.contains(word.as_str()));
            let answer = kind.caller.raw(&path, Vec::new()).await;
            let told = answer.as_ref().err().map(reason).unwrap_or_default();
            let expected = match kind.lacks {
                _ if who.contains("anybody") => None,
                lacks if named => lacks,
                // Where no human, or no key, may call at all, their tokens are of the wrong family.
                _ if kind.refusal == DENIED => {
                    let may = if kind.name.starts_with("key:") {
                        has_keys
                    } else {
                        has_humans
                    };
                    Some(if may { DENIED } else { WRONG_FAMILY })
                }
                // Let in as far as the message allows, which asks for nothing.
                _ if at_system_scope && kind.name == "system-admin" => Some(DENIED),
                _ => Some(kind.refusal),
            };
            let right = match expected {
                Some(expected) => told == expected,
                None => !GATE.contains(&told.as_str()) && told != "INTERNAL",
            };
            if !right {
                wrong.push(format!("{} {path}: {told:?}, not {expected:?}", kind.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
