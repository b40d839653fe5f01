//! The gate and the way along its permit, on generated hierarchies: what is handed out is what everybody allows.

use credbroker::domain::conditions::{Chosen, Condition, Outcome, outcome};
use credbroker::domain::gate::{GateInput, Gated, Offer, Permit, Selection, gate};
use credbroker::domain::matrix::{Cascade, Verdict};
use credbroker::domain::mode::{AuthMode, CredentialKind, ModeSet};
use credbroker::domain::profile::OnRejection;
use credbroker::domain::reason::Reason;
use credbroker::domain::walk::{Step, Walk};

use super::hierarchy::{CASES, Hierarchy, holds, mode};
use super::random::Random;
use super::{check, naive};

const MAIN: &str = "anthropic";
const STAND_IN: &str = "bedrock";
const KINDS: [&[CredentialKind]; 3] = [
    &[CredentialKind::OAuthGrant, CredentialKind::ApiKey],
    &[CredentialKind::Aws, CredentialKind::BedrockBearer],
    &[CredentialKind::OAuthGrant],
];

/// A resolution as the gate gets it, with what the offers were made from.
struct Scene<'a> {
    hierarchy: &'a Hierarchy,
    main: Offer<'static>,
    stand_ins: Vec<Offer<'static>>,
    selection: Selection<'static>,
    on_rejection: OnRejection,
    system_scope: bool,
}

impl<'a> Scene<'a> {
    fn generate(hierarchy: &'a Hierarchy, random: &mut Random) -> Self {
        let main = offer(hierarchy, random, MAIN);
        let stand_ins = (0..random.below(2)).map(|_| offer(hierarchy, random, STAND_IN));
        let stand_ins = stand_ins.collect();
        let mode = mode(random);
        let selection = match random.below(5) {
            0 => Selection::Pinned {
                mode,
                native: if random.once_in(4) { STAND_IN } else { MAIN },
                native_model: !random.once_in(4),
            },
            1 => Selection::Running {
                mode,
                provider: if random.once_in(2) { STAND_IN } else { MAIN },
                kind: None,
                modes: modes(random),
            },
            _ => Selection::Set(modes(random)),
        };
        Self {
            hierarchy,
            main,
            stand_ins,
            selection,
            on_rejection: *random.pick(&OnRejection::ALL),
            system_scope: random.once_in(8),
        }
    }

    fn gate(&self) -> Gated {
        gate(&GateInput {
            executor: "claude-code",
            main: &self.main,
            stand_ins: &self.stand_ins,
            selection: self.selection,
            on_rejection: self.on_rejection,
            system_scope: self.system_scope,
            policy_version: 1,
        })
    }

    fn selected(&self) -> ModeSet {
        match self.selection {
            Selection::Set(modes) => modes,
            Selection::Pinned { mode, .. } => ModeSet::EMPTY.with(mode),
            Selection::Running { mode, modes, .. } => modes.with(mode),
        }
    }

    /// Whether registry and matrix let the offer be used in this mode.
    fn passes(&self, offer: &Offer<'_>, mode: AuthMode) -> bool {
        let denied =
            |cells: &Vec<_>| naive::verdict(cells, mode, offer.provider, &offer.model) == Verdict::Deny;
        offer.supported.contains(mode) && (self.system_scope || !self.hierarchy.scopes.iter().any(denied))
    }

    fn offer(&self, provider: &str) -> Option<&Offer<'static>> {
        let mut all = self.stand_ins.iter().chain([&self.main]);
        all.find(|offer| offer.provider == provider)
    }

    fn told(&self) -> String {
        format!(
            "{:?} {:?} {:?} {:?}",
            self.selection, self.on_rejection, self.main, self.stand_ins
        )
    }
}

fn modes(random: &mut Random) -> ModeSet {
    let all = AuthMode::ORDER.into_iter();
    all.filter(|_| !random.once_in(3)).collect()
}

