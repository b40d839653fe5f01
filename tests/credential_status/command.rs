//! `credbroker credential status`, as it is read: by people, with the clock standing still, and by programs.

use credbroker::cli::operator::credential::status::table;
use credbroker::cli::screen::Style;
use credbroker::domain::time::Time;
use prost_types::Timestamp;
use proto::CredentialKind;

use super::*;
use crate::support::broker::MEMBER;
use crate::support::client::owner;
use crate::support::provider::{ACCESS_MARK, REFRESH_MARK, Reply};
use crate::support::scene::Scene;
use crate::user::{SPAWNING, User};

const NOW: i64 = 1_800_000_000;
const WIDE: Style = Style {
    width: None,
    colour: false,
    unicode: true,
};

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: NOW + seconds,
        nanos: 0,
    })
}

fn made(number: u8, of: &str, health: CredentialHealth, last_error: &str) -> proto::CredentialStatus {
    let connector = if health == CredentialHealth::Ok {
        ""
    } else {
        "claude"
    };
    let kind = match connector {
        "" => CredentialKind::ApiKey,
        _ => CredentialKind::OauthGrant,
    };
    proto::CredentialStatus {
        credential: Some(proto::Credential {
            id: format!("crd_{number}"),
            owner: Some(owner(of)),
            provider: "anthropic".to_owned(),
            kind: kind as i32,
            connector: connector.to_owned(),
            generation: 7,
            expire_time: (!connector.is_empty()).then(|| at(4 * 3_600)).flatten(),
            refresh_time: at(-4 * 3_600),
            health: health as i32,
            last_error: last_error.to_owned(),
            ..Default::default()
        }),
        state_since: at(-180),
        dependents: 3,
        ..Default::default()
    }
}

fn three() -> Vec<proto::CredentialStatus> {
    let mut all = vec![
        made(1, "", CredentialHealth::Ok, ""),
        proto::CredentialStatus {
            subscription: "max".to_owned(),
            tier: "20x".to_owned(),
            ..made(2, "alex", CredentialHealth::Expiring, "")
        },
        proto::CredentialStatus {
            next_step: "sign in again: credbroker account connect claude".to_owned(),
            cause: "answer-lost".to_owned(),
            dependents_truncated: true,
            ..made(
                3,
                "billie",
                CredentialHealth::GrantLost,
                "invalid_grant: used\u{1b}[2J twice",
            )
        },
    ];
    all.sort_by_cached_key(table::urgency);
    all
}

