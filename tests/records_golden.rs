//! The bytes of every stored record as first released: what is on a disk somewhere must read for good.
//!
//! Each file under `tests/golden/records` is the hexadecimal form of one record's version and CBOR, before
//! sealing. A file that is there is never changed by hand; for a new record,
//! `CREDBROKER_BLESS=1 cargo test --test records_golden` writes the files that are missing, and only those.
//!
//! Two records are the same where their bytes are: a table writes every field of its type, so no field can
//! differ in silence, and types that hold secrets cannot be compared otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "records_golden/approvals.rs"]
mod approvals;
#[path = "records_golden/billing.rs"]
mod billing;
#[path = "records_golden/bytes.rs"]
mod bytes;
#[path = "records_golden/connections.rs"]
mod connections;
#[path = "records_golden/directory.rs"]
mod directory;
#[path = "records_golden/lineage.rs"]
mod lineage;
#[path = "records_golden/parallelism.rs"]
mod parallelism;
#[path = "records_golden/platform.rs"]
mod platform;
#[path = "records_golden/policy.rs"]
mod policy;
#[path = "records_golden/revocations.rs"]
mod revocations;

use bytes::{check, older};
use credbroker::domain::agent::{Agent, Certificates, KeyFingerprint, RenewalNonce, SerialNumber};
use credbroker::domain::credential::Credential;
use credbroker::domain::enrollment::EnrollmentToken;
use credbroker::domain::id::{Id, MemberId};
use credbroker::domain::lease::{Handed, Holder, Lease};
use credbroker::domain::lock::{Lock, LockTarget};
use credbroker::domain::mode::{AuthMode, CredentialKind, ModeSet};
use credbroker::domain::owner::Owner;
use credbroker::domain::profile::OnRejection;
use credbroker::domain::rejection::Row;
use credbroker::domain::rotation::{Death, Fence, Incarnation, Phase, Rotation, Sent};
use credbroker::domain::secret::Secret;
use credbroker::domain::task::{Capacity, Task};
use credbroker::domain::time::Time;
use credbroker::domain::token::TokenHash;
use credbroker::store::model::{
    AwsSecret, CredentialSecret, Home, LeasePointer, Mark, Pin, Pointer, RequestOutcome, Runs, Seen, Slot,
    StagedAnswer, StoredAuthority, StoredJournalKey,
};

fn id<K: credbroker::domain::id::Kind>(byte: u8) -> Id<K> {
    Id::from_bytes([byte; 16])
}

fn at(seconds: i64) -> Time {
    Time::from_millis(1_700_000_000_000 + seconds * 1000)
}

fn hash(byte: u8) -> TokenHash {
    TokenHash::from_bytes([byte; 32])
}

fn fake<K>(text: &str) -> Secret<K> {
    Secret::from(format!("fake-{text}"))
}

fn pairs(key: &str, value: &str) -> Vec<(String, String)> {
    vec![
        (key.to_owned(), value.to_owned()),
        ("tier".to_owned(), "é".to_owned()),
    ]
}

#[test]
fn the_brokers_own_records() {
    let authority = StoredAuthority {
        root: b"fake root certificate".to_vec().into(),
        root_key: fake("root-key"),
        issuing: b"fake issuing certificate".to_vec().into(),
        issuing_key: fake("issuing-key"),
    };
    check("authority", &authority, &[]);
    let journal_key = StoredJournalKey {
        key: fake("journal-key"),
        journal: [1; 16].into(),
    };
    check("journal-key", &journal_key, &[]);
    check("home", &Home { org: id(1) }, &[]);
    check("pointer", &Pointer { id: [1; 16].into() }, &[]);
    check("mark", &Mark { since: at(0) }, &[]);
    let outcome = RequestOutcome {
        content: [1; 32].into(),
        id: [2; 16].into(),
        at: at(3),
    };
    check("request-outcome", &outcome, &[]);
    let seen = Seen {
        at: at(1),
        address: Some("2001:db8::1".into()),
        version: Some("1.2.3".into()),
        attributes: Some(pairs("host", "sandbox-1")),
    };
    check("seen", &seen, &[1, 2, 3]);
}

