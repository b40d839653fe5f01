//! `credbroker credential status --watch`: in a pipe, on a terminal, and through a stop of the broker.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::command::desk;
use super::*;
use crate::support::TestBroker;
use crate::support::provider::Reply;
use crate::support::scene::Scene;
use crate::user::{PATIENCE, SPAWNING, User};

const PROGRAM: &str = env!("CARGO_BIN_EXE_credbroker");
/// Within which time a change has to be shown; an event shows it at once.
const SOON: Duration = Duration::from_secs(20);

async fn started(mut command: Command, words: &str) -> Child {
    let spawning = SPAWNING.read().await;
    let child = command.args(words.split_whitespace()).spawn().unwrap();
    drop(spawning);
    child
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

async fn ends(child: &mut Child) -> Option<i32> {
    tokio::time::timeout(PATIENCE, child.wait())
        .await
        .unwrap()
        .unwrap()
        .code()
}

/// A terminal of this size: the side that a test reads, and the one that a program writes to.
fn terminal(columns: u16) -> (File, OwnedFd) {
    let reader = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&reader).unwrap();
    unlockpt(&reader).unwrap();
    let size = Winsize {
        ws_row: 40,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(reader.as_fd(), size).unwrap();
    let name = ptsname(&reader, Vec::new()).unwrap();
    let writer = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    (File::from(reader), writer.into())
}

/// What a program writes to a terminal.
struct Shown {
    child: Child,
    reader: tokio::fs::File,
    text: String,
}

impl Shown {
    async fn start(user: &User, words: &str, variables: &[(&str, &str)]) -> Self {
        let (reader, writer) = terminal(200);
        let mut command = user.command(PROGRAM);
        command.envs(variables.iter().copied());
        command.stdout(Stdio::from(writer));
        let child = started(command, words).await;
        Self {
            child,
            reader: tokio::fs::File::from_std(reader),
            text: String::new(),
        }
    }

    /// Reads on until this is there.
    async fn until(&mut self, wanted: &str) {
        let reading = async {
            while !self.text.contains(wanted) {
                let mut part = [0; 4096];
                match self.reader.read(&mut part).await {
                    // A terminal whose program has ended reads as an error.
                    Ok(0) | Err(_) => break,
                    Ok(read) => self.text += &String::from_utf8_lossy(&part[..read]),
                }
            }
        };
        let _late = tokio::time::timeout(SOON, reading).await;
        assert!(self.text.contains(wanted), "no {wanted:?} in {:?}", self.text);
    }
}

// req: N9
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_gets_colours_unless_it_says_not_to() {
    let (_scene, user) = desk().await;
    let line = "credential status";
    let mut coloured = Shown::start(&user, line, &[("NO_COLOR", "")]).await;
    coloured.until("\u{1b}[32mok\u{1b}[0m").await;
    for (line, variables) in [
        (line, &[("NO_COLOR", "1")][..]),
        ("credential status --no-color", &[]),
    ] {
        let mut plain = Shown::start(&user, line, variables).await;
        plain.until("crd_").await;
        assert_eq!(ends(&mut plain.child).await, Some(0));
        assert!(!plain.text.contains('\u{1b}'), "{:?}", plain.text);
    }
}

// req: N9
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_drawn_over_and_given_back() {
    let (scene, user) = desk().await;
    let mut shown = Shown::start(&user, "credential status --watch", &[("NO_COLOR", "")]).await;
    shown.until("\u{1b}[?1049h").await;
    shown.until("\u{1b}[32mok\u{1b}[0m").await;
    scene.expire();
    scene.provider.next(Reply::HangUp { rotated: true });
    scene.resolve().await.unwrap_err();
    shown.until("\u{1b}[33mambiguous\u{1b}[0m").await;
    shown.until("what became of the grant").await;
    assert_eq!(
        shown.text.matches("\u{1b}[2J").count(),
        1,
        "cleared once, and then drawn over"
    );
    // The times tick with nothing happening.
    shown.text.clear();
    shown.until("ambiguous").await;
    shown.text.clear();
    interrupt(&shown.child);
    shown.until("\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l").await;
    assert_eq!(ends(&mut shown.child).await, Some(0));
}

// req: N9
#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_gets_a_line_for_each_change_through_a_stop_of_the_broker() {
    let (scene, user) = desk().await;
    // A port that stays the same over the stop.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command = user.command(PROGRAM);
    command.stdin(Stdio::null());
    let line = "credential status --watch -o json";
    let mut relay = Relay::to(free, scene.broker.address).await;
    let mut child = started(
        command,
        &format!(
            "{line} --address {free} --ca-pin {} --token-file token --org {ORG}",
            {
                user.file("token", scene.broker.operator_token(), 0o600);
                &scene.broker.pin
            }
        ),
    )
    .await;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || -> Value {
        let line = tokio::time::timeout(SOON, lines.next_line())
            .await
            .expect("no change is shown");
        serde_json::from_str(&line.unwrap().expect("it has ended")).unwrap()
    };
    let first = next().await;
    assert_eq!(
        (&first["credential"], &first["before"]),
        (&scene.credential.as_str().into(), &Value::Null)
    );
    assert_eq!(first["status"]["health"], "ok");

    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let Scene { broker, operator, .. } = scene;
    drop(operator);
    relay.cut();
    let told = tokio::time::timeout(SOON, said.next_line())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(!told.is_empty());
    let broker: TestBroker = broker.restart().await;
    relay.lead_to(broker.address).await;
    let operator = broker.operator().await;
    let key = operator.set_key(ORG, "", "a-key-of-the-org-0123456789").await.id;
    let added = next().await;
    assert_eq!(
        (&added["credential"], &added["status"]["health"]),
        (&key.as_str().into(), &"ok".into())
    );
    let remove = proto::RemoveCredentialRequest {
        org: ORG.to_owned(),
        credential: key.clone(),
    };
    operator.credentials().remove_credential(remove).await.unwrap();
    let gone = next().await;
    assert_eq!(
        (&gone["credential"], &gone["before"]),
        (&key.as_str().into(), &"ok".into())
    );
    assert_eq!(gone["status"], Value::Null);
    interrupt(&child);
    assert_eq!(ends(&mut child).await, Some(0));
}

/// Passes bytes on from one address to where it is told.
struct Relay {
    at: std::net::SocketAddr,
    serving: Option<tokio::task::JoinHandle<()>>,
}

impl Relay {
    async fn to(at: std::net::SocketAddr, broker: std::net::SocketAddr) -> Self {
        let mut relay = Self { at, serving: None };
        relay.lead_to(broker).await;
        relay
    }

    async fn lead_to(&mut self, broker: std::net::SocketAddr) {
        let listener = tokio::net::TcpListener::bind(self.at).await.unwrap();
        self.serving = Some(tokio::spawn(async move {
            let mut passing = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                passing.spawn(async move {
                    if let Ok(mut server) = tokio::net::TcpStream::connect(broker).await {
                        let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        }));
    }

    /// Takes no connections and drops those there are.
    fn cut(&mut self) {
        self.serving.take().unwrap().abort();
    }
}
