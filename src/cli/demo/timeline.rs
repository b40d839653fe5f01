//! Draws who waited how long, and what the provider saw meanwhile, on one time axis.
//!
//! A pure function from data to text; what the terminal can do comes in as [`Style`].

use std::io::IsTerminal;

/// What is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timeline {
    /// The line above.
    pub(super) title: String,
    /// A line each.
    pub(super) rows: Vec<Row>,
    /// The line below.
    pub(super) summary: String,
    /// Whether the summary is good news.
    pub(super) good: bool,
}

/// One line: a wait, or what happened at points in time, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    /// Who.
    pub(super) label: String,
    /// The wait.
    pub(super) bar: Option<Bar>,
    /// What happened.
    pub(super) marks: Vec<Mark>,
    /// How it came out.
    pub(super) note: String,
}

/// A wait, in milliseconds from the start of the axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    /// From.
    pub(super) start: u64,
    /// To.
    pub(super) end: u64,
    /// Whether it was worth it.
    pub(super) good: bool,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// When, in milliseconds from the start of the axis.
    pub(super) at: u64,
    /// What.
    pub(super) what: What,
}

/// What the provider saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum What {
    /// It issued new tokens.
    Refreshed,
    /// A refresh token was presented that had been used.
    Replayed,
    /// It ended the grant.
    Killed,
}

impl What {
    const ALL: [What; 3] = [What::Refreshed, What::Replayed, What::Killed];

    const fn word(self) -> &'static str {
        match self {
            What::Refreshed => "refreshed",
            What::Replayed => "replayed",
            What::Killed => "killed",
        }
    }

    const fn symbol(self, unicode: bool) -> char {
        match (self, unicode) {
            (What::Refreshed, true) => '●',
            (What::Refreshed, false) => 'o',
            (What::Replayed, _) => '!',
            (What::Killed, true) => '✗',
            (What::Killed, false) => 'X',
        }
    }

    const fn colour(self) -> &'static str {
        match self {
            What::Refreshed => GREEN,
            What::Replayed => YELLOW,
            What::Killed => RED,
        }
    }
}

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Columns.
    pub(super) width: usize,
    /// Whether it shows colours.
    pub(super) colour: bool,
    /// Whether it shows more than ASCII.
    pub(super) unicode: bool,
}

impl Style {
    /// That of standard output: colour on a terminal only and not against `NO_COLOR`, Unicode where the locale
    /// says so.
    pub(super) fn of_stdout(width: usize) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
        let locale = locale.unwrap_or_default().to_ascii_lowercase();
        Self {
            width,
            colour: std::io::stdout().is_terminal() && set("NO_COLOR").is_none(),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }
}

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// The narrowest and the widest axis, in columns.
const AXIS: std::ops::RangeInclusive<usize> = 10..=100;

/// The picture, a line each row, ending with a newline. On a terminal too narrow for labels, notes and a short
/// axis the lines are longer than it is wide.
pub(super) fn draw(timeline: &Timeline, style: Style) -> String {
    let longest = |text: fn(&Row) -> &str| {
        let lengths = timeline.rows.iter().map(|row| text(row).chars().count());
        lengths.max().unwrap_or(0)
    };
    let (labels, notes) = (longest(|row| &row.label), longest(|row| &row.note));
    let axis = style
        .width
        .saturating_sub(labels + notes + 4)
        .clamp(*AXIS.start(), *AXIS.end());
    let span = span(timeline);

    let mut out = format!("{}\n", painted(&timeline.title, BOLD, style));
    for row in &timeline.rows {
        let pad = " ".repeat(labels - row.label.chars().count());
        let line = format!(
            "{}{pad}  {}  {}",
            row.label,
            track(row, axis, span, style),
            row.note
        );
        out += line.trim_end();
        out.push('\n');
    }
    let (from, to) = ("0".to_owned(), format!("{span} ms"));
    let gap = axis.saturating_sub(from.len() + to.len());
    out += &format!("{}  {from}{}{to}\n", " ".repeat(labels), " ".repeat(gap));
    out += &legend(timeline, labels, style);
    let tone = if timeline.good { GREEN } else { RED };
    out += &format!("{}\n", painted(&timeline.summary, tone, style));
    out
}

/// How many milliseconds the axis shows: all of them, up to the next full hundred.
fn span(timeline: &Timeline) -> u64 {
    let ends = timeline.rows.iter().flat_map(|row| {
        let bar = row.bar.map(|bar| bar.end);
        bar.into_iter().chain(row.marks.iter().map(|mark| mark.at))
    });
    ends.max().unwrap_or(0).max(1).div_ceil(100).saturating_mul(100)
}

