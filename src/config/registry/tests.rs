//! The shipped registry, what an extra file makes of it, and the faults of those that do not load.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::domain::executor::Expectation;
use crate::domain::key_shape::ShapeMismatch;
use crate::domain::mode::{AuthMode, CredentialKind};
use crate::domain::task::Capacity;

fn extra(text: &str) -> Result<Registry, RegistryError> {
    load(&[Extra {
        file: "extra.toml",
        text,
    }])
}

/// What the shipped registry says, in full: a mode that slips in or out shows here.
// req: A3 C8
#[test]
fn the_shipped_registry_has_the_promised_modes() {
    const NATIVE: &str = "oauth byok metered shared host-session";
    let registry = load(&[]).unwrap();
    let told: Vec<_> = registry
        .executors()
        .flat_map(|executor| {
            executor
                .usable()
                .map(move |(provider, modes)| (executor, provider, modes))
        })
        .map(|(executor, provider, modes)| {
            let modes: Vec<_> = modes.iter().map(AuthMode::name).collect();
            (executor.name.as_str(), provider, modes.join(" "))
        })
        .collect();
    let expected = [
        ("claude-code", "anthropic", NATIVE),
        ("claude-code", "bedrock", "byok metered"),
        ("claude-code", "lm-studio", "local"),
        ("claude-code", "ollama", "local"),
        ("codex", "openai", NATIVE),
        ("codex", "lm-studio", "local"),
        ("codex", "ollama", "local"),
        ("codex", "openai-compatible", "byok"),
        ("gemini-cli", "google", NATIVE),
    ];
    assert_eq!(told, expected.map(|(e, p, modes)| (e, p, modes.to_owned())));
    assert!(registry.modes("codex", "anthropic").is_empty());
    assert!(registry.modes("unknown", "anthropic").is_empty());
}

// req: C8
#[test]
fn local_servers_take_no_credential_and_compatible_endpoints_take_a_key() {
    let registry = load(&[]).unwrap();
    for (name, base_url) in [
        ("ollama", "http://localhost:11434"),
        ("lm-studio", "http://localhost:1234"),
    ] {
        let provider = registry.provider(name).unwrap();
        assert_eq!(provider.credential, Expectation::None, "{name}");
        assert!(provider.kinds.is_empty(), "{name}");
        assert_eq!(provider.base_url.as_deref(), Some(base_url));
        assert!(provider.serves("any-model:7b"), "{name}");
    }
    let compatible = registry.provider("openai-compatible").unwrap();
    assert_eq!(compatible.credential, Expectation::Required);
    assert_eq!(compatible.kinds, [CredentialKind::ApiKey]);
    assert_eq!(compatible.base_url, None);
}

// req: A4
#[test]
fn native_providers_know_their_own_models_and_bedrock_has_names_for_some() {
    let registry = load(&[]).unwrap();
    let models = [
        ("anthropic", "claude-sonnet-4-5"),
        ("anthropic", "opusplan"),
        ("openai", "gpt-5-codex"),
        ("google", "gemini-2.5-pro"),
    ];
    for (provider, model) in models {
        for native in ["anthropic", "openai", "google"] {
            let serves = registry.provider(native).unwrap().serves(model);
            assert_eq!(serves, native == provider, "{native} {model}");
        }
    }
    let bedrock = registry.provider("bedrock").unwrap();
    assert_eq!(
        bedrock.model_id("claude-sonnet-4-5"),
        "anthropic.claude-sonnet-4-5-20250929-v1:0"
    );
    for (model, id) in &bedrock.model_ids {
        // An id that was put beside the wrong name bills another model.
        assert!(id.starts_with(&format!("anthropic.{model}")), "{model} {id}");
    }
}

// req: E12
#[test]
fn each_capacity_has_a_shipped_default_pool_that_a_file_can_replace() {
    let registry = load(&[]).unwrap();
    for (capacity, name) in [(Capacity::Cloud, "cloud"), (Capacity::Local, "local")] {
        let default = registry.default_pool(capacity);
        assert_eq!((default.name.as_str(), default.capacity), (name, capacity));
        assert_eq!(registry.pool(name), Some(default));
    }
    let registry = extra(
        "[pools.cloud]\ndefault = false\n[pools.team-a]\ntitle = \"A\"\ncapacity = \"cloud\"\ndefault = true\n",
    )
    .unwrap();
    let default = registry.default_pool(Capacity::Cloud);
    assert_eq!(default.name.as_str(), "team-a");
    let names: Vec<_> = registry.pools().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["cloud", "local", "team-a"]);
}

