//! A server that answers everything alike, the requests that it saw, and a client that makes each of them.

use credbroker::domain::secret::{AccessToken, AuthorizationCode, CodeVerifier, DeviceCode};
use credbroker::upstream::oauth::{CodeRequest, DevicePoll, GrantToken, RevocationRequest};
use serde_json::Value;

use super::delivery::{Act, Raw, http};
use super::*;

/// A secret with all that an encoding has to take care of.
pub(super) const ODD: &str = "s t/+\"\\&=%\u{e9}";

pub(super) fn secret<K>(text: &str) -> Secret<K> {
    Secret::from(text.to_owned())
}

/// A server that answers everything alike, and a client.
pub(super) struct Scene {
    pub(super) server: Raw,
    pub(super) endpoint: HttpTokenEndpoint,
    folder: tempfile::TempDir,
}

/// A request, taken apart.
pub(super) struct Seen {
    /// The first line without the protocol.
    pub(super) line: String,
    /// The other lines of the head, in lower case but for `authorization`.
    pub(super) head: String,
    pub(super) body: String,
}

impl Seen {
    /// The fields of a form.
    pub(super) fn form(&self) -> Vec<(String, String)> {
        assert!(
            self.head
                .contains("content-type: application/x-www-form-urlencoded\r\n"),
            "{}",
            self.head
        );
        fields(&self.body)
    }

    pub(super) fn json(&self) -> Value {
        assert!(
            self.head.contains("content-type: application/json\r\n"),
            "{}",
            self.head
        );
        serde_json::from_str(&self.body).unwrap()
    }

    pub(super) fn authorization(&self) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix("authorization: "))
    }
}

pub(super) fn fields(encoded: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://h/?{encoded}")).unwrap();
    url.query_pairs().into_owned().collect()
}

pub(super) fn named<const N: usize>(fields: [(&str, &str); N]) -> Vec<(String, String)> {
    fields
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

impl Scene {
    pub(super) async fn answering(status: &str, body: &str) -> Self {
        Self::acting(Act::KeepAlive(http(status, "", body))).await
    }

    pub(super) async fn acting(act: Act) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), ODD).unwrap();
        Self {
            server: Raw::start(act).await,
            endpoint: endpoint(&options()),
            folder,
        }
    }

    /// A connector of the server with all endpoints of the standards.
    pub(super) fn connector(&self, more: &str) -> Arc<Connector> {
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
    pub(super) fn own(&self) -> Arc<Connector> {
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

    pub(super) fn with_secret(&self, auth: &str) -> String {
        let file = self.folder.path().join("secret");
        format!(
            "client_auth = \"{auth}\"\nclient_secret = {{ file = '{}' }}\n",
            file.display()
        )
    }

    pub(super) fn seen(&self) -> Seen {
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

    pub(super) async fn exchange(&self, connector: &Connector, verifier: Option<&str>) -> Delivery {
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

    pub(super) async fn poll(&self, connector: &Connector) -> Delivery {
        let device_code: Secret<DeviceCode> = secret(ODD);
        let request = DevicePoll {
            connector,
            device_code: &device_code,
            user_code: "AB-12",
        };
        self.endpoint.poll_device(request).await
    }

    pub(super) async fn revoke(&self, connector: &Connector, refresh: bool) -> Delivery {
        let (one, other): (Secret<RefreshToken>, Secret<AccessToken>) = (secret(ODD), secret(ODD));
        let token = if refresh {
            GrantToken::Refresh(&one)
        } else {
            GrantToken::Access(&other)
        };
        self.endpoint.revoke(RevocationRequest { connector, token }).await
    }
}
