//! Profiles, one by one, and what of the policy people read.
//!
//! Everything here is read from the snapshot in force, so that an answer is of one version.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::{Change, Changing, PROFILE, PolicyChanged};
use super::check::{NewProfile, profile_name};
use super::told::Names;
use super::write::of_org;
use crate::domain::actor::Caller;
use crate::domain::amendment::OrgAmendment;
use crate::domain::id::OrgId;
use crate::domain::journal::Action;
use crate::domain::policy::Policy;
use crate::domain::profile::Profile;
use crate::domain::reason::Reason;
use crate::domain::refusal::Refusal;
use crate::service::Broker;
use crate::service::page::{Page, PageRequest, page_of};
use crate::service::request::{Repeatable, digest};

/// Profiles by name.
pub(super) type ByName = BTreeMap<String, Arc<Profile>>;

/// The policy, as it was when it was asked for.
#[derive(Clone, Debug)]
pub struct PolicyView {
    /// All of it.
    pub policy: Arc<Policy>,
    /// The org that was asked for; `None`: the system.
    pub org: Option<OrgId>,
    /// What that org and its projects are called.
    pub names: Names,
}

/// All that makes two requests for a profile the same. It is remembered across restarts, so it must not depend on how a
/// version of the broker prints things.
fn content(profile: &Profile) -> Vec<u8> {
    let Profile {
        name,
        modes,
        on_rejection,
        credential,
        models,
    } = profile;
    let credential = credential.map(|id| id.to_string()).unwrap_or_default();
    let modes: Vec<_> = modes.iter().map(|mode| mode.name().as_bytes()).collect();
    let models = models
        .iter()
        .flat_map(|(provider, model)| [provider.as_bytes(), model.as_bytes()]);
    let models: Vec<_> = models.collect();
    digest(&[
        name.as_str().as_bytes(),
        &digest(&modes),
        on_rejection.name().as_bytes(),
        credential.as_bytes(),
        &digest(&models),
    ])
    .to_vec()
}

fn amended(org: OrgId, name: &str, profile: Option<Arc<Profile>>) -> crate::domain::amendment::Amendment {
    let amendment = OrgAmendment {
        profiles: [(name.to_owned(), profile)].into(),
        ..OrgAmendment::default()
    };
    of_org(org, amendment)
}

impl Broker {
    /// The system's part of the policy, or an org's with its projects. The system's cells bind every org, so who
    /// reads an org's policy may read them.
    pub async fn get_policy(&self, caller: &Caller, org: &str, system: bool) -> Result<PolicyView, Refusal> {
        if system {
            return Ok(PolicyView {
                policy: self.policy(),
                org: None,
                names: Names::default(),
            });
        }
        let org = self.org_id(caller, org).await?;
        let policy = self.policy();
        let mut places = vec![(org, None)];
        places.extend(policy.org(org).projects.keys().map(|id| (org, Some(*id))));
        let names = self.names_of(places).await?;
        Ok(PolicyView {
            policy,
            org: Some(org),
            names,
        })
    }

    /// The org's profiles, by name, and the version that the page is from.
    pub async fn list_profiles(
        &self,
        caller: &Caller,
        org: &str,
        page: PageRequest<'_>,
    ) -> Result<(Page<Arc<Profile>>, u64), Refusal> {
        let org = self.org(caller, org).await?.value.id;
        let policy = self.policy();
        let profiles = &policy.org(org).profiles;
        let mut names: Vec<_> = profiles.keys().map(String::as_str).collect();
        names.sort_unstable();
        let Page { rows, next } = page_of(&format!("profiles of {org}/"), names.into_iter(), page)?;
        let rows = rows
            .into_iter()
            .filter_map(|name| profiles.get(name).cloned())
            .collect();
        Ok((Page { rows, next }, policy.version))
    }

    /// A profile, and the version it is from.
    pub async fn get_profile(
        &self,
        caller: &Caller,
        org: &str,
        name: &str,
    ) -> Result<(Arc<Profile>, u64), Refusal> {
        let org = self.org(caller, org).await?.value.id;
        let policy = self.policy();
        let profile = existing(&policy, org, name)?;
        Ok((Arc::clone(profile), policy.version))
    }

