//! `credbroker spend`: what an org has spent, as a table, as bars, or for programs.

mod bars;

use clap::{Args, ValueEnum};
use comfy_table::CellAlignment;
use serde_json::{Map, Value, json};

use super::names::Names;
use crate::cli::client::Session;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::{Failure, plain};
use crate::cli::render;
use crate::domain::billing::Micros;
use crate::domain::mode::AuthMode;
use crate::proto;

/// Show what an org has spent: dispatches, and what reported usage cost.
#[derive(Args, Debug)]
pub struct SpendArgs {
    /// What the sums are by; several make finer ones.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "mode")]
    by: Vec<By>,
    /// The first UTC day, such as 2026-01-31; without it, 30 days are shown.
    #[arg(long, default_value = "", value_name = "DAY")]
    from: String,
    /// The last UTC day; without it, today.
    #[arg(long, default_value = "", value_name = "DAY")]
    to: String,
    /// Only this project: id or name.
    #[arg(long, default_value = "")]
    project: String,
    /// Only this mode.
    #[arg(long, value_parser = mode)]
    mode: Option<AuthMode>,
    /// Only this provider.
    #[arg(long, default_value = "")]
    provider: String,
    /// Only this member: id or name.
    #[arg(long, default_value = "")]
    member: String,
    /// Draw bars: of the cost, or of the dispatches where nothing cost anything.
    #[arg(long, conflicts_with = "output")]
    plot: bool,
    /// How it is shown.
    #[arg(short, long, value_enum, default_value_t)]
    output: SpendOutput,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What sums are by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// The mode.
    Mode,
    /// The provider.
    Provider,
    /// The project.
    Project,
    /// The member.
    Member,
    /// The UTC day.
    Day,
}

/// How spend is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SpendOutput {
    /// For people.
    #[default]
    Table,
    /// For spreadsheets (RFC 4180).
    Csv,
    /// For programs.
    Json,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            By::Mode => "mode",
            By::Provider => "provider",
            By::Project => "project",
            By::Member => "member",
            By::Day => "day",
        }
    }

    fn message(self) -> proto::SpendDimension {
        match self {
            By::Mode => proto::SpendDimension::Mode,
            By::Provider => proto::SpendDimension::Provider,
            By::Project => proto::SpendDimension::Project,
            By::Member => proto::SpendDimension::Member,
            By::Day => proto::SpendDimension::Day,
        }
    }
}

fn mode(text: &str) -> Result<AuthMode, String> {
    AuthMode::from_name(text).ok_or_else(|| {
        let names: Vec<_> = AuthMode::ORDER.map(AuthMode::name).into();
        format!("a mode is one of {}", names.join(", "))
    })
}

/// The mode's number in messages, which follow the fixed order from 1 on.
fn number(mode: AuthMode) -> i32 {
    let at = AuthMode::ORDER.into_iter().position(|known| known == mode);
    at.and_then(|at| i32::try_from(at + 1).ok()).unwrap_or_default()
}

/// Runs the command.
pub async fn run(args: SpendArgs) -> Result<(), Failure> {
    let session = Session::open(&args.connection).await?;
    let request = proto::SummarizeSpendRequest {
        org: session.org_or_own(),
        group_by: args.by.iter().map(|by| by.message() as i32).collect(),
        from_day: args.from,
        to_day: args.to,
        filter: Some(proto::CostFilter {
            project: args.project,
            mode: args.mode.map(number).unwrap_or_default(),
            provider: args.provider,
            member: args.member,
        }),
    };
    let answer = session.billing().summarize_spend(request).await;
    let mut sums = answer.map_err(|status| session.failure(status))?.into_inner();
    let people = args.plot || args.output == SpendOutput::Table;
    if people && args.by.iter().any(|by| matches!(by, By::Project | By::Member)) {
        let names = Names::read(&session).await;
        for key in sums.rows.iter_mut().flat_map(|row| &mut row.keys) {
            names.replace(key);
        }
    }
    render::print(&match args.output {
        _ if args.plot => bars::draw(&bars_of(&sums), bars::Style::of_stdout()),
        SpendOutput::Table => table(&args.by, &sums),
        SpendOutput::Csv => csv(&args.by, &sums),
        SpendOutput::Json => render::json(&as_json(&args.by, &sums)),
    })?;
    if people {
        render::remark(&format!("{} to {}, UTC", sums.from_day, sums.to_day));
    }
    if sums.truncated {
        render::remark("There is more than is shown: ask for fewer days, or for less.");
    }
    Ok(())
}

/// A key as people read it.
fn shown(key: &str) -> String {
    if key.is_empty() {
        "-".to_owned()
    } else {
        plain(key)
    }
}

fn bars_of(sums: &proto::SummarizeSpendResponse) -> Vec<bars::Bar> {
    let costs = sums.rows.iter().any(|row| row.micros > 0);
    let bar = |row: &proto::SpendRow| bars::Bar {
        label: row
            .keys
            .iter()
            .map(|key| shown(key))
            .collect::<Vec<_>>()
            .join("  "),
        amount: if costs {
            Micros(row.micros).to_string()
        } else {
            row.dispatches.to_string()
        },
        length: if costs {
            u64::try_from(row.micros).unwrap_or(0)
        } else {
            row.dispatches
        },
    };
    sums.rows.iter().map(bar).collect()
}

