//! Accounts that are gone, and what becomes of their tokens at the provider.

use credbroker::domain::revocation::{Fate, Revocation, RevokedToken, TokenKind};
use credbroker::store::model::{KeptToken, RevocationDue, RevocationSecret};

use super::bytes::check;
use super::{at, fake, id};

#[test]
fn what_becomes_of_tokens() {
    let fates = [
        Fate::Pending,
        Fate::Revoked,
        Fate::WithGrant,
        Fate::Expires,
        Fate::GivenUp,
    ];
    for fate in fates {
        let token = |kind, expires| RevokedToken {
            kind,
            fate,
            expires,
            message: "status 503".to_owned(),
        };
        let pending = fate == Fate::Pending;
        let revocation = Revocation {
            id: id(1),
            org: id(2),
            member: Some(id(3)),
            connector: "claude".to_owned(),
            credential: Some(id(4)),
            with_credential: pending,
            tokens: vec![
                token(TokenKind::Refresh, None),
                token(TokenKind::Access, Some(at(5))),
            ],
            attempts: 6,
            next: pending.then(|| at(7)),
            created: at(8),
            ended: (!pending).then(|| at(9)),
        };
        check(
            &format!("revocation-{}", fate.name()),
            &revocation,
            &[2, 4, 8, 10],
        );
    }
}

#[test]
fn tokens_to_revoke_and_when() {
    let secret = RevocationSecret {
        tokens: vec![
            KeptToken {
                place: 0,
                refresh: Some(fake("refresh")),
                access: None,
            },
            KeptToken {
                place: 1,
                refresh: None,
                access: Some(fake("access")),
            },
        ],
    };
    check("revocation-secret", &secret, &[]);
    let due = RevocationDue {
        connector: "claude".to_owned(),
    };
    check("revocation-due", &due, &[]);
}
