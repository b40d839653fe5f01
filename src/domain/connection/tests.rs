use super::*;
use crate::domain::id::Id;
use crate::domain::secret::{AuthorizationCode, Exposure, Secret};

const NOW: Time = Time::from_seconds(1_000_000);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn connection(flow: Flow) -> Connection {
    let phase = match flow {
        Flow::Device { .. } => Phase::Preparing,
        _ => Phase::Waiting,
    };
    Connection {
        id: Id::from_bytes([1; 16]),
        org: Id::from_bytes([2; 16]),
        member: Id::from_bytes([3; 16]),
        connector: "demo".to_owned(),
        provider: "tests".to_owned(),
        flow,
        url: "https://example.test/authorize".to_owned(),
        by: Beginner::Member(Id::from_bytes([3; 16])),
        actor: "mbr_1".to_owned(),
        attempt: 1,
        codes: 0,
        created: NOW,
        expires: NOW + LIFETIME,
        ended: None,
        phase,
    }
}

fn paste() -> Connection {
    connection(Flow::Paste {
        redirect_uri: "https://example.test/page".to_owned(),
        with_state: true,
    })
}

fn device() -> Connection {
    connection(Flow::Device {
        user_code: String::new(),
        complete_uri: None,
        interval: Duration::ZERO,
    })
}

fn prepared(expires_in: u64) -> Event {
    Event::Prepared {
        user_code: "ABCD-EFGH".to_owned(),
        url: "https://example.test/device".to_owned(),
        complete_uri: None,
        interval: seconds(5),
        expires_in: seconds(expires_in),
    }
}

fn failed() -> Event {
    Event::Failed {
        reason: Reason::ConnectionRefused,
        message: "no".to_owned(),
    }
}

#[test]
fn a_code_leads_to_an_account() {
    let mut now = paste();
    for event in [
        Event::Presented,
        Event::Answered,
        Event::Granted(Id::from_bytes([9; 16])),
    ] {
        now = now.on(event, NOW).unwrap();
    }
    assert_eq!(now.standing(NOW), Standing::Connected);
    assert_eq!(now.ended, Some(NOW));
}

#[test]
fn a_code_is_sent_once_and_counts() {
    let sent = paste().on(Event::Presented, NOW).unwrap();
    assert_eq!(
        sent.on(Event::Presented, NOW),
        Err(Unfit::State),
        "while it is under way"
    );
    let mut back = sent.on(Event::NotSent, NOW).unwrap();
    for _ in 1..MOST_CODES {
        back = back
            .on(Event::Presented, NOW)
            .unwrap()
            .on(Event::NotSent, NOW)
            .unwrap();
    }
    assert_eq!(back.on(Event::Presented, NOW), Err(Unfit::Codes));
}

#[test]
fn nothing_is_taken_after_its_time_but_what_was_under_way() {
    let over = NOW + LIFETIME;
    assert_eq!(paste().on(Event::Presented, over), Err(Unfit::Expired));
    assert_eq!(paste().standing(over), Standing::Expired);
    let sent = paste().on(Event::Presented, NOW).unwrap();
    assert_eq!(
        sent.on(Event::TimeOver, over),
        Err(Unfit::State),
        "an answer may be under way"
    );
    let staged = sent.on(Event::Answered, over).unwrap();
    assert!(staged.on(Event::Granted(Id::from_bytes([9; 16])), over).is_ok());
    assert_eq!(paste().on(Event::TimeOver, NOW), Err(Unfit::State));
    assert_eq!(paste().on(Event::TimeOver, over).unwrap().phase, Phase::Expired);
}

#[test]
fn what_ended_stays_as_it_ended_until_it_is_begun_anew() {
    let by = (Beginner::Member(Id::from_bytes([3; 16])), "mbr_2".to_owned());
    for end in [failed(), Event::Cancelled] {
        let ended = paste().on(Event::Presented, NOW).unwrap().on(end, NOW).unwrap();
        for event in [
            Event::Answered,
            Event::Presented,
            Event::Cancelled,
            failed(),
            Event::NotSent,
        ] {
            assert_eq!(ended.on(event, NOW), Err(Unfit::State));
        }
        let again = ended
            .again(ended.flow.clone(), "u".to_owned(), by.clone(), NOW + LIFETIME)
            .unwrap();
        assert_eq!((again.attempt, again.codes, again.ended), (2, 0, None));
        assert_eq!(again.standing(NOW + LIFETIME), Standing::Waiting);
        assert_eq!(again.actor, "mbr_2");
    }
    assert_eq!(
        paste().again(paste().flow, String::new(), by, NOW),
        Err(Unfit::State)
    );
}

