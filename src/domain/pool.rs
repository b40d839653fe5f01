//! Capacity pools: what the cost of a dispatch is booked on.
//!
//! A pool of the registry is capacity that somebody runs. Where a mode brings its own budget, the pool is a
//! synthetic one, named after the mode and the provider. Its name has a `_`, which no configured name has, so
//! that the two never meet.

use super::mode::AuthMode;
use super::name::Name;
use super::task::Capacity;

/// A configured pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: Name,
    /// What people call it.
    pub title: String,
    /// What runs in it.
    pub capacity: Capacity,
}

/// The configured pools: for each capacity at least one, and one of them the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    /// In the order of their names.
    all: Vec<Pool>,
    cloud: Pool,
    local: Pool,
}

/// Pools without exactly one default for each capacity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolFault {
    /// There is none.
    #[error("no pool of capacity {} is the default; set default = true for one", .0.name())]
    NoDefault(Capacity),
    /// There are two.
    #[error(
        "{first} and {second} are both the default for capacity {}; set default = false for one of them",
        .capacity.name()
    )]
    TwoDefaults {
        /// The capacity.
        capacity: Capacity,
        /// The first by name.
        first: Name,
        /// The next.
        second: Name,
    },
}

impl Pools {
    /// These pools, each with whether it is the default for its capacity. Names are unique.
    pub fn new(pools: Vec<(Pool, bool)>) -> Result<Self, PoolFault> {
        let default = |capacity: Capacity| {
            let mut of_it = pools
                .iter()
                .filter(|(pool, default)| *default && pool.capacity == capacity)
                .map(|(pool, _)| pool);
            match (of_it.next(), of_it.next()) {
                (Some(pool), None) => Ok(pool.clone()),
                (Some(first), Some(second)) => Err(PoolFault::TwoDefaults {
                    capacity,
                    first: first.name.clone(),
                    second: second.name.clone(),
                }),
                (None, _) => Err(PoolFault::NoDefault(capacity)),
            }
        };
        let (cloud, local) = (default(Capacity::Cloud)?, default(Capacity::Local)?);
        let mut all: Vec<_> = pools.into_iter().map(|(pool, _)| pool).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { all, cloud, local })
    }

    /// The pool of this name.
    pub fn get(&self, name: &str) -> Option<&Pool> {
        self.iter().find(|pool| pool.name.as_str() == name)
    }

    /// The pool of a task that names none.
    pub fn default_for(&self, capacity: Capacity) -> &Pool {
        match capacity {
            Capacity::Cloud => &self.cloud,
            Capacity::Local => &self.local,
        }
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Pool> {
        self.all.iter()
    }
}

/// What a dispatch in `mode` with `provider` is booked on, where `configured` is the pool of its task: that pool
/// where the caller's own credential or machine serves it, a synthetic one where the platform or an account does.
pub fn pool_of(mode: AuthMode, provider: &str, configured: &str) -> String {
    let budget = match mode {
        AuthMode::Byok | AuthMode::Local => return configured.to_owned(),
        AuthMode::Metered => "metered",
        AuthMode::Shared => "shared",
        AuthMode::OAuth => "oauth",
        AuthMode::HostSession => "host_session",
    };
    format!("{budget}_pool_{provider}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl Pools {
    /// A pool for each capacity.
    pub(super) fn sample() -> Self {
        let pools = [("cloud", Capacity::Cloud), ("local", Capacity::Local)].map(|(name, capacity)| {
            let pool = Pool {
                name: name.parse().unwrap(),
                title: name.to_owned(),
                capacity,
            };
            (pool, true)
        });
        Self::new(pools.into()).unwrap()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn pool(name: &str, capacity: Capacity) -> Pool {
        Pool {
            name: name.parse().unwrap(),
            title: name.to_owned(),
            capacity,
        }
    }

    // req: E12
    #[test]
    fn own_credentials_and_machines_book_on_the_configured_pool_all_else_on_a_synthetic_one() {
        for (mode, booked) in [
            (AuthMode::OAuth, "oauth_pool_anthropic"),
            (AuthMode::Byok, "team-a"),
            (AuthMode::Metered, "metered_pool_anthropic"),
            (AuthMode::Shared, "shared_pool_anthropic"),
            (AuthMode::HostSession, "host_session_pool_anthropic"),
            (AuthMode::Local, "team-a"),
        ] {
            let name = pool_of(mode, "anthropic", "team-a");
            assert_eq!(name, booked);
            // No configured pool can be called like a synthetic one.
            assert_eq!(name.parse::<Name>().is_ok(), name == "team-a");
        }
    }

    #[test]
    fn each_capacity_has_exactly_one_default() {
        let (cloud, local) = (pool("b", Capacity::Cloud), pool("l", Capacity::Local));
        let other = pool("a", Capacity::Cloud);
        let pools = [
            (cloud.clone(), true),
            (local.clone(), true),
            (other.clone(), false),
        ];
        let pools = Pools::new(pools.to_vec()).unwrap();
        assert_eq!(pools.default_for(Capacity::Cloud), &cloud);
        assert_eq!(pools.default_for(Capacity::Local), &local);
        assert_eq!(pools.iter().collect::<Vec<_>>(), [&other, &cloud, &local]);
        assert_eq!((pools.get("a"), pools.get("c")), (Some(&other), None));

        let two = Pools::new(vec![(other.clone(), true), (cloud.clone(), true), (local, true)]);
        let fault = PoolFault::TwoDefaults {
            capacity: Capacity::Cloud,
            first: other.name,
            second: cloud.name.clone(),
        };
        assert_eq!(two, Err(fault));
        let none = Pools::new(vec![(cloud, true)]);
        assert_eq!(none, Err(PoolFault::NoDefault(Capacity::Local)));
    }
}
