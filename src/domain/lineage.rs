//! Where a grant comes from: its generations, each with a fingerprint of its tokens.
//!
//! A refresh token that rotates exists in one place only, or its grant ends. The lineage is what makes a second
//! copy show: a grant that is brought in again is told from one that has rotated since, a grant that is kept
//! already for somebody else is not kept twice, and where a provider refuses a grant, what the broker did with
//! it can be read off.
//!
//! A fingerprint tells tokens apart and gives nothing of them away: tokens are random and long, and it is half
//! of a hash.

use std::collections::BTreeSet;

use ring::digest;

use super::id::OrgId;
use super::rotation::Fence;
use super::secret::{AccessToken, Exposure, RefreshToken, Secret};
use super::time::Time;

/// The most generations kept; older ones are forgotten.
///
/// Each has its row of the index by fingerprint, and all go with the credential in one commit.
pub const MAX_LINKS: usize = 24;

const LABEL: &[u8] = b"credbroker lineage 1";

/// The first half of SHA-256 over a label, the org and a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl Fingerprint {
    /// Of a refresh token kept by `org`.
    pub fn of_refresh(org: OrgId, token: &Secret<RefreshToken>) -> Self {
        Self::of(org, b"refresh", token.expose(Exposure::Inspect))
    }

    /// Of an access token kept by `org`.
    pub fn of_access(org: OrgId, token: &Secret<AccessToken>) -> Self {
        Self::of(org, b"access", token.expose(Exposure::Inspect))
    }

    fn of(org: OrgId, kind: &[u8], token: &[u8]) -> Self {
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in [LABEL, kind, org.as_bytes(), token] {
            // Each part has a fixed length but the last.
            hash.update(part);
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finish().as_ref()[..16]);
        Self(half)
    }
}

impl std::fmt::Display for Fingerprint {
    /// The first six bytes, as hexadecimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0[..6].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How a generation came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody signed in, or handed the grant over.
    Brought,
    /// The provider answered a refresh.
    Refreshed,
    /// The provider answered a refresh, and the broker was stopped before it could take the answer in.
    Recovered,
}

impl Origin {
    /// The name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Origin::Brought => "brought",
            Origin::Refreshed => "refreshed",
            Origin::Recovered => "recovered",
        }
    }
}

/// A generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Which.
    pub generation: u64,
    /// Since when.
    pub at: Time,
    /// How it came to be.
    pub origin: Origin,
    /// Its refresh token.
    pub refresh: Option<Fingerprint>,
    /// Its access token.
    pub access: Option<Fingerprint>,
    /// The exchange that brought it; `None` where it was brought in.
    pub fence: Option<Fence>,
}

/// The generations of a grant, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    /// At most [`MAX_LINKS`].
    pub links: Vec<Link>,
    /// When the newest refresh token ends by itself, where the provider told.
    pub refresh_expires: Option<Time>,
}

impl Lineage {
    /// With one more generation.
    pub fn with(&self, link: Link, refresh_expires: Option<Time>) -> Self {
        let forgotten = (self.links.len() + 1).saturating_sub(MAX_LINKS);
        let mut links = self.links[forgotten.min(self.links.len())..].to_vec();
        // A refresh token that did not change ends when it did before.
        let kept = self.refresh() == link.refresh;
        links.push(link);
        Self {
            links,
            refresh_expires: refresh_expires.or(self.refresh_expires.filter(|_| kept)),
        }
    }

    /// The newest refresh token.
    pub fn refresh(&self) -> Option<Fingerprint> {
        self.links.last().and_then(|link| link.refresh)
    }

    /// Whether the exchange of this fence brought a generation.
    pub fn brought_by(&self, fence: Fence) -> bool {
        self.links.iter().any(|link| link.fence == Some(fence))
    }

    /// Every refresh token that there was, each once.
    pub fn refreshes(&self) -> BTreeSet<Fingerprint> {
        self.links.iter().filter_map(|link| link.refresh).collect()
    }

    /// Whether somebody is known to have brought this generation, rather than the provider.
    pub fn was_brought(&self, generation: u64) -> bool {
        let link = self.links.iter().rev().find(|link| link.generation == generation);
        link.is_some_and(|link| link.origin == Origin::Brought)
    }