#[test]
fn a_device_flow_waits_for_the_provider_and_takes_no_code() {
    let waiting = device().on(prepared(60), NOW).unwrap();
    assert_eq!(waiting.expires, NOW + seconds(60));
    assert_eq!(waiting.on(Event::Presented, NOW), Err(Unfit::State));
    assert_eq!(
        waiting.on(Event::Answered, NOW + seconds(70)).unwrap().phase,
        Phase::Staged
    );
    let long = device().on(prepared(1_000_000), NOW).unwrap();
    assert_eq!(long.expires, NOW + DEVICE_LIFETIME);
    assert_eq!(
        paste().on(Event::Answered, NOW),
        Err(Unfit::State),
        "nothing was sent"
    );
}

#[test]
fn a_late_grant_after_giving_up_connects_nothing() {
    let given_up = device()
        .on(prepared(60), NOW)
        .unwrap()
        .on(Event::Cancelled, NOW)
        .unwrap();
    assert_eq!(given_up.on(Event::Answered, NOW), Err(Unfit::State));
    let staged = paste()
        .on(Event::Presented, NOW)
        .unwrap()
        .on(Event::Answered, NOW)
        .unwrap();
    assert_eq!(
        staged.on(Event::Cancelled, NOW),
        Err(Unfit::State),
        "its tokens are here"
    );
}

type Read = Result<(String, Option<String>), &'static str>;

fn read(text: &str) -> Read {
    fn shown<K>(secret: &Secret<K>) -> String {
        secret.expose_str(Exposure::Inspect).unwrap().to_owned()
    }
    match pasted(&Secret::<AuthorizationCode>::from(text.to_owned())) {
        Ok(read) => Ok((shown(&read.code), read.state.as_ref().map(shown))),
        Err(Unreadable::Empty) => Err("empty"),
        Err(Unreadable::TooLong) => Err("too long"),
        Err(Unreadable::Characters) => Err("characters"),
        Err(Unreadable::Refused {
            error,
            description,
            state,
        }) => {
            assert_eq!(
                (error.as_str(), description.as_str()),
                ("access_denied", "no thanks")
            );
            assert_eq!(state.as_ref().map(shown).as_deref(), Some("s"));
            Err("refused")
        }
    }
}

fn both(code: &str, state: &str) -> Read {
    Ok((code.to_owned(), Some(state.to_owned())))
}

#[test]
fn codes_are_read_as_people_paste_them() {
    assert_eq!(read("abc#xyz"), both("abc", "xyz"));
    assert_eq!(read("  ab\r\n c#x yz\n"), both("abc", "xyz"));
    assert_eq!(read("abc"), Ok(("abc".to_owned(), None)));
    assert_eq!(read("abc#"), Ok(("abc".to_owned(), None)));
    assert_eq!(
        read("http://localhost:1455/cb?state=x%20y&code=a%2Fb#frag"),
        both("a/b", "x y")
    );
    assert_eq!(read("HTTPS://h/cb?code=a&state=s"), both("a", "s"));
    let refused = "http://h/?error=access_denied&error_description=no+thanks&state=s";
    assert_eq!(read(refused), Err("refused"));
}

#[test]
fn what_is_no_code_is_told_apart() {
    assert_eq!(read(""), Err("empty"));
    assert_eq!(read("#state"), Err("empty"));
    assert_eq!(read("http://h/cb?state=s"), Err("empty"));
    assert_eq!(read("caf\u{e9}"), Err("characters"));
    assert_eq!(read("a\u{1b}b"), Err("characters"));
    assert_eq!(read("http://h/cb?code=a%1bb"), Err("characters"));
    assert_eq!(read(&"a".repeat(pasted::MAX_PASTED + 1)), Err("too long"));
}
