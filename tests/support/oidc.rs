//! A real OAuth server for tests: npm's `oidc-provider`, which rotates refresh tokens and revokes the whole
//! grant when a used one comes again. Use as `#[path = "support/oidc.rs"] mod oidc;`.
//!
//! The first use installs it below the target directory, under a lock; later uses take what is there.

#![allow(dead_code, unreachable_pub)]

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin};

/// The client secret of [`BASIC_CLIENT`] and [`POST_CLIENT`].
pub const CLIENT_SECRET: &str = "test/secret+with:odd%chars&";
/// A public client.
pub const PUBLIC_CLIENT: &str = "credbroker-public";
/// A confidential client that authenticates with HTTP Basic.
pub const BASIC_CLIENT: &str = "credbroker-basic";
/// A confidential client that authenticates in the body.
pub const POST_CLIENT: &str = "credbroker-post";
/// A public client that people sign in with, by browser or device.
pub const CLI_CLIENT: &str = "credbroker-cli";

const FILES: [(&str, &str); 3] = [
    ("package.json", include_str!("oidc/package.json")),
    ("package-lock.json", include_str!("oidc/package-lock.json")),
    ("server.mjs", include_str!("oidc/server.mjs")),
];
/// How long the server may take to start.
const START: Duration = Duration::from_secs(20);
const STARTS: usize = 5;

/// A running server. It ends with this value, or with the test process.
pub struct OidcServer {
    port: u16,
    client: reqwest::Client,
    child: Child,
    _stdin: ChildStdin,
}

/// A freshly minted grant. No access token was issued for it yet.
#[derive(Debug, Deserialize)]
pub struct Grant {
    /// Its id, for [`OidcServer::stats`].
    pub grant_id: String,
    /// Its refresh token.
    pub refresh_token: String,
}

/// What became of a grant.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Stats {
    /// Whether it still is.
    pub alive: bool,
    /// The life of its access tokens, in seconds.
    pub ttl: u64,
    /// Calls of the token endpoint with any of its refresh tokens.
    pub calls: u64,
    /// Those that gave new tokens.
    pub successes: u64,
    /// Those that were answered `invalid_grant`.
    pub refused: u64,
    /// Those of them that presented a used refresh token and so killed the grant.
    pub replays: u64,
}

impl OidcServer {
    /// Starts a server on a port of its own. Panics with what to do where node or npm is missing.
    pub async fn start() -> Self {
        Self::start_at(0).await
    }

    /// Ends, and starts again on the same port: with another signing key, and nothing known of before.
    pub async fn restart(self) -> Self {
        let port = self.port;
        self.kill().await;
        Self::start_at(port).await
    }

    async fn start_at(port: u16) -> Self {
        let folder = tokio::task::spawn_blocking(install).await.unwrap();
        for _ in 0..STARTS {
            if let Some(started) = Self::try_start(&folder, port).await {
                return started;
            }
        }
        panic!("oidc-provider did not start in {STARTS} times {START:?}");
    }

    /// Starts it once; `None`: it hangs. A program of Node's that is one of many starting at a time does so now and then,
    /// before it has run a line, and is no matter of what is tested.
    async fn try_start(folder: &Path, port: u16) -> Option<Self> {
        let mut child = tokio::process::Command::new("node")
            .arg(folder.join("server.mjs"))
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|e| missing("node", &e));
        let stdin = child.stdin.take().unwrap();
        let mut ready = BufReader::new(child.stdout.take().unwrap()).lines();
        let Ok(line) = tokio::time::timeout(START, ready.next_line()).await else {
            child.kill().await.unwrap();
            return None;
        };
        let line = line.unwrap().unwrap_or_else(|| {
            panic!(
                "oidc-provider ended at once; run: node {}/server.mjs",
                folder.display()
            )
        });
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Some(Self {
            port: u16::try_from(ready["port"].as_u64().unwrap()).unwrap(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            child,
            _stdin: stdin,
        })
    }

    /// Its token endpoint.
    pub fn token_url(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    /// What it calls itself as an issuer.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How long ID tokens live from now on.
    pub async fn set_id_token_life(&self, life: Duration) {
        let url = format!("{}/test/id-tokens?ttl={}", self.issuer(), life.as_secs());
        let told = self.client.post(url).send().await.unwrap();
        told.error_for_status().unwrap();
    }

    /// Whether it still takes a refresh token of the client for people. Uses the token up.
    pub async fn takes(&self, refresh_token: &str) -> bool {
        self.present(refresh_token, CLI_CLIENT)
            .await
            .status()
            .is_success()
    }

    /// Refreshes a grant of `client`, whatever comes of it.
    async fn present(&self, refresh_token: &str, client: &str) -> reqwest::Response {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", client),
        ];
        let request = self.client.post(self.token_url()).form(&form);
        request.send().await.unwrap()
    }

