//! `credbrokerd dev` as a newcomer meets it: the real programs, and the lines it prints, pasted as they are.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "support/user.rs"]
mod user;

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use user::{PATIENCE, User};

/// The last line that `dev` prints once it is ready.
const READY: &str = "Stop with Ctrl-C.";

/// A `credbrokerd dev` that runs.
struct Dev {
    child: Child,
    printed: String,
}

/// What a user does here.
impl User {
    fn dev_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_credbrokerd"));
        command.arg("dev").args(arguments);
        for (flag, free) in [("--listen", "127.0.0.1:0"), ("--oauth-listen", "127.0.0.1:0")] {
            if !arguments.contains(&flag) {
                command.args([flag, free]);
            }
        }
        command
    }

    /// Starts `dev` and waits until it says that it is ready.
    async fn dev(&self, arguments: &[&str]) -> Dev {
        let log = std::fs::File::create(self.path("dev.log")).unwrap();
        let mut child = self.dev_command(arguments).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut printed = String::new();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                printed += &line;
                printed.push('\n');
                if line == READY {
                    return true;
                }
            }
            false
        };
        let ready = timeout(PATIENCE, ready).await.unwrap_or(false);
        let log = || std::fs::read_to_string(self.path("dev.log")).unwrap();
        assert!(ready, "dev did not get ready:\n{printed}\n{}", log());
        Dev { child, printed }
    }

    /// Runs a line as a person does who pastes it; it has to work.
    async fn pasted(&self, line: &str) -> String {
        let mut command = self.command("sh");
        command.args(["-c", line]);
        self.run(command).await.good()
    }
}

impl Dev {
    /// The commands to paste, in order.
    fn lines(&self) -> Vec<&str> {
        let (_, paste) = self.printed.split_once("Paste these").unwrap();
        let lines = paste.lines().skip(1).map(str::trim);
        lines
            .filter(|line| !line.is_empty() && !line.starts_with('#') && *line != READY)
            .collect()
    }

    /// The only line with `what` in it.
    fn line(&self, what: &str) -> &str {
        let found: Vec<_> = self
            .lines()
            .into_iter()
            .filter(|line| line.contains(what))
            .collect();
        let [line] = found[..] else {
            panic!("not one line with '{what}':\n{}", self.printed);
        };
        line
    }

    fn folder(&self) -> &Path {
        let (_, rest) = self.printed.split_once("its state is in ").unwrap();
        Path::new(rest.lines().next().unwrap().trim_end_matches('.'))
    }

    fn address(&self) -> &str {
        let (_, rest) = self.printed.split_once("is ready on ").unwrap();
        rest.split_once(';').unwrap().0
    }

    /// SIGTERM, and how it ended.
    async fn stop(mut self) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("it stops")
            .unwrap();
        assert_eq!(status.code(), Some(0));
    }
}

/// Pastes every line and looks at what comes of it.
async fn paste_all(user: &User, dev: &Dev) {
    let demo = user.pasted(dev.line("credbroker demo ")).await;
    assert!(
        demo.contains("8 callers, 1 refresh, the grant is alive\n"),
        "{demo}"
    );
    assert!(
        demo.contains("the grant is dead: 8 of 8 are logged out\n"),
        "{demo}"
    );

    let enrolled = user.pasted(dev.line("credbroker enroll ")).await;
    assert!(enrolled.starts_with("enrolled as agt_"), "{enrolled}");
    let stored = user.pasted(dev.line("credbroker credential set ")).await;
    assert!(stored.contains("crd_") && stored.contains("6789"), "{stored}");
    let resolve = dev.line("credbroker resolve ");
    let resolved = user.pasted(resolve).await;
    assert!(
        resolved.contains("lse_") && !resolved.contains("not-a-real-key"),
        "{resolved}"
    );
    let key = user.pasted(&format!("{resolve} -o value")).await;
    assert_eq!(key, "not-a-real-key-0123456789\n");
    assert_eq!(dev.lines().len(), 4, "all lines were pasted:\n{}", dev.printed);
}

// req: K3 B5 K5
#[tokio::test]
async fn what_dev_prints_works_as_printed_and_again_after_a_restart() {
    let user = User::new();
    let arguments = ["--data-dir", "a folder/data"];
    let dev = user.dev(&arguments).await;
    assert_eq!(dev.folder(), user.path("a folder/data"));
    paste_all(&user, &dev).await;
    let org = user
        .credbroker(&["org", "show", "demo", "-o", "json"])
        .await
        .good();
    user.credbroker(&["org", "create", "kept"]).await.good();
    dev.stop().await;

    let dev = user.dev(&arguments).await;
    assert_eq!(
        user.credbroker(&["org", "show", "demo", "-o", "json"])
            .await
            .good(),
        org
    );
    let orgs = user.credbroker(&["org", "list", "-o", "name"]).await.good();
    assert_eq!(orgs, "demo\nkept\n");
    // The agent of the first run is known still; only the port is another.
    let identity = user.path("a folder/data/agent").display().to_string();
    let address = dev.address().to_owned();
    let arguments = [
        "whoami",
        "--identity",
        &identity,
        "--address",
        &address,
        "-o",
        "json",
    ];
    let whoami: Value = serde_json::from_str(&user.credbroker(&arguments).await.good()).unwrap();
    assert_eq!(whoami["family"], "agent");
    // The enrollment token is another one: the first is spent.
    paste_all(&user, &dev).await;
    dev.stop().await;
}

#[tokio::test]
async fn an_ephemeral_dev_leaves_nothing_behind() {
    let user = User::new();
    let dev = user.dev(&["--ephemeral"]).await;
    let folder = dev.folder().to_owned();
    assert!(
        folder.starts_with(user.path("tmp")) && folder.is_dir(),
        "{}",
        folder.display()
    );
    user.pasted(dev.line("credbroker enroll ")).await;
    dev.stop().await;
    let left: Vec<_> = std::fs::read_dir(user.path("tmp")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_second_dev_is_told_of_the_first_and_does_it_no_harm() {
    let user = User::new();
    let first = user.dev(&["--data-dir", "data"]).await;

    let same_folder = user.run(user.dev_command(&["--data-dir", "data"])).await;
    let folder = first.folder().display().to_string();
    let told = format!("error: another credbrokerd already runs on {folder}.");
    same_folder.bad(1, &[&told]);

    let same_port = ["--data-dir", "other", "--listen", first.address()];
    let same_port = user.run(user.dev_command(&same_port)).await;
    let told = format!("error: cannot listen on {}", first.address());
    same_port.bad(1, &[&told, "--listen"]);

    // The context is still the first one's.
    user.pasted(first.line("credbroker credential set ")).await;
    first.stop().await;
}

#[tokio::test]
async fn dev_refuses_to_listen_where_others_reach_it() {
    let user = User::new();
    for flag in ["--listen", "--oauth-listen"] {
        let arguments = ["--data-dir", "data", flag, "0.0.0.0:0"];
        let refused = user.run(user.dev_command(&arguments)).await;
        refused.bad(1, &["loopback", flag]);
    }
    assert!(!user.path("data").exists() && !user.path("config").exists());
}