    /// Whether the provider itself put another in the place of a `generation`, and with that had the say over what it
    /// had issued before. Where a sign-in did, nobody told the provider: the earlier grant lives on there. What is not
    /// kept any more is not known to have been replaced.
    pub fn replaced_by_provider(&self, generation: u64) -> bool {
        let next = self.links.iter().find(|link| link.generation > generation);
        next.is_some_and(|next| next.generation == generation + 1 && next.origin != Origin::Brought)
    }

    /// The newest generation that had this refresh token, where a later one has another: whoever brings it in
    /// brings an outdated copy.
    pub fn outdated(&self, refresh: Fingerprint) -> Option<&Link> {
        if self.refresh() == Some(refresh) {
            return None;
        }
        self.links.iter().rev().find(|link| link.refresh == Some(refresh))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn link(generation: u64, refresh: u8) -> Link {
        Link {
            generation,
            at: Time::from_millis(0),
            origin: Origin::Refreshed,
            refresh: Some(Fingerprint([refresh; 16])),
            access: None,
            fence: None,
        }
    }

    fn grown(refreshes: impl IntoIterator<Item = u8>) -> Lineage {
        let links = (1..).zip(refreshes);
        links.fold(Lineage::default(), |lineage, (generation, refresh)| {
            lineage.with(link(generation, refresh), None)
        })
    }

    #[test]
    fn an_outdated_copy_is_told_from_the_current_and_from_a_stranger() {
        let lineage = grown([1, 1, 2, 3]);
        let outdated = |refresh: u8| {
            lineage
                .outdated(Fingerprint([refresh; 16]))
                .map(|link| link.generation)
        };
        assert_eq!(outdated(1), Some(2));
        assert_eq!(outdated(2), Some(3));
        assert_eq!(outdated(3), None, "the current one");
        assert_eq!(outdated(9), None, "never seen");
        // A provider that goes back to an earlier token makes it the current one.
        assert_eq!(grown([1, 2, 1]).outdated(Fingerprint([1; 16])), None);
    }

    #[test]
    fn only_the_provider_replaces_what_it_issued() {
        let origins = [
            Origin::Brought,
            Origin::Refreshed,
            Origin::Brought,
            Origin::Recovered,
        ];
        let links = (4..).zip(origins).map(|(generation, origin)| Link {
            origin,
            ..link(generation, generation as u8)
        });
        let lineage = Lineage {
            links: links.collect(),
            refresh_expires: None,
        };
        let replaced: Vec<_> = (1..9)
            .filter(|generation| lineage.replaced_by_provider(*generation))
            .collect();
        // Of the third it is not known any more, of the fifth another sign-in came, the last is the present one.
        assert_eq!(replaced, [4, 6]);
    }

    #[test]
    fn it_forgets_the_oldest() {
        let lineage = grown((0..40).collect::<Vec<_>>());
        assert_eq!(lineage.links.len(), MAX_LINKS);
        assert_eq!(lineage.links[0].generation, 17);
        assert_eq!(lineage.refresh(), Some(Fingerprint([39; 16])));
    }

    #[test]
    fn the_end_of_a_refresh_token_goes_with_it() {
        let end = Some(Time::from_millis(5));
        let lineage = Lineage::default().with(link(1, 1), end);
        assert_eq!(
            lineage.with(link(2, 1), None).refresh_expires,
            end,
            "the same token"
        );
        assert_eq!(lineage.with(link(2, 2), None).refresh_expires, None, "another");
    }

    #[test]
    fn fingerprints_differ_by_org_kind_and_token() {
        let (here, there) = (OrgId::from_bytes([1; 16]), OrgId::from_bytes([2; 16]));
        let token = || Secret::from("token".to_owned());
        let one = Fingerprint::of_refresh(here, &token());
        assert_eq!(one, Fingerprint::of_refresh(here, &token()));
        assert_ne!(one, Fingerprint::of_refresh(there, &token()));
        assert_ne!(
            one,
            Fingerprint::of_refresh(here, &Secret::from("other".to_owned()))
        );
        let access: Secret<AccessToken> = Secret::from("token".to_owned());
        assert_ne!(one, Fingerprint::of_access(here, &access));
        assert_eq!(one.to_string().len(), 12);
    }
}