// req: N9
#[test]
fn the_worst_comes_first_with_what_to_do_about_it() {
    let text = table::table(&three(), WIDE, Time::from_seconds(NOW));
    let expected = "\
STATE       SINCE   OWNER      PROVIDER   KIND         EXPIRES  REFRESHED  GEN  PLAN     LEASES  CREDENTIAL
grant-lost  3m ago  billie     anthropic  oauth-grant  in 4h    4h ago     7             3+      crd_3
  invalid_grant: used[2J twice
  → sign in again: credbroker account connect claude
expiring    3m ago  alex       anthropic  oauth-grant  in 4h    4h ago     7    max 20x  3       crd_2
ok          3m ago  (the org)  anthropic  api-key               4h ago     7             3       crd_1
";
    assert_eq!(text, expected);
    let ascii = Style {
        unicode: false,
        ..WIDE
    };
    assert!(table::table(&three(), ascii, Time::from_seconds(NOW)).is_ascii());
    let none = table::table(&[], WIDE, Time::from_seconds(NOW));
    assert!(none.starts_with("STATE") && none.lines().count() == 1, "{none}");
}

// req: N9
#[test]
fn colours_are_for_terminals_and_narrow_ones_show_less() {
    let colour = Style { colour: true, ..WIDE };
    let text = table::table(&three(), colour, Time::from_seconds(NOW));
    for (colour, state) in [("31", "grant-lost"), ("36", "expiring"), ("32", "ok")] {
        assert!(
            text.contains(&format!("\u{1b}[{colour}m{state}\u{1b}[0m")),
            "{text}"
        );
    }
    let narrow = Style {
        width: Some(61),
        ..WIDE
    };
    let text = table::table(&three(), narrow, Time::from_seconds(NOW));
    let header: Vec<_> = text.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(
        header,
        ["STATE", "OWNER", "PROVIDER", "EXPIRES", "LEASES", "CREDENTIAL"]
    );
    assert!(text.lines().all(|line| line.chars().count() <= 61), "{text}");
    let tiny = Style {
        width: Some(1),
        ..WIDE
    };
    assert!(table::table(&three(), tiny, Time::from_seconds(NOW)).contains("crd_3"));
}

// req: N9 C6
#[test]
fn one_is_shown_with_everything_known_of_it_and_who_depends_on_it() {
    let status = proto::CredentialStatus {
        consumption: vec![proto::ConsumptionFigure {
            label: "tokens left".to_owned(),
            value: "12".to_owned(),
        }],
        consumption_time: at(-60),
        last_error_time: at(-180),
        ..three().remove(0)
    };
    let leases = [proto::CredentialDependent {
        lease: "lse_1".to_owned(),
        holder: "agt_1".to_owned(),
        task: "tsk_1".to_owned(),
        member: "mbr_1".to_owned(),
        generation: 6,
        expire_time: at(1_800),
    }];
    let text = table::details(&status, &leases, WIDE, Time::from_seconds(NOW));
    let expected = "\
state             grant-lost
id                crd_3
owner             billie
provider          anthropic
kind              oauth-grant
connector         claude
last error        invalid_grant: used[2J twice
generation        7
refreshed         4h ago
expires           in 4h
state since       3m ago
last error time   3m ago
cause             answer-lost
next step         sign in again: credbroker account connect claude
consumption       tokens left: 12
consumption time  1m ago
dependents        3+

LEASE  HELD BY  TASK   GEN  EXPIRES
lse_1  agt_1    tsk_1  6    in 30m
";
    assert_eq!(text, expected);
    let colour = Style { colour: true, ..WIDE };
    let text = table::details(&status, &leases, colour, Time::from_seconds(NOW));
    assert!(
        text.starts_with("state             \u{1b}[31mgrant-lost\u{1b}[0m\n"),
        "{text}"
    );
}

/// A broker with a lost grant and a key, and a user with a context for it.
pub(crate) async fn desk() -> (Scene, User) {
    let starting = SPAWNING.write().await;
    let (scene, _) = Scene::leased("", "").await;
    drop(starting);
    let user = User::new();
    let address = scene.broker.address.to_string();
    user.connect(&address, &scene.broker.pin, ORG, scene.broker.operator_token())
        .await;
    (scene, user)
}

// req: N9 C5 C6
#[tokio::test(flavor = "multi_thread")]
async fn the_command_tells_people_and_programs_and_no_secrets() {
    let (scene, user) = desk().await;
    let key = scene
        .operator
        .set_key(ORG, "", "a-key-of-the-org-0123456789")
        .await
        .id;
    scene.expire();
    scene.provider.next(Reply::HangUp { rotated: true });
    scene.resolve().await.unwrap_err();
    scene.clock.advance(std::time::Duration::from_secs(10));
    scene.resolve().await.unwrap_err();
    let run = async |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let out = user.credbroker(&words).await.good();
        let (marks, key) = ([ACCESS_MARK, REFRESH_MARK], "a-key-of-the-org-0123456789");
        assert!(
            marks.iter().all(|mark| !out.contains(mark)) && !out.contains(key),
            "{out}"
        );
        out
    };
    let text = run("credential status").await;
    assert!(!text.contains('\u{1b}'), "no colours in a pipe: {text}");
    let states: Vec<_> = text
        .lines()
        .skip(1)
        .filter(|line| !line.starts_with(' '))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(states, ["grant-lost", "ok"], "{text}");
    assert!(
        text.contains(MEMBER) && text.contains("refresh token already used"),
        "{text}"
    );

    let list: serde_json::Value = serde_json::from_str(&run("credential status -o json").await).unwrap();
    let told: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["health"], &one["id"]))
        .collect();
    assert_eq!(told[0], (&"grant-lost".into(), &scene.credential.as_str().into()));
    assert_eq!(told[1], (&"ok".into(), &key.as_str().into()));
    let one = run("credential status --health ok,expiring -o json").await;
    assert!(one.contains(&key) && !one.contains(&scene.credential), "{one}");
    let of_member = run(&format!("credential status --member {MEMBER} -o json")).await;
    assert!(!of_member.contains(&key) && of_member.contains(&scene.credential));
    let detail = run(&format!("credential status {}", scene.credential)).await;
    assert!(
        detail.starts_with("state") && detail.contains("HELD BY") && detail.contains("agt_"),
        "{detail}"
    );
    let detail: serde_json::Value =
        serde_json::from_str(&run(&format!("credential status {} -o json", scene.credential)).await).unwrap();
    assert_eq!(detail["leases"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&detail["cause"], &detail["dependents"]),
        (&"answer-lost".into(), &1.into())
    );
}
