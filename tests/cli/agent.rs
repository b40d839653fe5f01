//! What agents do in their sandbox, and the identity that they do it with.

use std::path::Path;
use std::time::Duration;

use credbroker::cli::identity::{Folder, certificate_request};
use credbroker::dev::oauth::{DemoOAuth, DemoOptions};
use credbroker::pki::csr::CheckedCsr;
use credbroker::pki::spiffe::AgentSubject;
use rcgen::KeyPair;
use serde_json::json;
use x509_parser::pem::Pem;

use super::*;

const KEY: &str = "the-members-key-6789";

// req: K6 B2 D8
#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_shown_only_where_it_is_asked_for() {
    let scene = Scene::new().await;
    let task = scene.task().await;
    scene.enroll(&task, "identity").await;
    scene
        .run_with("credential set --provider demo --member alex", KEY)
        .await
        .good();

    let resolve = "resolve --identity identity";
    assert_eq!(
        scene.run(&format!("{resolve} -o value")).await.good(),
        format!("{KEY}\n")
    );
    let rows = scene.run(resolve).await.good();
    assert!(
        !rows.contains(KEY) && rows.contains("not shown: '-o value'"),
        "{rows}"
    );
    let told = scene.run(&format!("{resolve} -o json")).await.good();
    assert!(!told.contains(KEY), "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (&told["lease"]["task"], &told["lease"]["mode"]),
        (&json!(task), &json!("byok"))
    );
    assert!(is_time(&told["lease"]["expire_time"]), "{told}");
    let shown = scene.json(&format!("{resolve} --show-secret")).await;
    assert_eq!(shown["lease"]["material"]["api_key"], KEY);

    // A service resolves as well, and reads whose the credential is; an operator does not.
    let key = scene.run("api-key create -o value").await.good();
    scene.user.file("key", &key, 0o600);
    for line in [
        format!("resolve --task {task}"),
        "resolve --member alex --project web --executor demo-agent".to_owned(),
    ] {
        let rows = scene.run(&format!("{line} --token-file key")).await.good();
        assert!(rows.contains("alex (mbr_") && !rows.contains(KEY), "{rows}");
        scene
            .run(&line)
            .await
            .bad(77, &["PERMISSION_DENIED", "at the scope of the system"]);
    }

    let lease = text(&told["lease"]["id"]);
    let released = scene
        .run(&format!("lease release {lease} --identity identity"))
        .await
        .good();
    assert_eq!(released, format!("released {lease}\n"));
    let reject = format!("lease reject {lease} --generation 1 --identity identity");
    scene.run(&reject).await.bad(1, &["LEASE_ENDED"]);
}

// req: B7
#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_token_is_replaced() {
    let provider = DemoOAuth::start(([127, 0, 0, 1], 0).into(), DemoOptions::default());
    let provider = provider.await.unwrap();
    let options = Options {
        connectors: support::broker::connector(&provider.token_url(), "cli", ""),
        ..Options::default()
    };
    let scene = Scene::bare(options).await;
    scene.broker.prepare().await;
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mint = reqwest::Client::builder().no_proxy().build().unwrap();
    let mint = mint
        .post(format!("http://{}/grants", provider.addr()))
        .send()
        .await
        .unwrap();
    let grant: Value = mint.json().await.unwrap();
    scene.user.file("access", text(&grant["access_token"]), 0o600);
    let import =
        "credential import --connector demo --member alex --access-token-file access --expires-in 1h";
    scene.run_with(import, text(&grant["refresh_token"])).await.good();
    let task = scene.task().await;
    scene.enroll(&task, "identity").await;

    let first = scene.json("resolve --identity identity --show-secret").await["lease"].clone();
    assert_eq!(first["material"]["access_token"], grant["access_token"]);
    let lease = text(&first["id"]);
    let reject = format!("lease reject {lease} --generation 1 --identity identity");
    let second = scene.json(&reject).await["lease"].clone();
    assert_eq!((&second["generation"], &second["id"]), (&json!(2), &first["id"]));
    assert!(
        second["material"]["access_token"].is_null(),
        "no secret unasked: {second}"
    );
    let value = scene.run("resolve --identity identity -o value").await.good();
    assert!(!value.contains(text(&grant["access_token"])), "a newer token");
}

