//! Where a person signs in at the demo server: pages with a button to allow it and one to deny it, and the endpoints
//! that lead there and back.

use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION};
use hyper::{Request, StatusCode};
use reqwest::Url;
use serde_json::{Value, json};

use super::signin::{Asked, DEVICE_LIFE, INTERVAL, Presented};
use super::{Answered, Form, Server, failure, no_random, oauth_answer, reply};
use crate::clock::Clock as _;

/// The account that everybody signs in to.
const EMAIL: &str = "demo@credbroker.example";
const PLAN: &str = "demo";

impl Server {
    /// `GET /authorize`: RFC 6749 section 4.1.1, with PKCE or not at all.
    pub(super) fn authorize(&self, query: &str) -> Answered {
        let form = Form::of(query);
        match self.asked(&form) {
            Ok(asked) => {
                let told = format!("{} asks for access to the account {EMAIL}.", asked.client_id);
                let fields = [
                    ("response_type", "code"),
                    ("client_id", &asked.client_id),
                    ("redirect_uri", &asked.redirect_uri),
                    ("state", &asked.state),
                    ("code_challenge", &asked.code_challenge),
                    ("code_challenge_method", "S256"),
                ];
                page(StatusCode::OK, &told, &buttons("/authorize", &fields))
            }
            Err(why) => page(StatusCode::BAD_REQUEST, why, ""),
        }
    }

    /// `POST /authorize`: a button of that page.
    pub(super) async fn authorized(&self, request: Request<Incoming>) -> Answered {
        let form = match Form::read(request).await {
            Ok(form) => form,
            Err(refused) => return refused,
        };
        let asked = match self.asked(&form) {
            Ok(asked) => asked,
            Err(why) => return page(StatusCode::BAD_REQUEST, why, ""),
        };
        let (Ok(mut to), Some(code)) = (Url::parse(&asked.redirect_uri), self.random_text()) else {
            return no_random();
        };
        let state = asked.state.clone();
        let said = match form.get("allow") {
            Some(_) => {
                self.sign_ins(|all| all.allow(asked, code.clone(), self.clock.wall()));
                ("code", code)
            }
            None => ("error", "access_denied".to_owned()),
        };
        to.query_pairs_mut().extend_pairs([said, ("state", state)]);
        let mut away = page(StatusCode::SEE_OTHER, "Going back.", "");
        match HeaderValue::from_str(to.as_str()) {
            Ok(to) => away.headers_mut().insert(LOCATION, to),
            Err(_) => return page(StatusCode::BAD_REQUEST, "The redirect_uri is no address.", ""),
        };
        away
    }

