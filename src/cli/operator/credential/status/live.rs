//! Statuses as they change.
//!
//! The broker's events say when to look again; what is shown is always what was read. Some states pass without an event
//! (a token that comes near its end, a refresh under way), so it is also read every few seconds. Reading and following go
//! on by themselves beside the drawing: neither a slow broker nor one that is away keeps the times from ticking or Ctrl-C
//! from ending it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};

use super::{Picture, StatusArgs, StatusOutput, read, table};
use crate::cli::agent::follow::{Follower, Seen};
use crate::cli::client::Session;
use crate::cli::context::ConnectionArgs;
use crate::cli::error::{Failure, Kind, plain};
use crate::cli::render;
use crate::cli::screen::{Colour, Screen, Style};
use crate::proto;
use crate::proto::watch_event::Event;

/// How often it is read where no event asks for it.
const PERIOD: Duration = Duration::from_secs(5);
/// How long after an event it is read: events come in flocks.
const FLOCK: Duration = Duration::from_millis(100);
/// How often what is on a terminal is drawn anew, for the times in it.
const TICK: Duration = Duration::from_secs(1);
/// How many messages wait to be looked at.
const WAITING: usize = 16;

/// What the tasks beside the drawing tell it.
enum Told {
    Read(Result<Box<Picture>, Failure>),
    Seen(Result<Seen, Failure>),
}

