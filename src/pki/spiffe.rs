//! SPIFFE names: how an agent, or an API key, is written in a certificate.
//!
//! `spiffe://<trust domain>/org/<org>/env/<environment>/agent/<agent>` and
//! `spiffe://<trust domain>/org/<org>/api-key/<API key>`, see the SPIFFE-ID standard. An id has exactly one
//! spelling, so two names are equal if and only if their texts are.

use std::fmt;
use std::str::FromStr;

use crate::domain::id::{AgentId, ApiKeyId, EnvironmentId, OrgId};

/// The name of everything one broker vouches for (SPIFFE-ID section 2.1): 1 to 255 of `a-z`, `0-9`, `.`,
/// `-` and `_`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrustDomain(String);

/// A text that is no trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trust domain is 1 to 255 of a-z, 0-9, '.', '-' and '_'")]
pub struct MalformedTrustDomain;

impl TrustDomain {
    /// The text, without scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SPIFFE id of the trust domain itself, which its CA certificates carry.
    pub fn uri(&self) -> String {
        format!("spiffe://{}", self.0)
    }

    /// The trust domain whose own SPIFFE id this is.
    pub fn from_uri(uri: &str) -> Option<Self> {
        uri.strip_prefix("spiffe://")?.parse().ok()
    }
}

impl FromStr for TrustDomain {
    type Err = MalformedTrustDomain;

    fn from_str(text: &str) -> Result<Self, MalformedTrustDomain> {
        let fits = (1..=255).contains(&text.len())
            && text
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(MalformedTrustDomain)
        }
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom an agent's certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AgentSubject {
    /// The org.
    pub org: OrgId,
    /// The environment, of that org.
    pub environment: EnvironmentId,
    /// The agent, of that environment.
    pub agent: AgentId,
}

/// Which org API key a certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApiKeySubject {
    /// The org.
    pub org: OrgId,
    /// The API key, of that org.
    pub api_key: ApiKeyId,
}

/// Whom a client certificate names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An agent.
    Agent(AgentSubject),
    /// An org API key.
    ApiKey(ApiKeySubject),
}

/// Why a URI names no caller of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACaller {
    /// It belongs to another broker, or is no SPIFFE id at all.
    #[error("the name is not of this broker's trust domain")]
    Foreign,
    /// It is of our trust domain, and names something else.
    #[error("the name is neither of the form /org/<id>/env/<id>/agent/<id> nor /org/<id>/api-key/<id>")]
    Shape,
}

impl AgentSubject {
    /// The SPIFFE id.
    pub fn uri(&self, trust_domain: &TrustDomain) -> String {
        let Self {
            org,
            environment,
            agent,
        } = self;
        format!("spiffe://{trust_domain}/org/{org}/env/{environment}/agent/{agent}")
    }
}

impl ApiKeySubject {
    /// The SPIFFE id.
    pub fn uri(&self, trust_domain: &TrustDomain) -> String {
        let Self { org, api_key } = self;
        format!("spiffe://{trust_domain}/org/{org}/api-key/{api_key}")
    }
}

impl Subject {
    /// The org it is of.
    pub fn org(&self) -> OrgId {
        match self {
            Subject::Agent(agent) => agent.org,
            Subject::ApiKey(key) => key.org,
        }
    }

    /// The SPIFFE id.
    pub fn uri(&self, trust_domain: &TrustDomain) -> String {
        match self {
            Subject::Agent(agent) => agent.uri(trust_domain),
            Subject::ApiKey(key) => key.uri(trust_domain),
        }
    }

    /// The subject whose SPIFFE id this is. Only the exact text [`Subject::uri`] writes is accepted.
    pub fn from_uri(uri: &str, trust_domain: &TrustDomain) -> Result<Self, NotACaller> {
        let path = uri
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.strip_prefix(trust_domain.as_str()))
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or(NotACaller::Foreign)?;
        let mut segments = path.split('/');
        let org = labelled(&mut segments, "org")?;
        let subject = match segments.next() {
            Some("env") => Subject::Agent(AgentSubject {
                org,
                environment: id(&mut segments)?,
                agent: labelled(&mut segments, "agent")?,
            }),
            Some("api-key") => Subject::ApiKey(ApiKeySubject {
                org,
                api_key: id(&mut segments)?,
            }),
            _ => return Err(NotACaller::Shape),
        };
        match segments.next() {
            None => Ok(subject),
            Some(_) => Err(NotACaller::Shape),
        }
    }
}