    /// What is asked for, or why it cannot be.
    fn asked(&self, form: &Form) -> Result<Asked, &'static str> {
        let field = |name| form.get(name).unwrap_or_default().to_owned();
        let asked = Asked {
            client_id: field("client_id"),
            redirect_uri: field("redirect_uri"),
            state: field("state"),
            code_challenge: field("code_challenge"),
        };
        let to = Url::parse(&asked.redirect_uri).ok();
        let own = format!("http://{}/code", self.addr);
        let here = |to: &Url| {
            let host = to.host_str().unwrap_or_default();
            to.scheme() == "http" && ["127.0.0.1", "[::1]", "localhost"].contains(&host)
        };
        if field("response_type") != "code" || asked.client_id.is_empty() {
            Err("Only response_type=code is served, and client_id is needed.")
        } else if !to.is_some_and(|to| here(&to) || to.as_str() == own) {
            Err("The redirect_uri is neither on this machine nor the page that shows a code.")
        } else if field("code_challenge_method") != "S256" || asked.code_challenge.is_empty() {
            Err("PKCE with S256 is needed.")
        } else {
            Ok(asked)
        }
    }

    /// `GET /code`: shows what came of it, to be pasted.
    pub(super) fn show_code(query: &str) -> Answered {
        let form = Form::of(query);
        match (form.get("code"), form.get("state")) {
            (Some(code), Some(state)) => {
                let code = format!(
                    "<p>Paste this where you came from:</p><pre>{}</pre>",
                    escaped(&format!("{code}#{state}"))
                );
                page(StatusCode::OK, "Done here.", &code)
            }
            _ => page(StatusCode::OK, "The sign-in was denied.", ""),
        }
    }

    /// `POST /token` with an authorization code.
    pub(super) fn exchange(&self, form: &Form) -> Answered {
        let field = |name| form.get(name).unwrap_or_default();
        let bound = ["client_id", "redirect_uri", "code_verifier"].map(field);
        let Some(id) = self.random_text() else {
            return no_random();
        };
        let now = self.clock.wall();
        match self.sign_ins(|all| all.present(field("code"), bound, &id, now)) {
            Presented::Good => self.granted(id),
            Presented::Used(grant) => {
                self.locked(|grants| grants.end(&grant, "code used again", now));
                let why = "the code was used before; what it brought is revoked";
                failure(StatusCode::BAD_REQUEST, "invalid_grant", why)
            }
            Presented::Refused(why) => failure(StatusCode::BAD_REQUEST, "invalid_grant", why),
        }
    }

    /// `POST /device_authorization`: RFC 8628 section 3.1.
    pub(super) async fn begin_device(&self, request: Request<Incoming>) -> Answered {
        let form = match Form::read(request).await {
            Ok(form) => form,
            Err(refused) => return refused,
        };
        let Some(client_id) = form.get("client_id") else {
            return failure(StatusCode::BAD_REQUEST, "invalid_request", "client_id is missing");
        };
        let (Some(device_code), Ok(random)) =
            (self.random_text(), ring::rand::generate::<[u8; 8]>(&self.random))
        else {
            return no_random();
        };
        let now = self.clock.wall();
        let user_code = self.sign_ins(|all| all.begin(client_id, device_code.clone(), random.expose(), now));
        let uri = format!("http://{}/device", self.addr);
        let begun = json!({
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": uri,
            "verification_uri_complete": format!("{uri}?user_code={user_code}"),
            "expires_in": DEVICE_LIFE.as_secs(),
            "interval": INTERVAL.as_secs(),
        });
        reply(StatusCode::OK, &begun)
    }

    /// `GET /device`: where the code is entered, or with the code in the address only looked at.
    pub(super) fn device(query: &str) -> Answered {
        let form = Form::of(query);
        let told = format!("A program asks for access to the account {EMAIL}.");
        let code = escaped(form.get("user_code").unwrap_or_default());
        let input = format!(
            "<form method=\"post\" action=\"/device\"><p>The code that it shows: \
             <input name=\"user_code\" value=\"{code}\"></p>{BUTTONS}</form>"
        );
        page(StatusCode::OK, &told, &input)
    }

    /// `POST /device`: a button of that page.
    pub(super) async fn entered(&self, request: Request<Incoming>) -> Answered {
        let form = match Form::read(request).await {
            Ok(form) => form,
            Err(refused) => return refused,
        };
        let (code, allowed) = (
            form.get("user_code").unwrap_or_default(),
            form.get("allow").is_some(),
        );
        match self.sign_ins(|all| all.enter(code, allowed, self.clock.wall())) {
            true if allowed => page(StatusCode::OK, "Done here. You can close this page.", ""),
            true => page(StatusCode::OK, "It was denied. You can close this page.", ""),
            false => page(
                StatusCode::BAD_REQUEST,
                "There is no such code, or it was entered already.",
                "",
            ),
        }
    }

    /// `POST /token` by a device that waits.
    pub(super) fn poll(&self, form: &Form) -> Answered {
        let field = |name| form.get(name).unwrap_or_default();
        let now = self.clock.wall();
        match self.sign_ins(|all| all.poll(field("device_code"), field("client_id"), now)) {
            Ok(()) => match self.random_text() {
                Some(id) => self.granted(id),
                None => no_random(),
            },
            Err(error) => failure(StatusCode::BAD_REQUEST, error, "see RFC 8628 section 3.5"),
        }
    }

    /// `POST /revoke`: RFC 7009. The whole grant goes, whichever of its tokens is presented.
    pub(super) async fn revoke(&self, request: Request<Incoming>) -> Answered {
        match Form::read(request).await {
            Ok(form) => {
                let token = form.get("token").unwrap_or_default();
                self.locked(|grants| grants.revoke(token, self.clock.wall()));
                // A token that nobody knows is as good as revoked (section 2.2).
                reply(StatusCode::OK, &json!({}))
            }
            Err(refused) => refused,
        }
    }

    /// A new grant, and who it is for.
    fn granted(&self, id: String) -> Answered {
        let Some(fresh) = self.secrets() else {
            return no_random();
        };
        let now = self.clock.wall();
        let tokens =
            self.locked(|grants| grants.mint(id, self.access_life, std::time::Duration::ZERO, fresh, now));
        let mut answer: Value = oauth_answer(&tokens);
        answer["account"] = json!({ "email": EMAIL, "plan": PLAN });
        reply(StatusCode::OK, &answer)
    }
}

const BUTTONS: &str = "<p><input type=\"submit\" name=\"allow\" value=\"Allow\"> \
                       <input type=\"submit\" name=\"deny\" value=\"Deny\"></p>";

/// A form with hidden fields and the two buttons.
fn buttons(action: &str, fields: &[(&str, &str)]) -> String {
    let hidden: String = fields
        .iter()
        .map(|(name, value)| {
            let value = escaped(value);
            format!("<input type=\"hidden\" name=\"{name}\" value=\"{value}\">")
        })
        .collect();
    format!("<form method=\"post\" action=\"{action}\">{hidden}{BUTTONS}</form>")
}

fn escaped(text: &str) -> String {
    let escape = |c| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// A page; `told` is text, `more` is HTML.
fn page(status: StatusCode, told: &str, more: &str) -> Answered {
    let told = escaped(told);
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Demo provider</title>\
         <body style=\"font-family:sans-serif;margin:4em\"><h1>Demo provider of credbrokerd dev</h1>\
         <p>{told}</p>{more}</body></html>\n"
    );
    let mut response = Answered::new(html.into());
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
        ),
        (CACHE_CONTROL, "no-store"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}