// req: B9
#[test]
fn the_shipped_shapes_tell_the_providers_apart() {
    let registry = load(&[]).unwrap();
    let gemini = format!("AIza{}", "a-_".repeat(12).get(..35).unwrap());
    let keys = [
        ("anthropic", "sk-ant-api03-abc"),
        ("openai", "sk-abc"),
        ("openai", "sk-proj-abc"),
        ("openai", "sk-svcacct-abc"),
        ("google", &gemini),
        ("bedrock", "bedrock-api-key-abc"),
        ("bedrock", "ABSKabcdef"),
    ];
    for (provider, key) in keys {
        for stored_for in ["anthropic", "openai", "google", "bedrock"] {
            let checked = registry.check_key(stored_for, key);
            if stored_for == provider {
                assert_eq!(checked, Ok(()), "{key}");
            } else {
                assert_eq!(
                    checked.unwrap_err().looks_like(),
                    Some(provider),
                    "{key} for {stored_for}"
                );
            }
        }
    }
    for token in ["sk-ant-oat01-abc", "sk-ant-ort01-abc"] {
        let refused = registry.check_key("anthropic", token).unwrap_err();
        assert!(matches!(refused, ShapeMismatch::OAuthToken { .. }));
    }
}

#[test]
fn an_extra_file_extends_and_overrides_key_by_key() {
    let registry = extra(
        "[providers.mine]\ntitle = \"Mine\"\nkinds = [\"api-key\"]\n\
         [executors.claude-code.providers]\nmine = [\"byok\"]\nbedrock = []\n\
         [executors.own]\nnative_provider = \"mine\"\nproviders = { mine = [\"local\", \"byok\"] }\n",
    )
    .unwrap();
    assert!(registry.modes("claude-code", "mine").contains(AuthMode::Byok));
    assert!(registry.modes("claude-code", "bedrock").is_empty());
    assert!(
        registry
            .modes("claude-code", "anthropic")
            .contains(AuthMode::OAuth)
    );
    assert!(registry.modes("own", "mine").contains(AuthMode::Local));
}

