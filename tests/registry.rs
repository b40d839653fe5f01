//! The registry as operators and callers meet it: files that are checked at start, providers and pools over the port
//! and by command, the pool of a task, and which model servers the broker asks itself.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "registry/commands.rs"]
mod commands;
#[path = "registry/probe.rs"]
mod probe;
mod support;
#[path = "support/user.rs"]
mod user;

use credbroker::proto::{self, AuthMode, Capacity, CredentialExpectation, CredentialKind};
use support::broker::{MEMBER, ORG, PROJECT};
use support::{Caller, Options, TestBroker, details, reason};

/// Fetches all pages, two entries each, and tells how many pages there were.
macro_rules! all_pages {
    ($caller:expr, $call:ident, $request:ident, $rows:ident) => {{
        let (mut rows, mut token, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let request = proto::$request {
                page_size: 2,
                page_token: token,
            };
            let page = $caller.executors().$call(request).await.unwrap().into_inner();
            assert!(page.$rows.len() <= 2);
            pages += 1;
            rows.extend(page.$rows);
            token = page.next_page_token;
            if token.is_empty() {
                break (rows, pages);
            }
        }
    }};
}

async fn provider(caller: &Caller, name: &str) -> Result<proto::Provider, tonic::Status> {
    let request = proto::GetProviderRequest {
        provider: name.to_owned(),
    };
    let answer = caller.executors().get_provider(request).await?;
    Ok(answer.into_inner().provider.unwrap())
}

// req: A3 C8
#[tokio::test]
async fn providers_are_told_with_all_that_the_registry_says_of_them() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let (listed, pages) = all_pages!(operator, list_providers, ListProvidersRequest, providers);
    let names: Vec<_> = listed.iter().map(|provider| provider.name.as_str()).collect();
    let expected = [
        "anthropic",
        "bedrock",
        "demo",
        "generic",
        "google",
        "lm-studio",
        "ollama",
        "openai",
        "openai-compatible",
        "second",
    ];
    assert_eq!((names, pages), (expected.to_vec(), 5));
    for known in &listed {
        assert_eq!(&provider(&operator, &known.name).await.unwrap(), known);
    }

    let anthropic = provider(&operator, "anthropic").await.unwrap();
    assert_eq!(anthropic.title, "Anthropic");
    assert_eq!(anthropic.credential(), CredentialExpectation::Required);
    let kinds: Vec<_> = anthropic.kinds().collect();
    assert_eq!(kinds, [CredentialKind::OauthGrant, CredentialKind::ApiKey]);
    assert_eq!(anthropic.base_url, "https://api.anthropic.com");
    assert!(anthropic.models.contains(&"claude-*".to_owned()));
    let modes: Vec<_> = anthropic.executors[0].modes().collect();
    assert_eq!(anthropic.executors[0].executor, "claude-code");
    use AuthMode::{Byok, HostSession, Metered, Oauth, Shared};
    assert_eq!(modes, [Oauth, Byok, Metered, Shared, HostSession]);
    // Off until the operator has accepted the terms, which are told.
    let connector = &anthropic.connectors[0];
    assert_eq!((connector.name.as_str(), connector.usable), ("claude", false));
    assert!(connector.terms.contains("Anthropic"), "{}", connector.terms);
    assert!(connector.terms_url.starts_with("https://"));

    let ollama = provider(&operator, "ollama").await.unwrap();
    assert_eq!(ollama.credential(), CredentialExpectation::None);
    assert!(ollama.kinds.is_empty() && ollama.connectors.is_empty());
    assert_eq!(ollama.base_url, "http://localhost:11434");
    let local = |one: &proto::SupportedModes| one.modes().eq([AuthMode::Local]);
    assert!(ollama.executors.iter().all(local));
    let bedrock = provider(&operator, "bedrock").await.unwrap();
    let id = &bedrock.model_ids["claude-sonnet-4-5"];
    assert_eq!(id, "anthropic.claude-sonnet-4-5-20250929-v1:0");
    let absent = provider(&operator, "nobody").await.unwrap_err();
    assert_eq!(reason(&absent), "NOT_FOUND");
}

// req: C8
#[tokio::test]
async fn a_key_for_a_provider_that_takes_none_is_refused() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let request = |provider: &str| proto::SetCredentialRequest {
        org: ORG.to_owned(),
        owner: Some(support::client::owner("")),
        provider: provider.to_owned(),
        key: Some(proto::set_credential_request::Key::ApiKey(proto::Secret {
            value: "sk-of-an-endpoint".to_owned(),
        })),
        ..Default::default()
    };
    let refused = operator.credentials().set_credential(request("ollama")).await;
    let refused = refused.unwrap_err();
    assert_eq!(reason(&refused), "CREDENTIAL_KIND_UNSUPPORTED");
    assert!(refused.message().contains("takes no credential"), "{refused:?}");
    // Endpoints without a shape of their own hand out keys that look like anybody's.
    let taken = operator
        .credentials()
        .set_credential(request("openai-compatible"))
        .await;
    assert_eq!(
        taken.unwrap().into_inner().credential.unwrap().provider,
        "openai-compatible"
    );
}

