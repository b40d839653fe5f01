//! Code exchanges, device flows and revocations, as a server sees them: what is sent, where, and how far it got.

use credbroker::domain::secret::{AccessToken, AuthorizationCode, CodeVerifier, DeviceCode};
use credbroker::upstream::answer::{DeviceAnswer, RevocationAnswer, classify_device, classify_revocation};
use credbroker::upstream::oauth::{
    CodeRequest, DeviceFault, DevicePoll, GrantToken, RevocationRequest, authorization_request,
};
use serde_json::{Value, json};

use super::delivery::{Act, Raw, far, http};
use super::metadata::{Metadata, Page, STANDARD};
use super::*;

/// A secret with all that an encoding has to take care of.
const ODD: &str = "s t/+\"\\&=%\u{e9}";

fn secret<K>(text: &str) -> Secret<K> {
    Secret::from(text.to_owned())
}

/// A server that answers everything alike, and a client.
struct Scene {
    server: Raw,
    endpoint: HttpTokenEndpoint,
    folder: tempfile::TempDir,
}

/// A request, taken apart.
struct Seen {
    /// The first line without the protocol.
    line: String,
    /// The other lines of the head, in lower case but for `authorization`.
    head: String,
    body: String,
}

impl Seen {
    /// The fields of a form.
    fn form(&self) -> Vec<(String, String)> {
        assert!(
            self.head
                .contains("content-type: application/x-www-form-urlencoded\r\n"),
            "{}",
            self.head
        );
        fields(&self.body)
    }

    fn json(&self) -> Value {
        assert!(
            self.head.contains("content-type: application/json\r\n"),
            "{}",
            self.head
        );
        serde_json::from_str(&self.body).unwrap()
    }

    fn authorization(&self) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix("authorization: "))
    }
}

fn fields(encoded: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://h/?{encoded}")).unwrap();
    url.query_pairs().into_owned().collect()
}

fn named<const N: usize>(fields: [(&str, &str); N]) -> Vec<(String, String)> {
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

impl Scene {
    async fn answering(status: &str, body: &str) -> Self {
        Self::acting(Act::KeepAlive(http(status, "", body))).await
    }

    async fn acting(act: Act) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), ODD).unwrap();
        Self {
            server: Raw::start(act).await,
            endpoint: endpoint(&options()),
            folder,
        }
    }

    /// A connector of the server with all endpoints of the standards.
    fn connector(&self, more: &str) -> Arc<Connector> {
        let device = if more.contains("device_authorization_url") {
            String::new()
        } else {
            format!("device_authorization_url = \"{}\"\n", self.server.at("/device"))
        };
        let revoke = self.server.at("/revoke");
        let all = format!("{device}revoke_url = \"{revoke}\"\n{more}\n");
        connector(&self.server.url(), &all)
    }

    /// One with a device flow of its own.
    fn own(&self) -> Arc<Connector> {
        let at = |path| self.server.at(path);
        self.connector(&format!(
            "device_flow = \"code\"\ndevice_authorization_url = \"{}\"\ndevice_poll_url = \"{}\"\n\
             device_page_url = \"{}\"\ndevice_redirect_uri = \"{}\"",
            at("/own/usercode"),
            at("/own/token"),
            at("/own/enter"),
            at("/own/callback")
        ))
    }

    fn with_secret(&self, auth: &str) -> String {
        let file = self.folder.path().join("secret");
        format!(
            "client_auth = \"{auth}\"\nclient_secret = {{ file = '{}' }}\n",
            file.display()
        )
    }

    fn seen(&self) -> Seen {
        let request = self.server.request();
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let (line, rest) = head.split_once("\r\n").unwrap();
        let lower = |line: &str| match line.split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("authorization") => {
                format!("authorization: {value}\r\n")
            }
            _ => format!("{}\r\n", line.to_lowercase()),
        };
        Seen {
            line: line.strip_suffix(" HTTP/1.1").unwrap().to_owned(),
            head: rest.lines().map(lower).collect(),
            body: body.to_owned(),
        }
    }

    async fn exchange(&self, connector: &Connector, verifier: Option<&str>) -> Delivery {
        let code: Secret<AuthorizationCode> = secret(ODD);
        let verifier: Option<Secret<CodeVerifier>> = verifier.map(secret);
        let request = CodeRequest {
            connector,
            code: &code,
            redirect_uri: "http://127.0.0.1:1/cb?x=1",
            verifier: verifier.as_ref(),
            state: "st",
        };
        self.endpoint.exchange_code(request).await
    }

    async fn poll(&self, connector: &Connector) -> Delivery {
        let device_code: Secret<DeviceCode> = secret(ODD);
        let request = DevicePoll {
            connector,
            device_code: &device_code,
            user_code: "AB-12",
        };
        self.endpoint.poll_device(request).await
    }

    async fn revoke(&self, connector: &Connector, refresh: bool) -> Delivery {
        let (one, other): (Secret<RefreshToken>, Secret<AccessToken>) = (secret(ODD), secret(ODD));
        let token = if refresh {
            GrantToken::Refresh(&one)
        } else {
            GrantToken::Access(&other)
        };
        self.endpoint.revoke(RevocationRequest { connector, token }).await
    }
}

