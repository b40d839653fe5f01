//! The callers: agents that resolve, report what the provider rejects (or everything), and hang up; and what is
//! checked of every answer they get.

use std::sync::Arc;
use std::time::Duration;

use credbroker::domain::journal::{Action, Outcome, Position};
use credbroker::domain::reason::Reason;
use credbroker::domain::refusal::Refusal;
use credbroker::domain::rotation::Phase;
use credbroker::domain::secret::Exposure;
use credbroker::pki::identity::PeerIdentity;
use credbroker::service::{
    Accepts, Broker, KeyAccess, Material, Presented, RefreshInput, ResolveInput, Vended,
};

use crate::provider::{By, number};
use crate::report::{Violation, broken};
use crate::truth::Known;
use crate::world::{State, World};

/// How long any call may take, in virtual time: the attempts of a flight, each with an exchange at its longest,
/// and the half minutes for which full queues are waited for.
pub const CALL_LIMIT: Duration = Duration::from_secs(180);

/// An agent, as it remembers.
#[derive(Clone)]
pub struct Agent {
    /// The member it works for, which is the number of the account too.
    pub account: usize,
    task: Arc<str>,
    key: Arc<str>,
    identity: Arc<PeerIdentity>,
    pub calls_left: u64,
    /// Reports every generation, whether it works or not.
    pub hostile: bool,
    /// What it holds: the lease, the generation and the token.
    pub held: Option<(String, u64, usize)>,
    /// The newest generation that it got or reported.
    pub seen: u64,
    /// Told at the end that somebody has to sign in again.
    pub refused: bool,
}

impl Agent {
    pub fn new(account: usize, task: String, key: String, identity: PeerIdentity) -> Self {
        Self {
            account,
            task: task.into(),
            key: key.into(),
            identity: Arc::new(identity),
            calls_left: 0,
            hostile: false,
            held: None,
            seen: 0,
            refused: false,
        }
    }

    pub fn presented(&self) -> Presented<'_> {
        Presented {
            bearer: Some(&self.key),
            certificate: Some(&self.identity),
            org: None,
        }
    }
}