fn offer(hierarchy: &Hierarchy, random: &mut Random, provider: &'static str) -> Offer<'static> {
    let model = random.pick(&hierarchy.models).clone();
    let [system, org, project] = &hierarchy.matrices();
    Offer {
        provider,
        kinds: KINDS[random.below(KINDS.len())],
        supported: modes(random),
        judged: Cascade::new(system, org, project).judge(provider, &model),
        model,
    }
}

/// Tries the property on scenes among generated hierarchies.
fn holds_in_scenes(cases: u64, property: impl Fn(&Scene<'_>, &mut Random) -> Result<(), String>) {
    holds(cases, |hierarchy| {
        // Without models there is nothing to ask for; only shrinking makes such.
        if hierarchy.models.is_empty() {
            return Ok(());
        }
        let mut random = Random::new(hierarchy.seed);
        let scene = Scene::generate(hierarchy, &mut random);
        property(&scene, &mut random).map_err(|fault| format!("{fault}\n  {}", scene.told()))
    });
}

// req: E2 E6
#[test]
fn the_gate_never_passes_what_the_effective_matrix_denies() {
    holds_in_scenes(CASES, |scene, _| {
        let Ok(permit) = scene.gate().permit else {
            return Ok(());
        };
        check(!permit.ordinary_entries().is_empty(), || {
            "an empty permit".to_owned()
        })?;
        for (at, entry) in permit.entries().iter().enumerate() {
            let offer = scene.offer(&entry.provider);
            let passes =
                offer.is_some_and(|offer| scene.passes(offer, entry.mode) && offer.model == entry.model);
            check(passes, || format!("{entry:?} is permitted"))?;
            // A lapsed subscription may give way to what the profile does not name, but to metered alone.
            let last_resort = at >= permit.ordinary_entries().len() && entry.mode == AuthMode::Metered;
            let selected = scene.selected().contains(entry.mode) || last_resort;
            check(selected, || format!("{entry:?} was not asked for"))?;
        }
        Ok(())
    });
}

// req: E6 A10
#[test]
fn a_settled_mode_that_is_denied_is_refused_as_such() {
    holds_in_scenes(CASES / 5, |scene, _| {
        let (mode, offer) = match scene.selection {
            Selection::Pinned {
                mode,
                native,
                native_model: true,
            } if native == MAIN => (mode, &scene.main),
            Selection::Running { mode, provider, .. } => match scene.offer(provider) {
                Some(offer) => (mode, offer),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        let refused = scene.gate().permit.err().map(|refusal| refusal.reason);
        if offer.supported.contains(mode) && !scene.passes(offer, mode) {
            check(refused == Some(Reason::AccessDenied), || format!("{refused:?}"))?;
        } else {
            check(refused != Some(Reason::AccessDenied), || {
                format!("{refused:?} of {mode:?}")
            })?;
        }
        Ok(())
    });
}

// req: E1 E3 E4
#[test]
fn the_pick_is_the_first_of_the_intersection_in_the_fixed_order() {
    holds_in_scenes(CASES / 5, |scene, _| {
        let Selection::Set(selected) = scene.selection else {
            return Ok(());
        };
        // The order is written out: it may only be added to.
        let order = ["oauth", "byok", "metered", "shared", "host-session", "local"];
        let has_way = |offer: &Offer<'_>, mode| {
            let keyless = mode == AuthMode::Byok && offer.kinds == [CredentialKind::OAuthGrant];
            selected.contains(mode) && scene.passes(offer, mode) && !keyless
        };
        let next = scene.on_rejection == OnRejection::Next;
        let mut expected = Vec::new();
        for mode in order.map(|name| AuthMode::from_name(name).unwrap()) {
            let stand_ins = scene.stand_ins.iter().filter(|_| next && mode == AuthMode::Byok);
            let offers = [&scene.main].into_iter().chain(stand_ins);
            expected.extend(
                offers
                    .filter(|offer| has_way(offer, mode))
                    .map(|offer| (mode, offer.provider)),
            );
        }
        match &scene.gate().permit {
            Err(refusal) => check(expected.is_empty(), || format!("{refusal:?} not {expected:?}")),
            Ok(permit) => {
                let entries = permit.ordinary_entries().iter();
                let mut actual: Vec<_> = entries
                    .map(|entry| (entry.mode, entry.provider.as_str()))
                    .collect();
                actual.dedup();
                let what = || format!("{actual:?} not {expected:?}");
                check(actual == expected, what)?;
                let pick = Walk::new(permit).entry();
                check(expected.first() == Some(&(pick.mode, &*pick.provider)), what)
            }
        }
    });
}

// req: B4 E3 A5
#[test]
fn fallback_never_leaves_the_permit() {
    holds_in_scenes(CASES / 5, |scene, random| {
        let Ok(permit) = scene.gate().permit else {
            return Ok(());
        };
        let mut walk = Walk::new(&permit);
        let mut rejected = false;
        let mut steps = Vec::new();
        loop {
            let (from, mode) = (walk.position(), walk.entry().mode);
            let condition = *random.pick(Condition::ALL);
            let step = walk.met(condition);
            steps.push((mode, condition, step));
            let Step::Try(to) = step else {
                return Ok(());
            };
            rejected |= condition == Condition::Rejected;
            let leads = leads_on(&permit, (from, to), condition, rejected);
            check(leads && walk.position() == to, || {
                format!("{steps:?} along {permit:?}")
            })?;
        }
    });
}

/// Whether it is right to go on along the permit from one entry to another.
fn leads_on(permit: &Permit, (from, to): (usize, usize), condition: Condition, rejected: bool) -> bool {
    // Never back, never past its end: so it ends.
    let (Some(here), Some(there), true) = (permit.entries().get(from), permit.entries().get(to), from < to)
    else {
        return false;
    };
    let missing = matches!(condition, Condition::NoKey | Condition::Revoked);
    if missing && (here.mode, &here.provider) == (there.mode, &there.provider) {
        return true;
    }
    let own = matches!(there.mode, AuthMode::OAuth | AuthMode::Byok);
    if rejected {
        return own && permit.on_rejection() == OnRejection::Next;
    }
    if condition == Condition::Lapsed {
        return here.mode == AuthMode::Byok && there.mode == AuthMode::Metered;
    }
    let skipped = matches!(outcome(here.mode, condition, Chosen::FromSet), Outcome::Skip(_));
    skipped && !permit.settled() && to < permit.ordinary_entries().len()
}
