//! SPIFFE names: how an agent is written in a certificate.
//!
//! `spiffe://<trust domain>/org/<org>/env/<environment>/agent/<agent>`, see the SPIFFE-ID standard. An id
//! has exactly one spelling, so two names are equal if and only if their texts are.

use std::fmt;
use std::str::FromStr;

use crate::domain::id::{AgentId, EnvironmentId, OrgId};

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

/// Why a URI names no agent of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAnAgent {
    /// It belongs to another broker, or is no SPIFFE id at all.
    #[error("the name is not of this broker's trust domain")]
    Foreign,
    /// It is of our trust domain, and names something else.
    #[error("the name is not of the form /org/<id>/env/<id>/agent/<id>")]
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

    /// The subject whose SPIFFE id this is. Only the exact text [`AgentSubject::uri`] writes is accepted.
    pub fn from_uri(uri: &str, trust_domain: &TrustDomain) -> Result<Self, NotAnAgent> {
        let path = uri
            .strip_prefix("spiffe://")
            .and_then(|rest| rest.strip_prefix(trust_domain.as_str()))
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or(NotAnAgent::Foreign)?;
        let mut segments = path.split('/');
        let subject = Self {
            org: labelled(&mut segments, "org")?,
            environment: labelled(&mut segments, "env")?,
            agent: labelled(&mut segments, "agent")?,
        };
        match segments.next() {
            None => Ok(subject),
            Some(_) => Err(NotAnAgent::Shape),
        }
    }
}

/// The next two segments: the label expected and an id.
fn labelled<'a, T: FromStr>(
    segments: &mut impl Iterator<Item = &'a str>,
    label: &str,
) -> Result<T, NotAnAgent> {
    if segments.next() != Some(label) {
        return Err(NotAnAgent::Shape);
    }
    segments
        .next()
        .and_then(|id| id.parse().ok())
        .ok_or(NotAnAgent::Shape)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::time::Time;

    fn subject() -> AgentSubject {
        let now = Time::from_seconds(1_700_000_000);
        AgentSubject {
            org: OrgId::new(now, [1; 10]),
            environment: EnvironmentId::new(now, [2; 10]),
            agent: AgentId::new(now, [3; 10]),
        }
    }

    #[test]
    fn a_subject_survives_its_uri() {
        let domain: TrustDomain = "broker.example".parse().unwrap();
        let uri = subject().uri(&domain);
        assert_eq!(AgentSubject::from_uri(&uri, &domain), Ok(subject()));
    }

    #[test]
    fn only_the_exact_spelling_is_accepted() {
        let domain: TrustDomain = "broker.example".parse().unwrap();
        let uri = subject().uri(&domain);
        for (spoilt, why) in [
            (
                uri.replace("broker.example", "broker.example.evil"),
                NotAnAgent::Foreign,
            ),
            (uri.replace("broker.example", "evil"), NotAnAgent::Foreign),
            (
                uri.replace("broker.example", "broker.example:443"),
                NotAnAgent::Foreign,
            ),
            (
                uri.replace("broker.example", "user@broker.example"),
                NotAnAgent::Foreign,
            ),
            (uri.replace("spiffe://", "SPIFFE://"), NotAnAgent::Foreign),
            (uri.replace("spiffe://", "https://"), NotAnAgent::Foreign),
            (domain.uri(), NotAnAgent::Foreign),
            (format!("{uri}/"), NotAnAgent::Shape),
            (format!("{uri}/admin"), NotAnAgent::Shape),
            (format!("{uri}?x"), NotAnAgent::Shape),
            (uri.replace("/org/", "//org/"), NotAnAgent::Shape),
            (uri.replace("/env/", "/environment/"), NotAnAgent::Shape),
            (uri.replace("/org/org_", "/org/env_"), NotAnAgent::Shape),
            (uri.replace("/agent/agt_", "/agent/%61gt_"), NotAnAgent::Shape),
            (
                uri.to_uppercase()
                    .replace("SPIFFE://BROKER.EXAMPLE", "spiffe://broker.example"),
                NotAnAgent::Shape,
            ),
        ] {
            assert_eq!(AgentSubject::from_uri(&spoilt, &domain), Err(why), "{spoilt}");
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