/// The row's part of the axis, `axis` columns wide.
fn track(row: &Row, axis: usize, span: u64, style: Style) -> String {
    let column = |at: u64| {
        let last = axis as u128 - 1;
        usize::try_from(u128::from(at.min(span)) * last / u128::from(span)).unwrap_or(axis - 1)
    };
    let mut cells: Vec<(char, &str)> = vec![(' ', ""); axis];
    if let Some(bar) = row.bar {
        let symbol = match (bar.good, style.unicode) {
            (true, true) => ('█', GREEN),
            (false, true) => ('░', RED),
            (true, false) => ('=', GREEN),
            (false, false) => ('-', RED),
        };
        cells[column(bar.start)..=column(bar.end.max(bar.start))].fill(symbol);
    }
    let mut taken = vec![false; axis];
    for mark in &row.marks {
        // Events of one moment stand beside each other, in their order, as long as there is room.
        let wanted = column(mark.at);
        let free = (wanted..axis)
            .chain((0..wanted).rev())
            .find(|column| !taken[*column])
            .unwrap_or(wanted);
        taken[free] = true;
        cells[free] = (mark.what.symbol(style.unicode), mark.what.colour());
    }
    let mut out = String::new();
    let mut current = "";
    for (symbol, colour) in cells {
        if style.colour && colour != current {
            out += if colour.is_empty() { PLAIN } else { colour };
            current = colour;
        }
        out.push(symbol);
    }
    if !current.is_empty() {
        out += PLAIN;
    }
    out
}

/// What the symbols mean that are in the picture.
fn legend(timeline: &Timeline, labels: usize, style: Style) -> String {
    let marks = || timeline.rows.iter().flat_map(|row| &row.marks);
    let told: Vec<_> = What::ALL
        .into_iter()
        .filter(|what| marks().any(|mark| mark.what == *what))
        .map(|what| format!("{} {}", what.symbol(style.unicode), what.word()))
        .collect();
    if told.is_empty() {
        return String::new();
    }
    format!("{}  {}\n", " ".repeat(labels), told.join("   "))
}

fn painted(text: &str, colour: &str, style: Style) -> String {
    if style.colour {
        format!("{colour}{text}{PLAIN}")
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASCII: Style = Style {
        width: 44,
        colour: false,
        unicode: false,
    };

    fn row(label: &str, bar: (u64, u64, bool), note: &str) -> Row {
        let (start, end, good) = bar;
        Row {
            label: label.into(),
            bar: Some(Bar { start, end, good }),
            note: note.into(),
            ..Row::default()
        }
    }

    fn provider(marks: &[(u64, What)]) -> Row {
        Row {
            label: "provider".into(),
            marks: marks
                .iter()
                .map(|(at, what)| Mark { at: *at, what: *what })
                .collect(),
            ..Row::default()
        }
    }

    fn timeline() -> Timeline {
        Timeline {
            title: "With the broker".into(),
            rows: vec![
                row("agent 1", (0, 810, true), "ok"),
                row("agent 2", (400, 900, true), "ok"),
                row("agent 3", (0, 0, false), "no"),
                provider(&[(800, What::Refreshed)]),
            ],
            summary: "3 callers, 1 refresh, the grant is alive".into(),
            good: true,
        }
    }

    #[test]
    fn the_picture() {
        // 44 columns less labels (8), notes (2) and the gaps (4): an axis of 30 columns for 900 ms.
        let expected = "\
With the broker
agent 1   ===========================     ok
agent 2               ==================  ok
agent 3   -                               no
provider                           o
          0                       900 ms
          o refreshed
3 callers, 1 refresh, the grant is alive
";
        assert_eq!(draw(&timeline(), ASCII), expected);
    }

    #[test]
    fn events_of_one_moment_stand_beside_each_other() {
        let marks = [
            (100, What::Refreshed),
            (100, What::Replayed),
            (100, What::Replayed),
            (100, What::Killed),
        ];
        let text = draw(
            &Timeline {
                rows: vec![row("a", (0, 200, false), ""), provider(&marks)],
                ..timeline()
            },
            ASCII,
        );
        assert!(text.contains("o!!X"), "{text}");
        assert!(text.contains("o refreshed   ! replayed   X killed"), "{text}");
    }

    #[test]
    fn events_past_the_edge_are_pushed_back_in() {
        let marks = [(100, What::Replayed), (100, What::Killed)];
        let text = draw(
            &Timeline {
                rows: vec![provider(&marks)],
                ..timeline()
            },
            ASCII,
        );
        let line = text.lines().nth(1).unwrap_or_default();
        assert!(line.ends_with("X!"), "{line:?}");
    }

    #[test]
    fn it_fits_the_terminal_and_colours_do_not_count() {
        for width in [30, 44, 80, 200] {
            let style = Style { width, ..ASCII };
            let text = draw(&timeline(), style);
            let rows = || text.lines().skip(1).take(5);
            assert!(rows().all(|line| line.chars().count() <= width), "{text}");
            let coloured = draw(
                &timeline(),
                Style {
                    colour: true,
                    ..style
                },
            );
            let mut stripped = coloured.clone();
            for code in [GREEN, YELLOW, RED, BOLD, PLAIN] {
                stripped = stripped.replace(code, "");
            }
            let trimmed: Vec<_> = stripped.lines().map(str::trim_end).collect();
            assert_eq!(trimmed, text.lines().collect::<Vec<_>>());
            assert!(coloured.contains(GREEN) && coloured.contains(RED));
        }
    }

    #[test]
    fn odd_data_does_not_break_it() {
        let empty = Timeline {
            title: String::new(),
            rows: Vec::new(),
            summary: String::new(),
            good: false,
        };
        assert!(draw(&empty, Style { width: 0, ..ASCII }).contains("100 ms"));
        let backwards = Timeline {
            rows: vec![
                row("a", (500, 10, true), "x"),
                row("b", (u64::MAX, u64::MAX, true), ""),
            ],
            ..empty
        };
        assert!(draw(&backwards, ASCII).contains('='));
    }
}