// req: A3
#[tokio::test]
async fn an_executor_is_told_as_in_the_list_with_what_it_supports() {
    let broker = TestBroker::start().await;
    let operator = broker.prepare().await;
    let request = proto::ListExecutorsRequest {
        org: ORG.to_owned(),
        ..Default::default()
    };
    let listed = operator.executors().list_executors(request).await.unwrap();
    for known in listed.into_inner().executors {
        let request = proto::GetExecutorRequest {
            org: ORG.to_owned(),
            executor: known.name.clone(),
            ..Default::default()
        };
        let told = operator.executors().get_executor(request).await.unwrap();
        assert_eq!(told.into_inner().executor, Some(known.clone()));
        if known.name == "codex" {
            let providers: Vec<_> = known.providers.iter().map(|one| one.provider.as_str()).collect();
            assert_eq!(providers, ["openai", "lm-studio", "ollama", "openai-compatible"]);
            assert!(known.providers[1].modes().eq([AuthMode::Local]));
        }
    }
    let request = proto::GetExecutorRequest {
        org: ORG.to_owned(),
        executor: "vim".to_owned(),
        ..Default::default()
    };
    let absent = operator.executors().get_executor(request).await.unwrap_err();
    assert_eq!(reason(&absent), "NOT_FOUND");
}

const POOLS: &str = "
[pools.team-a]
title = \"Team A\"
capacity = \"cloud\"

[pools.desks]
title = \"Desks\"
capacity = \"local\"
default = true

[pools.local]
default = false
";

/// A broker whose registry has more pools.
async fn with_pools() -> TestBroker {
    TestBroker::start_with(Options {
        registry: POOLS.to_owned(),
        ..Options::default()
    })
    .await
}

// req: E12
#[tokio::test]
async fn pools_are_listed_with_the_default_of_each_capacity() {
    let broker = with_pools().await;
    let operator = broker.prepare().await;
    let (pools, pages) = all_pages!(operator, list_pools, ListPoolsRequest, pools);
    let told: Vec<_> = pools
        .iter()
        .map(|pool| (pool.name.as_str(), pool.capacity(), pool.default))
        .collect();
    let expected = [
        ("cloud", Capacity::Cloud, true),
        ("desks", Capacity::Local, true),
        ("local", Capacity::Local, false),
        ("team-a", Capacity::Cloud, false),
    ];
    assert_eq!((told, pages), (expected.to_vec(), 2));
}

// req: E12 E13
#[tokio::test]
async fn a_task_keeps_the_pool_it_names_which_has_to_be_of_its_capacity() {
    let broker = with_pools().await;
    let operator = broker.prepare().await;
    let create = async |pool: &str, capacity: Capacity, request_id: &str| {
        let request = proto::CreateTaskRequest {
            org: ORG.to_owned(),
            member: MEMBER.to_owned(),
            project: PROJECT.to_owned(),
            executor: "demo-agent".to_owned(),
            capacity: capacity.into(),
            pool: pool.to_owned(),
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        let made = operator.tasks().create_task(request).await?;
        Ok::<_, tonic::Status>(made.into_inner().task.unwrap())
    };
    let once = "0198f000-0000-4000-8000-000000000001";
    let made = create("team-a", Capacity::Cloud, once).await.unwrap();
    assert_eq!(made.pool, "team-a");
    // A repeat is one only with the same pool.
    let repeated = create("team-a", Capacity::Cloud, once).await.unwrap();
    assert_eq!(repeated.id, made.id);
    for other in ["", "cloud"] {
        assert!(create(other, Capacity::Cloud, once).await.is_err(), "{other}");
    }
    assert_eq!(create("desks", Capacity::Local, "").await.unwrap().pool, "desks");
    assert_eq!(create("", Capacity::Local, "").await.unwrap().pool, "");
    for (pool, capacity, says, known) in [
        ("desks", Capacity::Cloud, "has capacity local", "cloud, team-a"),
        ("team-a", Capacity::Local, "has capacity cloud", "desks, local"),
        (
            "metered_pool_demo",
            Capacity::Cloud,
            "there is no pool",
            "cloud, team-a",
        ),
    ] {
        let refused = create(pool, capacity, "").await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_ARGUMENT", "{pool}");
        assert!(refused.message().contains(says), "{refused:?}");
        let details = details(&refused);
        assert_eq!(details.error_info().unwrap().metadata["known"], known);
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "pool");
    }

    // Kept over a restart, also where the registry has lost the pool since.
    let broker = broker.restart_with(|options| options.registry.clear()).await;
    let operator = broker.operator().await;
    let request = proto::GetTaskRequest {
        org: ORG.to_owned(),
        task: made.id,
    };
    let kept = operator.tasks().get_task(request).await.unwrap().into_inner();
    assert_eq!(kept.task.unwrap().pool, "team-a");
}
