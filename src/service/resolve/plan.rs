//! What a resolution names, against the registry, and its way before the gate.

use crate::domain::executor::Executor;
use crate::domain::plan::{Settled, plan};
use crate::domain::policy::Policy;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::store::model::Runs;

pub(in crate::service) use crate::domain::plan::{Plan, Sought};

impl Broker {
    /// The executor of this name.
    pub(super) fn executor(&self, name: &str) -> Result<&Executor, Refusal> {
        self.registry.executor(name).ok_or_else(|| Refusal {
            field: Some("executor"),
            ..Refusal::new(Reason::ExecutorUnknown, format!("there is no executor {name:?}"))
        })
    }

    /// Refuses a provider that the executor cannot use.
    pub(in crate::service) fn supported(&self, executor: &Executor, provider: &str) -> Result<(), Refusal> {
        if !executor.modes(provider).is_empty() {
            return Ok(());
        }
        let known: Vec<_> = executor.providers.keys().map(String::as_str).collect();
        Err(Refusal {
            field: Some("provider"),
            ..Refusal::new(
                Reason::ProviderUnsupported,
                format!("{} cannot use provider {provider:?}", executor.name),
            )
            .with("supported", known.join(", "))
        })
    }

    /// Puts what is sought before the gate. `runs` is what the task already runs on.
    pub(in crate::service) fn plan(
        &self,
        policy: &Policy,
        sought: Sought<'_>,
        runs: Option<&Runs>,
    ) -> Result<Plan, Refusal> {
        let settled = runs.map(|runs| Settled {
            mode: runs.mode,
            provider: &runs.provider,
            kind: runs.kind,
            modes: runs.modes,
            on_rejection: runs.on_rejection,
            named: runs.named,
        });
        plan(&self.registry, policy, sought, settled)
    }
}
