//! Tokens that the provider issues and then rejects, one after the other: after so many, another does not help.
//!
//! What is known of it is a caller's word. So it ends that caller's lease on the credential for a while, is told
//! where people look, and takes nothing from anybody else: the credential stays as it is, other holders are served,
//! and the task does not go on along its permit.

use super::replace::RefreshInput;
use crate::domain::credential::{Credential, Health};
use crate::domain::lease::Lease;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::rejection::Row;
use crate::service::Broker;

impl Broker {
    /// Whether the provider's own refusal has settled what becomes of a grant: no report of it is a matter of limits.
    pub(super) fn is_settled(&self, credential: &Credential) -> bool {
        matches!(
            self.health(credential),
            Health::Quarantined | Health::ReauthRequired | Health::GrantLost
        )
    }

    /// Refuses a report of the present generation where it would be one too many in its row.
    pub(super) async fn still_bounded(
        &self,
        lease: &Lease,
        credential: &Credential,
        input: &RefreshInput<'_>,
    ) -> Result<(), Refusal> {
        let limit = self.settings().rejections_in_a_row;
        let row = self.row(lease, credential, input.rejected_generation).await?;
        if row.count <= limit {
            return Ok(());
        }
        self.refresher.note_failing(credential, lease.holder, row).await?;
        let said = self.said(credential, input).await?;
        let refusal = Refusal::new(
            Reason::ReauthFailed,
            format!("the provider rejects each new token that it issues; replaced in a row: {limit}"),
        )
        .with("credential", credential.id.to_string());
        Err(match said {
            Some(said) => refusal.quoting(said),
            None => refusal,
        })
    }

    /// The row of rejections that a report leads to.
    pub(super) async fn row(
        &self,
        lease: &Lease,
        credential: &Credential,
        rejected: u64,
    ) -> Result<Row, Refusal> {
        let forced = self.refresher.forced(credential.org, credential.id).await?;
        Ok(Row::after(
            lease.rejections,
            rejected,
            lease.handed,
            forced.connected,
            self.now(),
        ))
    }

    /// The provider's last message, where there is one: what the caller says it was told, and what the token endpoint told the broker
    /// where something was not well. The caller's part is quoted to that caller and goes nowhere else: it is
    /// neither journaled nor logged, and stored only with a key that it speaks of.
    pub(super) async fn said(
        &self,
        credential: &Credential,
        input: &RefreshInput<'_>,
    ) -> Result<Option<String>, Refusal> {
        let reported = self
            .refresher
            .quotable(credential.org, credential.id, input.provider_message)
            .await?;
        let told = credential.rotation.message();
        Ok(match (reported.is_empty(), told.is_empty()) {
            (true, true) => None,
            (false, true) => Some(reported),
            (true, false) => Some(told.to_owned()),
            (false, false) => Some(format!("{reported} (its token endpoint: {told})")),
        })
    }
}
