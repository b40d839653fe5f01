//! Stored credentials: keys of the right shape, grants of known connectors, and never a secret in an answer.

use credbroker::proto;

use super::tokens::holds;
use crate::support::broker::{self, MEMBER, ORG};
use crate::support::client::{owner, secret};
use crate::support::state::State;
use crate::support::{Caller, Options, TestBroker, details, reason};

fn s(text: &str) -> String {
    text.to_owned()
}

async fn set(
    operator: &Caller,
    provider: &str,
    key: &str,
    force: bool,
) -> Result<proto::Credential, tonic::Status> {
    let request = proto::SetCredentialRequest {
        org: s(ORG),
        owner: Some(owner(MEMBER)),
        provider: s(provider),
        key: Some(proto::set_credential_request::Key::ApiKey(proto::Secret {
            value: s(key),
        })),
        force,
        ..Default::default()
    };
    let stored = operator.credentials().set_credential(request).await?.into_inner();
    Ok(stored.credential.unwrap())
}

// req: B9(core) B1
#[tokio::test]
async fn a_key_of_another_provider_is_noticed_unless_forced() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let anthropic = "sk-ant-api03-0123456789abcdef";
    let before = State::of(&operator, ORG).await;
    for (provider, key, hint) in [
        ("openai", anthropic, "anthropic"),
        ("anthropic", "sk-proj-0123456789abcdef", "openai"),
        ("anthropic", "AIza0123456789abcdef0123456789abcdef012", "google"),
        ("anthropic", "sk-ant-oat01-0123456789abcdef", "OAuth token"),
        ("anthropic", "sk-ant-admin01-0123456789abcdef", "admin key"),
        ("demo", "sk-ant-oat01-0123456789abcdef", "OAuth token"),
    ] {
        let status = set(&operator, provider, key, false).await.unwrap_err();
        assert_eq!(reason(&status), "KEY_SHAPE_MISMATCH", "{provider}");
        assert!(status.message().contains(hint), "{}", status.message());
        assert!(
            !status.message().contains(&key[..12]),
            "the message shows the key"
        );
        let details = details(&status);
        assert_eq!(
            details.bad_request().unwrap().field_violations[0].field,
            "api_key"
        );
    }
    assert_eq!(State::of(&operator, ORG).await, before);
    let forced = set(&operator, "openai", anthropic, true).await.unwrap();
    assert_eq!(
        (&*forced.provider, &*forced.hint, forced.generation),
        ("openai", "cdef", 1)
    );
    // What cannot be sent in a header cannot be forced, nor a provider that does not exist.
    let status = set(&operator, "openai", "sk-0123 4567", true).await.unwrap_err();
    assert_eq!(reason(&status), "KEY_SHAPE_MISMATCH");
    let status = set(&operator, "opneai", anthropic, true).await.unwrap_err();
    assert_eq!(reason(&status), "PROVIDER_UNKNOWN");
    assert!(details(&status).error_info().unwrap().metadata["known"].contains("openai"));
}

