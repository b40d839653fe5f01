//! The registry by command: `credbrokerd check` finds its faults, `credbroker` shows it.

use std::fs;

use credbroker::daemon::Inputs;
use serde_json::{Value, json};

use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::process::{Installation, run, text};
use crate::support::{Options, TestBroker};
use crate::user::{SPAWNING, User};

/// What `credbrokerd check` says of this registry file, with `config` beside it.
async fn checked(made: &Installation, registry: &str, config: &str) -> Result<String, String> {
    fs::write(made.data_dir().with_file_name("registry.toml"), registry).unwrap();
    made.configure(config);
    let ended = run(&["check", "--config", made.config().to_str().unwrap()]).await;
    match ended.status.success() {
        true => Ok(text(&ended.stdout)),
        false => Err(text(&ended.stderr)),
    }
}

// req: A3 C8
#[tokio::test]
async fn faults_are_found_by_check_with_file_key_and_remedy() {
    let made = Installation::make("", "").await;
    let file = made.data_dir().with_file_name("registry.toml");
    for (registry, key, remedy) in [
        (
            "[providers.mine]\ntitle = \"Mine\"\nkinds = [\"paper\"]\n",
            "providers.mine.kinds",
            "the kinds are oauth-grant, api-key",
        ),
        (
            "[executors.codex.providers]\nopenai = [\"free\"]\n",
            "executors.codex.providers.openai",
            "the modes are oauth, byok",
        ),
        (
            "[executors.codex.providers]\nollama = [\"metered\"]\n",
            "executors.codex.providers.ollama",
            "only mode local fits; remove metered",
        ),
        (
            "[providers.ollama]\nbase_url = \"http://10.0.0.5:11434\"\n",
            "providers.ollama.base_url",
            "use https",
        ),
        (
            "[providers.anthropic]\nmodels = [\"\"]\n",
            "providers.anthropic.models",
            "`*` matches every model",
        ),
        (
            "[providers.bedrock.model_ids]\nclod = \"x\"\n",
            "providers.bedrock.model_ids",
            "mend the name",
        ),
        (
            "[pools.mine]\ntitle = \"Mine\"\ncapacity = \"cloud\"\ndefault = true\n",
            "pools",
            "set default = false for one of them",
        ),
    ] {
        let said = checked(&made, registry, "").await.unwrap_err();
        let place = format!("{}: {key}: ", file.display());
        assert!(said.contains(&place) && said.contains(remedy), "{said}");
    }
    let good = "[providers.mine]\ntitle = \"Mine\"\ncredential = \"none\"\nbase_url = \"http://localhost:8080\"\n\
                [executors.codex.providers]\nmine = [\"local\"]\n";
    assert!(checked(&made, good, "").await.unwrap().contains("is good"));

    // req: E11
    let listed = "[local]\nprobe_endpoints = [\"http://10.0.0.5:11434\", \"ftp://h.example\"]\n";
    let said = checked(&made, good, listed).await.unwrap_err();
    let config = made.config().display().to_string();
    assert!(
        said.contains(&format!(
            "{config}: local.probe_endpoints: 'ftp://h.example' is no http or https URL"
        )),
        "{said}"
    );
}

/// The example of docs/registry.md, as it stands there.
fn worked_example() -> &'static str {
    let page = include_str!("../../docs/registry.md");
    let example = page.split("<!-- example: registry.toml -->").nth(1).unwrap();
    let example = example.split("```toml\n").nth(1).unwrap();
    example.split("```").next().unwrap()
}

// req: A3 C8 E12
#[tokio::test]
async fn the_documented_example_works_as_documented() {
    let made = Installation::make("", "").await;
    let said = checked(&made, worked_example(), "").await.unwrap();
    assert!(said.contains("is good"), "{said}");
    // What the broker makes of the same files.
    let config = credbroker::config::Config::load(&made.config(), &|_| None).unwrap();
    let registry = Inputs::load(config).unwrap().registry;
    let vllm = registry.provider("vllm").unwrap();
    assert_eq!(vllm.base_url.as_deref(), Some("https://models.example.com"));
    assert!(vllm.serves("qwen3-coder") && !vllm.serves("claude-opus-4-7"));
    assert!(!registry.modes("codex", "vllm").is_empty());
    assert_eq!(registry.pool("team-a").unwrap().title, "Team A's sandboxes");
}

// req: A3 C8 E12 E13 K6
#[tokio::test(flavor = "multi_thread")]
async fn the_registry_is_shown_by_command_to_people_and_programs() {
    let starting = SPAWNING.write().await;
    let broker = TestBroker::start_with(Options::default()).await;
    drop(starting);
    broker.prepare().await;
    let user = User::new();
    let address = broker.address.to_string();
    user.connect(&address, &broker.pin, ORG, broker.operator_token())
        .await;
    let run = async |line: &str| user.credbroker(&line.split(' ').collect::<Vec<_>>()).await;
    let show = async |line: &str| -> Value { run(&format!("{line} -o json")).await.json() };

    let listed = run("provider list").await.good();
    let row = |name: &str| {
        listed
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    assert!(row("ollama").contains("none"), "{listed}");
    let names = run("provider list -o name").await.good();
    assert!(names.starts_with("anthropic\nbedrock\n"), "{names}");
    let bedrock = show("provider show bedrock").await;
    assert_eq!(bedrock["kinds"], json!(["aws", "bedrock-bearer"]));
    assert_eq!(bedrock["credential"], "required");
    assert_eq!(
        bedrock["executors"],
        json!({ "claude-code": ["byok", "metered"] })
    );
    assert_eq!(
        bedrock["model_ids"]["claude-sonnet-4-6"],
        "anthropic.claude-sonnet-4-6"
    );
    let anthropic = show("provider show anthropic").await;
    assert_eq!(anthropic["connectors"][0]["name"], "claude");
    assert_eq!(anthropic["connectors"][0]["usable"], false);
    let shown = run("provider show anthropic").await.good();
    let told = shown.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains("claude (off) Anthropic's Claude Code legal page"),
        "{told}"
    );
    run("provider show nobody").await.bad(1, &["NOT_FOUND"]);

    let codex = show("executor show codex").await;
    assert_eq!(codex["providers"]["lm-studio"], json!(["local"]));
    assert_eq!(codex["ways"][0]["provider"], "openai");
    assert_eq!(codex["ways"][0]["mode"], "oauth");
    let shown = run("executor show codex").await.good();
    assert!(shown.contains("ollama (local)"), "{shown}");
    assert!(
        shown.contains("openai byok: fault NO_CREDENTIAL_CONFIGURED"),
        "{shown}"
    );

    let pools = show("pool list").await;
    assert_eq!(
        pools[1],
        json!({ "name": "local", "title": "Members' own machines", "capacity": "local", "default": true })
    );
    let create = format!("task create --member {MEMBER} --project {PROJECT} --executor demo-agent");
    let task = show(&format!("{create} --capacity local --pool local")).await;
    assert_eq!(
        (&task["pool"], &task["capacity"]),
        (&json!("local"), &json!("local"))
    );
    run(&format!("{create} --pool local"))
        .await
        .bad(64, &["INVALID_ARGUMENT", "has capacity local"]);
}
