//! The small authenticated request that tells whether a credential works: what it is, and what its answer means.
//!
//! Data, made and checked by `config::registry` and by the connectors. No provider is known by name here.

use super::time::Time;

/// How long the facts of one test may be, in bytes, all told: what is found out fits into one value of the store.
pub const MAX_FACTS: usize = 2_048;
/// How long a label or a value of one fact may be, in characters.
pub const MAX_FACT: usize = 256;
/// The longest message that is kept, in characters.
pub const MAX_MESSAGE: usize = 256;

/// What stands in a URL where the region of the credential goes.
pub const REGION: &str = "{region}";

/// A `GET` request, and what its answers mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTest {
    /// Where it goes; [`REGION`] in it is the credential's region.
    pub url: String,
    /// Where it goes in regions that begin so: other partitions of a cloud have other hosts.
    pub regional: Vec<(String, String)>,
    /// How the credential is presented.
    pub auth: Presentation,
    /// Further headers, none of them secret.
    pub headers: Vec<(String, String)>,
    /// What answers mean beyond what their status says; the first that fits counts.
    pub answers: Vec<Meaning>,
    /// Beginnings of the names of headers that tell limits and consumption.
    pub facts: Vec<String>,
}

/// How a credential is presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presentation {
    /// `Authorization: Bearer` (RFC 6750 section 2.1).
    Bearer,
    /// As the value of this header.
    Header(&'static str),
    /// By a signature over the request, AWS Signature Version 4, for this service.
    Sigv4 {
        /// The service, such as `sts`.
        service: String,
    },
}

/// What one sort of answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Its status.
    pub status: u16,
    /// What one of the texts in it has to be, where the status alone does not tell.
    pub word: Option<String>,
    /// What it means.
    pub means: Verdict,
}

/// What a test found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The provider takes it.
    Works,
    /// The provider does not take it: it is wrong, has expired or was revoked.
    Rejected,
    /// The provider knows it and does not let it do what the test does.
    NotPermitted,
    /// The provider does not answer it for now.
    Limited,
    /// The account behind it has to pay first.
    Billing,
    /// The provider could not be reached or gave no answer of its own.
    Unreachable,
    /// The provider's answer tells neither.
    Unclear,
    /// There is nothing that it could be tested with. Nothing was sent.
    Untestable,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 8] = [
        Verdict::Works,
        Verdict::Rejected,
        Verdict::NotPermitted,
        Verdict::Limited,
        Verdict::Billing,
        Verdict::Unreachable,
        Verdict::Unclear,
        Verdict::Untestable,
    ];

    /// The name in tables, records and the registry's files.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Works => "works",
            Verdict::Rejected => "rejected",
            Verdict::NotPermitted => "not-permitted",
            Verdict::Limited => "limited",
            Verdict::Billing => "billing",
            Verdict::Unreachable => "unreachable",
            Verdict::Unclear => "unclear",
            Verdict::Untestable => "untestable",
        }
    }

    /// The verdict of this name.
    pub fn from_name(name: &str) -> Option<Verdict> {
        Self::ALL.into_iter().find(|verdict| verdict.name() == name)
    }

    /// What a status means of itself (RFC 9110 section 15, RFC 6585 section 4). A server that is unavailable says
    /// nothing of the credential, and may say when to come again.
    pub const fn of_status(status: u16) -> Verdict {
        match status {
            200..=299 => Verdict::Works,
            401 => Verdict::Rejected,
            402 => Verdict::Billing,
            403 => Verdict::NotPermitted,
            429 | 503 => Verdict::Limited,
            408 | 500..=599 => Verdict::Unreachable,
            _ => Verdict::Unclear,
        }
    }
}

impl KeyTest {
    /// A bearer token at this URL, with nothing special about its answers.
    pub fn bearer(url: String) -> Self {
        Self {
            url,
            regional: Vec::new(),
            auth: Presentation::Bearer,
            headers: Vec::new(),
            answers: Vec::new(),
            facts: Vec::new(),
        }
    }

    /// Where it goes for a credential of this region.
    pub fn url_in(&self, region: &str) -> String {
        let regional = self
            .regional
            .iter()
            .find(|(begin, _)| region.starts_with(begin.as_str()));
        let url = regional.map_or(&self.url, |(_, url)| url);
        url.replace(REGION, region)
    }