#[test]
fn agents_and_tasks() {
    let token = EnrollmentToken {
        id: id(1),
        org: id(2),
        environment: id(3),
        token: hash(4),
        max_agents: 300,
        bound: 1,
        task: Some(id(5)),
        labels: pairs("pool", "a"),
        created: at(6),
        expires: at(7),
        revoked: Some(at(8)),
        networks: None,
        spent: None,
    };
    older("enrollment-token", &token);
    let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap());
    let token = EnrollmentToken {
        networks: Some(networks.to_vec()),
        spent: Some(at(9)),
        ..token
    };
    check("enrollment-token-2", &token, &[6, 10, 11, 12]);
    check("slot", &Slot { agent: id(1) }, &[]);
    let agent = Agent {
        id: id(1),
        org: id(2),
        environment: id(3),
        key: KeyFingerprint([4; 32]),
        runtime_key: hash(5),
        next_runtime_key: Some(hash(6)),
        used: true,
        enrollment_token: id(7),
        labels: pairs("pool", "a"),
        attributes: pairs("host", "b"),
        created: at(8),
        certificate_expires: at(9),
        revoked: Some(at(10)),
        certificates: None,
        expired: None,
    };
    older("agent", &agent);
    let agent = Agent {
        certificates: Some(Certificates {
            newest: SerialNumber([0x41; 16]),
            earlier: Some(SerialNumber([0x42; 16])),
            issued: at(11),
            used: true,
            nonce: Some(RenewalNonce([12; 16])),
        }),
        expired: Some(at(13)),
        ..agent
    };
    check("agent-2", &agent, &[5, 12, 13, 14]);
    for capacity in [Capacity::Cloud, Capacity::Local] {
        let task = Task {
            id: id(1),
            org: id(2),
            member: id(3),
            project: id(4),
            executor: "claude-code".into(),
            provider: Some("anthropic".into()),
            profile: "fast".into(),
            capacity,
            spec_hash: "sha256:abc".into(),
            created: at(5),
            expires: at(6),
            ended: Some(at(7)),
            pool: None,
        };
        older(&format!("task-{}", capacity.name()), &task);
        let task = Task {
            pool: Some("team-a".into()),
            ..task
        };
        check(&format!("task-2-{}", capacity.name()), &task, &[5, 11, 12]);
    }
}

fn credential(kind: CredentialKind, owner: Owner, phase: Phase) -> Credential {
    Credential {
        id: id(1),
        org: id(2),
        owner,
        provider: "anthropic".into(),
        kind,
        connector: "claude".into(),
        rotation: Rotation {
            generation: 3,
            fence: Fence(4),
            failures: 5,
            phase,
        },
        expires: Some(at(6)),
        created: at(7),
        refreshed: at(8),
        hint: "9999".into(),
        scopes: vec!["openid".into(), "offline_access".into()],
        token_type: "Bearer".into(),
        account: pairs("email", "alex@example.org"),
        executor: None,
        region: None,
    }
}

/// As [`credential`], with what was added later.
fn credential_2(kind: CredentialKind, owner: Owner, phase: Phase) -> Credential {
    Credential {
        executor: Some("claude-code".into()),
        region: Some("us-east-1".into()),
        ..credential(kind, owner, phase)
    }
}

#[test]
fn credentials_in_every_phase() {
    let member = Owner::Member(MemberId::from_bytes([3; 16]));
    let sent = Sent {
        first: at(10),
        unanswered: 2,
    };
    let message = || "503: try later".to_owned();
    let phases = [
        ("live", Phase::rested()),
        (
            "live-paused",
            Phase::Live {
                not_before: Some(at(11)),
                message: message(),
            },
        ),
        (
            "claimed",
            Phase::Claimed {
                by: Incarnation([12; 16]),
                deadline: at(13),
                sent,
            },
        ),
        ("staged", Phase::Staged { sent }),
        (
            "ambiguous",
            Phase::Ambiguous {
                sent,
                not_before: at(14),
                message: message(),
            },
        ),
        (
            "quarantined",
            Phase::Quarantined {
                since: at(15),
                message: message(),
            },
        ),
        (
            "dead-refused",
            Phase::Dead {
                since: at(16),
                cause: Death::Refused,
                message: message(),
            },
        ),
        (
            "dead-answer-lost",
            Phase::Dead {
                since: at(17),
                cause: Death::AnswerLost,
                message: message(),
            },
        ),
    ];
    let later = [
        (
            "dead-expired",
            Phase::Dead {
                since: at(18),
                cause: Death::Expired,
                message: message(),
            },
        ),
        (
            "dead-withdrawn",
            Phase::Dead {
                since: at(19),
                cause: Death::Withdrawn,
                message: message(),
            },
        ),
    ];
    for (name, phase) in later {
        let value = credential_2(CredentialKind::OAuthGrant, member, phase);
        check(&format!("credential-2-{name}"), &value, &[7, 14, 15]);
    }
    for (name, phase) in phases {
        // One more phase needs one more file.
        match &phase {
            Phase::Live { .. }
            | Phase::Claimed { .. }
            | Phase::Staged { .. }
            | Phase::Ambiguous { .. }
            | Phase::Quarantined { .. }
            | Phase::Dead { .. } => {}
        }
        let value = credential(CredentialKind::OAuthGrant, member, phase.clone());
        older(&format!("credential-{name}"), &value);
        let value = credential_2(CredentialKind::OAuthGrant, member, phase);
        check(&format!("credential-2-{name}"), &value, &[7, 14, 15]);
    }
}

