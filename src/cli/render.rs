//! How answers are shown: tables for people, JSON and names for programs.
//!
//! A resource lists its fields once, under the API's own names; the table takes a choice of them, the JSON
//! all. Times are RFC 3339 in JSON and relative for people.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};

use clap::{Args, ValueEnum};
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use prost_types::Timestamp;
use serde_json::{Map, Value};

use super::error::{Failure, Kind, plain};
use crate::clock::{Clock, SystemClock};
use crate::domain::time::Time;

/// How a list is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: the API's field names, RFC 3339 times.
    Json,
    /// Names (ids where there is no name), a line each.
    Name,
}

/// What every list takes.
#[derive(Args, Clone, Copy, Debug)]
pub struct ListArgs {
    /// How it is shown.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// How many at most.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub limit: u32,
}

/// What every command takes that answers with one thing.
#[derive(Args, Clone, Copy, Debug)]
pub struct ShowArgs {
    /// How it is shown.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// Text.
    Text(String),
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// A point in time; `None`: unset.
    Time(Option<Timestamp>),
    /// Several texts.
    List(Vec<String>),
    /// Pairs.
    Pairs(HashMap<String, String>),
    /// Shown as a text to people and as a structure to programs.
    Both(String, Value),
}

impl Field {
    /// As a table shows it, seen from `now`.
    pub fn cell(&self, now: Time) -> String {
        match self {
            Field::Text(text) => plain(text),
            Field::Number(number) => number.to_string(),
            Field::Flag(flag) => if *flag { "yes" } else { "no" }.to_owned(),
            Field::Time(time) => time.as_ref().map(|time| relative(time, now)).unwrap_or_default(),
            Field::List(texts) => plain(&texts.join(", ")),
            Field::Pairs(pairs) => {
                let mut pairs: Vec<_> = pairs
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                pairs.sort();
                plain(&pairs.join(", "))
            }
            Field::Both(text, _) => plain(text),
        }
    }

    /// As JSON has it.
    pub fn json(&self) -> Value {
        match self {
            Field::Text(text) => text.as_str().into(),
            Field::Number(number) => (*number).into(),
            Field::Flag(flag) => (*flag).into(),
            Field::Time(time) => time.map(|time| time.to_string()).into(),
            Field::List(texts) => texts.clone().into(),
            Field::Pairs(pairs) => {
                let sorted: std::collections::BTreeMap<_, _> = pairs.iter().collect();
                sorted
                    .into_iter()
                    .map(|(key, value)| (key.clone(), value.as_str().into()))
                    .collect::<Map<_, _>>()
                    .into()
            }
            Field::Both(_, value) => value.clone(),
        }
    }
}

/// A thing the broker answers with.
pub trait Resource {
    /// The fields that a list shows, in order.
    const COLUMNS: &'static [&'static str];

    /// All fields, by the API's names.
    fn fields(&self) -> Vec<(&'static str, Field)>;

    /// What other commands take to mean it.
    fn handle(&self) -> String;

    /// Its fields that hold ids of what has a name, which people rather read.
    fn references(&mut self) -> Vec<&mut String> {
        Vec::new()
    }
}

/// All fields as one JSON object.
pub fn object(resource: &impl Resource) -> Value {
    resource
        .fields()
        .into_iter()
        .map(|(name, field)| (name.to_owned(), field.json()))
        .collect::<Map<_, _>>()
        .into()
}

/// A cell longer than this, in bytes, is text that may be broken; ids are shorter.
const LONG: usize = 40;

/// A list, as `output` says.
pub fn list<R: Resource>(items: &[R], output: Output, now: Time) -> String {
    match output {
        Output::Name => items.iter().map(|item| plain(&item.handle()) + "\n").collect(),
        Output::Json => json(&Value::from(items.iter().map(object).collect::<Vec<_>>())),
        Output::Table => {
            let headers = R::COLUMNS.iter().map(|name| label(name).to_uppercase());
            let mut table = new_table();
            table.set_header(headers);
            let mut long = vec![false; R::COLUMNS.len()];
            for item in items {
                let fields = item.fields();
                let cells: Vec<_> = R::COLUMNS
                    .iter()
                    .map(|name| {
                        let field = fields.iter().find(|(other, _)| other == name);
                        field.map(|(_, field)| field.cell(now)).unwrap_or_default()
                    })
                    .collect();
                for (long, cell) in long.iter_mut().zip(&cells) {
                    *long |= cell.len() > LONG;
                }
                table.add_row(cells);
            }
            // Half an id or half a time is of no use: only long text is fitted to the terminal.
            for (column, long) in table.column_iter_mut().zip(long) {
                column.set_constraint(if long {
                    ColumnConstraint::LowerBoundary(Width::Fixed(24))
                } else {
                    ColumnConstraint::ContentWidth
                });
            }
            finish(table)
        }
    }
}

/// One thing, as `output` says.
pub fn show(resource: &impl Resource, output: Output, now: Time) -> String {
    match output {
        Output::Name => plain(&resource.handle()) + "\n",
        Output::Json => json(&object(resource)),
        Output::Table => pairs(
            resource
                .fields()
                .into_iter()
                .map(|(name, field)| (label(name), field.cell(now))),
        ),
    }
}

/// What people call a field: `expire_time`, as its cell has it, `expires`.
pub fn label(field: &str) -> String {
    let words = field.replace('_', " ");
    for (verb, told) in [
        ("create time", "created"),
        ("expire time", "expires"),
        ("revoke time", "revoked"),
        ("refresh time", "refreshed"),
        ("end time", "ended"),
        ("seen time", "seen"),
        ("last used time", "last used"),
    ] {
        if let Some(before) = words.strip_suffix(verb) {
            return format!("{before}{told}");
        }
    }
    words
}

