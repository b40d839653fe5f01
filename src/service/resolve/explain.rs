//! The same decision as a resolution's, told and not carried out: no lease, no exchange, no cost.

use std::sync::Arc;

use super::ResolveInput;
use super::obtain::Purpose;
use crate::domain::actor::Caller;
use crate::domain::decision::Decision;
use crate::domain::refusal::Refusal;
use crate::domain::walk::Walk;
use crate::service::Broker;

/// A decision, and why nothing would be handed out where that is so.
pub struct Explained {
    /// The decision.
    pub decision: Decision,
    /// The refusal that a resolution would end with; `None` where it would hand something out.
    pub refusal: Option<Refusal>,
}

impl Broker {
    /// Tells how a resolution would be decided now. Fails only where there is nothing to decide about: no such
    /// task, member or project.
    pub async fn explain(
        self: &Arc<Self>,
        caller: &Caller,
        input: ResolveInput<'_>,
    ) -> Result<Explained, Refusal> {
        self.checked(caller, &input)?;
        let subject = self.subject(caller, &input).await?;
        let policy = self.policy();
        let mut decision = Decision::default();
        let refusal = match self.prepare(&policy, &subject, &input, &mut decision).await {
            Ok(prepared) => {
                let (permit, whom) = (&prepared.permit, prepared.whom(&subject, &input));
                let walk = Walk::new(permit);
                let obtained = self.obtain(
                    caller,
                    &subject,
                    whom,
                    (permit, walk),
                    Purpose::Explain,
                    &mut decision,
                );
                obtained.await.err()
            }
            Err(refusal) => Some(refusal),
        };
        decision.refused = refusal.as_ref().map(|refusal| refusal.reason);
        Ok(Explained { decision, refusal })
    }
}