/// When the certificate in an identity's folder ends, in seconds of the epoch.
fn certificate_end(folder: &Path) -> i64 {
    let pem = std::fs::read(folder.join("cert.pem")).unwrap();
    let leaf = Pem::iter_from_buffer(&pem).next().unwrap().unwrap();
    leaf.parse_x509().unwrap().validity().not_after.timestamp()
}

/// Puts another certificate of the broker's into the identity: one of a day, so old already.
async fn age(scene: &Scene, name: &str, old: Duration) {
    let folder = scene.user.path(name);
    let key = std::fs::read_to_string(folder.join("key.pem")).unwrap();
    let csr = certificate_request(&KeyPair::from_pem(&key).unwrap()).unwrap();
    let about = Folder::at(&folder).about().unwrap().unwrap();
    let subject = AgentSubject {
        org: about.org.parse().unwrap(),
        environment: about.environment.parse().unwrap(),
        agent: about.agent.parse().unwrap(),
    };
    let begin = credbroker::domain::time::Time::from_millis(
        support::broker::now().millis() - i64::try_from(old.as_millis()).unwrap(),
    );
    let day = Duration::from_secs(86_400);
    let csr = CheckedCsr::parse(&csr).unwrap();
    let authority = scene.broker.broker.authority();
    let aged = authority.issue_agent(&csr, subject, begin, day).unwrap();
    let roots = authority.trust_bundle_der();
    let folder = Folder::at(&folder);
    folder
        .replace_certificate(&aged.chain_der, &roots, &about)
        .unwrap();
}

// req: D5
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_when_it_is_used_in_its_last_third() {
    let scene = Scene::new().await;
    let task = scene.task().await;
    scene.enroll(&task, "identity").await;
    scene
        .run_with("credential set --provider demo --member alex", KEY)
        .await
        .good();
    let folder = scene.user.path("identity");
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);

    age(&scene, "identity", hours(15)).await;
    let early = certificate_end(&folder);
    scene.run("resolve --identity identity").await.good();
    assert_eq!(certificate_end(&folder), early, "more than a third is left");

    age(&scene, "identity", hours(17)).await;
    let late = certificate_end(&folder);
    let key = std::fs::read(folder.join("key.pem")).unwrap();
    scene.run("resolve --identity identity").await.good();
    let renewed = certificate_end(&folder);
    assert!(renewed > late + 3_600, "{renewed} is not after {late}");
    assert_eq!(
        std::fs::read(folder.join("key.pem")).unwrap(),
        key,
        "the enrolled key"
    );
    let about = std::fs::read_to_string(folder.join("identity.toml")).unwrap();
    let end = jiff::Timestamp::from_second(renewed).unwrap().to_string();
    assert!(
        about.contains(end.trim_end_matches('Z')),
        "{end} is not in {about}"
    );
    scene.run("resolve --identity identity").await.good();
    assert_eq!(certificate_end(&folder), renewed, "once");

    // So does `enroll`, which finds that there is an identity. Another one: what was aged here is no certificate
    // that the broker knows of, and with two renewals from two of those it looks like a copy.
    scene.enroll(&task, "other").await;
    age(&scene, "other", hours(20)).await;
    let (address, pin) = (scene.broker.address, &scene.broker.pin);
    let enroll = format!("enroll --address {address} --ca-pin {pin} --identity other");
    let again = scene.run(&enroll).await.good();
    assert!(again.starts_with("enrolled already as agt_"), "{again}");
    assert!(certificate_end(&scene.user.path("other")) > late + 3_600);
    let actions = scene.json("journal list").await;
    let actions = actions.as_array().unwrap().iter();
    let renewals = actions.filter(|record| record["action"] == "agent.renew_certificate");
    assert_eq!(renewals.filter(|record| record["phase"] == "finish").count(), 2);
}

// req: D5
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_ended_in_a_long_sleep_is_renewed_at_use() {
    let scene = Scene::new().await;
    let task = scene.task().await;
    scene.enroll(&task, "identity").await;
    let set = "credential set --provider demo --member alex";
    scene.run_with(set, KEY).await.good();
    age(&scene, "identity", Duration::from_secs(26 * 3_600)).await;
    let folder = scene.user.path("identity");
    let ended = certificate_end(&folder);
    // Several at once renew it once: those that come later go on with what the first has brought.
    let resolve = "resolve --identity identity -o value";
    let (one, two, three) = tokio::join!(scene.run(resolve), scene.run(resolve), scene.run(resolve));
    for answer in [one, two, three] {
        assert_eq!(answer.good(), format!("{KEY}\n"));
    }
    assert!(certificate_end(&folder) > ended + 3_600);
    let actions = scene.json("journal list").await;
    let actions = actions.as_array().unwrap().iter();
    let renewals = actions.filter(|record| record["action"] == "agent.renew_certificate");
    assert_eq!(renewals.filter(|record| record["phase"] == "finish").count(), 1);
}