// req: A3 C8
#[test]
fn errors_name_the_file_the_key_and_the_remedy() {
    let long = "x".repeat(129);
    let many = |entry: &str| vec![format!("{entry:?}"); 65].join(", ");
    let cases: Vec<(String, &str, &str)> = [
        ("x", "", "expected"),
        ("[other]\n", "", "unknown field `other`"),
        (
            "[executors.e]\nnative_provider = \"anthropic\"\n",
            "executors.e",
            "missing field `providers`",
        ),
        (
            "[executors.e]\nnative_provider = \"anthropic\"\nproviders = {}\n",
            "executors.e.providers",
            "is empty",
        ),
        (
            "[executors.codex.providers]\nnobody = [\"byok\"]\n",
            "executors.codex.providers.nobody",
            "there is no provider nobody; add [providers.nobody]",
        ),
        (
            "[executors.codex.providers]\nopenai = [\"free\"]\n",
            "executors.codex.providers.openai",
            "there is no mode free; the modes are",
        ),
        (
            "[executors.codex.providers]\nollama = [\"local\", \"byok\"]\n",
            "executors.codex.providers.ollama",
            "only mode local fits; remove byok",
        ),
        (
            "[executors.claude-code.providers]\nbedrock = [\"oauth\"]\n",
            "executors.claude-code.providers.bedrock",
            "mode oauth needs the kind oauth-grant; add one to the kinds of bedrock",
        ),
        (
            "[providers.openai]\nkinds = [\"oauth-grant\"]\n",
            "executors.codex.providers.openai",
            "mode byok needs one of the kinds api-key, aws and bedrock-bearer",
        ),
        (
            "[executors.codex.providers]\nopenai-compatible = [\"host-session\"]\n",
            "executors.codex.providers.openai-compatible",
            "at its native provider openai; remove it here",
        ),
        (
            "[executors.codex]\nnative_provider = \"google\"\n",
            "executors.codex.native_provider",
            "add it there",
        ),
        (
            "[providers.openai]\nkinds = [\"paper\"]\n",
            "providers.openai.kinds",
            "there is no kind paper; the kinds are",
        ),
        (
            "[providers.openai]\nkinds = []\n",
            "providers.openai.kinds",
            "set credential = \"none\"",
        ),
        (
            "[providers.ollama]\nkinds = [\"api-key\"]\n",
            "providers.ollama.kinds",
            "takes no kind; remove them",
        ),
        (
            "[providers.ollama]\ncredential = \"maybe\"\n",
            "providers.ollama",
            "unknown variant `maybe`",
        ),
        (
            "[providers.openai]\ntitel = \"x\"\n",
            "providers.openai",
            "unknown field `titel`",
        ),
        (
            "[providers.Mine]\ntitle = \"x\"\nkinds = [\"aws\"]\n",
            "providers.Mine",
            "a name is",
        ),
        (
            "[providers.openai]\ntitle = \"\"\n",
            "providers.openai.title",
            "is empty",
        ),
        (
            "[providers.openai]\nbase_url = \"api.openai.com\"\n",
            "providers.openai.base_url",
            "write it as https://host",
        ),
        (
            "[providers.ollama]\nbase_url = \"http://10.0.0.5:11434\"\n",
            "providers.ollama.base_url",
            "use https",
        ),
        (
            "[providers.openai]\nbase_url = \"https://u:p@api.openai.com\"\n",
            "providers.openai.base_url",
            "remove it",
        ),
        (
            "[providers.openai]\nmodels = [\"\"]\n",
            "providers.openai.models",
            "\"\": a pattern of models cannot be empty",
        ),
        (
            "[providers.openai]\nmodels = [\"a*b*c*d*e*\"]\n",
            "providers.openai.models",
            "at most 4 stars",
        ),
        (
            "[providers.bedrock.model_ids]\nclod-4 = \"anthropic.claude-4\"\n",
            "providers.bedrock.model_ids",
            "clod-4 is among the `models` of no other provider; mend the name",
        ),
        (
            "[providers.bedrock.model_ids]\nclaude-4 = \"\"\n",
            "providers.bedrock.model_ids.\"claude-4\"",
            "is empty",
        ),
        (
            "[pools.mine]\ntitle = \"x\"\ncapacity = \"cloud\"\ndefault = true\n",
            "pools",
            "cloud and mine are both the default for capacity cloud; set default = false",
        ),
        (
            "[pools.local]\ndefault = false\n",
            "pools",
            "no pool of capacity local is the default",
        ),
        (
            "[pools.a_b]\ntitle = \"x\"\ncapacity = \"cloud\"\n",
            "pools.a_b",
            "a name is",
        ),
        (
            "[pools.mine]\ntitle = \"x\"\ncapacity = \"fog\"\n",
            "pools.mine",
            "unknown variant `fog`",
        ),
    ]
    .map(|(text, key, told)| (text.to_owned(), key, told))
    .into_iter()
    .chain([
        (
            format!("[providers.openai]\ntitle = {long:?}\n"),
            "providers.openai.title",
            "longer than 128",
        ),
        (
            format!("[providers.openai]\nmodels = [{}]\n", many("gpt-*")),
            "providers.openai.models",
            "more than 64 entries",
        ),
    ])
    .collect();
    for (text, key, told) in cases {
        let error = extra(&text).unwrap_err();
        assert_eq!(error.key, key, "{text}: {error}");
        let message = error.to_string();
        assert!(message.starts_with("extra.toml: "), "{message}");
        assert!(message.contains(told), "{text}: {message}");
    }
}

