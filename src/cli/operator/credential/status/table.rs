//! Statuses as people read them, and their fields for programs.

use prost_types::Timestamp;
use serde_json::{Value, json};

use crate::cli::error::plain;
use crate::cli::render::{self, Field, Resource, enum_name, relative};
use crate::cli::screen::{Colour, Style};
use crate::domain::credential::Health;
use crate::domain::time::Time;
use crate::proto;

/// How many leases people are shown; programs get all.
const SHOWN: usize = 20;
/// Columns that are left out, the first of them first, where the terminal has no room for all.
const SPARED: [&str; 5] = ["GEN", "REFRESHED", "PLAN", "KIND", "SINCE"];

/// The name of a health.
pub(super) fn health(status: &proto::CredentialStatus) -> String {
    let credential = status.credential.as_ref();
    let health = credential.map(proto::Credential::health).unwrap_or_default();
    enum_name(health.as_str_name(), "CREDENTIAL_HEALTH_")
}

/// What sorts the worst first: by health, then what is reported or failing, then what ends soonest.
pub fn urgency(status: &proto::CredentialStatus) -> (usize, bool, i64, String) {
    let name = health(status);
    let order = Health::WORST_FIRST.map(Health::name);
    // One that this program does not know yet is nothing to put last.
    let rank = order.iter().position(|known| *known == name).unwrap_or(0);
    let (error, expires, id) = status
        .credential
        .as_ref()
        .map_or_else(Default::default, |credential| {
            let expires = credential.expire_time.map_or(i64::MAX, |at| at.seconds);
            (credential.last_error.clone(), expires, credential.id.clone())
        });
    (rank, error.is_empty(), expires, id)
}

fn colour(health: &str, has_error: bool) -> Colour {
    let known = Health::WORST_FIRST.iter().find(|known| known.name() == health);
    match known {
        Some(Health::Ok) if has_error => Colour::Yellow,
        Some(Health::Ok) => Colour::Green,
        Some(Health::Expiring | Health::Refreshing) => Colour::Cyan,
        Some(Health::Ambiguous) => Colour::Yellow,
        Some(Health::Quarantined | Health::ReauthRequired | Health::Expired | Health::GrantLost) | None => {
            Colour::Red
        }
    }
}

fn plan(status: &proto::CredentialStatus) -> String {
    let plan = [status.subscription.as_str(), status.tier.as_str()];
    plain(
        &plan
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
    )
}

fn dependents(status: &proto::CredentialStatus) -> String {
    let more = if status.dependents_truncated { "+" } else { "" };
    format!("{}{more}", status.dependents)
}

fn cells(status: &proto::CredentialStatus, now: Time) -> Vec<(&'static str, String)> {
    let empty = proto::Credential::default();
    let credential = status.credential.as_ref().unwrap_or(&empty);
    let when = |time: Option<Timestamp>| time.map(|time| relative(&time, now)).unwrap_or_default();
    vec![
        ("STATE", health(status)),
        ("SINCE", when(status.state_since)),
        (
            "OWNER",
            crate::cli::owner_field(credential.owner.as_ref()).cell(now),
        ),
        ("PROVIDER", plain(&credential.provider)),
        (
            "KIND",
            enum_name(credential.kind().as_str_name(), "CREDENTIAL_KIND_"),
        ),
        ("EXPIRES", when(credential.expire_time)),
        ("REFRESHED", when(credential.refresh_time)),
        ("GEN", credential.generation.to_string()),
        ("PLAN", plan(status)),
        ("LEASES", dependents(status)),
        ("CREDENTIAL", plain(&credential.id)),
    ]
}

/// All of them, a line each, with what is wrong and what to do below those that have something.
pub fn table(statuses: &[proto::CredentialStatus], style: Style, now: Time) -> String {
    let rows: Vec<_> = statuses.iter().map(|status| cells(status, now)).collect();
    let mut spared = 0;
    let lines = loop {
        let lines = aligned(&rows, &SPARED[..spared]);
        let fits = |width| lines.iter().all(|line| line.chars().count() <= width);
        if spared == SPARED.len() || style.width.is_none_or(fits) {
            break lines;
        }
        spared += 1;
    };
    let mut lines = lines.into_iter();
    let mut text = lines.next().unwrap_or_default() + "\n";
    for (status, line) in statuses.iter().zip(lines) {
        let (name, error) = (health(status), last_error(status));
        // The state stands first, so that its length is that of the part to paint.
        let (state, rest) = line.split_at(name.len().min(line.len()));
        text += &format!("{}{rest}\n", style.paint(colour(&name, !error.is_empty()), state));
        if !error.is_empty() {
            let told = style.clip(&plain(error), 2);
            text += &format!("  {}\n", style.paint(Colour::Dim, &told));
        }
        if !status.next_step.is_empty() {
            let arrow = if style.unicode { "→" } else { "->" };
            let told = style.clip(&format!("{arrow} {}", plain(&status.next_step)), 2);
            text += &format!("  {told}\n");
        }
    }
    text
}

