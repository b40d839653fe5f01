//! `credbroker resolve`: asks for the credential of a task.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::IdentityArgs;
use super::sought::SoughtArgs;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::Failure;
use crate::cli::operator::names::Names;
use crate::cli::render::{self, Field};
use crate::cli::{owner_field, owner_reference, wire_duration};
use crate::domain::time::Time;
use crate::proto::material::Material;
use crate::proto::{self, Decision, Lease};

/// How a resolution is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ResolveOutput {
    /// For people; without the secret.
    #[default]
    Table,
    /// For programs; without the secret, unless --show-secret is given.
    Json,
    /// The secret and nothing else, for use in scripts.
    Value,
}

/// Ask for the credential of a task.
///
/// An agent names its task where it has several. A control-plane service, with an API key, names a task, or a
/// member and a project. People are handed nothing, but system admins with --system-scope; what would be handed out
/// and why is told by `credbroker explain`.
#[derive(Args, Debug)]
pub struct ResolveArgs {
    #[command(flatten)]
    sought: SoughtArgs,
    /// How long the credential has to stay valid.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    min_remaining: Option<Duration>,
    /// How it is shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: ResolveOutput,
    /// Show the secret in the table or the JSON.
    #[arg(long)]
    show_secret: bool,
    #[command(flatten)]
    identity: IdentityArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Runs the command.
pub async fn run(args: ResolveArgs) -> Result<(), Failure> {
    let approval = args.sought.approval()?;
    let session = super::open(&args.connection, &args.identity).await?;
    let request = proto::ResolveCredentialRequest {
        minimum_remaining: args.min_remaining.map(wire_duration).transpose()?,
        ..args.sought.request(&session, approval.as_ref())
    };
    let answer = session
        .broker()
        .resolve_credential(request)
        .await
        .map_err(|status| session.failure(status))?
        .into_inner();
    let lease = answer.lease.unwrap_or_default();
    let mut decision = answer.decision.unwrap_or_default();
    // An agent may not ask for names.
    if args.output == ResolveOutput::Table && !session.is_agent() {
        let names = Names::read(&session).await;
        owner_reference(&mut decision.owner)
            .into_iter()
            .for_each(|id| names.add(id));
    }
    let text = match args.output {
        ResolveOutput::Table => table(&lease, &decision, args.show_secret, render::now()),
        ResolveOutput::Json => render::json(&object(&lease, &decision, args.show_secret)),
        ResolveOutput::Value => format!("{}\n", value(&lease)?),
    };
    render::print(&text)
}

/// What is told of a lease, without its secret.
pub(super) fn fields(lease: &Lease) -> Vec<(&'static str, Field)> {
    let mode = lease.mode().as_str_name();
    vec![
        ("id", Field::Text(lease.id.clone())),
        ("task", Field::Text(lease.task.clone())),
        ("credential", Field::Text(lease.credential.clone())),
        ("mode", Field::Text(render::enum_name(mode, "AUTH_MODE_"))),
        ("provider", Field::Text(lease.provider.clone())),
        ("model", Field::Text(lease.model.clone())),
        ("generation", Field::Number(lease.generation)),
        ("material_expire_time", Field::Time(lease.material_expire_time)),
        ("expire_time", Field::Time(lease.expire_time)),
    ]
}

/// For people.
pub(super) fn table(lease: &Lease, decision: &Decision, show_secret: bool, now: Time) -> String {
    let mut rows: Vec<_> = fields(lease)
        .into_iter()
        .map(|(name, field)| {
            let name = match name {
                "id" => "lease".to_owned(),
                "material_expire_time" => "expires".to_owned(),
                "expire_time" => "lease ends".to_owned(),
                other => other.to_owned(),
            };
            (name, field.cell(now))
        })
        .collect();
    if let Some(owner) = &decision.owner {
        rows.push(("owner".to_owned(), owner_field(Some(owner)).cell(now)));
    }
    rows.push(("fallback".to_owned(), decision.fallback_reason.clone()));
    let parts = parts(lease);
    let how = match parts.iter().filter(|part| part.secret).count() {
        1 => "(not shown: '-o value' prints it alone)",
        _ => "(not shown: '--show-secret' shows it)",
    };
    rows.extend(parts.into_iter().map(|part| {
        let hidden = part.secret && !show_secret;
        (
            render::label(part.name),
            if hidden { how } else { part.value }.to_owned(),
        )
    }));
    render::pairs(rows)
}

/// For programs.
pub(super) fn object(lease: &Lease, decision: &Decision, show_secret: bool) -> Value {
    let mut object = serde_json::Map::new();
    for (name, field) in fields(lease) {
        object.insert(name.to_owned(), field.json());
    }
    let material: serde_json::Map<_, _> = parts(lease)
        .into_iter()
        .filter(|part| show_secret || !part.secret)
        .map(|part| (part.name.to_owned(), part.value.into()))
        .collect();
    object.insert("material".to_owned(), material.into());
    json!({
        "lease": object,
        "owner": owner_field(decision.owner.as_ref()).json(),
        "fallback_reason": decision.fallback_reason,
        "policy_version": decision.policy_version,
    })
}

/// The one secret of the lease.
fn value(lease: &Lease) -> Result<&str, Failure> {
    let secrets: Vec<_> = parts(lease).into_iter().filter(|part| part.secret).collect();
    match secrets.as_slice() {
        [only] => Ok(only.value),
        [] => Err(Failure::usage("what was handed out holds no secret")
            .remedy("See it with '-o table' or '-o json'.")),
        _ => Err(Failure::usage("what was handed out has several parts")
            .remedy("Take them from '-o json --show-secret'.")),
    }
}

/// A part of the material.
struct Part<'a> {
    name: &'static str,
    value: &'a str,
    secret: bool,
}

