//! An OpenID Connect issuer that does what a test tells it, over loopback: it publishes the keys it is given,
//! signs any claims, and counts how often it is asked. Use as `#[path = "support/issuer.rs"] mod issuer;`.

#![allow(dead_code, unreachable_pub)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The client id of its tokens.
pub const CLIENT: &str = "credbroker-cli";

/// What it answers.
#[derive(Clone)]
pub struct Script {
    /// In the discovery document.
    pub issuer: String,
    pub jwks_uri: String,
    pub jwks: String,
    pub status: u16,
    /// Where it redirects every request to, if it does.
    pub location: Option<String>,
}

pub struct ScriptedIssuer {
    pub url: String,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    script: Mutex<Script>,
    asked: Mutex<Vec<String>>,
    hold: tokio::sync::watch::Sender<bool>,
}

/// A key that signs, with its id.
pub struct SigningKey {
    pub id: &'static str,
    pair: Pair,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    pub fn p256(id: &'static str) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &SystemRandom::new()).unwrap();
        let pair = Pair::P256(pair);
        Self { id, pair }
    }

    pub fn ed25519(id: &'static str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let pair = Pair::Ed25519(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap());
        Self { id, pair }
    }

    pub fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::P256(_) => "ES256",
            Pair::Ed25519(_) => "EdDSA",
        }
    }

    /// As it is published.
    pub fn jwk(&self) -> Value {
        match &self.pair {
            Pair::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.id,
                       "x": encoded(&point[1..33]), "y": encoded(&point[33..])})
            }
            Pair::Ed25519(pair) => json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "alg": "EdDSA",
                                          "x": encoded(pair.public_key().as_ref())}),
        }
    }

    /// The public key's bytes, which anybody has.
    pub fn public(&self) -> Vec<u8> {
        match &self.pair {
            Pair::P256(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    fn signature(&self, message: &[u8]) -> Vec<u8> {
        match &self.pair {
            Pair::P256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec(),
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// These claims under its usual header.
    pub fn sign(&self, claims: &Value) -> String {
        let header = json!({"alg": self.algorithm(), "kid": self.id, "typ": "JWT"});
        self.sign_as(&header, claims)
    }

    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = self.signature(message.as_bytes());
        format!("{message}.{}", encoded(&signature))
    }
}

/// Header and claims, without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| encoded(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

pub fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl ScriptedIssuer {
    /// One that publishes these keys.
    pub async fn start(keys: &[&SigningKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let script = Script {
            issuer: url.clone(),
            jwks_uri: format!("{url}/keys"),
            jwks: published(keys),
            status: 200,
            location: None,
        };
        let shared = Arc::new(Shared {
            script: Mutex::new(script),
            asked: Mutex::default(),
            hold: tokio::sync::watch::Sender::new(false),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { url, shared, serving }
    }

    /// From now on.
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.shared.script.lock().unwrap());
    }

    pub fn publish(&self, keys: &[&SigningKey]) {
        self.change(|script| script.jwks = published(keys));
    }

    /// How often its keys were asked for.
    pub fn fetches(&self) -> usize {
        let asked = self.shared.asked.lock().unwrap();
        asked.iter().filter(|path| *path == "/keys").count()
    }

    /// How many requests of any kind came.
    pub fn requests(&self) -> usize {
        self.shared.asked.lock().unwrap().len()
    }

    /// Takes requests and answers none until released.
    pub fn hold(&self, hold: bool) {
        self.shared.hold.send_replace(hold);
    }

    /// Does not listen any more.
    pub async fn stop(&mut self) {
        self.serving.abort();
        let _ended = (&mut self.serving).await;
    }

    /// The claims of a good ID token for `subject`, issued now and good for `life`.
    pub fn claims(&self, subject: &str, now: i64, life: Duration) -> Value {
        let life = i64::try_from(life.as_secs()).unwrap();
        json!({"iss": self.url, "sub": subject, "aud": CLIENT, "iat": now, "exp": now + life})
    }

    /// `[[oidc.issuers]]` for it, and `more` keys.
    pub fn config(&self, orgs: &[&str], more: &str) -> String {
        let (url, orgs) = (&self.url, format!("{orgs:?}"));
        format!("[[oidc.issuers]]\nissuer = {url:?}\nclient_id = {CLIENT:?}\norgs = {orgs}\n{more}\n")
    }
}

impl Drop for ScriptedIssuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn published(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    // Ends with the set, so that no answer comes after the issuer has stopped.
    let mut calls = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let shared = Arc::clone(&shared);
        calls.spawn(async move { shared.answer(stream).await });
    }
}

impl Shared {
    async fn answer(&self, mut stream: TcpStream) {
        let mut lines = BufReader::new(&mut stream).lines();
        let Ok(Some(first)) = lines.next_line().await else {
            return;
        };
        while lines
            .next_line()
            .await
            .is_ok_and(|line| line.is_some_and(|line| !line.is_empty()))
        {}
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        self.asked.lock().unwrap().push(path.clone());
        let _ = self.hold.subscribe().wait_for(|hold| !hold).await;
        let script = self.script.lock().unwrap().clone();
        let body = match path.as_str() {
            "/keys" => script.jwks,
            "/.well-known/openid-configuration" => {
                json!({"issuer": script.issuer, "jwks_uri": script.jwks_uri}).to_string()
            }
            _ => "{}".to_owned(),
        };
        let location = script.location.map(|to| format!("location: {to}{path}\r\n"));
        let head = format!(
            "HTTP/1.1 {} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n",
            script.status,
            body.len(),
            location.unwrap_or_default()
        );
        let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}