/// Who may resolve and report: here, agents.
pub fn accepts() -> Accepts {
    Accepts {
        humans: None,
        api_key: KeyAccess::No,
        agent: true,
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Resolve(Duration),
    /// That this generation of the lease held is rejected.
    Report(u64),
}

/// How things stood when a call began.
struct Begun {
    at: u64,
    acknowledged: u64,
    grants: usize,
    /// The fence of the exchange that was under way, where nothing else could serve.
    waits_for: Option<u64>,
}

/// What a call came to.
pub enum Ended {
    Vended,
    Refused(Refusal),
    HungUp,
}

/// All agents make their calls.
pub async fn work(world: &Arc<World>, broker: &Arc<Broker>) {
    let agents = world.with(|state| state.agents.len());
    let working = (0..agents).map(|index| {
        let (world, broker) = (Arc::clone(world), Arc::clone(broker));
        tokio::spawn(async move {
            while let Some((pause, hang_up)) = world.with(|state| state.next_call(index)) {
                tokio::time::sleep(pause).await;
                world.alive().await;
                let call = world.with(|state| state.choose(index));
                make(&world, &broker, index, call, hang_up).await;
            }
        })
    });
    for agent in working.collect::<Vec<_>>() {
        agent.await.unwrap();
    }
}

/// Makes a call, and checks what it comes to.
pub async fn make(
    world: &Arc<World>,
    broker: &Arc<Broker>,
    index: usize,
    call: Call,
    hang_up: Option<Duration>,
) -> Ended {
    let (agent, begun) = world.with(|state| state.begin(index, call));
    let asking = ask(broker, &agent, call);
    let answered = tokio::time::timeout(hang_up.unwrap_or(CALL_LIMIT), asking).await;
    world.alive().await;
    let (checked, ended) = match answered {
        Err(_) if hang_up.is_some() => (Ok(()), Ended::HungUp),
        Err(_) => {
            let message = format!("agent {index} waits for {call:?} since {} ms", begun.at);
            (broken("nothing-waits-for-ever", message), Ended::HungUp)
        }
        Ok(Ok((vended, position))) => {
            let checked = world.with(|state| state.vended(index, call, &begun, &vended, position));
            (checked, Ended::Vended)
        }
        Ok(Err(refusal)) => (
            world.with(|state| state.refused(index, call, &begun, &refusal)),
            Ended::Refused(refusal),
        ),
    };
    world.with(|state| state.end_call(index, &begun, &ended));
    world.check(checked);
    world.alive().await;
    ended
}

async fn ask(broker: &Arc<Broker>, agent: &Agent, call: Call) -> Result<(Vended, Position), Refusal> {
    let caller = broker.authenticate(agent.presented(), accepts()).await?;
    match call {
        Call::Resolve(remaining) => {
            let input = ResolveInput {
                task: &agent.task,
                minimum_remaining: Some(remaining),
                ..ResolveInput::default()
            };
            let resolved = broker.resolve(&caller, input).await?;
            Ok((resolved.vended, resolved.position))
        }
        Call::Report(generation) => {
            let lease = agent.held.as_ref().map_or("", |(lease, ..)| lease);
            let input = RefreshInput {
                lease,
                rejected_generation: generation,
                provider_message: "401",
                request_id: "",
            };
            let refreshed = broker.refresh_token(&caller, input).await?;
            Ok((refreshed.vended, refreshed.position))
        }
    }
}

impl State {
    fn next_call(&mut self, index: usize) -> Option<(Duration, Option<Duration>)> {
        let agent = &mut self.agents[index];
        agent.calls_left = agent.calls_left.checked_sub(1)?;
        let pause = Duration::from_millis(self.dice.below(self.weather.pause + 1));
        let hang_up = self.dice.percent(self.weather.hang_up);
        let hang_up = hang_up.then(|| Duration::from_millis(1 + self.dice.below(1_000)));
        Some((pause, hang_up))
    }

    fn choose(&mut self, index: usize) -> Call {
        let now = self.now();
        let agent = &self.agents[index];
        if let Some((_, generation, token)) = agent.held
            && (agent.hostile || !self.provider.accepts(token, now))
            && self.dice.percent(80)
        {
            return Call::Report(generation);
        }
        Call::Resolve(Duration::from_millis(self.dice.pick(&[0, 5_000, 20_000])))
    }

    fn begin(&mut self, index: usize, call: Call) -> (Agent, Begun) {
        let at = self.now();
        self.note(|| format!("agent {index}: {call:?}"));
        let agent = &mut self.agents[index];
        let account = &mut self.accounts[agent.account];
        match call {
            Call::Resolve(remaining) => account.asked = account.asked.max(remaining.as_millis() as u64),
            Call::Report(generation) => {
                agent.seen = agent.seen.max(generation);
                account.reported = account.reported.max(generation);
                self.tally.reports += 1;
            }
        }
        let under_way = matches!(account.phase, Phase::Claimed { .. } | Phase::Staged { .. });
        let survives = self.provider.rules.survives;
        let begun = Begun {
            at,
            acknowledged: account.acknowledged,
            grants: account.grants.len(),
            waits_for: (under_way && !survives).then_some(account.fence),
        };
        self.tally.calls += 1;
        (agent.clone(), begun)
    }

    /// Checks what was handed out.
    fn vended(
        &mut self,
        index: usize,
        call: Call,
        begun: &Begun,
        vended: &Vended,
        position: Position,
    ) -> Result<(), Violation> {
        let Material::Stored { credential, secret } = &vended.material else {
            return broken("true-tokens", "another sort of material");
        };
        let generation = credential.rotation.generation;
        let lease = vended.lease.id.to_string();
        let account = self.agents[index].account;
        self.note(|| format!("agent {index} gets generation {generation}"));
        let Some(access) = &secret.access else {
            return broken("true-tokens", "nothing is handed out as a token");
        };
        let token = number(access.expose(Exposure::Vend));
        self.recorded(
            call,
            generation,
            &lease,
            self.accounts[account].id.to_string(),
            position,
        )?;
        let account = &self.accounts[account];
        if account.access.get(&generation) != Some(&Some(token)) {
            return broken(
                "true-tokens",
                format!("at-{token} is handed out as generation {generation}, which it never was"),
            );
        }
        let behind = format!("agent {index} gets generation {generation}");
        // Nobody gets more than is stored, so that all who get it before there is a newer one get the same.
        let brought = begun.waits_for.and_then(|fence| account.brought.get(&fence));
        if let Some(brought) = brought.filter(|brought| generation < **brought) {
            let message = format!("{behind} when the exchange it waited for brought {brought}");
            return broken("one-flight", message);
        }
        if generation < begun.acknowledged {
            let message = format!("{behind} when {} was stored before it asked", begun.acknowledged);
            return broken("never-back", message);
        }
        if generation < self.agents[index].seen {
            let message = format!("{behind} after it had {}", self.agents[index].seen);
            return broken("never-back", message);
        }
        if let Call::Report(rejected) = call
            && generation <= rejected
        {
            return broken("never-rejected", format!("{behind} for the rejected {rejected}"));
        }
        if vended
            .lease
            .handed
            .is_none_or(|handed| handed.generation < generation)
        {
            return broken(
                "true-lease",
                format!("{behind}, and its lease says {:?}", vended.lease.handed),
            );
        }
        let access = self.provider.access[token];
        if let Some((when, By::Sending(by))) = access.replaced
            && when < begun.at
            && self.sendings[by].at < begun.at
        {
            return broken(
                "never-stale",
                format!("{behind}, whose token was replaced at {when} ms"),
            );
        }
        let even = self.clocks.even_since(0) && self.provider.rules.tells_life;
        // What is told of a life is whole seconds.
        if even && access.expires + 1_000 < begun.at {
            return broken(
                "never-stale",
                format!("{behind}, whose token expired at {} ms", access.expires),
            );
        }
        self.tally.vended += 1;
        let agent = &mut self.agents[index];
        agent.seen = generation;
        agent.held = Some((lease, generation, token));
        Ok(())
    }

    /// Whether there is a durable record that says what is being handed out.
    fn recorded(
        &self,
        call: Call,
        generation: u64,
        lease: &str,
        credential: String,
        position: Position,
    ) -> Result<(), Violation> {
        let action = match call {
            Call::Resolve(_) => Action::Resolve,
            Call::Report(_) => Action::ForceRotate,
        };
        let Some(entry) = self.pages.entry(position) else {
            return broken(
                "recorded-first",
                format!("{call:?} is answered before its record is durable"),
            );
        };
        let told = ["lease", "credential", "generation"].map(|kind| entry.about(kind));
        let generation = generation.to_string();
        let expected = [lease, &credential, &generation].map(Some);
        let allowed = entry.action() == Some(action) && entry.outcome() == Some(Outcome::Allowed);
        if told == expected && allowed {
            return Ok(());
        }
        broken(
            "recorded-first",
            format!("{call:?}, generation {generation}, is recorded as {entry:?}"),
        )
    }

    /// Checks why nothing was handed out.
    fn refused(
        &mut self,
        index: usize,
        call: Call,
        begun: &Begun,
        refusal: &Refusal,
    ) -> Result<(), Violation> {
        self.note(|| format!("agent {index} is refused: {refusal}"));
        self.tally.refused += 1;
        let account = &self.accounts[self.agents[index].account];
        match refusal.reason {
            Reason::ReauthRequired => {
                // One of the grants there were during the call has to be dead.
                let during = &account.grants[begun.grants - 1..];
                if during.iter().all(|grant| self.provider.is_alive(*grant)) {
                    return broken(
                        "no-false-death",
                        format!("agent {index} is told to sign in again: {refusal}"),
                    );
                }
                Ok(())
            }
            Reason::RefreshAmbiguous => {
                let unknown = |known| matches!(known, Known::Nothing | Known::UnderWay);
                let mut sent = self.sendings.iter();
                // A claim that a crash left counts as well: it may have been sent.
                let claimed = self.tally.crashed() + self.tally.restarts > 0;
                let lost = sent.any(|sent| unknown(sent.known) || sent.at >= begun.at);
                if !(claimed || lost || matches!(account.phase, Phase::Ambiguous { .. })) {
                    return broken(
                        "true-refusal",
                        format!("nothing was lost, and agent {index} is told: {refusal}"),
                    );
                }
                Ok(())
            }
            Reason::RefreshUnavailable
            | Reason::RotationLimited
            | Reason::Overloaded
            | Reason::Conflict
            | Reason::ShuttingDown
            | Reason::InvalidArgument => Ok(()),
            _ => broken(
                "true-refusal",
                format!("{call:?} of agent {index} is refused: {refusal}"),
            ),
        }
    }

    fn end_call(&mut self, index: usize, begun: &Begun, ended: &Ended) {
        let took = self.now() - begun.at;
        match ended {
            Ended::HungUp => {
                self.tally.hung_up += 1;
                self.note(|| format!("agent {index} hangs up"));
            }
            _ => self.tally.longest_call_ms = self.tally.longest_call_ms.max(took),
        }
    }
}
