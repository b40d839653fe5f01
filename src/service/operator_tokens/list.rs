//! Lists of operator tokens, never of the tokens themselves.

use std::sync::Arc;

use crate::domain::actor::{Actor, Caller};
use crate::domain::directory::{Member, MemberOf, Operator};
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::domain::role::Grant;
use crate::domain::time::Time;
use crate::service::Broker;
use crate::service::page::{Page, PageRequest};
use crate::service::presence::Present;
use crate::store::keys::{self, Key};
use crate::store::model::Mark;
use crate::store::record::Stored;

/// An operator token, as lists show it.
#[derive(Clone, Debug)]
pub struct ListedOperatorToken {
    /// The token's record.
    pub operator: Arc<Operator>,
    /// The roles its holder has now.
    pub grants: Vec<Grant>,
    /// When it was last used.
    pub last_used: Option<Time>,
}

impl Broker {
    pub(in crate::service) async fn listed_operator(
        &self,
        operator: Arc<Operator>,
    ) -> Result<ListedOperatorToken, Refusal> {
        let grants = match operator.member {
            None => operator.grants(),
            Some(MemberOf { org, member }) => {
                let member: Option<Stored<Member>> = self.records.get(&keys::member(org, member)).await?;
                let member = member.filter(|member| member.value.removed.is_none());
                member.map(|member| member.value.grants()).unwrap_or_default()
            }
        };
        let seen = self.last(Present::OperatorToken(operator.id)).await?;
        Ok(ListedOperatorToken {
            operator,
            grants,
            last_used: seen.map(|seen| seen.at),
        })
    }

    /// The operator tokens the caller may see: of an org's members, of one member, or, where neither is named, all.
    pub async fn list_operator_tokens(
        &self,
        caller: &Caller,
        org: &str,
        member: &str,
        page: PageRequest<'_>,
    ) -> Result<Page<ListedOperatorToken>, Refusal> {
        if org.is_empty() && caller.org().is_none() {
            if !member.is_empty() {
                return Err(Refusal::invalid("org", "org is required: whose member is meant"));
            }
            return self.all_operator_tokens(caller, page).await;
        }
        let place = self.place(caller, org).await?;
        let org = place.id();
        let list = match (member, place.within.is_whole(), caller.member_of(org)) {
            ("", true, _) => keys::members_tokens(org),
            ("", false, Some(me)) => keys::member_tokens(org, me),
            ("", false, None) => return Err(not_whole()),
            (member, whole, me) => {
                let member = self.member(org, member).await?.value.id;
                if !whole && me != Some(member) {
                    return Err(Refusal::not_found("member"));
                }
                keys::member_tokens(org, member)
            }
        };
        self.list_marked(&list, page).await
    }

    async fn list_marked(
        &self,
        list: &Key,
        page: PageRequest<'_>,
    ) -> Result<Page<ListedOperatorToken>, Refusal> {
        let page = self.page_with_keys::<Mark>(list, page).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for (key, _) in page.rows {
            let Some(id) = key.last_id() else { continue };
            let operator: Option<Stored<Operator>> = self.records.get(&keys::operator(id)).await?;
            if let Some(operator) = operator {
                rows.push(self.listed_operator(operator.value).await?);
            }
        }
        Ok(Page {
            rows,
            next: page.next,
        })
    }

    async fn all_operator_tokens(
        &self,
        caller: &Caller,
        page: PageRequest<'_>,
    ) -> Result<Page<ListedOperatorToken>, Refusal> {
        let found = if caller.reach().is_everywhere() {
            self.page::<Operator>(&keys::operators(), page).await?
        } else {
            let own = match *caller.actor() {
                Actor::Operator(id) => self.records.get(&keys::operator(id)).await?,
                _ => None,
            };
            Page {
                rows: own.into_iter().collect(),
                next: String::new(),
            }
        };
        let mut rows = Vec::with_capacity(found.rows.len());
        for row in found.rows {
            rows.push(self.listed_operator(row.value).await?);
        }
        Ok(Page {
            rows,
            next: found.next,
        })
    }
}

fn not_whole() -> Refusal {
    Refusal::new(
        Reason::PermissionDenied,
        "this call takes a role for the whole org",
    )
}