/// Names and values below each other; those without a value are left out.
pub fn pairs(rows: impl IntoIterator<Item = (String, String)>) -> String {
    let mut table = new_table();
    for (name, value) in rows.into_iter().filter(|(_, value)| !value.is_empty()) {
        table.add_row([name, value]);
    }
    finish(table)
}

/// JSON as programs and people read it.
pub fn json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// A table in the style of all of them; fitted to the terminal.
pub(super) fn new_table() -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic);
    if !std::io::stdout().is_terminal() {
        table.force_no_tty();
    }
    table
}

/// The table's text.
pub(super) fn finish(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    format!("{}\n", table.trim_fmt())
}

/// The width of the terminal; 80 where there is none.
pub fn width() -> usize {
    Table::new().width().map_or(80, usize::from)
}

/// Whether the locale has more than ASCII.
pub fn is_unicode() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    let locale = locale.unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// A time as people say it: `in 5m`, `3h ago`.
pub fn relative(time: &Timestamp, now: Time) -> String {
    let millis = time
        .seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(time.nanos) / 1_000_000);
    let ahead = millis.saturating_sub(now.millis());
    let seconds = ahead.unsigned_abs() / 1000;
    // What was made for 90 days is not to be told as 89 the moment after.
    let rounded = |unit: u64| seconds.saturating_add(unit / 2) / unit;
    let span = match seconds {
        0 => return "now".to_owned(),
        1..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", rounded(60)),
        3600..172_800 => format!("{}h", rounded(3600)),
        _ => format!("{}d", rounded(86_400)),
    };
    if ahead > 0 {
        format!("in {span}")
    } else {
        format!("{span} ago")
    }
}

/// What people call a value of an enum: its name without the type's prefix, in lower case. Empty for the
/// unspecified one.
pub fn enum_name(name: &str, prefix: &str) -> String {
    match name.strip_prefix(prefix).unwrap_or(name) {
        "UNSPECIFIED" => String::new(),
        rest => rest.to_lowercase().replace('_', "-"),
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The time it is.
pub fn now() -> Time {
    SystemClock::new().wall()
}

/// Writes to standard output. A reader that has gone away (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            Kind::Failed,
            format!("cannot write to standard output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// A remark for people, on standard error, so that it does not get into what a program reads.
pub fn remark(text: &str) {
    // Where standard error is gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{}", plain(text));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Thing;
    impl Resource for Thing {
        const COLUMNS: &'static [&'static str] = &["name", "expire_time"];
        fn fields(&self) -> Vec<(&'static str, Field)> {
            vec![
                ("id", Field::Text("org_1".into())),
                ("name", Field::Text("ac\u{1b}me".into())),
                ("expire_time", Field::Time(Some(at(1_000_300)))),
                ("revoke_time", Field::Time(None)),
            ]
        }
        fn handle(&self) -> String {
            "acme".into()
        }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp { seconds, nanos: 0 }
    }
    const NOW: Time = Time::from_seconds(1_000_000);

    #[test]
    fn a_table_has_the_chosen_columns_and_no_control_characters() {
        let text = list(&[Thing], Output::Table, NOW);
        let lines: Vec<Vec<_>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines, [vec!["NAME", "EXPIRES"], vec!["acme", "in", "5m"]]);
    }

    #[test]
    fn json_has_every_field_under_the_apis_name() {
        let value: Value = serde_json::from_str(&list(&[Thing], Output::Json, NOW)).unwrap();
        assert_eq!(value[0]["expire_time"], "1970-01-12T13:51:40Z");
        assert_eq!(value[0]["revoke_time"], Value::Null);
        assert_eq!(value[0]["name"], "ac\u{1b}me");
        assert_eq!(list(&[Thing], Output::Name, NOW), "acme\n");
    }

    #[test]
    fn one_thing_leaves_out_what_is_unset() {
        let text = show(&Thing, Output::Table, NOW);
        assert!(text.contains("expires") && !text.contains("revoke"), "{text}");
    }

    #[test]
    fn fields_have_the_names_that_people_use() {
        assert_eq!(label("display_name"), "display name");
        assert_eq!(label("certificate_expire_time"), "certificate expires");
        assert_eq!(label("time"), "time");
    }

    #[test]
    fn times_are_told_from_now() {
        for (seconds, told) in [
            (1_000_000, "now"),
            (1_000_059, "in 59s"),
            (999_940, "1m ago"),
            (1_007_200, "in 2h"),
            (1_000_000 + 90 * 86_400 - 1, "in 90d"),
            (1_000_000 - 3 * 86_400, "3d ago"),
        ] {
            assert_eq!(relative(&at(seconds), NOW), told);
        }
        assert!(relative(&at(i64::MAX), NOW).starts_with("in "));
    }

    #[test]
    fn enum_names_are_those_of_the_domain() {
        use crate::domain::mode::AuthMode;
        use crate::proto;
        for (number, mode) in (1..).zip(AuthMode::ORDER) {
            let wire = proto::AuthMode::try_from(number).unwrap();
            assert_eq!(enum_name(wire.as_str_name(), "AUTH_MODE_"), mode.name());
        }
        assert_eq!(enum_name("AUTH_MODE_UNSPECIFIED", "AUTH_MODE_"), "");
    }
}