// req: A7 N10
#[tokio::test]
async fn a_code_exchange_is_what_the_connector_says() {
    let scene = Scene::answering("200 OK", "{\"access_token\":\"a\"}").await;
    scene.exchange(&scene.connector(""), Some("ver")).await;
    let seen = scene.seen();
    assert_eq!(seen.line, "POST /token");
    assert!(
        seen.head.contains("accept: application/json\r\n"),
        "{}",
        seen.head
    );
    assert_eq!(seen.authorization(), None);
    let standard = named([
        ("grant_type", "authorization_code"),
        ("code", ODD),
        ("redirect_uri", "http://127.0.0.1:1/cb?x=1"),
        ("code_verifier", "ver"),
        ("client_id", "test-client"),
    ]);
    assert_eq!(seen.form(), standard);

    // The state is nobody's business unless the connector says so, and without a challenge there is no verifier.
    let json = scene.connector("exchange_encoding = \"json\"\nexchange_state = true");
    scene.exchange(&json, None).await;
    let expected = json!({
        "grant_type": "authorization_code", "code": ODD, "redirect_uri": "http://127.0.0.1:1/cb?x=1",
        "state": "st", "client_id": "test-client",
    });
    assert_eq!(scene.seen().json(), expected);
}

/// `test-client` and [`ODD`], each form-encoded, then base64 (RFC 6749 section 2.3.1).
fn basic() -> String {
    use base64::Engine as _;
    let pair = "test-client:s+t%2F%2B%22%5C%26%3D%25%C3%A9";
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

// req: A7 A12 N10
#[tokio::test]
async fn every_request_of_the_standards_shows_the_client_as_a_refresh_does() {
    let scene = Scene::answering("200 OK", "{}").await;
    let ask = async |connector: &Connector, which: &str| {
        match which {
            "code" => drop(scene.exchange(connector, None).await),
            "poll" => drop(scene.poll(connector).await),
            "begin" => drop(scene.endpoint.begin_device(connector).await),
            _ => drop(scene.revoke(connector, true).await),
        }
        scene.seen()
    };
    for which in ["code", "poll", "begin", "revoke"] {
        let seen = ask(&scene.connector(&scene.with_secret("basic")), which).await;
        assert_eq!(seen.authorization(), Some(basic().as_str()), "{which}");
        assert!(!seen.body.contains("client_"), "{which}: {}", seen.body);

        let seen = ask(&scene.connector(&scene.with_secret("post")), which).await;
        assert_eq!(seen.authorization(), None, "{which}");
        let shown = named([("client_id", "test-client"), ("client_secret", ODD)]);
        assert!(seen.form().ends_with(&shown), "{which}: {}", seen.body);

        let seen = ask(&scene.connector(""), which).await;
        let shown = named([("client_id", "test-client")]);
        assert!(seen.form().ends_with(&shown), "{which}: {}", seen.body);
        assert!(!seen.body.contains("secret"), "{which}");
    }
}

// req: A7
#[tokio::test]
async fn a_device_flow_of_the_standard_is_two_forms() {
    let answer = json!({
        "device_code": ODD, "user_code": "AB-12", "verification_uri": "https://id.example/device",
        "verification_uri_complete": "https://id.example/device?c=AB-12", "expires_in": 600, "interval": 7,
    });
    let scene = Scene::answering("200 OK", &answer.to_string()).await;
    let connector = scene.connector("scopes = [\"one\", \"two\"]");
    let Ok(begun) = scene.endpoint.begin_device(&connector).await else {
        panic!("not begun");
    };
    assert_eq!(text(&begun.device_code), ODD);
    assert_eq!(
        (begun.user_code.as_str(), begun.verification_uri.as_str()),
        ("AB-12", "https://id.example/device")
    );
    assert_eq!(
        begun.verification_uri_complete.as_deref(),
        Some("https://id.example/device?c=AB-12")
    );
    assert_eq!((begun.expires_in.as_secs(), begun.interval.as_secs()), (600, 7));
    let seen = scene.seen();
    assert_eq!(seen.line, "POST /device");
    assert_eq!(
        seen.form(),
        named([("scope", "one two"), ("client_id", "test-client")])
    );

    // Encodings of other requests are none of its own.
    let json = scene.connector("exchange_encoding = \"json\"\nrefresh_encoding = \"json\"");
    scene.poll(&json).await;
    let seen = scene.seen();
    assert_eq!(seen.line, "POST /token");
    let expected = named([
        ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
        ("device_code", ODD),
        ("client_id", "test-client"),
    ]);
    assert_eq!(seen.form(), expected);
}

// req: A7 N10
#[tokio::test]
async fn a_device_flow_of_the_servers_own_is_json_and_ends_in_a_code() {
    let begin = r#"{"device_auth_id":"dev","user_code":"AB-12","interval":"5"}"#;
    let scene = Scene::answering("200 OK", begin).await;
    let connector = scene.own();
    let Ok(begun) = scene.endpoint.begin_device(&connector).await else {
        panic!("not begun");
    };
    assert_eq!(text(&begun.device_code), "dev");
    assert_eq!(begun.verification_uri, scene.server.at("/own/enter"));
    let seen = scene.seen();
    assert_eq!(seen.line, "POST /own/usercode");
    assert_eq!(seen.json(), json!({ "client_id": "test-client" }));

    let scene = Scene::answering("200 OK", r#"{"authorization_code":"c","code_verifier":"v"}"#).await;
    let connector = scene.own();
    let Delivery::Answered {
        status,
        retry_after,
        body,
    } = scene.poll(&connector).await
    else {
        panic!("no answer");
    };
    let seen = scene.seen();
    assert_eq!(seen.line, "POST /own/token");
    assert_eq!(
        seen.json(),
        json!({ "device_auth_id": ODD, "user_code": "AB-12" })
    );
    let DeviceAnswer::Code {
        code,
        verifier,
        redirect_uri,
    } = classify_device(&connector, status, retry_after, &body)
    else {
        panic!("no code");
    };
    let request = CodeRequest {
        connector: &connector,
        code: &code,
        redirect_uri: &redirect_uri,
        verifier: verifier.as_ref(),
        state: "",
    };
    scene.endpoint.exchange_code(request).await;
    let expected = named([
        ("grant_type", "authorization_code"),
        ("code", "c"),
        ("redirect_uri", &scene.server.at("/own/callback")),
        ("code_verifier", "v"),
        ("client_id", "test-client"),
    ]);
    assert_eq!(scene.seen().form(), expected);
}

// req: A12 N10
#[tokio::test]
async fn a_revocation_is_encoded_as_the_connector_says() {
    let scene = Scene::answering("200 OK", "").await;
    for (refresh, hint) in [(true, "refresh_token"), (false, "access_token")] {
        scene.revoke(&scene.connector(""), refresh).await;
        let seen = scene.seen();
        assert_eq!(seen.line, "POST /revoke");
        let expected = named([
            ("token", ODD),
            ("token_type_hint", hint),
            ("client_id", "test-client"),
        ]);
        assert_eq!(seen.form(), expected);

        let query = scene.connector("revoke_encoding = \"query\"");
        scene.revoke(&query, refresh).await;
        let seen = scene.seen();
        let encoded = seen.line.strip_prefix("POST /revoke?").unwrap();
        assert_eq!(fields(encoded), named([("token", ODD)]));
        assert_eq!((seen.form(), seen.body.as_str()), (Vec::new(), ""));
    }
    let json = scene.connector("revoke_encoding = \"json\"");
    scene.revoke(&json, true).await;
    let expected = json!({ "token": ODD, "token_type_hint": "refresh_token", "client_id": "test-client" });
    assert_eq!(scene.seen().json(), expected);
    scene.revoke(&json, false).await;
    let expected = json!({ "token": ODD, "token_type_hint": "access_token" });
    assert_eq!(scene.seen().json(), expected);
}

// req: A12
#[tokio::test]
async fn a_revocation_is_sent_again_only_by_whoever_asks() {
    for (act, how) in [
        (Act::CloseRead, "lost"),
        (Act::Hang, "lost"),
        (Act::Say(http("503 Busy", "retry-after: 9\r\n", "")), "answered"),
    ] {
        let scene = Scene::acting(act).await;
        let connector = scene.connector("");
        let delivery = scene.revoke(&connector, true).await;
        assert_eq!(far(&delivery), how);
        assert_eq!(scene.server.connections(), 1, "{how}: sent more than once");
        if let Delivery::Answered {
            status,
            retry_after,
            body,
        } = delivery
        {
            let said = classify_revocation(&connector, status, retry_after, &body);
            assert!(
                matches!(said, RevocationAnswer::NotNow { retry_after: Some(wait), .. } if wait.as_secs() == 9)
            );
        }
    }
}

// req: A7
#[tokio::test]
async fn how_far_a_code_got_is_told_as_of_a_refresh() {
    for (act, how) in [
        (Act::CloseUnread, "lost"),
        (Act::Reset, "lost"),
        (Act::Hang, "lost"),
        (Act::Say(http("302 Found", "location: /x\r\n", "")), "answered"),
    ] {
        let scene = Scene::acting(act).await;
        let delivery = scene.exchange(&scene.connector(""), Some("v")).await;
        assert_eq!(far(&delivery), how);
        assert_eq!(scene.server.connections(), 1, "{how}: sent more than once");
    }
    let scene = Scene::answering("200 OK", "{}").await;
    let off = scene.connector("enabled = false");
    assert_eq!(far(&scene.exchange(&off, None).await), "not sent");
    assert_eq!(far(&scene.poll(&off).await), "not sent");
    assert_eq!(far(&scene.revoke(&off, true).await), "not sent");
    assert!(matches!(
        scene.endpoint.begin_device(&off).await,
        Err(DeviceFault::Unavailable { .. })
    ));
    assert_eq!(scene.server.connections(), 0);
}

// req: A7
#[tokio::test]
async fn a_server_that_is_down_or_has_no_device_flow_is_told_apart() {
    let scene = Scene::acting(Act::CloseRead).await;
    let lost = scene.endpoint.begin_device(&scene.connector("")).await;
    assert!(matches!(lost, Err(DeviceFault::Unavailable { .. })));
    let without = connector(&scene.server.url(), "");
    let none = scene.endpoint.begin_device(&without).await;
    assert!(matches!(none, Err(DeviceFault::Unsupported)));
    let why = scene.endpoint.authorize_url(&without).await.unwrap_err();
    assert!(why.contains("set authorize_url"), "{why}");
    assert_eq!(scene.endpoint.revocation_endpoint(&without).await, Ok(None));
    assert_eq!(far(&scene.revoke(&without, true).await), "not sent");
}

// req: A7 A12 N10
#[tokio::test]
async fn endpoints_are_found_out_first_where_they_are_left_open() {
    let server = Raw::start(Act::KeepAlive(http("200 OK", "", ""))).await;
    let metadata = Metadata::start().await;
    let place = format!("{STANDARD}/tenant");
    let issuer = metadata.issuer("/tenant");
    // The token endpoint is known: a refresh would not wait for the document, these have to.
    let text = format!(
        "[connectors.test]\nissuer = \"{issuer}\"\nclient_id = \"c\"\ntoken_url = \"{}\"\n",
        server.url()
    );
    let connectors = Connectors::load_text("test.toml", &text).unwrap();
    let connector = connectors.get("test").unwrap();

    // Not known is not the same as none.
    metadata.page(&place, Page::Says(500, String::new()));
    let lost = endpoint(&options());
    assert!(lost.authorize_url(connector).await.is_err());
    assert!(lost.revocation_endpoint(connector).await.is_err());
    assert!(matches!(
        lost.begin_device(connector).await,
        Err(DeviceFault::Unavailable { .. })
    ));

    let revoke = metadata.relay(&server.at("/revoke"));
    let authorize = metadata.issuer("/authorize?x=1");
    let document = json!({
        "issuer": issuer, "revocation_endpoint": revoke, "authorization_endpoint": authorize,
        "token_endpoint": metadata.relay(&server.url()),
    });
    metadata.page(&place, Page::Says(200, document.to_string()));
    let found = endpoint(&options());
    let address = found.authorize_url(connector).await.unwrap();
    assert_eq!(address.as_str(), authorize);
    let request = authorization_request(&address, connector, &connector.redirects[0], "u", "s", None);
    assert!(
        request
            .as_str()
            .starts_with(&format!("{authorize}&response_type=code&"))
    );
    let endpoint = found.revocation_endpoint(connector).await.unwrap();
    assert_eq!(endpoint.unwrap().as_str(), revoke);
    let token: Secret<RefreshToken> = secret("rt");
    let token = GrantToken::Refresh(&token);
    let delivery = found.revoke(RevocationRequest { connector, token }).await;
    assert_eq!(far(&delivery), "answered");
    assert!(server.request().contains("token=rt&"));
    assert!(matches!(
        found.begin_device(connector).await,
        Err(DeviceFault::Unsupported)
    ));
}