    /// What an answer of this status means, with these texts in it.
    pub fn judge<'a>(&self, status: u16, texts: impl IntoIterator<Item = &'a str> + Clone) -> Verdict {
        let fits = |meaning: &&Meaning| {
            meaning.status == status
                && meaning
                    .word
                    .as_ref()
                    .is_none_or(|word| texts.clone().into_iter().any(|text| text == word))
        };
        let listed = self.answers.iter().find(fits);
        listed.map_or_else(|| Verdict::of_status(status), |meaning| meaning.means)
    }
}

/// What the last test of a credential found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// When the answer came, or none did.
    pub at: Time,
    /// The generation that was tested. Of another one it says nothing.
    pub generation: u64,
    /// What was found.
    pub outcome: Verdict,
    /// The HTTP status; 0 where there was no answer.
    pub status: u16,
    /// The provider's message, or why there is none; redacted, and empty where all is well.
    pub message: String,
    /// What the provider told beside it: limits and consumption, and of AWS keys whose they are. No secrets. Kept from
    /// the test before where this one told neither them nor whether the credential works.
    pub facts: Vec<(String, String)>,
    /// When the facts were told; `None`: at `at`.
    pub facts_at: Option<Time>,
}

impl Checked {
    /// When the facts were told.
    pub fn facts_told(&self) -> Time {
        self.facts_at.unwrap_or(self.at)
    }

    /// Takes over the facts of the test before, where this one says nothing in their place.
    #[must_use]
    pub fn after(self, before: Option<&Checked>) -> Checked {
        let settled = matches!(self.outcome, Verdict::Works | Verdict::Rejected);
        match before.filter(|before| before.generation == self.generation) {
            Some(before) if !settled && self.facts.is_empty() && !before.facts.is_empty() => Checked {
                facts: before.facts.clone(),
                facts_at: Some(before.facts_told()),
                ..self
            },
            _ => self,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn test() -> KeyTest {
        let answer = |status, word: Option<&str>, means| Meaning {
            status,
            word: word.map(str::to_owned),
            means,
        };
        KeyTest {
            regional: vec![("cn-".to_owned(), "https://{region}.example.cn/".to_owned())],
            answers: vec![
                answer(403, Some("AccessDenied"), Verdict::NotPermitted),
                answer(403, None, Verdict::Rejected),
                answer(400, Some("API_KEY_INVALID"), Verdict::Rejected),
                answer(529, None, Verdict::Limited),
            ],
            ..KeyTest::bearer("https://{region}.example.com/".to_owned())
        }
    }

    // req: C4
    #[test]
    fn the_first_answer_that_fits_counts_and_then_the_status() {
        for (status, texts, verdict) in [
            (200, vec![], Verdict::Works),
            (204, vec![], Verdict::Works),
            (302, vec![], Verdict::Unclear),
            (400, vec![], Verdict::Unclear),
            (400, vec!["x", "API_KEY_INVALID"], Verdict::Rejected),
            // A word within a text is no word.
            (400, vec!["no API_KEY_INVALID here"], Verdict::Unclear),
            (401, vec!["API_KEY_INVALID"], Verdict::Rejected),
            (402, vec![], Verdict::Billing),
            (403, vec!["AccessDenied"], Verdict::NotPermitted),
            (403, vec!["ExpiredToken"], Verdict::Rejected),
            (404, vec![], Verdict::Unclear),
            (429, vec![], Verdict::Limited),
            (500, vec![], Verdict::Unreachable),
            (503, vec![], Verdict::Limited),
            (529, vec![], Verdict::Limited),
        ] {
            assert_eq!(test().judge(status, texts.clone()), verdict, "{status} {texts:?}");
        }
        assert_eq!(Verdict::of_status(403), Verdict::NotPermitted);
    }

    // req: C4
    #[test]
    fn a_region_is_at_its_own_partition() {
        assert_eq!(test().url_in("eu-west-1"), "https://eu-west-1.example.com/");
        assert_eq!(test().url_in("cn-north-1"), "https://cn-north-1.example.cn/");
    }

    #[test]
    fn names_are_read_back() {
        for verdict in Verdict::ALL {
            assert_eq!(Verdict::from_name(verdict.name()), Some(verdict));
        }
        assert_eq!(Verdict::from_name("fine"), None);
    }
}