#[test]
fn credentials_of_every_kind() {
    for kind in [
        CredentialKind::OAuthGrant,
        CredentialKind::ApiKey,
        CredentialKind::Aws,
        CredentialKind::BedrockBearer,
    ] {
        let value = credential(kind, Owner::Org, Phase::rested());
        older(&format!("credential-of-org-{}", kind.name()), &value);
        let value = credential_2(kind, Owner::Org, Phase::rested());
        check(
            &format!("credential-2-of-org-{}", kind.name()),
            &value,
            &[7, 14, 15],
        );
    }
}

#[test]
fn secrets_and_staged_answers() {
    let secret = CredentialSecret {
        generation: 3,
        access: Some(fake("access-token")),
        refresh: Some(fake("refresh-token")),
        aws: None,
    };
    older("credential-secret", &secret);
    let keys = |session_token| AwsSecret {
        access_key_id: "AKIAABCDEFGHIJKLMNOP".into(),
        secret_access_key: fake("secret-access-key"),
        session_token,
    };
    for (name, session_token) in [("", None), ("-temporary", Some(fake("session-token")))] {
        let secret = CredentialSecret {
            generation: 3,
            access: None,
            refresh: None,
            aws: Some(keys(session_token)),
        };
        check(&format!("credential-secret-2-aws{name}"), &secret, &[1, 2, 3]);
    }
    let secret = CredentialSecret { aws: None, ..secret };
    check("credential-secret-2", &secret, &[1, 2, 3]);
    let answer = StagedAnswer {
        fence: 4,
        status: 200,
        retry_after_ms: Some(30_000),
        body: Secret::from(r#"{"access_token":"fake-access-token"}"#.to_owned()),
        received: at(5),
    };
    check("staged-answer", &answer, &[2]);
}

#[test]
fn leases_of_every_mode_and_holder() {
    for (at_, mode) in AuthMode::ORDER.into_iter().enumerate() {
        let holder = match at_ % 3 {
            0 => Holder::Agent(id(3)),
            1 => Holder::ApiKey(id(3)),
            _ => Holder::Operator(id(3)),
        };
        let mut lease = Lease {
            id: id(1),
            org: id(2),
            holder,
            task: Some(id(4)),
            member: id(5),
            credential: Some(id(6)),
            mode,
            provider: "anthropic".into(),
            model: "claude".into(),
            permit_position: 7,
            created: at(8),
            expires: at(9),
            ended: Some(at(10)),
            handed: None,
            approval: None,
            project: None,
            rejections: None,
        };
        older(&format!("lease-{}", mode.name()), &lease);
        lease.handed = Some(Handed {
            generation: 11,
            expires: Some(at(12)),
            at: None,
        });
        lease.approval = Some(id(13));
        older(&format!("lease-2-{}", mode.name()), &lease);
        lease.credential = None;
        lease.project = Some(id(14));
        older(&format!("lease-3-{}", mode.name()), &lease);
        lease.handed = lease.handed.map(|handed| Handed {
            at: Some(at(15)),
            ..handed
        });
        lease.rejections = Some(Row {
            count: 2,
            since: at(16),
            generation: 11,
        });
        let optional = [3, 5, 12, 13, 14, 15, 16];
        check(&format!("lease-4-{}", mode.name()), &lease, &optional);
    }
    check("lease-pointer", &LeasePointer { lease: id(1) }, &[]);
    let mut pin = Pin {
        credential: Some(id(1)),
        position: 2,
        runs: None,
    };
    older("pin", &pin);
    pin.runs = Some(Runs {
        mode: AuthMode::Byok,
        provider: "anthropic".into(),
        modes: ModeSet::ALL,
        on_rejection: OnRejection::Next,
        named: Some(id(3)),
        because: Some("SUBSCRIPTION_INACTIVE".into()),
        kind: Some(CredentialKind::ApiKey),
    });
    check("pin-2", &pin, &[0, 2]);
}

#[test]
fn locks_of_every_target() {
    let targets = [
        ("agent", LockTarget::Agent(id(3))),
        ("member", LockTarget::Member(id(3))),
        ("credential", LockTarget::Credential(id(3))),
        ("environment", LockTarget::Environment(id(3))),
        ("org", LockTarget::Org(id(3))),
    ];
    for (name, target) in targets {
        let lock = Lock {
            id: id(1),
            org: id(2),
            target,
            message: "seen twice".into(),
            by: "broker".into(),
            by_system: true,
            created: at(4),
            expires: Some(at(5)),
        };
        check(&format!("lock-{name}"), &lock, &[7]);
    }
}
