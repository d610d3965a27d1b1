use serde_json::json;
use tidegate::config::model::{self, Secret};
use tidegate::scaler::{Event, HttpClient, Notifier, Watch};

use super::http::{Reply, Server, local, ok, until};

fn events(count: u32) -> Vec<Event> {
    let settings = model::Notify { large_change: 1, ..model::Notify::default() };
    let mut watch = Watch::new(&settings);
    let step = |at: u32| {
        let decision =
            tidegate::scale::Decision { at: f64::from(at), desired: at + 1, apply: true, ..Default::default() };
        tidegate::admin::scaling::Record {
            id: format!("d{at}"),
            pool: "tools".to_owned(),
            decision,
            ..Default::default()
        }
    };
    (0..count).flat_map(|at| watch.decided(&step(at))).collect()
}

#[test]
fn events_are_told_in_their_order_and_tried_again() {
    local(async {
        let server = Server::start([Reply::Status(500, String::new()), ok("")]).await;
        let settings = model::Notify {
            webhook: Some(server.url()),
            secret: Some(Secret::new("key".to_owned())),
            ..model::Notify::default()
        };
        assert!(Notifier::new(&model::Notify::default(), &HttpClient::default()).is_none());
        let notifier = Notifier::new(&settings, &HttpClient::default()).unwrap();
        notifier.tell(events(2));
        until("both were told", async || (server.count() == 3).then_some(())).await;
        let asked = server.asked.borrow();
        let ids: Vec<_> = asked.iter().map(|one| one.json()["decision_id"].clone()).collect();
        assert_eq!(ids, ["d0", "d0", "d1"]);
        let first = asked[0].json();
        assert_eq!(
            (&first["event"], &first["pool"], &first["change"]),
            (&json!("large_change"), &json!("tools"), &json!([0, 1]))
        );
        assert!(asked[0].header("x-tidegate-signature").unwrap().starts_with("sha256="));
    });
}

#[test]
fn a_silent_webhook_holds_nobody_up_and_the_newest_events_are_kept() {
    local(async {
        let server = Server::start([Reply::Status(500, String::new())]).await;
        let settings = model::Notify { webhook: Some(server.url()), ..model::Notify::default() };
        let notifier = Notifier::new(&settings, &HttpClient::default()).unwrap();
        notifier.tell(events(1));
        until("the first is being told", async || (server.count() > 0).then_some(())).await;
        notifier.tell(events(1000));
        server.answers([ok("")]);
        until("the rest was told", async || {
            server.asked.borrow().iter().any(|one| one.json()["decision_id"] == "d999").then_some(())
        })
        .await;
        let told = server.asked.borrow().iter().filter(|one| one.json()["decision_id"] != "d0").count();
        assert_eq!(told, 256);
    });
}