// req: B1 B2 C6(core)
#[tokio::test]
async fn a_key_is_replaced_in_place_shown_without_its_secret_and_removed() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let task = operator.make_task(ORG, MEMBER).await;
    let (_, key) = operator.make_api_key(ORG).await;
    let automation = broker.caller(Some(&key)).await;
    let of_org = operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let first = operator.set_key(ORG, MEMBER, "the-members-key-0000").await;
    let second = operator.set_key(ORG, MEMBER, "the-members-next-key").await;
    assert_eq!((&second.id, second.generation), (&first.id, 2));
    assert_ne!(of_org.id, first.id);
    assert_eq!(
        (&*second.hint, second.kind()),
        ("-key", proto::CredentialKind::ApiKey)
    );

    let list = proto::ListCredentialsRequest {
        org: s(ORG),
        ..Default::default()
    };
    for caller in [&operator, &automation] {
        let listed = caller
            .credentials()
            .list_credentials(list.clone())
            .await
            .unwrap()
            .into_inner();
        assert_eq!(listed.credentials, [of_org.clone(), second.clone()]);
        let get = proto::GetCredentialRequest {
            org: s(ORG),
            credential: first.id.clone(),
        };
        let got = caller
            .credentials()
            .get_credential(get)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(got.credential.as_ref(), Some(&second));
        for key in [
            "the-orgs-own-key-000",
            "the-members-key-0000",
            "the-members-next-key",
        ] {
            assert!(!holds(&listed, key) && !holds(&got, key));
        }
    }
    assert_eq!(
        secret(&automation.resolve(&task).await.unwrap().lease.unwrap()),
        "the-members-next-key"
    );
    let remove = proto::RemoveCredentialRequest {
        org: s(ORG),
        credential: first.id.clone(),
    };
    operator
        .credentials()
        .remove_credential(remove.clone())
        .await
        .unwrap();
    let again = operator
        .credentials()
        .remove_credential(remove)
        .await
        .unwrap_err();
    assert_eq!(reason(&again), "NOT_FOUND");
    let listed = operator
        .credentials()
        .list_credentials(list)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.credentials, [of_org]);
    // A key stored after that is another credential.
    let third = operator.set_key(ORG, MEMBER, "the-members-third-key").await;
    assert_ne!(third.id, first.id);
    assert_eq!(third.generation, 1);
}

// req: N10 B1
#[tokio::test]
async fn a_grant_is_taken_over_for_a_connector_that_is_known_and_on() {
    let more = "[connectors.personal]\nprovider = \"demo\"\ntoken_url = \"http://127.0.0.1:9/token\"\n\
                client_id = \"c\"\nsharing = \"personal\"\n\
                [connectors.off]\nprovider = \"demo\"\ntoken_url = \"http://127.0.0.1:9/token\"\n\
                client_id = \"c\"\nenabled = false\n";
    let options = Options {
        connectors: broker::connector("http://127.0.0.1:9/token", "client", "") + more,
        ..Default::default()
    };
    let broker = TestBroker::start_with(options).await;
    let operator = broker.prepare().await;
    let import = |connector: &str, member: &str| proto::ImportGrantRequest {
        org: s(ORG),
        owner: Some(owner(member)),
        connector: s(connector),
        refresh_token: Some(proto::Secret {
            value: s("refresh-token-of-the-test"),
        }),
        access_token: Some(proto::Secret {
            value: s("access-token-of-the-test"),
        }),
        scopes: vec![s("read")],
        account: [(s("account_id"), s("17"))].into(),
        ..Default::default()
    };
    let before = State::of(&operator, ORG).await;
    for (connector, member, expected) in [
        ("nobody", MEMBER, "CONNECTOR_UNKNOWN"),
        ("claude", MEMBER, "CONNECTOR_DISABLED"),
        ("off", MEMBER, "CONNECTOR_DISABLED"),
        ("personal", "", "GRANT_NOT_SHAREABLE"),
        ("demo", "nobody", "NOT_FOUND"),
    ] {
        let status = operator
            .credentials()
            .import_grant(import(connector, member))
            .await
            .unwrap_err();
        assert_eq!(reason(&status), expected, "{connector}");
    }
    assert_eq!(State::of(&operator, ORG).await, before);
    let stored = operator
        .credentials()
        .import_grant(import("personal", MEMBER))
        .await
        .unwrap()
        .into_inner();
    for secret in ["refresh-token-of-the-test", "access-token-of-the-test"] {
        assert!(!holds(&stored, secret));
    }
    let stored = stored.credential.unwrap();
    assert_eq!(stored.kind(), proto::CredentialKind::OauthGrant);
    assert_eq!((&*stored.connector, &*stored.provider), ("personal", "demo"));
    assert_eq!(
        (stored.scopes.clone(), stored.health()),
        (vec![s("read")], proto::CredentialHealth::Ok)
    );
    let state = State::of(&operator, ORG).await;
    assert_eq!(state.credentials, [stored]);
}