/// The next two segments: the label expected and an id.
fn labelled<'a, T: FromStr>(
    segments: &mut impl Iterator<Item = &'a str>,
    label: &str,
) -> Result<T, NotACaller> {
    if segments.next() != Some(label) {
        return Err(NotACaller::Shape);
    }
    id(segments)
}

/// The next segment, an id.
fn id<'a, T: FromStr>(segments: &mut impl Iterator<Item = &'a str>) -> Result<T, NotACaller> {
    segments
        .next()
        .and_then(|id| id.parse().ok())
        .ok_or(NotACaller::Shape)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::time::Time;

    fn subject() -> Subject {
        let now = Time::from_seconds(1_700_000_000);
        Subject::Agent(AgentSubject {
            org: OrgId::new(now, [1; 10]),
            environment: EnvironmentId::new(now, [2; 10]),
            agent: AgentId::new(now, [3; 10]),
        })
    }

    fn api_key() -> Subject {
        let now = Time::from_seconds(1_700_000_000);
        Subject::ApiKey(ApiKeySubject {
            org: OrgId::new(now, [1; 10]),
            api_key: ApiKeyId::new(now, [4; 10]),
        })
    }

    #[test]
    fn a_subject_survives_its_uri() {
        let domain: TrustDomain = "broker.example".parse().unwrap();
        for subject in [subject(), api_key()] {
            assert_eq!(Subject::from_uri(&subject.uri(&domain), &domain), Ok(subject));
        }
    }

    #[test]
    fn only_the_exact_spelling_is_accepted() {
        let domain: TrustDomain = "broker.example".parse().unwrap();
        let (uri, key) = (subject().uri(&domain), api_key().uri(&domain));
        for (spoilt, why) in [
            (
                uri.replace("broker.example", "broker.example.evil"),
                NotACaller::Foreign,
            ),
            (uri.replace("broker.example", "evil"), NotACaller::Foreign),
            (
                uri.replace("broker.example", "broker.example:443"),
                NotACaller::Foreign,
            ),
            (
                uri.replace("broker.example", "user@broker.example"),
                NotACaller::Foreign,
            ),
            (uri.replace("spiffe://", "SPIFFE://"), NotACaller::Foreign),
            (uri.replace("spiffe://", "https://"), NotACaller::Foreign),
            (domain.uri(), NotACaller::Foreign),
            (format!("{uri}/"), NotACaller::Shape),
            (format!("{uri}/admin"), NotACaller::Shape),
            (format!("{uri}?x"), NotACaller::Shape),
            (uri.replace("/org/", "//org/"), NotACaller::Shape),
            (format!("{key}/"), NotACaller::Shape),
            (format!("{key}/agent/x"), NotACaller::Shape),
            (key.replace("/api-key/key_", "/api-key/agt_"), NotACaller::Shape),
            (key.replace("/api-key/", "/apikey/"), NotACaller::Shape),
            (uri.replace("/env/", "/environment/"), NotACaller::Shape),
            (uri.replace("/org/org_", "/org/env_"), NotACaller::Shape),
            (uri.replace("/agent/agt_", "/agent/%61gt_"), NotACaller::Shape),
            (
                uri.to_uppercase()
                    .replace("SPIFFE://BROKER.EXAMPLE", "spiffe://broker.example"),
                NotACaller::Shape,
            ),
        ] {
            assert_eq!(Subject::from_uri(&spoilt, &domain), Err(why), "{spoilt}");
        }
    }

    #[test]
    fn a_trust_domain_has_no_path_port_or_case() {
        for text in ["", "A", "a/b", "a:1", "a b", "ä", &"a".repeat(256)] {
            assert!(text.parse::<TrustDomain>().is_err(), "{text}");
        }
        assert!("a".repeat(255).parse::<TrustDomain>().is_ok());
        assert_eq!(TrustDomain::from_uri("spiffe://a/b"), None);
    }
}