    /// Makes a profile. `None` in place of the change: the same call made it before.
    pub async fn create_profile(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        new: NewProfile,
        request_id: &str,
    ) -> Result<(Arc<Profile>, Option<PolicyChanged>), Refusal> {
        let org = self.org_id(caller, org).await?;
        let profile = self.checked_profile(org, new).await?;
        let content = content(&profile);
        let create = Repeatable {
            caller,
            call: PROFILE,
            request_id,
            content: &[&content],
        };
        create.check()?;
        let name = profile.name.to_string();
        if self
            .made_before::<crate::domain::id::Org>(org, create)
            .await?
            .is_some()
        {
            return Ok((self.made_profile(org, &name)?, None));
        }
        let made = self
            .amend(Change {
                caller: caller.clone(),
                action: Action::ProfileCreate,
                how: Changing::default(),
                create: Some((org, request_id.to_owned(), content.clone())),
                build: Box::new({
                    let (name, profile) = (name.clone(), Arc::clone(&profile));
                    move |now| match now.profile(org, &name) {
                        Some(_) => Err(Refusal::new(
                            Reason::AlreadyExists,
                            format!("there is a profile {name} already"),
                        )),
                        None => Ok(amended(org, &name, Some(Arc::clone(&profile)))),
                    }
                }),
            })
            .await;
        match made {
            Ok(changed) => Ok((profile, Some(changed))),
            // A repeat that raced with the first: it lost, and what the first made is its answer.
            Err(refusal) if refusal.reason == Reason::AlreadyExists => {
                match self.made_before::<crate::domain::id::Org>(org, create).await? {
                    Some(_) => Ok((self.made_profile(org, &name)?, None)),
                    None => Err(refusal),
                }
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// What an earlier call made, as it is now.
    fn made_profile(&self, org: OrgId, name: &str) -> Result<Arc<Profile>, Refusal> {
        existing(&self.policy(), org, name).cloned()
    }

    /// Replaces a profile.
    pub async fn update_profile(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        new: NewProfile,
        how: Changing,
    ) -> Result<(Arc<Profile>, PolicyChanged), Refusal> {
        let org = self.org_id(caller, org).await?;
        let profile = self.checked_profile(org, new).await?;
        let to = Arc::clone(&profile);
        let changed = self
            .amend(Change {
                caller: caller.clone(),
                action: Action::ProfileUpdate,
                how,
                create: None,
                build: Box::new(move |now| {
                    let name = to.name.as_str();
                    existing(now, org, name)?;
                    Ok(amended(org, name, Some(Arc::clone(&to))))
                }),
            })
            .await?;
        Ok((profile, changed))
    }

    /// Removes a profile, whoever names it: their tasks are in the answer.
    pub async fn remove_profile(
        self: &Arc<Self>,
        caller: &Caller,
        org: &str,
        name: &str,
        how: Changing,
    ) -> Result<PolicyChanged, Refusal> {
        let org = self.org_id(caller, org).await?;
        let name = profile_name(name)?.to_string();
        self.amend(Change {
            caller: caller.clone(),
            action: Action::ProfileRemove,
            how,
            create: None,
            build: Box::new(move |now| {
                existing(now, org, &name)?;
                Ok(amended(org, &name, None))
            }),
        })
        .await
    }

    /// Refuses a profile that the org does not have; empty names none.
    pub(in crate::service) fn known_profile(&self, org: OrgId, name: &str) -> Result<(), Refusal> {
        if name.is_empty() {
            return Ok(());
        }
        existing(&self.policy(), org, name).map(|_| ())
    }
}

fn existing<'a>(policy: &'a Policy, org: OrgId, name: &str) -> Result<&'a Arc<Profile>, Refusal> {
    policy
        .profile(org, name)
        .ok_or_else(|| Refusal::not_found("profile"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::domain::id::Id;
    use crate::domain::mode::{AuthMode, ModeSet};
    use crate::domain::profile::OnRejection;

    #[test]
    fn every_field_makes_another_request() {
        let models = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(at, model)| ((*at).to_owned(), (*model).to_owned()));
            owned.collect::<BTreeMap<_, _>>()
        };
        let base = Profile {
            name: "fast".parse().unwrap(),
            modes: ModeSet::EMPTY.with(AuthMode::Byok),
            on_rejection: OnRejection::Fail,
            credential: None,
            models: models(&[("a", "bc")]),
        };
        let mut others = vec![base.clone(); 7];
        others[1].name = "slow".parse().unwrap();
        others[2].modes = ModeSet::EMPTY.with(AuthMode::Byok).with(AuthMode::Metered);
        others[3].on_rejection = OnRejection::Next;
        others[4].credential = Some(Id::from_bytes([1; 16]));
        others[5].models = models(&[("ab", "c")]);
        others[6].models = models(&[]);
        let contents: std::collections::HashSet<_> = others.iter().map(content).collect();
        assert_eq!(contents.len(), others.len());
        assert_eq!(content(&base), content(&others[0]));
    }
}
