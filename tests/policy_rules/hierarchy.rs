//! Generated hierarchies: three scopes of cells that get in each other's way, and the driver that tries a property
//! on many of them.

use std::fmt;

use credbroker::domain::matrix::{Cascade, Cell, Level, Matrix, Pattern, Verdict};
use credbroker::domain::mode::{AuthMode, ModeSet};

use super::random::Random;

/// How many hierarchies a property of the rules is tried on.
pub(crate) const CASES: u64 = 100_000;

/// What is asked for: a provider that cells name, and one that none does.
pub(crate) const ASKED: [&str; 2] = ["anthropic", "openai"];

const MODELS: [&str; 10] = [
    "claude-opus-4",
    "claude-opus-4-mini",
    "claude-sonnet-4",
    "claude-mini",
    "gpt-5",
    "gpt-5-mini",
    "claude-",
    "claude",
    "c",
    "claude-ö*",
];

/// Names, prefixes and others that match the models above. Many are as specific as another that matches too.
const PATTERNS: [&str; 20] = [
    "*",
    "*-mini",
    "*-4",
    "*i",
    "c*",
    "c*e*",
    "c*mini",
    "clau*",
    "claude-*",
    "*aude-*",
    "claude*-",
    "claude-opus-*",
    "claude-*us-4",
    "c*de*mini",
    "claude-opus-4",
    "claude-opus-4*",
    "g*",
    "*5*",
    "gpt-5",
    "gpt-5*",
];

/// Three scopes, widest first, and what is asked of them.
#[derive(Clone)]
pub(crate) struct Hierarchy {
    pub(crate) scopes: [Vec<Cell>; 3],
    pub(crate) models: Vec<String>,
    /// For what a property chooses by itself.
    pub(crate) seed: u64,
}

impl Hierarchy {
    pub(crate) fn generate(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let scopes = [(); 3].map(|()| scope(&mut random));
        let mut models = vec![String::new(), (*random.pick(&MODELS)).to_owned()];
        let mut other = (*random.pick(&MODELS)).to_owned();
        if random.once_in(4) {
            other.push('-');
        }
        models.push(other);
        let seed = random.next();
        Self { scopes, models, seed }
    }

    pub(crate) fn matrices(&self) -> [Matrix; 3] {
        self.scopes.clone().map(|cells| Matrix::new(cells).unwrap())
    }

    /// Every provider and model that is asked for.
    pub(crate) fn asked(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let models = self.models.iter().map(String::as_str);
        models.flat_map(|model| ASKED.map(|provider| (provider, model)))
    }
}

impl fmt::Debug for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (level, cells) in Level::ALL.iter().zip(&self.scopes) {
            for cell in cells {
                let provider = cell.provider.as_deref().unwrap_or("(any)");
                let (mode, verdict) = (cell.mode.name(), cell.verdict.name());
                writeln!(
                    f,
                    "  {}: {mode} {provider} {} {verdict}",
                    level.name(),
                    cell.model
                )?;
            }
        }
        write!(f, "  models: {:?}", self.models)
    }
}

/// Modes, two of them far more often than the rest.
pub(crate) fn mode(random: &mut Random) -> AuthMode {
    if random.once_in(5) {
        *random.pick(&AuthMode::ORDER)
    } else {
        *random.pick(&[AuthMode::Byok, AuthMode::Metered])
    }
}

pub(crate) fn cell(random: &mut Random) -> Cell {
    // The last one is in the way only.
    let provider = *random.pick(&[None, None, Some("anthropic"), Some("anthropic"), Some("bedrock")]);
    Cell {
        mode: mode(random),
        provider: provider.map(str::to_owned),
        model: pattern(random),
        verdict: *random.pick(&[Verdict::Inherit, Verdict::Allow, Verdict::Deny]),
    }
}

/// One of the list, a model with holes in it, or the two ends of a model, four characters in all: of the last kind
/// all are equally specific.
fn pattern(random: &mut Random) -> Pattern {
    // Not the last model: a pattern is ASCII.
    let mut text = (*random.pick(&MODELS[..MODELS.len() - 1])).to_owned();
    match random.below(6) {
        0 => {
            for _ in 0..random.below(3) {
                let start = random.below(text.len());
                let end = start + random.below(text.len() - start + 1);
                text.replace_range(start..end, "*");
            }
        }
        1 | 2 => {
            let head = random.below(5).min(text.len());
            let tail = (text.len() - head).min(4 - head);
            text.replace_range(head..text.len() - tail, "*");
        }
        _ => return random.pick(&PATTERNS).parse().unwrap(),
    }
    text.parse().unwrap()
}

fn scope(random: &mut Random) -> Vec<Cell> {
    let most = if random.once_in(32) { 40 } else { 10 };
    let mut cells: Vec<Cell> = Vec::new();
    for _ in 0..random.below(most) {
        let cell = cell(random);
        if !cells.iter().any(|other| same_place(other, &cell)) {
            cells.push(cell);
        }
    }
    cells
}

pub(crate) fn same_place(a: &Cell, b: &Cell) -> bool {
    (a.mode, &a.provider, &a.model) == (b.mode, &b.provider, &b.model)
}

pub(crate) fn permits(matrices: &[Matrix; 3], provider: &str, model: &str) -> ModeSet {
    let [system, org, project] = matrices;
    Cascade::new(system, org, project)
        .judge(provider, model)
        .permits()
}

/// The seed of all: `CREDBROKER_SEED`, or one that stays.
pub(crate) fn seed() -> u64 {
    std::env::var("CREDBROKER_SEED").map_or(4, |seed| seed.parse().expect("CREDBROKER_SEED is a number"))
}

/// Tries the property on so many hierarchies, and panics with the smallest one that breaks it.
pub(crate) fn holds(cases: u64, property: impl Fn(&Hierarchy) -> Result<(), String>) {
    let base = seed();
    let mut seeds = Random::new(base);
    for case in 0..cases {
        let hierarchy = Hierarchy::generate(seeds.next());
        if let Err(first) = property(&hierarchy) {
            let (smallest, fault) = shrunk(hierarchy, first, &property);
            panic!("CREDBROKER_SEED={base}, case {case}: {fault}\n{smallest:?}");
        }
    }
}

/// Leaves out cells and models for as long as the property stays broken.
fn shrunk(
    mut hierarchy: Hierarchy,
    mut fault: String,
    property: &impl Fn(&Hierarchy) -> Result<(), String>,
) -> (Hierarchy, String) {
    loop {
        let less = (0..3)
            .flat_map(|scope| (0..hierarchy.scopes[scope].len()).map(move |at| (scope, at)))
            .map(|(scope, at)| {
                let mut less = hierarchy.clone();
                less.scopes[scope].remove(at);
                less
            });
        let fewer = (0..hierarchy.models.len()).map(|at| {
            let mut less = hierarchy.clone();
            less.models.remove(at);
            less
        });
        let broken = less
            .chain(fewer)
            .find_map(|less| property(&less).err().map(|fault| (less, fault)));
        match broken {
            Some(smaller) => (hierarchy, fault) = smaller,
            None => return (hierarchy, fault),
        }
    }
}
