//! A task: what an agent may resolve for, and the check that it may now.

use super::id::{MemberId, OrgId, ProjectId, TaskId};
use super::reason::Reason;
use super::refusal::Refusal;
use super::time::Time;

/// Where the program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capacity {
    /// A sandbox at a cloud provider.
    #[default]
    Cloud,
    /// The member's own machine.
    Local,
}

impl Capacity {
    /// The name in tables and the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Capacity::Cloud => "cloud",
            Capacity::Local => "local",
        }
    }
}

/// What an agent may resolve for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The org.
    pub org: OrgId,
    /// The member it works for.
    pub member: MemberId,
    /// The project.
    pub project: ProjectId,
    /// The agent program.
    pub executor: String,
    /// The provider, where it is not the executor's native one.
    pub provider: Option<String>,
    /// The model profile; empty for the executor's own modes.
    pub profile: String,
    /// Where the program runs.
    pub capacity: Capacity,
    /// The hash of the task specification; empty where the control plane gave none.
    pub spec_hash: String,
    /// When it was made.
    pub created: Time,
    /// When it stops by itself.
    pub expires: Time,
    /// When it was ended.
    pub ended: Option<Time>,
    /// The capacity pool; `None`: the default of its capacity.
    pub pool: Option<String>,
}

/// What a request says of the task, to be held against it. Empty means "the task's".
#[derive(Clone, Copy, Debug, Default)]
pub struct TaskClaims<'a> {
    /// The agent program.
    pub executor: &'a str,
    /// The provider. A task that names none leaves the choice among those its executor can use.
    pub provider: &'a str,
    /// The model profile.
    pub profile: &'a str,
    /// Where the program runs.
    pub capacity: Option<Capacity>,
    /// The hash of the task specification.
    pub spec_hash: &'a str,
}

/// Proof that a task may be resolved for at the time it was checked, under the claims made.
#[derive(Clone, Copy, Debug)]
pub struct LiveTask<'a>(&'a Task);

impl std::ops::Deref for LiveTask<'_> {
    type Target = Task;

    fn deref(&self) -> &Task {
        self.0
    }
}

impl Task {
    /// Checks that the task runs at `now` and that the request claims nothing else than the task fixes.
    pub fn live(&self, now: Time, claims: TaskClaims<'_>) -> Result<LiveTask<'_>, Refusal> {
        if self.ended.is_some() {
            return Err(Refusal::new(Reason::TaskEnded, format!("{} was ended", self.id)));
        }
        if now >= self.expires {
            return Err(Refusal::new(
                Reason::TaskExpired,
                format!("{} has expired", self.id),
            ));
        }
        let differs = |claim: &str, fixed: &str| !claim.is_empty() && claim != fixed;
        let field = if differs(claims.executor, &self.executor) {
            "executor"
        } else if self
            .provider
            .as_deref()
            .is_some_and(|fixed| differs(claims.provider, fixed))
        {
            "provider"
        } else if differs(claims.profile, &self.profile) {
            "profile"
        } else if claims.capacity.is_some_and(|claim| claim != self.capacity) {
            "capacity"
        } else if differs(claims.spec_hash, &self.spec_hash) {
            "spec_hash"
        } else {
            return Ok(LiveTask(self));
        };
        Err(Refusal {
            field: Some(field),
            ..Refusal::new(Reason::TaskMismatch, format!("the task has another {field}")).with("field", field)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::Id;

    fn task() -> Task {
        Task {
            id: Id::from_bytes([1; 16]),
            org: Id::from_bytes([2; 16]),
            member: Id::from_bytes([3; 16]),
            project: Id::from_bytes([4; 16]),
            executor: "claude-code".into(),
            provider: None,
            profile: String::new(),
            capacity: Capacity::Cloud,
            spec_hash: "abc".into(),
            created: Time::from_millis(0),
            expires: Time::from_millis(1_000),
            ended: None,
            pool: None,
        }
    }

    #[test]
    fn a_task_ends_at_its_expiry_and_not_after() {
        let none = TaskClaims::default();
        assert!(task().live(Time::from_millis(999), none).is_ok());
        assert_eq!(
            task().live(Time::from_millis(1_000), none).unwrap_err().reason,
            Reason::TaskExpired
        );
        let ended = Task {
            ended: Some(Time::from_millis(5)),
            ..task()
        };
        assert_eq!(
            ended.live(Time::from_millis(6), none).unwrap_err().reason,
            Reason::TaskEnded
        );
    }

    #[test]
    fn no_claim_may_differ_from_what_the_task_fixes() {
        let now = Time::from_millis(1);
        let any_provider = TaskClaims {
            provider: "bedrock",
            ..TaskClaims::default()
        };
        assert!(task().live(now, any_provider).is_ok());
        let task = || Task {
            provider: Some("anthropic".into()),
            ..task()
        };
        let same = TaskClaims {
            executor: "claude-code",
            provider: "anthropic",
            spec_hash: "abc",
            ..TaskClaims::default()
        };
        assert!(task().live(now, same).is_ok());
        for (claims, field) in [
            (
                TaskClaims {
                    executor: "codex",
                    ..same
                },
                "executor",
            ),
            (any_provider, "provider"),
            (
                TaskClaims {
                    profile: "fast",
                    ..same
                },
                "profile",
            ),
            (
                TaskClaims {
                    capacity: Some(Capacity::Local),
                    ..same
                },
                "capacity",
            ),
            (
                TaskClaims {
                    spec_hash: "abd",
                    ..same
                },
                "spec_hash",
            ),
        ] {
            let refusal = task().live(now, claims).unwrap_err();
            assert_eq!(
                (refusal.reason, refusal.field),
                (Reason::TaskMismatch, Some(field))
            );
        }
    }
}