// req: C4
#[test]
fn what_is_wrong_with_a_test_of_credentials_is_told_with_its_key() {
    let mine = "[providers.mine]\ntitle = \"Mine\"\nkinds = [\"api-key\", \"bedrock-bearer\"]\n";
    for (table, key, told) in [
        (
            "[providers.mine.test.aws]\nurl = \"https://h.example/\"\nauth = \"sigv4\"",
            "test.aws",
            "not among",
        ),
        (
            "[providers.mine.test.keys]\nurl = \"https://h.example/\"\nauth = \"bearer\"",
            "test.keys",
            "no kind",
        ),
        (
            "[providers.mine.test.api-key]\nurl = \"http://h.example/\"\nauth = \"bearer\"",
            "test.api-key.url",
            "https",
        ),
        (
            "[providers.mine.test.api-key]\nurl = \"/v1\"\nauth = \"bearer\"",
            "test.api-key.url",
            "https",
        ),
        (
            "[providers.mine.test.api-key]\nurl = \"https://{region}.h.example/\"\nauth = \"bearer\"",
            "test.api-key.url",
            "no region",
        ),
        (
            "[providers.mine.test.bedrock-bearer]\nurl = \"https://{region}.h.example/\"\nauth = \"bearer\"\n\
             regional_urls = { cn- = \"http://h.example/\" }",
            "test.bedrock-bearer.regional_urls.\"cn-\"",
            "https",
        ),
        (
            "[providers.mine.test.api-key]\nurl = \"https://h.example/\"\nauth = \"sigv4\"",
            "test.api-key.auth",
            "bearer",
        ),
        (
            "[providers.mine.test.api-key]\nurl = \"https://h.example/\"\nauth = \"bearer\"\n\
             headers = { Authorization = \"x\" }",
            "test.api-key.headers.\"Authorization\"",
            "remove it",
        ),
        (
            "[providers.mine.test.api-key]\nurl = \"https://h.example/\"\nauth = \"bearer\"\n\
             answers = [{ status = 700, means = \"works\" }]",
            "test.api-key.answers",
            "700",
        ),
        (
            "[providers.mine.test.api-key]\nurl = \"https://h.example/\"\nauth = \"bearer\"\n\
             answers = [{ status = 400, means = \"untestable\" }]",
            "test.api-key.answers",
            "untestable",
        ),
        (
            "[providers.mine.test.api-key]\nurl = \"https://h.example/\"",
            "test.api-key",
            "auth",
        ),
    ] {
        let text = format!("{mine}{table}\n");
        let extra = Extra {
            file: "mine.toml",
            text: &text,
        };
        let error = load(&[extra]).unwrap_err();
        assert_eq!(
            (error.file.as_str(), error.key),
            ("mine.toml", format!("providers.mine.{key}")),
            "{table}"
        );
        assert!(error.fault.to_string().contains(told), "{table}: {}", error.fault);
    }
}

// req: C4
#[test]
fn a_shipped_test_goes_with_its_kind() {
    use crate::domain::mode::CredentialKind;
    let narrowed = "[providers.bedrock]\nkinds = [\"bedrock-bearer\"]\n";
    let mine = |text| {
        load(&[Extra {
            file: "mine.toml",
            text,
        }])
    };
    let registry = mine(narrowed).unwrap();
    let bedrock = registry.provider("bedrock").unwrap();
    assert!(bedrock.test(CredentialKind::Aws).is_none());
    assert!(bedrock.test(CredentialKind::BedrockBearer).is_some());
    // What the file says itself, it can mend.
    let own = format!("{narrowed}[providers.bedrock.test.aws]\nservice = \"sts\"\n");
    let error = mine(&own).unwrap_err();
    assert_eq!(
        (error.file.as_str(), error.key.as_str()),
        ("mine.toml", "providers.bedrock.test.aws")
    );
}

// req: C4
#[test]
fn shipped_tests_are_those_of_documents_and_one_key_of_them_can_be_replaced() {
    use crate::domain::key_test::Presentation;
    use crate::domain::mode::CredentialKind;
    let over = "[providers.anthropic.test.api-key]\nurl = \"https://gateway.example/v1/models\"\n";
    let registry = load(&[Extra {
        file: "mine.toml",
        text: over,
    }])
    .unwrap();
    let test = |provider: &str, kind| registry.provider(provider).unwrap().test(kind).cloned();
    let anthropic = test("anthropic", CredentialKind::ApiKey).unwrap();
    assert_eq!(anthropic.url, "https://gateway.example/v1/models");
    assert_eq!(
        anthropic.headers,
        [("anthropic-version".to_owned(), "2023-06-01".to_owned())]
    );
    assert_eq!(anthropic.auth, Presentation::Header("x-api-key"));
    // No document says how a subscription's token is tested.
    assert_eq!(test("anthropic", CredentialKind::OAuthGrant), None);
    let aws = test("bedrock", CredentialKind::Aws).unwrap();
    for (region, host) in [
        ("us-gov-west-1", "https://sts.us-gov-west-1.amazonaws.com/?"),
        ("cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn/?"),
    ] {
        assert!(aws.url_in(region).starts_with(host));
    }
    for provider in ["openai", "google"] {
        assert!(test(provider, CredentialKind::ApiKey).is_some(), "{provider}");
    }
}
