//! One leads, and only one.

use std::time::{Duration, Instant};

use serde_json::json;
use tidegate::scaler::kubernetes::Lease;
use tidegate::scaler::leader::{Election, Standing};

use super::cluster::*;
use super::door::Door;
use super::support::until;
use super::world::{key, right};

/// For those who wait for its end.
const LEASE: Duration = Duration::from_secs(2);
/// For those who must not see it, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

fn candidate(cluster: &Cluster, door: &Door, identity: &str) -> Lease {
    of_length(LONG, cluster, door, identity)
}

fn short(cluster: &Cluster, door: &Door, identity: &str) -> Lease {
    of_length(LEASE, cluster, door, identity)
}

fn of_length(length: Duration, cluster: &Cluster, door: &Door, identity: &str) -> Lease {
    let kubeconfig = cluster.kubeconfig_for(&door.url(), "", "token: let-me-in");
    Lease::new(cluster.access(&kubeconfig), "tidegate", identity, length)
}

async fn won(candidate: &mut Lease) -> Option<Standing> {
    candidate.campaign().await.ok().filter(|standing| standing.leads)
}

fn record(cluster: &Cluster) -> serde_json::Value {
    cluster.object("leases", "tidegate")["spec"].clone()
}

#[tokio::test]
async fn the_first_leads_and_the_second_knows_who() {
    let cluster = Cluster::new().await;
    let (mut a, mut b) = (candidate(&cluster, &cluster.door, "a"), candidate(&cluster, &cluster.door, "b"));
    let leads = a.campaign().await.unwrap();
    assert_eq!(leads, Standing { leads: true, leader: Some("a".to_owned()), generation: 1 });
    assert_eq!(b.campaign().await.unwrap(), Standing { leads: false, ..leads.clone() });
    let before = record(&cluster);
    assert_eq!(
        (&before["holderIdentity"], &before["leaseDurationSeconds"], &before["leaseTransitions"]),
        (&json!("a"), &json!(60), &json!(1))
    );
    assert_eq!(a.campaign().await.unwrap(), leads, "renewed");
    let after = record(&cluster);
    assert_eq!((&after["acquireTime"], &after["leaseTransitions"]), (&before["acquireTime"], &json!(1)));
    assert_ne!(after["renewTime"], before["renewTime"]);
}

#[tokio::test]
async fn a_dead_leader_is_followed_after_the_lease_and_the_generation_grows() {
    let cluster = Cluster::new().await;
    let (mut a, mut b) = (short(&cluster, &cluster.door, "a"), short(&cluster, &cluster.door, "b"));
    assert!(won(&mut a).await.is_some());
    let died = Instant::now();
    drop(a);
    let standing = until("b leads", async || won(&mut b).await).await;
    assert!(died.elapsed() >= LEASE, "{:?}", died.elapsed());
    assert_eq!(standing, Standing { leads: true, leader: Some("b".to_owned()), generation: 2 });
    // A new process of the same name is somebody else, and waits as anybody does.
    let mut again = short(&cluster, &cluster.door, "b");
    let begun = Instant::now();
    assert_eq!(again.campaign().await.unwrap(), Standing { leads: false, ..standing });
    assert_eq!(until("it leads", async || won(&mut again).await).await.generation, 3);
    assert!(begun.elapsed() >= LEASE, "{:?}", begun.elapsed());
    assert!(!b.campaign().await.is_ok_and(|standing| standing.leads), "the one before it leads no more");
}

#[tokio::test]
async fn who_renews_is_not_followed() {
    let cluster = Cluster::new().await;
    let (mut a, mut b) = (short(&cluster, &cluster.door, "a"), short(&cluster, &cluster.door, "b"));
    let begun = Instant::now();
    while begun.elapsed() < LEASE * 2 {
        assert!(won(&mut a).await.is_some());
        assert!(!b.campaign().await.unwrap().leads);
        tokio::time::sleep(LEASE / 20).await;
    }
}

#[tokio::test]
async fn clocks_of_others_do_not_matter() {
    let cluster = Cluster::new().await;
    for renewed in ["1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z"] {
        let spec = json!({ "holderIdentity": "stranger", "leaseDurationSeconds": 2, "leaseTransitions": 6, "renewTime": renewed, "acquireTime": renewed });
        cluster.world.change(|state| {
            drop(state.put(&key("leases", NAMESPACE, "tidegate"), json!({ "metadata": {}, "spec": spec })))
        });
        let mut a = short(&cluster, &cluster.door, "a");
        let begun = Instant::now();
        let first = a.campaign().await.unwrap();
        assert_eq!(first, Standing { leads: false, leader: Some("stranger".to_owned()), generation: 6 });
        let standing = until("it is taken over", async || won(&mut a).await).await;
        assert!(begun.elapsed() >= LEASE, "{renewed}: {:?}", begun.elapsed());
        assert_eq!(standing.generation, 7);
    }
}