fn table(by: &[By], sums: &proto::SummarizeSpendResponse) -> String {
    let mut table = render::new_table();
    let headers = by.iter().map(|by| by.name().to_uppercase());
    table.set_header(headers.chain(["DISPATCHES", "EVENTS", "COST"].map(str::to_owned)));
    let numbers = |row: &proto::SpendRow| {
        [
            row.dispatches.to_string(),
            row.events.to_string(),
            Micros(row.micros).to_string(),
        ]
    };
    for row in &sums.rows {
        table.add_row(row.keys.iter().map(|key| shown(key)).chain(numbers(row)));
    }
    if let Some(total) = sums.total.as_ref().filter(|_| sums.rows.len() > 1) {
        let blank = by
            .iter()
            .enumerate()
            .map(|(at, _)| if at == 0 { "total" } else { "" }.to_owned());
        table.add_row(blank.chain(numbers(total)));
    }
    for column in table.column_iter_mut().skip(by.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    render::finish(table)
}

fn csv(by: &[By], sums: &proto::SummarizeSpendResponse) -> String {
    let headers = by.iter().map(|by| by.name());
    let headers: Vec<_> = headers.chain(["dispatches", "events", "micros"]).collect();
    let mut text = headers.join(",") + "\r\n";
    for row in &sums.rows {
        let numbers = [
            row.dispatches.to_string(),
            row.events.to_string(),
            row.micros.to_string(),
        ];
        let cells: Vec<_> = row
            .keys
            .iter()
            .map(|key| quoted(&plain(key)))
            .chain(numbers)
            .collect();
        text += &(cells.join(",") + "\r\n");
    }
    text
}

/// A cell, quoted where it has to be (RFC 4180, section 2).
fn quoted(text: &str) -> String {
    if text.contains([',', '"']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn as_json(by: &[By], sums: &proto::SummarizeSpendResponse) -> Value {
    let numbers = |row: &proto::SpendRow| {
        [
            ("dispatches", Value::from(row.dispatches)),
            ("events", row.events.into()),
            ("micros", row.micros.into()),
        ]
    };
    let object = |row: &proto::SpendRow| {
        let keys = by.iter().map(|by| by.name());
        let keys = keys.zip(row.keys.iter().map(|key| Value::from(key.as_str())));
        let all = keys
            .chain(numbers(row))
            .map(|(name, value)| (name.to_owned(), value));
        Value::from(all.collect::<Map<_, _>>())
    };
    json!({
        "from_day": sums.from_day,
        "to_day": sums.to_day,
        "truncated": sums.truncated,
        "rows": sums.rows.iter().map(object).collect::<Vec<_>>(),
        "total": sums.total.as_ref().map(object),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums() -> proto::SummarizeSpendResponse {
        let row = |keys: &[&str], dispatches, micros| proto::SpendRow {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            dispatches,
            micros,
            events: 0,
        };
        proto::SummarizeSpendResponse {
            rows: vec![
                row(&["metered", "a,\"b"], 7, 1_500_000),
                row(&["shared", ""], 120, 0),
            ],
            total: Some(row(&[], 127, 1_500_000)),
            ..Default::default()
        }
    }

    const BY: &[By] = &[By::Mode, By::Provider];

    #[test]
    fn numbers_stand_at_the_right_and_add_up_below() {
        let text = table(BY, &sums());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        let ends = |needle: &str, line: &str| line.find(needle).map(|at| at + needle.len());
        assert_eq!(ends("7", lines[1]), ends("120", lines[2]), "{text}");
        assert_eq!(ends("DISPATCHES", lines[0]), ends("127", lines[3]), "{text}");
        assert!(
            lines[1].ends_with("1.50") && lines[3].starts_with("total"),
            "{text}"
        );
    }

    #[test]
    fn csv_is_quoted_where_it_has_to_be() {
        let text = csv(BY, &sums());
        let lines: Vec<_> = text.split("\r\n").collect();
        assert_eq!(lines[0], "mode,provider,dispatches,events,micros");
        assert_eq!(lines[1], "metered,\"a,\"\"b\",7,0,1500000");
        assert_eq!((lines[2], lines[3]), ("shared,,120,0,0", ""));
    }

    #[test]
    fn json_names_what_the_sums_are_by() {
        let value = as_json(BY, &sums());
        assert_eq!(value["rows"][1]["mode"], "shared");
        assert_eq!(
            value["total"],
            json!({"dispatches": 127, "events": 0, "micros": 1_500_000})
        );
    }

    #[test]
    fn modes_have_the_numbers_of_the_messages() {
        for mode in AuthMode::ORDER {
            let name = proto::AuthMode::try_from(number(mode)).map(|wire| wire.as_str_name());
            assert_eq!(
                name.map(|name| render::enum_name(name, "AUTH_MODE_")),
                Ok(mode.name().to_owned())
            );
        }
    }
}
