//! Subscriptions: off until their terms are accepted in the configuration, and never an org's.

use std::fs;

use tempfile::TempDir;

use super::{connector, import};
use crate::support::broker::{MEMBER, ORG};
use crate::support::process::{Installation, run, text};
use crate::support::{Options, TestBroker, details, reason};

const SUBSCRIPTIONS: [&str; 3] = ["claude", "openai", "google"];

/// Client ids, which the operator has to bring, in a file of the operator's.
fn clients(folder: &TempDir) -> String {
    let file = folder.path().join("clients.toml");
    let mut text = String::new();
    for name in SUBSCRIPTIONS {
        text += &format!("[connectors.{name}]\nclient_id = \"of-the-operator\"\n");
        if name == "google" {
            text += "client_secret = { env = \"CREDBROKER_TEST_UNSET\" }\n";
        }
    }
    fs::write(&file, text).unwrap();
    format!("files = [{:?}]\n", file.display().to_string())
}

// req: N10
#[tokio::test]
async fn subscriptions_are_off_until_their_terms_are_accepted_and_then_a_members_only() {
    let folder = tempfile::tempdir().unwrap();
    let files = clients(&folder);
    let broker = TestBroker::start_with(Options {
        config: format!("[connectors]\n{files}"),
        ..Options::default()
    })
    .await;
    let operator = broker.prepare().await;
    for name in SUBSCRIPTIONS {
        for member in [MEMBER, ""] {
            let refused = import(&operator, ORG, member, name).await.unwrap_err();
            assert_eq!(reason(&refused), "CONNECTOR_DISABLED", "{name}");
            assert!(
                refused.message().contains("connectors.accept_terms"),
                "{refused:?}"
            );
            let details = details(&refused);
            assert_eq!(details.error_info().unwrap().metadata["connector"], name);
        }
        let shown = connector(&operator, name).await.unwrap();
        assert!(!shown.usable && shown.off_because.contains("connectors.accept_terms"));
        let terms = shown.terms.unwrap();
        assert!(!terms.accepted && !terms.text.is_empty() && terms.url.starts_with("https://"));
    }

    // One of them is accepted: that one, and no other.
    let broker = broker
        .restart_with(|options| {
            options.config = format!("[connectors]\naccept_terms = [\"claude\"]\n{files}")
        })
        .await;
    let operator = broker.operator().await;
    let refused = import(&operator, ORG, MEMBER, "openai").await.unwrap_err();
    assert_eq!(reason(&refused), "CONNECTOR_DISABLED");
    let refused = import(&operator, ORG, "", "claude").await.unwrap_err();
    assert_eq!(reason(&refused), "GRANT_NOT_SHAREABLE");
    assert!(refused.message().contains("belong to a member"), "{refused:?}");
    let stored = import(&operator, ORG, MEMBER, "claude").await.unwrap();
    assert_eq!((&*stored.connector, &*stored.provider), ("claude", "anthropic"));
    let shown = connector(&operator, "claude").await.unwrap();
    assert!(shown.usable && shown.off_because.is_empty() && shown.terms.unwrap().accepted);

    // All are: none of their grants can be an org's.
    let all = format!("[connectors]\naccept_terms = {SUBSCRIPTIONS:?}\n{files}");
    let broker = broker.restart_with(|options| options.config = all).await;
    let operator = broker.operator().await;
    for name in SUBSCRIPTIONS {
        let refused = import(&operator, ORG, "", name).await.unwrap_err();
        assert_eq!(reason(&refused), "GRANT_NOT_SHAREABLE", "{name}");
        import(&operator, ORG, MEMBER, name).await.unwrap();
    }
}

// req: N10
#[tokio::test]
async fn terms_are_lifted_by_no_file_and_what_is_wrong_is_found_by_check() {
    let made = Installation::make("", "").await;
    let file = made.data_dir().with_file_name("connectors.toml");
    let check = async |text_of_file: &str| {
        fs::write(&file, text_of_file).unwrap();
        let ended = run(&["check", "--config", made.config().to_str().unwrap()]).await;
        match ended.status.success() {
            true => Ok(text(&ended.stdout)),
            false => Err(text(&ended.stderr)),
        }
    };
    for (written, key, remedy) in [
        (
            "[connectors.claude]\nsharing = \"any\"\n",
            "claude.sharing",
            "cannot be overridden; remove it",
        ),
        (
            "[connectors.claude]\nterms = \"none\"\n",
            "claude.terms",
            "cannot be overridden; remove it",
        ),
        (
            "[connectors.claude]\ntoken_url = \"https://elsewhere.example/t\"\n",
            "claude.token_url",
            "add it to `hosts`",
        ),
        (
            "[connectors.acme]\nissuer = \"http://id.example\"\n",
            "acme.issuer",
            "use https",
        ),
        (
            "[connectors.acme]\nisuer = \"https://id.example\"\n",
            "acme.isuer",
            "correct or remove it",
        ),
        (
            "[connectors.acme]\nissuer = \"https://id.example\"\nclient_id = \"c\"\nprovider = \"nobody\"\n",
            "acme.provider",
            "correct it, or add the provider",
        ),
        (
            "[connectors.acme]\nissuer = \"https://id.example\"\nclient_id = \"c\"\nclient_secret = \"s3cret\"\n",
            "acme.client_secret",
            "never the secret itself",
        ),
    ] {
        let said = check(written).await.unwrap_err();
        let place = format!("{}: connectors.{key}: ", file.display());
        assert!(said.contains(&place) && said.contains(remedy), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
    // An issuer that nobody answers at is no fault of the configuration.
    let good = "[connectors.acme]\nissuer = \"https://id.invalid/x\"\nclient_id = \"c\"\n";
    assert!(check(good).await.unwrap().contains("is good"));
}

// req: N10
#[tokio::test]
async fn accepting_terms_does_not_switch_on_what_a_file_switches_off() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("off.toml");
    fs::write(&file, "[connectors.claude]\nenabled = false\nclient_id = \"c\"\n").unwrap();
    let config = format!(
        "[connectors]\naccept_terms = [\"claude\"]\nfiles = [{:?}]\n",
        file.display().to_string()
    );
    let broker = TestBroker::start_with(Options {
        config,
        ..Options::default()
    })
    .await;
    let operator = broker.prepare().await;
    let shown = connector(&operator, "claude").await.unwrap();
    assert!(
        !shown.usable && shown.off_because.contains("enabled = true"),
        "{}",
        shown.off_because
    );
    assert_eq!(shown.client_id, "c");
}