#[tokio::test]
async fn resigning_hands_over_at_once() {
    let cluster = Cluster::new().await;
    let (mut a, mut b) = (candidate(&cluster, &cluster.door, "a"), candidate(&cluster, &cluster.door, "b"));
    assert!(won(&mut a).await.is_some());
    assert!(won(&mut b).await.is_none());
    a.resign().await;
    assert_eq!(record(&cluster)["holderIdentity"], json!(null));
    assert_eq!(won(&mut b).await.unwrap().generation, 2);
    // Who does not lead has nothing to give up.
    a.resign().await;
    assert_eq!(record(&cluster)["holderIdentity"], json!("b"));
    assert!(won(&mut b).await.is_some());
}

#[tokio::test]
async fn a_partitioned_leader_has_stopped_before_another_begins() {
    for refused in [false, true] {
        let mut cluster = Cluster::new().await;
        let door = cluster.another_door().await;
        let (mut a, mut b) = (short(&cluster, &cluster.door, "a"), short(&cluster, &door, "b"));
        assert!(won(&mut a).await.is_some());
        assert!(won(&mut b).await.is_none());
        if refused {
            cluster.door.close().await;
        } else {
            cluster.door.go_dark(true);
        }
        // Each third of the lease it is asked, and believed until it is asked again.
        let cut_off = async {
            loop {
                tokio::time::sleep(LEASE / 3).await;
                match a.campaign().await {
                    Ok(standing) => assert!(standing.leads, "nobody can have told it: {standing:?}"),
                    Err(error) => return (Instant::now(), error),
                }
            }
        };
        let takes_over = async {
            let standing = until("b leads", async || won(&mut b).await).await;
            (Instant::now(), standing)
        };
        let ((stopped, error), (began, standing)) = tokio::join!(cut_off, takes_over);
        assert!(stopped < began, "refused: {refused}, {:?} too late", stopped - began);
        assert!(!error.what.is_empty() && !error.advice.is_empty());
        assert_eq!(standing.generation, 2);
        // Back again it follows.
        if refused {
            cluster.door.open_again().await;
        } else {
            cluster.door.go_dark(false);
        }
        let standing = until("a is heard again", async || {
            assert!(won(&mut b).await.is_some());
            a.campaign().await.ok()
        })
        .await;
        assert_eq!(standing, Standing { leads: false, leader: Some("b".to_owned()), generation: 2 });
    }
}

#[tokio::test]
async fn one_failed_renewal_does_not_depose() {
    let cluster = Cluster::new().await;
    let mut a = candidate(&cluster, &cluster.door, "a");
    assert!(won(&mut a).await.is_some());
    cluster.world.change(|state| state.failing = Some(503));
    assert!(a.campaign().await.unwrap().leads);
    cluster.world.change(|state| state.failing = None);
    assert!(a.campaign().await.unwrap().leads);
}

#[tokio::test]
async fn of_two_who_take_it_at_the_same_moment_one_gets_it() {
    for round in 0..20 {
        let cluster = Cluster::new().await;
        if round % 2 == 1 {
            let spec = json!({ "leaseTransitions": 4 });
            cluster.world.change(|state| {
                drop(state.put(&key("leases", NAMESPACE, "tidegate"), json!({ "metadata": {}, "spec": spec })))
            });
        }
        let mut all: Vec<Lease> =
            ["a", "b", "c"].map(|name| candidate(&cluster, &cluster.door, name)).into_iter().collect();
        let standings = futures_util::future::join_all(all.iter_mut().map(Election::campaign)).await;
        let leaders = standings.iter().filter(|standing| standing.as_ref().unwrap().leads).count();
        assert_eq!(leaders, 1, "{standings:?}");
    }
}

#[tokio::test]
async fn a_label_on_the_lease_does_not_depose_and_deleting_it_makes_no_generation_smaller() {
    let cluster = Cluster::new().await;
    let mut a = candidate(&cluster, &cluster.door, "a");
    let lease = key("leases", NAMESPACE, "tidegate");
    cluster.world.change(|state| {
        drop(state.put(&lease, json!({ "metadata": {}, "spec": { "leaseTransitions": 41, "holderIdentity": "" } })))
    });
    assert_eq!(won(&mut a).await.unwrap().generation, 42);
    cluster.world.change(|state| state.edit(&lease, |lease| lease["metadata"]["labels"] = json!({ "seen": "yes" })));
    assert_eq!(won(&mut a).await.unwrap().generation, 42);
    assert_eq!(cluster.object("leases", "tidegate")["metadata"]["labels"]["seen"], json!("yes"), "and keeps it");
    cluster.world.change(|state| state.remove(&lease));
    assert_eq!(won(&mut a).await.unwrap().generation, 43);
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    for (verb, standing) in [("get", false), ("create", false), ("update", true)] {
        let cluster =
            Cluster::new().await.with(|state| state.denied.extend([right(verb, "coordination.k8s.io", "leases")]));
        if standing {
            cluster.world.change(|state| {
                drop(state.put(&key("leases", NAMESPACE, "tidegate"), json!({ "metadata": {}, "spec": {} })))
            });
        }
        let error = candidate(&cluster, &cluster.door, "a").campaign().await.unwrap_err();
        assert!(error.what.contains("forbidden") && error.advice.contains(&format!("\"{verb}\"")), "{error}");
        assert!(error.advice.contains("\"leases\""), "{error}");
    }
}
