//! The server's process, from both sides.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use credbroker::cli::client::Trust;
use credbroker::clock::{Clock as _, SystemClock};
use credbroker::config::Config;
use credbroker::telemetry;

use super::load::Run;
use super::support::broker::{MEMBER, ORG};
use super::support::{Caller, Enrolled, NewKey, Options, TestBroker};
use super::{SERVE, echo};

/// How many processor ticks `/proc` counts in a second. It is 100 whatever the kernel's own rate.
const TICKS: f64 = 100.0;

/// Names a command that the server is run by, such as `valgrind --tool=callgrind`.
const PROFILER: &str = "CREDBROKER_BENCH_PROFILER";

/// Asks the server to start over.
const RESTART: &str = "restart";

/// Room for a document with every profile an org may have.
const CONFIG: &str = "[listen]\nmax_message_bytes = 4194304\n";

/// Runs as the server: says where it listens, and serves until its input ends.
pub async fn serve() {
    let config = Config::parse("", std::path::Path::new("credbrokerd.toml"), &|_| None).unwrap();
    // With the log set up as a daemon has it, so that a request's span costs what it does there.
    let _telemetry = telemetry::init(&config.log).unwrap();
    let mut broker = TestBroker::start_with(Options {
        config: CONFIG.to_owned(),
        ..Options::default()
    })
    .await;
    let echo = echo::start(&broker.broker).await;
    println!(
        "{} {} {} {}",
        broker.address,
        echo,
        broker.pin,
        broker.operator_token()
    );
    while read().await == RESTART {
        let (options, dir, token) = broker.stop().await;
        let clock = SystemClock::new();
        let start = clock.monotonic();
        broker = TestBroker::start_over(options, dir, token).await;
        println!("{} {}", broker.address, (clock.monotonic() - start).as_micros());
    }
    broker.stop().await;
}

/// The next line of the input; empty at its end.
async fn read() -> String {
    let line = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let _ = std::io::stdin().lock().read_line(&mut line);
        line.trim().to_owned()
    });
    line.await.unwrap()
}

/// The server, as its clients see it.
pub struct Server {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub broker: String,
    pub echo: String,
    pin: String,
    operator_token: String,
}

/// An agent with an identity of its own, and its task.
pub struct Agent {
    pub enrolled: Enrolled,
    pub task: String,
}

impl Server {
    pub async fn start() -> Self {
        let own = std::env::current_exe().unwrap();
        let mut command = match std::env::var(PROFILER) {
            Ok(profiler) => {
                let mut words = profiler.split_whitespace();
                let mut command = Command::new(words.next().expect("the profiler's name"));
                command.args(words).arg(own);
                command
            }
            Err(_) => Command::new(own),
        };
        let mut process = command
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let [broker, echo, pin, operator_token] = words(&mut output);
        Self {
            input: process.stdin.take().unwrap(),
            process,
            output,
            broker,
            echo,
            pin,
            operator_token,
        }
    }

    /// Stops the broker and starts it over its folder, in the same process; how long the start took.
    pub fn restart(&mut self) -> Duration {
        writeln!(self.input, "{RESTART}").unwrap();
        let [broker, micros] = words(&mut self.output);
        self.broker = broker;
        Duration::from_micros(micros.parse().unwrap())
    }

    pub fn stop(mut self) {
        let _ = self.input.write_all(b"\n");
        let _ = self.process.wait();
    }

    pub fn trust(&self) -> Trust {
        Trust::Pin(self.pin.parse().unwrap())
    }

    pub async fn operator(&self) -> Caller {
        let token = Some(self.operator_token.as_str());
        Caller::connect(&self.broker, self.trust(), None, token).await
    }

    /// Makes the org, with an API key.
    pub async fn prepare(&self) -> Caller {
        let operator = self.operator().await;
        operator.make_org(ORG).await;
        operator.set_key(ORG, "", &"k".repeat(100)).await;
        operator
    }

    /// Makes agents, each with a task of its own; they all resolve the org's API key.
    pub async fn agents(&self, count: usize) -> Vec<Agent> {
        let operator = self.prepare().await;
        let mut tasks = Vec::with_capacity(count);
        for _ in 0..count {
            tasks.push(operator.make_task(ORG, MEMBER).await);
        }
        self.enrolled(&operator, tasks).await
    }

    /// Enrolls an agent for each of these tasks.
    pub async fn enrolled(&self, operator: &Caller, tasks: Vec<String>) -> Vec<Agent> {
        let anonymous = Caller::connect(&self.broker, self.trust(), None, None).await;
        let mut agents = Vec::with_capacity(tasks.len());
        for task in tasks {
            let token = operator.enrollment_token(ORG, &task).await;
            let key = NewKey::generate();
            let request = credbroker::proto::EnrollRequest {
                token: Some(credbroker::proto::Secret { value: token }),
                csr_der: key.csr(),
                attributes: Default::default(),
            };
            let answer = anonymous.enrollment().enroll(request).await.unwrap();
            let enrolled = Enrolled::new(answer.into_inner(), &key);
            agents.push(Agent { enrolled, task });
        }
        agents
    }

    /// Runs `load`, and adds what the server spent on it.
    pub async fn measured(&self, load: impl Future<Output = Run>) -> Run {
        let before = self.cpu();
        let mut run = load.await;
        run.server_cpu = self.cpu() - before;
        run
    }

    /// What the server's process has used of the processors: `utime` and `stime` of `proc(5)`.
    fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.process.id());
        let stat = std::fs::read_to_string(path).unwrap();
        // Behind the name, which is in parentheses and may hold anything.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11..13]
            .iter()
            .map(|field| field.parse::<f64>().unwrap())
            .sum();
        Duration::from_secs_f64(ticks / TICKS)
    }
}

/// The words of the server's next line.
fn words<const COUNT: usize>(output: &mut impl BufRead) -> [String; COUNT] {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    words.try_into().expect("the server does not answer")
}