fn parts(lease: &Lease) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut add = |name, value, secret| parts.push(Part { name, value, secret });
    fn text(secret: &Option<proto::Secret>) -> &str {
        secret.as_ref().map_or("", |secret| secret.value.as_str())
    }
    match lease
        .material
        .as_ref()
        .and_then(|material| material.material.as_ref())
    {
        Some(Material::OauthAccessToken(token)) => {
            add("access_token", text(&token.token), true);
            add("token_type", &token.token_type, false);
        }
        Some(Material::ApiKey(key)) => add("api_key", text(&key.key), true),
        Some(Material::AwsKeys(keys)) => {
            add("access_key_id", &keys.access_key_id, false);
            add("secret_access_key", text(&keys.secret_access_key), true);
            if keys.session_token.is_some() {
                add("session_token", text(&keys.session_token), true);
            }
            add("region", &keys.region, false);
        }
        Some(Material::BedrockBearer(bearer)) => {
            add("bedrock_bearer", text(&bearer.token), true);
            add("region", &bearer.region, false);
        }
        Some(Material::ProxyGrant(grant)) => {
            add("base_url", &grant.base_url, false);
            add("proxy_token", text(&grant.token), true);
        }
        Some(Material::HostSession(session)) => add("host_session", &session.executor, false),
        Some(Material::LocalEndpoint(endpoint)) => add("base_url", &endpoint.base_url, false),
        None => {}
    }
    parts
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SECRET: &str = "sk-very-secret";

    fn secret() -> Option<proto::Secret> {
        Some(proto::Secret { value: SECRET.into() })
    }

    fn lease(material: Material) -> Lease {
        Lease {
            id: "lse_1".into(),
            mode: proto::AuthMode::Oauth.into(),
            generation: 3,
            material_expire_time: Some(prost_types::Timestamp {
                seconds: 1_300,
                nanos: 0,
            }),
            material: Some(proto::Material {
                material: Some(material),
            }),
            ..Default::default()
        }
    }

    fn every_material() -> Vec<Material> {
        vec![
            Material::OauthAccessToken(proto::OAuthAccessToken {
                token: secret(),
                token_type: "Bearer".into(),
                ..Default::default()
            }),
            Material::ApiKey(proto::ApiKeyMaterial { key: secret() }),
            Material::AwsKeys(proto::AwsKeys {
                access_key_id: "AKIA".into(),
                secret_access_key: secret(),
                session_token: secret(),
                region: String::new(),
            }),
            Material::BedrockBearer(proto::BedrockBearer {
                token: secret(),
                region: String::new(),
            }),
            Material::ProxyGrant(proto::ProxyGrant {
                base_url: "https://p".into(),
                token: secret(),
            }),
        ]
    }

    #[test]
    fn no_secret_is_shown_unless_asked_for() {
        for material in every_material() {
            let lease = lease(material);
            let decision = Decision::default();
            let now = Time::from_seconds(1_000);
            assert!(!table(&lease, &decision, false, now).contains(SECRET));
            assert!(!object(&lease, &decision, false).to_string().contains(SECRET));
            assert!(table(&lease, &decision, true, now).contains(SECRET));
            assert!(object(&lease, &decision, true).to_string().contains(SECRET));
        }
    }

    #[test]
    fn the_table_tells_what_matters() {
        let lease = lease(every_material().remove(0));
        let decision = Decision {
            owner: Some(proto::Owner {
                owner: Some(proto::owner::Owner::Org(true)),
            }),
            ..Default::default()
        };
        let text = table(&lease, &decision, false, Time::from_seconds(1_000));
        for (name, value) in [
            ("lease", "lse_1"),
            ("mode", "oauth"),
            ("owner", "(the org)"),
            ("expires", "in 5m"),
        ] {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            assert!(line.ends_with(value), "{line}");
        }
    }

    #[test]
    fn value_is_the_secret_alone_and_refused_where_there_are_several() {
        let values: Vec<_> = every_material()
            .into_iter()
            .map(|material| value(&lease(material)).map(str::to_owned).ok())
            .collect();
        let one = Some(SECRET.to_owned());
        assert_eq!(values, [one.clone(), one.clone(), None, one.clone(), one]);
    }
}