fn last_error(status: &proto::CredentialStatus) -> &str {
    status
        .credential
        .as_ref()
        .map_or("", |credential| credential.last_error.as_str())
}

/// Header and rows in columns, a line each.
fn aligned(rows: &[Vec<(&'static str, String)>], without: &[&str]) -> Vec<String> {
    let header = cells(&proto::CredentialStatus::default(), Time::from_millis(0));
    let kept: Vec<_> = (0..header.len())
        .filter(|at| !without.contains(&header[*at].0))
        .collect();
    let mut table = render::new_table();
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(kept.iter().map(|at| header[*at].0));
    for row in rows {
        table.add_row(kept.iter().map(|at| row[*at].1.as_str()));
    }
    render::finish(table).lines().map(str::to_owned).collect()
}

/// One of them, with all that is known of it and who depends on it.
pub fn details(
    status: &proto::CredentialStatus,
    leases: &[proto::CredentialDependent],
    style: Style,
    now: Time,
) -> String {
    let skipped = ["org", "dependents_truncated", "health"];
    let name = health(status);
    let state = ("state".to_owned(), name.clone());
    let rows = fields(status)
        .into_iter()
        .filter(|(field, _)| !skipped.contains(field))
        .map(|(field, value)| {
            let cell = match field {
                "dependents" => dependents(status),
                _ => value.cell(now),
            };
            (render::label(field), cell)
        });
    let text = render::pairs(std::iter::once(state).chain(rows));
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let painted = style.paint(colour(&name, !last_error(status).is_empty()), &name);
    let mut text = format!("{}\n{rest}", first.replacen(&name, &painted, 1));
    if leases.is_empty() {
        return text;
    }
    let mut table = render::new_table();
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(["LEASE", "HELD BY", "TASK", "GEN", "EXPIRES"]);
    for lease in leases.iter().rev().take(SHOWN) {
        let expires = Field::Time(lease.expire_time).cell(now);
        let task = if lease.task.is_empty() {
            "(none)"
        } else {
            &lease.task
        };
        table.add_row([
            plain(&lease.lease),
            plain(&lease.holder),
            plain(task),
            lease.generation.to_string(),
            expires,
        ]);
    }
    text += "\n";
    text += &render::finish(table);
    if leases.len() > SHOWN {
        text += &format!("{} more\n", leases.len() - SHOWN);
    }
    text
}

pub(super) fn fields(status: &proto::CredentialStatus) -> Vec<(&'static str, Field)> {
    let mut fields = status
        .credential
        .as_ref()
        .map(Resource::fields)
        .unwrap_or_default();
    let figures: Vec<_> = status
        .consumption
        .iter()
        .map(|figure| format!("{}: {}", figure.label, figure.value))
        .collect();
    let told: Vec<_> = status
        .consumption
        .iter()
        .map(|figure| json!({ "label": figure.label, "value": figure.value }))
        .collect();
    fields.extend([
        ("state_since", Field::Time(status.state_since)),
        ("last_error_time", Field::Time(status.last_error_time)),
        ("cause", Field::Text(status.cause.clone())),
        ("next_step", Field::Text(status.next_step.clone())),
        ("subscription", Field::Text(status.subscription.clone())),
        ("tier", Field::Text(status.tier.clone())),
        ("consumption", Field::Both(figures.join(", "), told.into())),
        ("consumption_time", Field::Time(status.consumption_time)),
        ("dependents", Field::Number(status.dependents.into())),
        ("dependents_truncated", Field::Flag(status.dependents_truncated)),
    ]);
    fields
}

pub(super) fn leases_json(leases: &[proto::CredentialDependent]) -> Value {
    let all = leases.iter().map(|lease| {
        json!({
            "lease": lease.lease,
            "holder": lease.holder,
            "task": lease.task,
            "member": lease.member,
            "generation": lease.generation,
            "expire_time": lease.expire_time.map(|time| time.to_string()),
        })
    });
    all.collect::<Vec<_>>().into()
}
