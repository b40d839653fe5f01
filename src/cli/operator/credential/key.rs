//! `credbroker credential set`: the key that is stored, read from a file, a pipe or a prompt.
//!
//! AWS keys are a pair, so they come as JSON, as `aws sts`, `aws iam create-access-key` and `aws configure
//! export-credentials` print it, or as the secret access key alone beside `--access-key-id`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use prost_types::Timestamp;
use serde::Deserialize;

use super::{OwnerArgs, after, to_wire};
use crate::cli::error::Failure;
use crate::cli::input;
use crate::cli::render::ShowArgs;
use crate::domain::secret::{ApiKey, AwsSecretKey, AwsSessionToken, Exposure, Secret};
use crate::proto;
use crate::proto::set_credential_request::Key;

/// The key that is stored.
#[derive(Args, Debug)]
pub struct SetArgs {
    #[command(flatten)]
    owner: OwnerArgs,
    /// The provider, such as `anthropic`.
    #[arg(long)]
    provider: String,
    /// The only executor it is for, such as `claude-code`; that one takes it before the owner's key for all.
    #[arg(long, default_value = "", hide_default_value = true)]
    executor: String,
    /// AWS keys: JSON as the `aws` command prints it, or the secret access key alone.
    #[arg(long, group = "kind", requires = "region")]
    aws: bool,
    /// A bearer key for Amazon Bedrock.
    #[arg(long, group = "kind", requires = "region")]
    bearer: bool,
    /// The region that AWS keys or a bearer key are meant for, such as `us-east-1`.
    #[arg(long, requires = "kind", default_value = "", hide_default_value = true)]
    region: String,
    /// The access key id of AWS keys that do not come as JSON.
    #[arg(long, value_name = "ID", requires = "aws", conflicts_with = "bearer")]
    access_key_id: Option<String>,
    /// The file with the session token of temporary AWS keys that do not come as JSON.
    #[arg(long, value_name = "FILE", requires = "aws", conflicts_with = "bearer")]
    session_token_file: Option<PathBuf>,
    /// The file with the key, `-` for standard input.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How long the key is good for; it is not handed out after that.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    expires_in: Option<Duration>,
    /// Store it even when it does not look like a key of this provider.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(super) show: ShowArgs,
}

/// The request that stores it.
pub(super) fn request(org: String, args: SetArgs) -> Result<proto::SetCredentialRequest, Failure> {
    let mut expire_time = args.expires_in.map(after);
    let key = if args.aws {
        let keys = aws_keys(&args)?;
        expire_time = expire_time.or(keys.expires);
        Key::AwsKeys(proto::AwsKeys {
            access_key_id: keys.access_key_id,
            secret_access_key: Some(to_wire(&keys.secret_access_key)),
            session_token: keys.session_token.as_ref().map(to_wire),
            region: args.region,
        })
    } else {
        let what = if args.bearer { "bearer key" } else { "API key" };
        let key: Secret<ApiKey> = input::secret(args.key_file.as_deref(), what)?;
        match args.bearer {
            true => Key::BedrockBearer(proto::BedrockBearer {
                token: Some(to_wire(&key)),
                region: args.region,
            }),
            false => Key::ApiKey(to_wire(&key)),
        }
    };
    Ok(proto::SetCredentialRequest {
        org,
        owner: Some(args.owner.into_wire()),
        provider: args.provider,
        force: args.force,
        executor: args.executor,
        expire_time,
        key: Some(key),
    })
}

struct AwsKeys {
    access_key_id: String,
    secret_access_key: Secret<AwsSecretKey>,
    session_token: Option<Secret<AwsSessionToken>>,
    expires: Option<Timestamp>,
}