    /// Makes a grant of the public client, whose access tokens live for `ttl` (whole seconds).
    pub async fn mint(&self, ttl: Duration) -> Grant {
        self.mint_for(PUBLIC_CLIENT, ttl).await
    }

    /// Makes a grant of `client`.
    pub async fn mint_for(&self, client: &str, ttl: Duration) -> Grant {
        let url = format!(
            "http://127.0.0.1:{}/test/grants?client={client}&ttl={}",
            self.port,
            ttl.as_secs()
        );
        let minted = self.client.post(url).send().await.unwrap();
        minted.error_for_status().unwrap().json().await.unwrap()
    }

    /// Makes a grant of the public client for `account`, as [`OidcServer::mint`] does.
    pub async fn mint_as(&self, account: &str, ttl: Duration) -> Grant {
        let (issuer, ttl) = (self.issuer(), ttl.as_secs());
        let url = format!("{issuer}/test/grants?client={PUBLIC_CLIENT}&ttl={ttl}&account={account}");
        let minted = self.client.post(url).send().await.unwrap();
        minted.error_for_status().unwrap().json().await.unwrap()
    }

    /// Whose access token this is, by the userinfo endpoint (OpenID Connect Core section 5.3); `None` where it
    /// does not work.
    pub async fn account_of(&self, access_token: &str) -> Option<String> {
        let url = format!("{}/me", self.issuer());
        let told = self
            .client
            .get(url)
            .bearer_auth(access_token)
            .send()
            .await
            .unwrap();
        if told.status() == reqwest::StatusCode::UNAUTHORIZED {
            return None;
        }
        let told: serde_json::Value = told.error_for_status().unwrap().json().await.unwrap();
        Some(told["sub"].as_str().unwrap().to_owned())
    }

    /// Refreshes a grant of the public client past any broker, as a copy of it elsewhere would: the new refresh
    /// token, where it is taken.
    pub async fn refresh(&self, refresh_token: &str) -> Option<String> {
        let told = self.present(refresh_token, PUBLIC_CLIENT).await;
        let told: serde_json::Value = told.error_for_status().ok()?.json().await.unwrap();
        Some(told["refresh_token"].as_str().unwrap().to_owned())
    }

    /// Withdraws the grant of a refresh token of the public client, as its owner may (RFC 7009).
    pub async fn revoke(&self, refresh_token: &str) {
        let url = format!("{}/token/revocation", self.issuer());
        let form = [("token", refresh_token), ("client_id", PUBLIC_CLIENT)];
        let told = self.client.post(url).form(&form).send().await.unwrap();
        told.error_for_status().unwrap();
    }

    /// Its port at the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What became of `grant`.
    pub async fn stats(&self, grant: &Grant) -> Stats {
        let url = format!("http://127.0.0.1:{}/test/grants/{}", self.port, grant.grant_id);
        let told = self.client.get(url).send().await.unwrap();
        told.error_for_status().unwrap().json().await.unwrap()
    }

    /// Ends the server at once.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// The folder with everything in it, by what is in it, so that a changed lock file installs anew.
fn install() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    FILES.hash(&mut hasher);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let folder = root.join(format!("oidc-{:016x}", hasher.finish()));
    fs::create_dir_all(&folder).unwrap();
    // Other test processes install at the same time; the lock goes with the handle.
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let done = folder.join("done");
    if done.exists() {
        return folder;
    }
    for (name, text) in FILES {
        fs::write(folder.join(name), text).unwrap();
    }
    let npm = Command::new("npm")
        .args([
            "ci",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--loglevel=error",
        ])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| missing("npm", &e));
    assert!(
        npm.status.success(),
        "npm ci in {} failed; is the package registry reachable?\n{}",
        folder.display(),
        String::from_utf8_lossy(&npm.stderr)
    );
    fs::write(done, "").unwrap();
    folder
}

fn missing(program: &str, error: &io::Error) -> ! {
    panic!("{program} cannot be run ({error}); these tests need Node.js 20 or later with npm on the PATH")
}
