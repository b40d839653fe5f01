//! Credit, entitlements and spend by the command.

use serde_json::json;

use super::*;

// req: A2 K6
#[tokio::test(flavor = "multi_thread")]
async fn credit_is_added_exactly_and_shown() {
    let scene = Scene::new().await;
    let id = "--request-id 00000000-0000-4000-8000-000000000001";
    let added = scene
        .json(&format!("credit add {ORG} 25.10 --note invoice {id}"))
        .await;
    assert_eq!(
        (&added["duplicate"], &added["account"]["balance_micros"]),
        (&json!(false), &json!(25_100_000))
    );
    let again = scene
        .run(&format!("credit add {ORG} 25.10 --note invoice {id}"))
        .await;
    assert!(again.good().contains("25.10"));
    scene.run(&format!("credit add {ORG} -100 --micros")).await.good();
    let shown = scene.json(&format!("credit show {ORG}")).await;
    assert_eq!(shown["balance"], "25.0999");
    assert_eq!(
        (&shown["subscription"], &shown["shared_per_day"]),
        (&json!("active"), &json!(null))
    );
    for wrong in ["1e3", "0.0000001", "25,10", "99999999999999999999"] {
        scene
            .run(&format!("credit add {ORG} {wrong}"))
            .await
            .bad(64, &["amount"]);
    }
    scene
        .run(&format!("credit add {ORG} 1.5 --micros"))
        .await
        .bad(64, &["millionths"]);
}

// req: A2 A5 E9 K6
#[tokio::test(flavor = "multi_thread")]
async fn what_an_org_is_entitled_to_is_changed_with_the_org() {
    let scene = Scene::new().await;
    let line = format!("org update {ORG} --subscription inactive --metered withdrawn --shared-per-day 7");
    let account = scene.json(&line).await;
    assert_eq!(
        (
            &account["subscription"],
            &account["metered"],
            &account["shared_per_day"]
        ),
        (&json!("inactive"), &json!("withdrawn"), &json!(7))
    );
    let both = format!("org update {ORG} --display-name New --shared-per-day default");
    let both = scene.json(&both).await;
    assert_eq!(
        (&both["org"]["display_name"], &both["account"]["shared_per_day"]),
        (&json!("New"), &json!(null))
    );
    assert_eq!(both["account"]["metered"], "withdrawn");
    scene
        .run(&format!("org update {ORG}"))
        .await
        .bad(64, &["--display-name"]);
}

// req: E12 K6 K7
#[tokio::test(flavor = "multi_thread")]
async fn spend_is_a_table_bars_csv_or_json() {
    let scene = Scene::new().await;
    let operator = scene.broker.operator().await;
    operator.set_key(ORG, "", "the-orgs-own-key-000").await;
    let (_, key) = operator.make_api_key(ORG).await;
    let automation = scene.broker.caller(Some(&key)).await;
    for _ in 0..3 {
        let task = operator.make_task(ORG, MEMBER).await;
        automation.resolve(&task).await.unwrap();
    }
    let rows = scene.run("spend --by member,mode").await.good();
    let rows = super::table(&rows);
    assert_eq!(rows[0], ["MEMBER", "MODE", "DISPATCHES", "EVENTS", "COST"]);
    assert_eq!(rows[1], [MEMBER, "byok", "3", "0", "0.00"]);
    let sums = scene.json("spend --by project --by day").await;
    assert_eq!(
        (&sums["rows"][0]["dispatches"], &sums["total"]["dispatches"]),
        (&json!(3), &json!(3))
    );
    assert_eq!(sums["rows"][0]["day"], sums["to_day"]);
    let csv = scene.run("spend -o csv").await.good();
    assert_eq!(csv, "mode,dispatches,events,micros\r\nbyok,3,0,0\r\n");
    let plot = scene.run("spend --plot").await.good();
    let words = words(&plot);
    assert_eq!(words[..2], ["byok", "3"]);
    assert!(words[2].chars().all(|c| c == '#' || c == '█'), "{plot}");
    let none = scene
        .run("spend --mode shared --from 2024-01-01 --to 2024-02-01 -o csv")
        .await
        .good();
    assert_eq!(none.lines().count(), 1);
    scene.run("spend --from 2024-01-01").await.bad(64, &["366"]);
    scene.run("spend --mode free").await.bad(64, &["mode"]);
}
