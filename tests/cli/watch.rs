//! `credbroker watch`: the real program follows events, through a connection that breaks, until it may no longer.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout};
use tokio::sync::broadcast;

use super::*;

/// Passes bytes on to the broker, until it is told to drop its connections.
async fn broken_line(to: SocketAddr) -> (SocketAddr, broadcast::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let breaks = broadcast::Sender::new(1);
    let told = breaks.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut broken = told.subscribe();
            tokio::spawn(async move {
                let mut server = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = broken.recv() => {}
                }
            });
        }
    });
    (address, breaks)
}

/// The program, while it runs.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    async fn start(scene: &Scene, line: &str) -> Self {
        let spawning = user::SPAWNING.read().await;
        let mut command = scene.user.command(env!("CARGO_BIN_EXE_credbroker"));
        let mut child = command.args(words(line)).spawn().unwrap();
        drop(spawning);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(user::PATIENCE, self.lines.next_line()).await;
        let line = line.expect("it prints nothing").unwrap();
        serde_json::from_str(&line.expect("it has ended")).unwrap()
    }

    async fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        let ended = tokio::time::timeout(user::PATIENCE, self.child.wait()).await;
        stderr.read_to_string(&mut said).await.unwrap();
        (ended.expect("it does not end").unwrap().code(), said)
    }
}

// req: N4 D6
#[tokio::test(flavor = "multi_thread")]
async fn events_are_followed_through_a_broken_connection_until_the_agent_is_revoked() {
    let scene = Scene::new().await;
    let operator = scene.broker.operator().await;
    let task = scene.task().await;
    scene.enroll(&task, "identity").await;
    operator.set_key(ORG, MEMBER, "the-first-key-000000").await;
    let lease = scene.json("resolve --identity identity").await["lease"].clone();
    let (address, breaks) = broken_line(scene.broker.address).await;
    let line = format!("watch --identity identity --address {address} -o json");
    let mut watch = Running::start(&scene, &line).await;
    assert_eq!(watch.line().await["event"], "watching");

    let rotated = async |watch: &mut Running, generation: u64| {
        let mut told = watch.line().await;
        let told = told.as_object_mut().unwrap();
        assert!(is_time(&told.remove("time").unwrap()));
        assert!(!text(&told.remove("cursor").unwrap()).is_empty());
        let expected = json!({
            "event": "credential_rotated",
            "subject": lease["credential"],
            "generation": generation,
        });
        assert_eq!(Value::from(told.clone()), expected);
    };
    operator.set_key(ORG, MEMBER, "the-second-key-00000").await;
    rotated(&mut watch, 2).await;
    // Rotations while there is no connection come with the next one.
    breaks.send(()).unwrap();
    for (generation, key) in [(3, "the-third-key-000000"), (4, "the-fourth-key-00000")] {
        operator.set_key(ORG, MEMBER, key).await;
        rotated(&mut watch, generation).await;
    }
    let agent = text(&scene.json("whoami --identity identity").await["actor"]).to_owned();
    scene.run(&format!("agent revoke {agent} --yes")).await.good();
    let (code, said) = watch.end().await;
    assert_eq!(code, Some(77), "{said}");
    assert!(
        said.contains("CREDENTIAL_UNKNOWN") && said.contains("trying again"),
        "{said}"
    );
}

// req: N4
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_follows_an_org_and_goes_on_from_a_cursor() {
    let scene = Scene::new().await;
    let operator = scene.broker.operator().await;
    operator.make_org("globex").await;
    let mut watch = Running::start(&scene, "watch -o json --limit 1").await;
    let cursor = text(&watch.line().await["cursor"]).to_owned();
    // The context names the org; another's events are not asked for.
    operator.set_key("globex", "", "the-other-orgs-key-00").await;
    let key = operator.set_key(ORG, MEMBER, "the-first-key-000000").await.id;
    let told = watch.line().await;
    assert_eq!(
        (&told["event"], &told["subject"]),
        (&json!("credential_health_changed"), &json!(key))
    );
    assert_eq!(watch.end().await.0, Some(0));

    let again = scene
        .run(&format!("watch --limit 1 --cursor {cursor}"))
        .await
        .good();
    let words = words(again.trim());
    assert_eq!(
        words[1..],
        ["credential_health_changed", key.as_str(), "health=ok"]
    );
}
