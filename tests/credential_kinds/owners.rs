//! Whose key a task gets: the member's before the org's, and each owner's for this executor before the one for all.

use support::broker::MEMBER;
use support::client::metadata;
use support::client::secret as handed;
use support::reason;

use super::*;

fn key_for(member: &str, executor: &str, key: &str) -> proto::SetCredentialRequest {
    proto::SetCredentialRequest {
        provider: s("demo"),
        owner: Some(owner(member)),
        executor: s(executor),
        ..request(api_key(key))
    }
}

/// What a new task of the member is handed.
async fn handed_to(operator: &Caller, automation: &Caller, executor: &str) -> String {
    let task = task(operator, executor, "demo").await;
    let lease = automation.resolve(&task).await.unwrap().lease.unwrap();
    s(handed(&lease))
}

// req: A4 B2
#[tokio::test]
async fn a_key_for_an_executor_comes_before_its_owners_key_for_all() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (_, token) = operator.make_api_key(ORG).await;
    let automation = broker.caller(Some(&token)).await;
    // From the last choice to the first: each one added wins over all before it, for its executor only.
    let all = [
        ("", "", "the-orgs-key-for-all"),
        ("", "demo-agent", "the-orgs-key-for-demo"),
        (MEMBER, "", "the-members-key-for-all"),
        (MEMBER, "demo-agent", "the-members-key-for-demo"),
    ];
    let duo = [
        "the-orgs-key-for-all",
        "the-orgs-key-for-all",
        "the-members-key-for-all",
        "the-members-key-for-all",
    ];
    let mut stored = Vec::new();
    for ((member, executor, key), for_duo) in all.into_iter().zip(duo) {
        let credential = set(&operator, key_for(member, executor, key)).await.unwrap();
        assert_eq!((&*credential.executor, credential.generation), (executor, 1));
        stored.push(credential);
        assert_eq!(handed_to(&operator, &automation, "demo-agent").await, key);
        assert_eq!(handed_to(&operator, &automation, "duo-agent").await, for_duo);
    }
    let mut ids: Vec<_> = stored.iter().map(|credential| &credential.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "each stands for itself");

    // Replaced in place, by executor.
    let again = set(&operator, key_for("", "demo-agent", "another-key-of-the-org"))
        .await
        .unwrap();
    assert_eq!((&again.id, again.generation), (&stored[1].id, 2));
    // Removed from the first choice to the last, the one before it serves again, through a restart.
    let broker = broker.restart().await;
    let (operator, automation) = (broker.operator().await, broker.caller(Some(&token)).await);
    let left = [
        "the-members-key-for-all",
        "another-key-of-the-org",
        "the-orgs-key-for-all",
    ];
    for (credential, key) in stored.iter().rev().zip(left) {
        let remove = proto::RemoveCredentialRequest {
            org: s(ORG),
            credential: credential.id.clone(),
        };
        operator.credentials().remove_credential(remove).await.unwrap();
        assert_eq!(handed_to(&operator, &automation, "demo-agent").await, key);
    }
}

// req: A4 A9
#[tokio::test]
async fn what_shows_as_ready_is_the_executors_own_key() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let own = set(&operator, key_for("", "demo-agent", "the-orgs-key-for-demo"))
        .await
        .unwrap();
    let list = proto::ListExecutorsRequest {
        org: s(ORG),
        ..Default::default()
    };
    let listed = operator
        .executors()
        .list_executors(list)
        .await
        .unwrap()
        .into_inner();
    let credentials = |name: &str| {
        let executor = listed.executors.iter().find(|each| each.name == name).unwrap();
        let ways = executor.ways.iter().filter(|way| way.provider == "demo");
        ways.map(|way| way.credential.clone())
            .filter(|id| !id.is_empty())
            .collect::<Vec<_>>()
    };
    assert_eq!(credentials("demo-agent"), [own.id]);
    assert_eq!(credentials("duo-agent"), Vec::<String>::new());
    // Bedrock has a way for each kind of key.
    let claude = listed
        .executors
        .iter()
        .find(|each| each.name == "claude-code")
        .unwrap();
    let kinds = claude
        .ways
        .iter()
        .filter(|way| way.provider == "bedrock" && way.mode() == proto::AuthMode::Byok);
    assert_eq!(
        kinds.map(|way| way.kind()).collect::<Vec<_>>(),
        [proto::CredentialKind::Aws, proto::CredentialKind::BedrockBearer]
    );
}

// req: A4 A3
#[tokio::test]
async fn a_key_is_for_an_executor_that_uses_keys_of_the_provider() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let unknown = set(&operator, key_for("", "nobody", "a-key")).await.unwrap_err();
    assert_eq!(reason(&unknown), "EXECUTOR_UNKNOWN");
    let unable = set(&operator, key_for("", "codex", "a-key")).await.unwrap_err();
    assert_eq!(reason(&unable), "PROVIDER_UNSUPPORTED");
    let supported = metadata(&unable, "supported");
    assert!(
        supported.split(", ").any(|provider| provider == "openai"),
        "{supported}"
    );
}

// req: A4 D6
#[tokio::test]
async fn keys_for_executors_go_with_their_member() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let mut stored = Vec::new();
    for executor in ["", "demo-agent", "duo-agent"] {
        let key = format!("a-key-of-the-member-{executor}");
        stored.push(set(&operator, key_for(MEMBER, executor, &key)).await.unwrap().id);
    }
    let request = proto::RemoveMemberRequest {
        org: s(ORG),
        member: s(MEMBER),
    };
    let removed = operator
        .directory()
        .remove_member(request)
        .await
        .unwrap()
        .into_inner();
    let mut gone: Vec<_> = removed
        .credentials
        .into_iter()
        .map(|each| each.credential)
        .collect();
    gone.sort();
    stored.sort();
    assert_eq!(gone, stored);
    let state = support::state::State::of(&operator, ORG).await;
    assert_eq!(state.credentials, []);
}
