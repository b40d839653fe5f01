//! Approvals and secrets of extensions.

use credbroker::domain::approval::{Approval, Capability, Listed, Party, Ruling};
use credbroker::domain::extension::{ExtensionSecret, Grantee, Namespace, SecretGrant};
use credbroker::domain::lease::Holder;
use credbroker::domain::mode::AuthMode;
use credbroker::store::model::{ApprovalUse, ExtensionSecretValue};

use super::bytes::check;
use super::{at, fake, hash, id};

#[test]
fn approvals_of_every_party() {
    let parties = [
        ("agent", Party::Agent(id(11))),
        ("api-key", Party::ApiKey(id(11))),
        ("member", Party::Member(id(11))),
        ("operator", Party::Operator(id(11))),
    ];
    for (name, party) in parties {
        let approval = Approval {
            id: id(1),
            org: id(2),
            project: id(3),
            environment: id(4),
            task: Some(id(5)),
            member: Some(id(6)),
            spec_hash: "sha256:00".into(),
            capability: Capability {
                executors: Listed::Only(vec!["claude-code".into(), "codex".into()]),
                providers: Listed::Any,
                modes: Listed::Only(vec![AuthMode::OAuth, AuthMode::Byok]),
            },
            token: hash(7),
            requester: Some(party),
            reason: "why".into(),
            ttl_ms: 3_600_000,
            use_limit: 8,
            created: at(9),
            expires: at(10),
            ruling: Some(Ruling {
                by: party,
                at: at(12),
                granted: true,
                message: "so".into(),
            }),
            revoked: Some(at(13)),
        };
        check(&format!("approval-{name}"), &approval, &[4, 5, 9, 15, 16]);
    }
    let used = ApprovalUse {
        lease: id(1),
        holder: Holder::Agent(id(2)),
        at: at(3),
    };
    check("approval-use", &used, &[]);
}

#[test]
fn secrets_of_extensions() {
    let secret = ExtensionSecret {
        namespace: "ns".into(),
        name: "KEY".into(),
        version: 2,
        created: at(1),
        updated: at(2),
    };
    check("extension-secret", &secret, &[]);
    let value = ExtensionSecretValue {
        version: 2,
        value: fake("value"),
    };
    check("extension-value", &value, &[]);
    for (name, grantee) in [
        ("agent", Grantee::Agent(id(1))),
        ("environment", Grantee::Environment(id(1))),
    ] {
        let grant = SecretGrant {
            namespace: "ns".into(),
            grantee,
            created: at(2),
        };
        check(&format!("extension-grant-{name}"), &grant, &[]);
    }
    let namespace = Namespace {
        secrets: 1,
        grants: 2,
    };
    check("extension-namespace", &namespace, &[]);
}
