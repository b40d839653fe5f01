//! Cost events: one a dispatch, none for what was refused or asked again; listed and streamed.

use credbroker::proto::stream_cost_events_response::Event;
use credbroker::proto::{self, CostFilter, StreamCostEventsRequest};
use futures_util::future::join_all;
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::scene::{Scene, grant};
use crate::support::broker::{MEMBER, ORG, PROJECT};
use crate::support::{Caller, Options, reason};
use crate::{PATIENCE, Shop, cost_events};

type Stream = Streaming<proto::StreamCostEventsResponse>;

async fn stream(caller: &Caller, after_position: Option<u64>) -> Stream {
    let request = StreamCostEventsRequest {
        org: ORG.to_owned(),
        after_position,
        ..Default::default()
    };
    caller
        .billing()
        .stream_cost_events(request)
        .await
        .unwrap()
        .into_inner()
}

async fn next(stream: &mut Stream) -> Result<Event, Status> {
    let message = timeout(PATIENCE, stream.message())
        .await
        .expect("the stream is silent")?;
    Ok(message.expect("a stream ends with a reason").event.unwrap())
}

/// The next event; progress is passed over.
async fn next_event(stream: &mut Stream) -> Result<proto::CostEvent, Status> {
    loop {
        if let Event::CostEvent(event) = next(stream).await? {
            return Ok(event);
        }
    }
}

// req: E12
#[tokio::test]
async fn a_dispatch_leaves_one_event_and_what_is_asked_again_or_refused_none() {
    let shop = Shop::open(Options::default()).await;
    let (operator, automation) = (&shop.operator, shop.automation().await);
    let task = operator.make_task(ORG, MEMBER).await;
    let storm = join_all((0..20).map(|_| automation.resolve(&task))).await;
    let lease = storm[0].as_ref().unwrap().lease.clone().unwrap();
    assert!(
        storm
            .iter()
            .all(|answer| answer.as_ref().unwrap().lease.as_ref().unwrap().id == lease.id)
    );
    let enrolled = shop.broker.enroll(operator, &task).await;
    let agent = shop.broker.agent(&enrolled).await;
    let theirs = agent.resolve(&task).await.unwrap().lease.unwrap();
    let ended = operator.make_task(ORG, MEMBER).await;
    let end = proto::EndTaskRequest {
        org: ORG.to_owned(),
        task: ended.clone(),
    };
    operator.tasks().end_task(end).await.unwrap();
    assert_eq!(
        reason(&automation.resolve(&ended).await.unwrap_err()),
        "TASK_ENDED"
    );

    let events = cost_events(operator, None).await;
    let told: Vec<_> = events.iter().map(|event| event.lease.as_str()).collect();
    assert_eq!(told, [&lease.id, &theirs.id], "one for each holder");
    let event = &events[1];
    assert_eq!(
        (event.task.as_str(), event.holder.as_str()),
        (task.as_str(), enrolled.agent.as_str())
    );
    assert_eq!(
        (event.mode(), event.provider.as_str()),
        (proto::AuthMode::Byok, "demo")
    );
    assert!(event.project.starts_with("prj_") && event.member.starts_with("mbr_"));

    let only = |filter: CostFilter| cost_events(operator, Some(filter));
    for (filter, count) in [
        (
            CostFilter {
                project: PROJECT.to_owned(),
                member: MEMBER.to_owned(),
                ..Default::default()
            },
            2,
        ),
        (
            CostFilter {
                mode: proto::AuthMode::Byok as i32,
                provider: "demo".to_owned(),
                ..Default::default()
            },
            2,
        ),
        (
            CostFilter {
                mode: proto::AuthMode::Shared as i32,
                ..Default::default()
            },
            0,
        ),
        (
            CostFilter {
                provider: "second".to_owned(),
                ..Default::default()
            },
            0,
        ),
    ] {
        assert_eq!(only(filter.clone()).await.len(), count, "{filter:?}");
    }
}

// req: E12
#[tokio::test]
async fn members_see_what_ran_for_them_and_keys_what_is_in_their_projects() {
    let scene = Scene::start().await;
    let operator = &scene.operator;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let kim = scene
        .member_with(ORG, "kim", grant(proto::Role::Member, ""))
        .await;
    let auditor = scene
        .member_with(ORG, "ada", grant(proto::Role::Auditor, ""))
        .await;
    let (_, key) = operator.make_broad_api_key(ORG).await;
    let automation = scene.broker.caller(Some(&key)).await;
    for member in [MEMBER, "kim", "kim"] {
        let task = operator.make_task(ORG, member).await;
        automation.resolve(&task).await.unwrap();
    }
    let request = proto::CreateProjectRequest {
        org: ORG.to_owned(),
        name: "other".to_owned(),
        ..Default::default()
    };
    operator.directory().create_project(request).await.unwrap();
    let request = proto::CreateApiKeyRequest {
        org: ORG.to_owned(),
        groups: vec![proto::ApiKeyGroup::Tasks as i32],
        projects: vec!["other".to_owned()],
        ..Default::default()
    };
    let made = operator
        .access()
        .create_api_key(request)
        .await
        .unwrap()
        .into_inner();
    let elsewhere = scene.broker.caller(Some(&made.token.unwrap().value)).await;
    for (caller, seen) in [(&kim, 2), (&auditor, 3), (&automation, 3), (&elsewhere, 0)] {
        assert_eq!(cost_events(caller, None).await.len(), seen);
        assert_eq!(crate::total(caller).await.dispatches, seen as u64);
        let mut stream = stream(caller, Some(0)).await;
        for _ in 0..seen {
            next_event(&mut stream).await.unwrap();
        }
    }
    let others = CostFilter {
        member: MEMBER.to_owned(),
        ..Default::default()
    };
    assert_eq!(cost_events(&kim, Some(others)).await, []);
}

// req: E12 N1
#[tokio::test]
async fn a_stream_from_a_cursor_has_each_event_once_also_across_a_restart() {
    let shop = Shop::open(Options::default()).await;
    let mut expected: Vec<_> = shop.dispatch(3).await.into_iter().map(|lease| lease.id).collect();
    let mut told = Vec::new();
    let mut live = stream(&shop.operator, Some(0)).await;
    assert!(matches!(next(&mut live).await, Ok(Event::Progress(progress)) if progress.first_position == 1));
    let mut cursor = 0;
    for _ in 0..2 {
        let event = next_event(&mut live).await.unwrap();
        cursor = event.position;
        told.push(event.lease);
    }
    let shop = shop.restart().await;
    let ended = loop {
        if let Err(status) = next(&mut live).await {
            break status;
        }
    };
    assert_eq!(reason(&ended), "SHUTTING_DOWN");
    // The third was dispatched before, and one more comes while it is streamed.
    let mut live = stream(&shop.operator, Some(cursor)).await;
    let dispatched = shop.dispatch(1);
    let heard = async {
        for _ in 0..2 {
            told.push(next_event(&mut live).await.unwrap().lease);
        }
    };
    let (more, ()) = tokio::join!(dispatched, heard);
    expected.extend(more.into_iter().map(|lease| lease.id));
    assert_eq!(told, expected);
    let listed: Vec<_> = cost_events(&shop.operator, None).await;
    assert_eq!(
        listed.into_iter().map(|event| event.lease).collect::<Vec<_>>(),
        expected
    );
}