// req: D5 K3
#[tokio::test(flavor = "multi_thread")]
async fn an_identity_whose_certificate_has_ended_says_to_enroll_again() {
    let scene = Scene::new().await;
    let task = scene.task().await;
    let enrolled = scene.enroll(&task, "identity").await;
    age(&scene, "identity", Duration::from_secs(26 * 3_600)).await;
    let agent = enrolled.split_whitespace().nth(2).unwrap();
    scene.run(&format!("agent revoke {agent} --yes")).await.good();
    let resolve = scene.run("resolve --identity identity").await;
    resolve.bad(
        78,
        &[
            agent,
            "has ended (2h ago",
            "the agent was revoked",
            "Enroll again",
        ],
    );
    // Which needs no --force: what is there serves no one.
    let again = scene.enroll(&task, "identity").await;
    assert!(
        again.starts_with("enrolled as agt_") && again != enrolled,
        "{again}"
    );
    scene.run("whoami --identity identity").await.good();
}

// req: D5 D4 K7
#[tokio::test(flavor = "multi_thread")]
async fn agents_are_introspected_filtered_and_go_with_their_token() {
    let scene = Scene::new().await;
    let mint = format!(
        "enrollment-token create --project {PROJECT} --environment {ENVIRONMENT} --max-agents 2 \
         --allow-network 127.0.0.0/8 --label team=red"
    );
    let minted = scene.json(&mint).await;
    let token = &minted["tokens"][0];
    let id = text(&token["enrollment_token"]["id"]).to_owned();
    assert_eq!(
        token["enrollment_token"]["allowed_networks"],
        json!(["127.0.0.0/8"])
    );
    let (address, pin) = (scene.broker.address, &scene.broker.pin);
    for name in ["one", "two"] {
        let enroll = format!("enroll --address {address} --ca-pin {pin} --identity {name}");
        scene.run_with(&enroll, text(&token["token"])).await.good();
    }
    scene.run("whoami --identity one").await.good();
    let listed = |line: &'static str| {
        let scene = &scene;
        async move {
            scene
                .json(&format!("agent list {line}"))
                .await
                .as_array()
                .unwrap()
                .len()
        }
    };
    assert_eq!(listed("--label team=red").await, 2);
    assert_eq!(listed("--label team=blue").await, 0);
    assert_eq!(
        listed("--environment ci --project web --state active --seen-after 1h").await,
        1
    );
    assert_eq!(listed("--seen-before 1h").await, 1);

    let agent = scene.json("agent list --seen-after 1h").await[0].clone();
    let key = text(&agent["key_fingerprint"]);
    let runtime_key = std::fs::read_to_string(scene.user.path("one").join("runtime-key")).unwrap();
    let introspect = format!("agent introspect --certificate-key-sha256 {key} -o json");
    let told = scene.run_with(&introspect, &runtime_key).await.json();
    assert_eq!((&told["active"], &told["agent"]), (&json!(true), &agent["id"]));
    let other = introspect.replace(key, &"ab".repeat(32));
    let told = scene.run_with(&other, &runtime_key).await.json();
    assert_eq!((&told["active"], &told["agent"]), (&json!(false), &json!("")));

    let shown = scene.run(&format!("enrollment-token show {id}")).await.good();
    assert_eq!(shown.matches("agt_").count(), 2, "{shown}");
    // Asked on a terminal only; without one, nothing goes without --yes.
    let revoke = format!("enrollment-token revoke {id} --cascade");
    scene
        .run(&revoke)
        .await
        .bad(64, &["It also revokes the 2 agents", "agt_"]);
    assert_eq!(listed("--state active").await, 2);
    let gone = scene.json(&format!("{revoke} --yes")).await;
    assert_eq!(gone["agents"].as_array().unwrap().len(), 2);
    assert_eq!(listed("--state active").await, 0);
}