/// Shows statuses until it is interrupted, or would not be told any more.
pub(super) async fn run(
    connection: &ConnectionArgs,
    org: String,
    args: StatusArgs,
    style: Style,
) -> Result<(), Failure> {
    let cannot =
        |error: std::io::Error| Failure::new(Kind::Internal, format!("signals cannot be received: {error}"));
    let mut interrupted = signal(SignalKind::interrupt()).map_err(cannot)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(cannot)?;
    let (tell, mut told) = mpsc::channel(WAITING);
    let look = Arc::new(Notify::new());
    let mut view = View {
        screen: match args.output {
            StatusOutput::Table => Screen::take()?,
            StatusOutput::Json => None,
        },
        org: org.clone(),
        output: args.output,
        style,
        picture: None,
        known: BTreeMap::new(),
        trouble: None,
    };
    let reading = tokio::spawn(keep_reading(
        connection.clone(),
        org,
        args,
        Arc::clone(&look),
        tell.clone(),
    ));
    let following = tokio::spawn(follow(Follower::of_token(connection.clone()), tell));
    let mut tick = tokio::time::interval(TICK);
    let ended = loop {
        let next = tokio::select! {
            _ = interrupted.recv() => break Ok(()),
            _ = terminated.recv() => break Ok(()),
            _ = hung_up.recv() => break Ok(()),
            told = told.recv() => told,
            _ = tick.tick() => match view.draw() {
                Ok(()) => continue,
                Err(failure) => break Err(failure),
            },
        };
        let Some(next) = next else { break Ok(()) };
        match view.take(next, &look) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    reading.abort();
    following.abort();
    // What it ends with is told on the terminal as it was.
    drop(view);
    ended
}

/// Reads now, whenever asked to, and every now and then.
async fn keep_reading(
    connection: ConnectionArgs,
    org: String,
    args: StatusArgs,
    look: Arc<Notify>,
    tell: mpsc::Sender<Told>,
) {
    let mut session: Option<Session> = None;
    loop {
        let picture = async {
            let open = match session.take() {
                Some(open) => open,
                None => Session::open(&connection).await?,
            };
            let picture = read(&open, &org, &args).await?;
            // One that failed is opened anew: the broker may have another certificate by then, or the caller a newer
            // token.
            session = Some(open);
            Ok(Box::new(picture))
        };
        let picture = picture.await;
        if tell.send(Told::Read(picture)).await.is_err() {
            return;
        }
        if tokio::time::timeout(PERIOD, look.notified()).await.is_ok() {
            tokio::time::sleep(FLOCK).await;
        }
    }
}

/// Follows events. In a task of its own, as its pauses must not be cut short.
async fn follow(mut follower: Follower, tell: mpsc::Sender<Told>) {
    loop {
        let seen = follower.next().await;
        let last = seen.is_err();
        if tell.send(Told::Seen(seen)).await.is_err() || last {
            return;
        }
    }
}

struct View {
    screen: Option<Screen>,
    org: String,
    output: StatusOutput,
    style: Style,
    picture: Option<Picture>,
    /// What was told of each credential.
    known: BTreeMap<String, Known>,
    /// Why what is shown may be old.
    trouble: Option<String>,
}

/// What makes a change of a credential.
#[derive(Clone, PartialEq)]
struct Known {
    health: String,
    generation: u64,
    last_error: String,
}

impl Known {
    fn of(status: &proto::CredentialStatus) -> (String, Self) {
        let credential = status.credential.clone().unwrap_or_default();
        let known = Self {
            health: table::health(status),
            generation: credential.generation,
            last_error: credential.last_error,
        };
        (credential.id, known)
    }
}

impl View {
    /// Deals with what was told; `false`: there is nobody to show it to any more.
    fn take(&mut self, told: Told, look: &Notify) -> Result<bool, Failure> {
        match told {
            Told::Read(Ok(picture)) => {
                self.trouble = None;
                let going_on = self.screen.is_some() || self.print_changes(&picture)?;
                self.picture = Some(*picture);
                self.draw()?;
                return Ok(going_on);
            }
            Told::Read(Err(failure)) if failure.kind == Kind::Unavailable => {
                self.in_trouble(format!("what is shown may be old: {failure}"))?;
            }
            Told::Read(Err(failure)) | Told::Seen(Err(failure)) => return Err(failure),
            Told::Seen(Ok(Seen::Broken(failure, pause))) => {
                let pause = pause.as_secs_f64();
                self.in_trouble(format!("{failure}; trying again in {pause:.1} s"))?;
            }
            Told::Seen(Ok(Seen::Anew(_))) => look.notify_one(),
            Told::Seen(Ok(Seen::Event(event))) => {
                if concerns(&event) {
                    look.notify_one();
                }
            }
        }
        Ok(true)
    }

    fn in_trouble(&mut self, what: String) -> Result<(), Failure> {
        if self.screen.is_none() && self.trouble.as_ref() != Some(&what) {
            render::remark(&what);
        }
        self.trouble = Some(what);
        self.draw()
    }

    fn draw(&self) -> Result<(), Failure> {
        let Some(screen) = &self.screen else {
            return Ok(());
        };
        // The terminal may be of another size by now.
        let style = Style {
            width: Some(render::width()),
            ..self.style
        };
        let now = render::now();
        let mut lines = vec![
            style.clip(
                &format!(
                    "credentials of {}   {}   Ctrl-C ends",
                    plain(&self.org),
                    clock(now)
                ),
                0,
            ),
            match &self.trouble {
                Some(trouble) => style.paint(Colour::Yellow, &style.clip(&plain(trouble), 0)),
                None => self.summary(style),
            },
            String::new(),
        ];
        match &self.picture {
            Some(picture) => lines.extend(picture.text(style, now).lines().map(str::to_owned)),
            None => lines.push("reading…".to_owned()),
        }
        screen.show(&lines)
    }

    fn summary(&self, style: Style) -> String {
        let statuses = self.picture.as_ref().map(Picture::statuses).unwrap_or_default();
        let mut counts: Vec<(String, usize)> = Vec::new();
        for name in statuses.iter().map(table::health) {
            match counts.last_mut().filter(|(last, _)| *last == name) {
                Some((_, count)) => *count += 1,
                None => counts.push((name, 1)),
            }
        }
        let counts: Vec<_> = counts
            .into_iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        style.clip(&counts.join(", "), 0)
    }

    /// A line for each credential that is new, has changed or is gone; `false`: there is no reader any more.
    fn print_changes(&mut self, picture: &Picture) -> Result<bool, Failure> {
        let (mut present, mut lines) = (BTreeMap::new(), String::new());
        for status in picture.statuses() {
            let (id, known) = Known::of(status);
            let before = self.known.get(&id);
            if before != Some(&known) {
                lines += &self.line(&id, before, &known, Some(status));
            }
            present.insert(id, known);
        }
        for (id, before) in self.known.iter().filter(|(id, _)| !present.contains_key(*id)) {
            lines += &self.line(id, Some(before), before, None);
        }
        self.known = present;
        put(&lines)
    }

    fn line(
        &self,
        id: &str,
        before: Option<&Known>,
        known: &Known,
        status: Option<&proto::CredentialStatus>,
    ) -> String {
        let now = render::now();
        let time = prost_types::Timestamp {
            seconds: now.seconds(),
            nanos: 0,
        };
        if self.output == StatusOutput::Json {
            let mut object = Map::new();
            object.insert("time".to_owned(), json!(time.to_string()));
            object.insert("credential".to_owned(), id.into());
            object.insert(
                "before".to_owned(),
                json!(before.map(|before| before.health.as_str())),
            );
            object.insert("status".to_owned(), json!(status.map(render::object)));
            return format!("{}\n", Value::from(object));
        }
        let changed = match (before, status) {
            (_, None) => "gone".to_owned(),
            (Some(before), _) if before.health != known.health => {
                format!("{} -> {}", before.health, known.health)
            }
            (Some(before), _) if before.generation != known.generation => {
                format!("{}, generation {}", known.health, known.generation)
            }
            _ => known.health.clone(),
        };
        let mut line = format!("{time}  {}  {changed}", plain(id));
        if status.is_some() && !known.last_error.is_empty() {
            line += &format!(": {}", plain(&known.last_error));
        }
        line + "\n"
    }
}

fn clock(now: crate::domain::time::Time) -> String {
    let seconds = now.seconds().rem_euclid(86_400);
    format!(
        "{:02}:{:02}:{:02} UTC",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Whether an event may have changed what is shown.
fn concerns(event: &proto::WatchEvent) -> bool {
    matches!(
        &event.event,
        Some(
            Event::CredentialRotated(_)
                | Event::CredentialHealthChanged(_)
                | Event::AccessEnded(_)
                | Event::EventsMissed(_)
        )
    )
}

/// Prints; `false`: the reader has gone away.
fn put(text: &str) -> Result<bool, Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::new(
            Kind::Failed,
            format!("cannot write to standard output: {error}"),
        )),
    }
}
