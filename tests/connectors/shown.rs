//! What is shown of connectors, to programs over the port and to people by command.

use credbroker::proto::{self, ConnectorSharing, EndpointKind, RedirectKind};
use serde_json::{Value, json};

use super::connector;
use crate::support::broker::ORG;
use crate::support::{Options, TestBroker, reason};
use crate::user::{SPAWNING, User};

const OWN: &str = "
[connectors.acme]
provider = \"generic\"
issuer = \"https://id.invalid/tenant\"
token_url = \"https://id.invalid/token\"
client_id = \"c\"
client_auth = \"post\"
client_secret = { env = \"CREDBROKER_TEST_NEVER_SHOWN\" }
grace_seconds = 30
scopes = [\"read\", \"write\"]
sources = [\"the manual\"]
";

async fn start() -> TestBroker {
    TestBroker::start_with(Options {
        connectors: OWN.to_owned(),
        ..Options::default()
    })
    .await
}

// req: N10
#[tokio::test]
async fn connectors_are_told_with_all_that_is_configured_and_no_secret() {
    let broker = start().await;
    let operator = broker.prepare().await;
    let (mut listed, mut token) = (Vec::new(), String::new());
    loop {
        let request = proto::ListConnectorsRequest {
            page_size: 3,
            page_token: token,
        };
        let page = operator
            .executors()
            .list_connectors(request)
            .await
            .unwrap()
            .into_inner();
        assert!(page.connectors.len() <= 3);
        listed.extend(page.connectors);
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let names: Vec<_> = listed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["acme", "claude", "google", "openai"]);

    let acme = connector(&operator, "acme").await.unwrap();
    assert!(acme.usable && acme.off_because.is_empty() && acme.terms.is_none());
    assert_eq!(acme.sharing(), ConnectorSharing::Any);
    assert_eq!(
        (acme.grace.unwrap().seconds, acme.lead.unwrap().seconds),
        (30, 300)
    );
    assert_eq!(acme.hosts, ["id.invalid"]);
    let endpoints: Vec<_> = acme
        .endpoints
        .iter()
        .map(|one| (one.kind(), one.url.as_str(), one.discovered))
        .collect();
    assert_eq!(
        endpoints,
        [(EndpointKind::Token, "https://id.invalid/token", false)]
    );
    assert_eq!(
        acme.discovery.as_ref().unwrap().issuer,
        "https://id.invalid/tenant"
    );
    assert_eq!(
        (acme.client_id.as_str(), acme.client_auth.as_str()),
        ("c", "post")
    );
    assert_eq!(acme.redirects[0].uri, "http://127.0.0.1/callback");
    assert!(acme.redirects[0].ports.is_empty() && acme.redirects[0].pkce);
    assert_eq!((acme.scopes.len(), acme.sources.len()), (2, 1));
    assert!(!format!("{acme:?}").contains("NEVER_SHOWN"));

    let claude = connector(&operator, "claude").await.unwrap();
    assert_eq!(claude.sharing(), ConnectorSharing::Personal);
    assert!(
        claude.rotates && !claude.old_access_survives && claude.grace.is_none() && claude.discovery.is_none()
    );
    assert_eq!(claude.endpoints.len(), 3);
    assert_eq!(claude.redirects[0].kind(), RedirectKind::Paste);
    assert!(claude.redirects[0].code_and_state && !claude.sources.is_empty());
    let google = connector(&operator, "google").await.unwrap();
    assert!(!google.rotates && !google.redirects[0].pkce && google.redirects[1].pkce);
    let openai = connector(&operator, "openai").await.unwrap();
    assert_eq!(openai.redirects[0].ports, [1455, 1457]);
    assert_eq!(
        reason(&connector(&operator, "nobody").await.unwrap_err()),
        "NOT_FOUND"
    );
}

// req: N10
#[tokio::test(flavor = "multi_thread")]
async fn connectors_are_shown_by_command_to_people_and_programs() {
    let starting = SPAWNING.write().await;
    let broker = start().await;
    drop(starting);
    broker.prepare().await;
    let user = User::new();
    let address = broker.address.to_string();
    user.connect(&address, &broker.pin, ORG, broker.operator_token())
        .await;
    let run = async |line: &str| user.credbroker(&line.split(' ').collect::<Vec<_>>()).await;

    let names = run("connector list -o name").await.good();
    assert_eq!(names, "acme\nclaude\ngoogle\nopenai\n");
    let listed = run("connector list").await.good();
    let claude = listed.lines().find(|line| line.starts_with("claude")).unwrap();
    assert!(
        claude.contains("anthropic") && claude.contains("personal"),
        "{listed}"
    );
    let flat = listed.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("terms are not accepted"), "{listed}");

    let shown: Value = run("connector show acme -o json").await.json();
    assert_eq!(
        (&shown["usable"], &shown["terms_accepted"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(
        (&shown["grace"], &shown["lead"], &shown["sharing"]),
        (&json!(30), &json!(300), &json!("any"))
    );
    assert_eq!(
        shown["endpoints"],
        json!([{ "kind": "token", "url": "https://id.invalid/token", "discovered": false }])
    );
    assert_eq!(shown["issuer"], "https://id.invalid/tenant");
    assert_eq!(shown["discovery_warnings"], json!([]));
    assert_eq!(
        (&shown["discovery_place"], &shown["discovery_time"]),
        (&json!(""), &Value::Null)
    );
    // Programs find the same keys in each.
    let keys = |shown: &Value| shown.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let without: Value = run("connector show openai -o json").await.json();
    assert_eq!(keys(&without), keys(&shown));
    for key in ["issuer", "discovery_place", "discovery_warnings"] {
        assert_eq!(without[key], Value::Null, "{key}");
    }
    let shown = run("connector show openai").await.good();
    let told = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    for words in [
        "OpenAI's guide to Codex in CI",
        "token https://auth.openai.com/oauth/token",
        "loopback http://localhost/auth/callback port 1455 or 1457 (S256)",
        "the public source of the Codex CLI",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(
        !told.contains("NEVER_SHOWN") && !told.contains("issuer"),
        "{told}"
    );
    run("connector show nobody").await.bad(1, &["NOT_FOUND"]);
}