fn aws_keys(args: &SetArgs) -> Result<AwsKeys, Failure> {
    let asked = input::is_asked(args.key_file.as_deref());
    let access_key_id = match &args.access_key_id {
        Some(id) => Some(id.clone()),
        None if asked => Some(input::line("access key id")?),
        None => None,
    };
    let given: Secret<AwsSecretKey> = input::secret(args.key_file.as_deref(), "secret access key")?;
    let session_token = match args.session_token_file.as_deref() {
        Some(file) => Some(input::secret_in_file(file)?),
        None if asked => input::optional_secret("session token, if there is one")?,
        None => None,
    };
    let text = given.expose(Exposure::Inspect);
    if text.first() == Some(&b'{') {
        if access_key_id.is_some() || session_token.is_some() {
            return Err(Failure::usage("the keys come as JSON and by options")
                .remedy("Leave --access-key-id and --session-token-file out."));
        }
        return parsed(text);
    }
    let access_key_id = access_key_id.ok_or_else(|| {
        Failure::usage("the access key id is missing")
            .remedy("Add --access-key-id, or give the keys as JSON.")
    })?;
    Ok(AwsKeys {
        access_key_id,
        secret_access_key: given,
        session_token,
        expires: None,
    })
}

/// What the `aws` command prints: the keys, or the keys within an object.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    #[serde(alias = "AccessKey")]
    credentials: Option<Box<Printed>>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    expiration: Option<String>,
}

fn parsed(json: &[u8]) -> Result<AwsKeys, Failure> {
    // What serde_json says of a value may quote it.
    let malformed = |error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        Failure::usage(format!(
            "the AWS keys are no JSON that is understood: line {line}, column {column}"
        ))
    };
    let outer: Printed = serde_json::from_slice(json).map_err(malformed)?;
    let keys = match outer.credentials {
        Some(inner) => *inner,
        None => outer,
    };
    let missing = |name: &str| Failure::usage(format!("the JSON has no {name}"));
    let expires = keys.expiration.as_deref().filter(|at| !at.is_empty());
    let expires = expires.map(|at| {
        let at: jiff::Timestamp = at
            .parse()
            .map_err(|_| Failure::usage("Expiration in the JSON is no RFC 3339 time"))?;
        Ok::<_, Failure>(Timestamp {
            seconds: at.as_second(),
            nanos: 0,
        })
    });
    Ok(AwsKeys {
        secret_access_key: keys
            .secret_access_key
            .map(Secret::from)
            .ok_or_else(|| missing("SecretAccessKey"))?,
        session_token: keys
            .session_token
            .filter(|token| !token.is_empty())
            .map(Secret::from),
        access_key_id: keys.access_key_id.ok_or_else(|| missing("AccessKeyId"))?,
        expires: expires.transpose()?,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn told(json: &str) -> String {
        parsed(json.as_bytes()).err().unwrap().what
    }

    #[test]
    fn keys_are_taken_as_the_aws_command_prints_them() {
        let keys = r#""AccessKeyId": "ASIA1", "SecretAccessKey": "secret", "SessionToken": "token""#;
        for json in [
            format!("{{\"Version\": 1, {keys}, \"Expiration\": \"2026-01-02T03:04:05+00:00\"}}"),
            format!("{{\"Credentials\": {{{keys}, \"Expiration\": \"2026-01-02T03:04:05Z\"}}}}"),
        ] {
            let read = parsed(json.as_bytes()).ok().unwrap();
            assert_eq!(read.access_key_id, "ASIA1");
            let secret = read.secret_access_key.expose_str(Exposure::Inspect);
            assert_eq!(secret, Some("secret"));
            let token = read.session_token.unwrap();
            assert_eq!(token.expose_str(Exposure::Inspect), Some("token"));
            assert_eq!(read.expires.unwrap().seconds, 1_767_323_045);
        }
        let user = r#"{"AccessKey": {"UserName": "ci", "AccessKeyId": "AKIA1", "SecretAccessKey": "s"}}"#;
        let read = parsed(user.as_bytes()).ok().unwrap();
        assert!(read.session_token.is_none() && read.expires.is_none());
    }

    #[test]
    fn what_is_wrong_is_told_without_the_secret() {
        assert!(told(r#"{"AccessKeyId": "AKIA1"}"#).contains("SecretAccessKey"));
        assert!(told(r#"{"SecretAccessKey": "hidden"}"#).contains("AccessKeyId"));
        for json in [
            r#"{"SecretAccessKey": "hidden"#,
            r#"{"Credentials": "hidden"}"#,
            r#"{"AccessKeyId": "A", "SecretAccessKey": "hidden", "Expiration": "hidden"}"#,
        ] {
            assert!(!told(json).contains("hidden"), "{json}");
        }
    }
}
