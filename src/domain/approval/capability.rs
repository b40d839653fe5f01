//! What an approval allows: executors, providers and modes, each listed or all of them.

use std::collections::BTreeSet;

use crate::domain::mode::AuthMode;

/// How a list says that it means all there are. It stands alone.
pub const ANY: &str = "*";

/// How many names one list has at most.
pub const MAX_LISTED: usize = 16;

/// All there are, or those named. Never none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listed<T> {
    /// All, those that come later too.
    Any,
    /// These, sorted, each once.
    Only(Vec<T>),
}

impl<T: Ord> Listed<T> {
    /// From what a caller wrote.
    fn of<'a>(
        field: &'static str,
        names: &'a [String],
        read: impl Fn(&'a str) -> Option<T>,
    ) -> Result<Self, BadList> {
        let bad = |why| BadList { field, why };
        if names.is_empty() {
            return Err(bad("names nothing: list what is meant, or '*' alone for any"));
        }
        if names.len() > MAX_LISTED {
            return Err(bad("has more than 16 names"));
        }
        if names.iter().any(|name| name == ANY) {
            return match names {
                [_] => Ok(Listed::Any),
                _ => Err(bad("has '*' beside other names")),
            };
        }
        let listed: Option<BTreeSet<T>> = names.iter().map(|name| read(name)).collect();
        let listed = listed.ok_or_else(|| bad("has a name that this broker does not know"))?;
        Ok(Listed::Only(listed.into_iter().collect()))
    }

    fn has(&self, one: impl Fn(&T) -> bool) -> bool {
        match self {
            Listed::Any => true,
            Listed::Only(listed) => listed.iter().any(one),
        }
    }
}

impl<T> Listed<T> {
    /// As callers write it.
    pub fn names<'a>(&'a self, name: impl Fn(&'a T) -> &'a str) -> Vec<String> {
        match self {
            Listed::Any => vec![ANY.to_owned()],
            Listed::Only(listed) => listed.iter().map(|one| name(one).to_owned()).collect(),
        }
    }
}

/// A list that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {why}")]
pub struct BadList {
    /// Which list.
    pub field: &'static str,
    /// What is wrong with it.
    why: &'static str,
}

/// What an approval allows. Names are compared exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The agent programs.
    pub executors: Listed<String>,
    /// The providers.
    pub providers: Listed<String>,
    /// The modes.
    pub modes: Listed<AuthMode>,
}

impl Capability {
    /// From what a caller wrote. `executor` and `provider` tell whether there is one of that name: an approval of
    /// what does not exist would allow whatever gets the name later.
    pub fn of(
        executors: &[String],
        providers: &[String],
        modes: &[String],
        executor: impl Fn(&str) -> bool,
        provider: impl Fn(&str) -> bool,
    ) -> Result<Self, BadList> {
        let known = |name: &str, there: &dyn Fn(&str) -> bool| there(name).then(|| name.to_owned());
        Ok(Self {
            executors: Listed::of("capability.executors", executors, |name| known(name, &executor))?,
            providers: Listed::of("capability.providers", providers, |name| known(name, &provider))?,
            modes: Listed::of("capability.modes", modes, AuthMode::from_name)?,
        })
    }

    /// The first of executor, provider and mode that it does not allow; `None`: it allows all three.
    pub fn lacks(&self, executor: &str, provider: &str, mode: AuthMode) -> Option<&'static str> {
        if !self.executors.has(|one| one == executor) {
            Some("executor")
        } else if !self.providers.has(|one| one == provider) {
            Some("provider")
        } else if !self.modes.has(|one| *one == mode) {
            Some("mode")
        } else {
            None
        }
    }
}
