//! A person with a web browser, as a script: follows redirects, keeps cookies, fills in forms and sends them.
//! Use as `#[path = "support/web.rs"] mod web;`.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Response, Url, redirect};

/// The most pages of one errand.
const PAGES: usize = 30;

pub struct Browser {
    client: Client,
    cookies: BTreeMap<String, String>,
    /// The name to sign in with.
    person: String,
}

/// Where an errand ended.
pub struct Page {
    pub url: Url,
    pub status: u16,
    pub text: String,
}

enum Walked {
    Page(Page),
    Away(Url),
}

impl Browser {
    pub fn of(person: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().redirect(redirect::Policy::none());
        Self {
            client: client.build().unwrap(),
            cookies: BTreeMap::new(),
            person: person.to_owned(),
        }
    }

    /// Opens an address and does what the pages ask for, until one has no form.
    pub async fn run(&mut self, address: &str) -> Page {
        match self.walk(address, None).await {
            Walked::Page(page) => page,
            Walked::Away(url) => panic!("led to {url}"),
        }
    }

    /// As [`Browser::run`], until a redirect leads to an address that begins with `end`, where nobody has to listen.
    pub async fn away(&mut self, address: &str, end: &str) -> Url {
        match self.walk(address, Some(end)).await {
            Walked::Away(url) => url,
            Walked::Page(page) => panic!("ended at {}: {}", page.url, page.text),
        }
    }

    async fn walk(&mut self, address: &str, end: Option<&str>) -> Walked {
        let mut url = Url::parse(address).unwrap();
        let mut form: Option<Vec<(String, String)>> = None;
        for _ in 0..PAGES {
            let request = match form.take() {
                Some(fields) => self.client.post(url.clone()).form(&fields),
                None => self.client.get(url.clone()),
            };
            let answer = request.header(COOKIE, self.jar()).send().await.unwrap();
            self.keep_cookies(&answer);
            if let Some(to) = answer.headers().get(LOCATION) {
                url = url.join(to.to_str().unwrap()).unwrap();
                if end.is_some_and(|end| url.as_str().starts_with(end)) {
                    return Walked::Away(url);
                }
                continue;
            }
            let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
            match read_form(&text) {
                Some((action, fields)) => {
                    url = url.join(&action).unwrap();
                    form = Some(self.filled(fields));
                }
                None => return Walked::Page(Page { url, status, text }),
            }
        }
        panic!("no end of pages at {url}")
    }

    fn filled(&self, fields: Vec<(String, String)>) -> Vec<(String, String)> {
        let fill = |(name, value): (String, String)| match name.as_str() {
            "login" => (name, self.person.clone()),
            "password" => (name, "anything".to_owned()),
            _ => (name, value),
        };
        fields.into_iter().map(fill).collect()
    }

    fn jar(&self) -> String {
        let pairs = self.cookies.iter().map(|(name, value)| format!("{name}={value}"));
        pairs.collect::<Vec<_>>().join("; ")
    }

    fn keep_cookies(&mut self, answer: &Response) {
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let pair = cookie.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// The first form of a page: where it goes, and its fields.
fn read_form(page: &str) -> Option<(String, Vec<(String, String)>)> {
    let form = page.split("<form").nth(1)?.split("</form>").next()?;
    let action = attribute(form.split('>').next()?, "action")?;
    let inputs = form
        .split("<input")
        .skip(1)
        .map(|input| input.split('>').next().unwrap());
    let field = |input: &str| {
        Some((
            attribute(input, "name")?,
            attribute(input, "value").unwrap_or_default(),
        ))
    };
    Some((action, inputs.filter_map(field).collect()))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
    Some(value.replace("&amp;", "&").replace("&#39;", "'"))
}
