//! `credbroker`, run as people and agents run it, beside a broker of this process.

use crate::scene::Office;
use crate::support::broker::{ENVIRONMENT, ORG, PROJECT};
use crate::user::{Ended, SPAWNING, User};

/// A user with a context for the broker, and an identity `id` that has one task.
pub(crate) struct Desk {
    user: User,
    /// The lease of `id`.
    pub(crate) lease: String,
}

impl Desk {
    /// With an agent of a task of the member `m0`, and its first resolution.
    pub(crate) async fn set(office: &Office) -> Self {
        let user = User::new();
        let (address, pin) = (office.broker.address.to_string(), &office.broker.pin);
        let at = format!("--address {address} --ca-pin {pin}");
        let mut desk = Self {
            user,
            lease: String::new(),
        };
        let add = format!("context add test {at} --org {ORG}");
        desk.run_with(&add, office.broker.operator_token()).await.good();
        let task = office.task(0).await;
        let mint = format!("enrollment-token create --project {PROJECT} --environment {ENVIRONMENT}");
        let token = desk.run(&format!("{mint} --task {task} -o value")).await.good();
        desk.run_with(&format!("enroll {at} --identity id"), &token)
            .await
            .good();
        let resolved = desk.run("resolve --identity id -o json").await.json();
        desk.lease = resolved["lease"]["id"].as_str().unwrap().to_owned();
        desk
    }

    pub(crate) async fn run(&self, line: &str) -> Ended {
        self.run_with(line, "").await
    }

    pub(crate) async fn run_with(&self, line: &str, input: &str) -> Ended {
        let words: Vec<_> = line.split_whitespace().collect();
        self.user.credbroker_with(&words, input).await
    }

    /// `lease reject`, with what the provider said.
    pub(crate) async fn reject(&self, generation: u64, said: &str, more: &str) -> Ended {
        let line = format!(
            "lease reject {} --generation {generation} --identity id {more}",
            self.lease
        );
        let mut words: Vec<_> = line.split_whitespace().collect();
        words.extend(["--provider-message", said]);
        self.user.credbroker(&words).await
    }
}

/// An office whose store no program that another test starts holds open.
pub(crate) async fn office(config: &str) -> Office {
    let starting = SPAWNING.write().await;
    let office = Office::start(1, config).await;
    drop(starting);
    office
}

// req: B7 C5
#[tokio::test(flavor = "multi_thread")]
async fn lease_reject_tells_the_new_generation_or_what_to_do() {
    let office = office("[refresh]\nrejections_in_a_row = 1\n").await;
    let desk = Desk::set(&office).await;
    let told = desk.reject(2, "401", "").await.good();
    assert!(
        told.starts_with("generation 3 replaces 2: the provider issued it now\n"),
        "{told}"
    );
    let told = desk.reject(2, "401", "-o json").await.json();
    assert_eq!(
        (
            &told["lease"]["generation"],
            &told["rejected_generation"],
            &told["exchanged"]
        ),
        (&3.into(), &2.into(), &false.into())
    );
    let failed = desk
        .reject(3, "403 this organization has been disabled", "")
        .await;
    let told = failed.bad(
        1,
        &[
            "reason: REAUTH_FAILED\n",
            "disabled",
            "what to do: ",
            "sign in again",
        ],
    );
    assert_eq!(
        told.matches("organization has been disabled").count(),
        1,
        "once:\n{told}"
    );
    let shown = desk
        .run(&format!("credential show {}", office.grants[0]))
        .await
        .good();
    assert!(shown.contains("each new token was rejected"), "{shown}");

    office.minutes(10);
    office.providers[0].answer(429, r#"{"error":"slow_down","error_description":"not so fast"}"#);
    let failed = desk.reject(3, "401", "").await;
    failed.bad(
        69,
        &["reason: REFRESH_UNAVAILABLE\n", "not so fast", "try again after"],
    );
    office.minutes(10);
    office.providers[0].answer(
        400,
        r#"{"error":"invalid_grant","error_description":"signed out"}"#,
    );
    let failed = desk.reject(3, "401", "").await;
    failed.bad(1, &["reason: REAUTH_REQUIRED\n", "signed out", "what to do: "]);
}
