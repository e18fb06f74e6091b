// SPDX-License-Identifier: Apache-2.0
use super::*;

const INTERVAL: Duration = Duration::from_secs(60);

#[test]
fn every_node_is_tried_once_in_an_interval_and_never_more_at_a_time_than_allowed() {
    let now = Instant::now();
    let mut schedule = of(200, now);
    let (mut tries, mut most, mut clock) = (BTreeMap::new(), 0, now);
    let end = now + INTERVAL * 10;
    let mut running: Vec<(Instant, Job)> = Vec::new();
    while clock < end {
        while let Some(job) = schedule.start(clock) {
            *tries.entry(job.node.clone()).or_insert(0) += 1;
            running.push((clock + Duration::from_millis(700), job));
        }
        most = most.max(running.len());
        let ends = running.iter().map(|(at, _)| *at).min();
        clock = [ends, schedule.due()].into_iter().flatten().min().unwrap();
        let (done, rest) = running.into_iter().partition(|(at, _)| *at <= clock);
        running = rest;
        for (_, job) in done as Vec<(Instant, Job)> {
            schedule.finish(found(&job, Ok(Duration::ZERO)), clock).unwrap();
        }
    }
    assert_eq!(tries.len(), 200);
    assert!(tries.values().all(|count| (9..=12).contains(count)), "{tries:?}");
    assert!(most <= 4, "{most}");
}

#[test]
fn new_nodes_are_tried_soon_but_not_all_at_once() {
    let now = Instant::now();
    let schedule = of(100, now);
    let due: Vec<_> = schedule.peers.values().map(|peer| peer.due - now).collect();
    assert!(due.iter().all(|due| *due < FIRST_WITHIN));
    let early = due.iter().filter(|due| **due < FIRST_WITHIN / 2).count();
    assert!((25..75).contains(&early), "{early} of 100 in the first half");
}

#[test]
fn who_fails_is_tried_again_soon_and_ever_less_often_and_since_says_from_when_on() {
    let begin = Instant::now();
    let mut schedule = of(1, begin);
    let mut now = begin + FIRST_WITHIN;
    let (mut pauses, mut since) = (Vec::new(), None);
    for _ in 0..8 {
        let job = schedule.start(now).unwrap();
        let row = schedule.finish(found(&job, Err("gone".into())), now).unwrap();
        assert_eq!(row.failures().count(), 2);
        assert_eq!(*since.get_or_insert(row.probes[0].since), row.probes[0].since);
        pauses.push((schedule.due().unwrap() - now).as_secs());
        now = schedule.due().unwrap();
    }
    assert!(
        pauses.is_sorted() && pauses[0] >= 5 && pauses[7] == 60,
        "{pauses:?}"
    );
    let job = schedule.start(now).unwrap();
    let row = schedule.finish(found(&job, Ok(Duration::ZERO)), now).unwrap();
    assert_eq!(row.probes[0].since, now);
    assert!(schedule.due().unwrap() > now + Duration::from_secs(50));
}

#[test]
fn who_asks_gets_a_try_that_began_afterwards() {
    let now = Instant::now();
    let mut schedule = of(1, now);
    let first = schedule.start(now + FIRST_WITHIN).unwrap();
    let asked = now + FIRST_WITHIN + Duration::from_millis(1);
    schedule.ask(asked);
    assert!(schedule.start(asked).is_none(), "one at a time");
    let row = schedule.finish(found(&first, Ok(Duration::ZERO)), asked).unwrap();
    assert!(row.tried < Some(asked));
    let second = schedule.start(asked).unwrap();
    assert_eq!(second.began, asked);
    schedule
        .finish(found(&second, Ok(Duration::ZERO)), asked)
        .unwrap();
    assert!(schedule.start(asked).is_none());
}

#[test]
fn a_node_of_the_same_name_with_another_address_starts_anew() {
    let now = Instant::now();
    let mut schedule = of(1, now);
    let job = schedule.start(now + FIRST_WITHIN).unwrap();
    let mut other = node(0);
    other.addresses = vec!["192.0.2.9".parse().unwrap()];
    schedule.set_nodes([&other].into_iter(), now);
    assert_eq!(schedule.finish(found(&job, Ok(Duration::ZERO)), now), None);
    let again = schedule.start(now + FIRST_WITHIN).unwrap();
    assert_eq!(again.addresses, other.addresses);
    schedule.set_nodes([].into_iter(), now);
    assert_eq!(schedule.finish(found(&again, Ok(Duration::ZERO)), now), None);
    assert_eq!((schedule.rows().count(), schedule.running), (0, 0));
}

#[test]
fn a_pod_is_remembered_while_its_agent_is_silent_but_not_for_ever() {
    let now = Instant::now() + FIRST_WITHIN;
    let mut schedule = of(1, now - FIRST_WITHIN);
    let pod: IpAddr = "10.0.0.7".parse().unwrap();
    let job = schedule.start(now).unwrap();
    let mut named = found(&job, Ok(Duration::ZERO));
    named.pods = Some(vec![pod]);
    schedule.finish(named, now).unwrap();
    let later = now + POD_KEPT - Duration::from_secs(1);
    let job = schedule.start(later).unwrap();
    assert_eq!(job.pods, [pod]);
    schedule.finish(found(&job, Err("gone".into())), later).unwrap();
    assert_eq!(
        schedule.start(now + POD_KEPT + INTERVAL).unwrap().pods,
        [] as [IpAddr; 0]
    );
}

fn of(nodes: u8, now: Instant) -> Schedule {
    let mut schedule = Schedule::new(INTERVAL, 4, 7);
    let nodes: Vec<_> = (0..nodes).map(node).collect();
    schedule.set_nodes(nodes.iter(), now);
    schedule
}

fn node(number: u8) -> Node {
    Node {
        name: format!("n{number}"),
        addresses: vec![IpAddr::from([192, 0, 2, number])],
        pod_cidrs: Vec::new(),
        zone: None,
    }
}

fn found(job: &Job, outcome: Outcome) -> Found {
    let kinds = [Kind::NodeIcmp, Kind::NodeTcp];
    Found {
        node: job.node.clone(),
        began: job.began,
        outcomes: kinds
            .map(|kind| (kind, job.addresses[0], outcome.clone()))
            .to_vec(),
        pods: None,
    }
}
