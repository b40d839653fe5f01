//! What operators do, noun by noun.

#![allow(
    missing_docs,
    reason = "a flattened group of arguments is documented where it is defined"
)]

use std::future::Future;

use clap::{Args, Subcommand, ValueEnum};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::json;
use tonic::Status;

use super::client::Session;
use super::context::ConnectionArgs;
use super::error::{Failure, Kind};
use super::render::{self, Field, ListArgs, Output, Resource, ShowArgs};
use names::Names;

pub mod account;
pub mod agent;
pub mod api_key;
pub mod connector;
pub mod context;
pub mod credential;
pub mod credit;
pub mod enrollment_token;
pub mod environment;
pub mod executor;
pub mod journal;
pub mod lock;
pub mod managed_key;
pub mod member;
pub(super) mod names;
pub mod operator_token;
pub mod org;
pub mod policy;
pub mod pool;
pub mod profile;
pub mod project;
pub mod provider;
pub mod role;
pub mod spend;
pub mod task;
pub mod whoami;

/// A noun: how to connect, and what to do.
#[derive(Args, Debug)]
pub struct Noun<A: Subcommand> {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    action: A,
}

impl<A: Subcommand> Noun<A> {
    /// What is to be done.
    pub fn action(&self) -> &A {
        &self.action
    }

    /// How it connects.
    pub fn connection(&self) -> &ConnectionArgs {
        &self.connection
    }

    /// Connects, and hands out what is to be done.
    pub async fn open(self) -> Result<(Session, A), Failure> {
        Ok((Session::open(&self.connection).await?, self.action))
    }
}

/// How something that was just minted is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum MintOutput {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// The token and nothing else, a line each.
    Value,
}

/// The server's largest page.
const PAGE: u32 = 200;

/// Fetches page after page until there are `limit` items or no more.
pub(super) async fn pages<T, F>(limit: u32, mut fetch: impl FnMut(i32, String) -> F) -> Result<Vec<T>, Status>
where
    F: Future<Output = Result<(Vec<T>, String), Status>>,
{
    let limit = limit as usize;
    let mut items = Vec::new();
    let mut token = String::new();
    loop {
        let page_size = (limit - items.len()).min(PAGE as usize) as i32;
        let (page, next) = fetch(page_size, token.clone()).await?;
        items.extend(page);
        items.truncate(limit);
        // A server that answers a token with itself would keep us here for good.
        if items.len() == limit || next.is_empty() || next == token {
            return Ok(items);
        }
        token = next;
    }
}

/// Prints a list and says so where there may be more.
pub(super) fn print_list<R: Resource>(items: &[R], args: ListArgs) -> Result<(), Failure> {
    render::print(&render::list(items, args.output, render::now()))?;
    if items.len() == args.limit as usize {
        render::remark(&format!(
            "the first {}; there may be more: raise --limit",
            args.limit
        ));
    }
    Ok(())
}

/// As [`print_list`]; a table has names in place of the ids of members, projects and environments.
async fn print_named_list<R: Resource>(
    session: &Session,
    mut items: Vec<R>,
    args: ListArgs,
) -> Result<(), Failure> {
    if args.output == Output::Table && !items.is_empty() {
        let names = Names::read(session).await;
        for id in items.iter_mut().flat_map(Resource::references) {
            names.replace(id);
        }
    }
    print_list(&items, args)
}

/// As [`print_one`]; a table has names beside the ids of members, projects and environments.
async fn print_named<R: Resource>(
    session: &Session,
    mut resource: Option<R>,
    args: ShowArgs,
) -> Result<(), Failure> {
    if let Some(resource) = resource.as_mut().filter(|_| args.output == Output::Table) {
        let names = Names::read(session).await;
        resource.references().into_iter().for_each(|id| names.add(id));
    }
    print_one(resource, args)
}

/// Prints one thing. An answer without it is a fault of the broker.
pub(super) fn print_one<R: Resource>(resource: Option<R>, args: ShowArgs) -> Result<(), Failure> {
    let resource = resource.ok_or_else(|| {
        Failure::new(Kind::Internal, "the broker's answer is empty")
            .remedy("Compare this program's version with the broker's.")
    })?;
    render::print(&render::show(&resource, args.output, render::now()))
}

/// Something that was just minted.
struct Minted<R> {
    /// What JSON calls it.
    name: &'static str,
    resource: R,
    expires: Option<prost_types::Timestamp>,
    token: crate::proto::Secret,
    /// What else people are told.
    more: Vec<(String, String)>,
}

/// Prints what was minted, with its token.
fn print_minted<R: Resource>(minted: Minted<R>, output: MintOutput) -> Result<(), Failure> {
    let secret = minted.token.value.as_str();
    render::print(&match output {
        MintOutput::Value => format!("{secret}\n"),
        MintOutput::Json => {
            render::json(&json!({ minted.name: render::object(&minted.resource), "token": secret }))
        }
        MintOutput::Table => {
            let expires = Field::Time(minted.expires).cell(render::now());
            let told = [
                ("id".to_owned(), minted.resource.handle()),
                ("token".to_owned(), secret.to_owned()),
                ("expires".to_owned(), expires),
            ];
            render::pairs(told.into_iter().chain(minted.more))
        }
    })?;
    if output == MintOutput::Table {
        render::remark("Shown this once.");
    }
    Ok(())
}

/// A fresh id for a create, so that the transport may repeat it safely: a random UUID (RFC 9562 section 5.4).
pub(super) fn request_id() -> Result<String, Failure> {
    let mut random = [0; 16];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Failure::new(Kind::Internal, "the system gives no random bytes"))?;
    Ok(uuid::Builder::from_random_bytes(random).into_uuid().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    async fn fetch_all(limit: u32, total: usize) -> (usize, Vec<i32>) {
        let sizes = RefCell::new(Vec::new());
        let items = pages(limit, |size, token| {
            sizes.borrow_mut().push(size);
            let start: usize = token.parse().unwrap_or(0);
            let end = (start + size as usize).min(total);
            let next = if end < total {
                end.to_string()
            } else {
                String::new()
            };
            async move { Ok(((start..end).collect::<Vec<_>>(), next)) }
        })
        .await
        .unwrap();
        assert!(items.iter().copied().eq(0..items.len()), "in order and once each");
        (items.len(), sizes.into_inner())
    }

    #[tokio::test]
    async fn all_pages_are_fetched_up_to_the_limit() {
        assert_eq!(fetch_all(450, 1000).await, (450, vec![200, 200, 50]));
        assert_eq!(fetch_all(450, 250).await, (250, vec![200, 200]));
        assert_eq!(fetch_all(10, 0).await, (0, vec![10]));
    }

    #[tokio::test]
    async fn a_server_that_repeats_its_token_does_not_hold_us() {
        let items = pages(1000, |_, _| async { Ok((vec![1], "same".to_owned())) }).await;
        assert_eq!(items.unwrap(), [1, 1]);
    }
}
