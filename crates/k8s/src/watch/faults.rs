// SPDX-License-Identifier: Apache-2.0
//! A watch against an API that is away, slow or says what is not so: in the end the table is right.

mod server;

use std::time::{Duration, Instant};

use state::{Table, table};

use super::*;
use server::{Fault, Server};

/// What takes milliseconds or a known pause.
const LIMIT: Duration = Duration::from_secs(20);

const SHORT: Patience = Patience {
    watch_seconds: 60,
    list: Duration::from_secs(5),
};

#[test]
fn lists_that_are_refused_broken_or_garbage_are_tried_on_and_a_busy_server_is_left_in_peace() {
    let server = Server::start(&["a", "b"]);
    let faults = [
        Fault::Status(429, "Too many requests, please try again later.\n"),
        Fault::Status(
            500,
            r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":500,"message":"etcd"}"#,
        ),
        Fault::Status(503, "starting"),
        Fault::Garbage,
        Fault::Reset,
    ];
    server.next_lists(&faults);
    let began = Instant::now();
    watching(&server, SHORT, async |watch| {
        watch
            .until("in sync", |watch| watch.nodes.snapshot().in_sync())
            .await;
        assert_eq!(watch.names(), ["a", "b"]);
        assert!(began.elapsed() >= BUSY_PAUSE, "429 asks for a second");
        let status = watch.status.borrow().clone();
        assert_eq!(status.errors, faults.len() as u64, "{:?}", status.last_error);
        assert!(status.connected);
    });
}

#[test]
fn an_api_that_is_away_is_never_said_to_answer_and_is_asked_ever_less_often() {
    let server = Server::start(&["a"]);
    server.all_lists(Some(Fault::Status(500, "no")));
    watching(&server, SHORT, async |watch| {
        let mut connected = 0;
        while watch.status.borrow().errors < 4 {
            watch.status.changed().await.unwrap();
            connected += u32::from(watch.status.borrow().connected);
        }
        assert_eq!(connected, 0, "said to be connected while nothing was answered");
        // 200, 400, 800 ms lie between four failures, and some questions whether it is there.
        assert!(server.requests("list") < 16, "{}", server.requests("list"));
        server.all_lists(None);
        watch
            .until("in sync", |watch| watch.nodes.snapshot().in_sync())
            .await;
    });
}

#[test]
fn a_server_that_names_a_time_to_wait_is_given_it() {
    let body = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":429,"message":"busy","details":{"retryAfterSeconds":2}}"#;
    let server = Server::start(&["a"]);
    server.next_lists(&[Fault::Status(429, body)]);
    let began = Instant::now();
    watching(&server, SHORT, async |watch| {
        watch
            .until("in sync", |watch| watch.nodes.snapshot().in_sync())
            .await;
        assert!(began.elapsed() >= Duration::from_secs(2));
    });
}

#[test]
fn a_list_that_hangs_is_given_up() {
    let server = Server::start(&["a"]);
    server.next_lists(&[Fault::Hang]);
    let patience = Patience {
        list: Duration::from_millis(300),
        ..SHORT
    };
    watching(&server, patience, async |watch| {
        watch
            .until("in sync", |watch| watch.nodes.snapshot().in_sync())
            .await;
        let (_, error) = watch.status.borrow().last_error.clone().unwrap();
        assert!(error.contains("has not gone on with a list"), "{error}");
    });
}

#[test]
fn what_was_missed_while_the_watch_was_gone_is_listed_anew() {
    // By status and by event; and a store that was set back, whose server has never heard of where we are.
    let gone = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","code":410,"reason":"Expired","message":"too old"}}"#;
    let too_large = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":504,"reason":"Timeout","message":"Too large resource version"}"#;
    for (fault, times) in [
        (Fault::Status(410, "gone"), 1),
        (Fault::Line(gone), 1),
        (Fault::Status(504, too_large), REFUSED_MAX as usize),
    ] {
        let server = Server::start(&["a", "b"]);
        watching(&server, SHORT, async |watch| {
            watch.until("in sync", |watch| watch.names() == ["a", "b"]).await;
            server.next_watches(&vec![fault; times]);
            server.change_unseen("b", "c");
            server.cut();
            watch
                .until("listed anew", |watch| watch.names() == ["a", "c"])
                .await;
            server.change("a", "d");
            watch.until("followed", |watch| watch.names() == ["c", "d"]).await;
        });
    }
}

#[test]
fn watches_that_are_reset_go_on_where_they_were() {
    let server = Server::start(&["a"]);
    watching(&server, SHORT, async |watch| {
        watch.until("in sync", |watch| watch.names() == ["a"]).await;
        server.next_watches(&[Fault::Reset, Fault::Status(500, "no"), Fault::Reset]);
        server.cut();
        server.change("a", "b");
        watch.until("followed", |watch| watch.names() == ["b"]).await;
        assert_eq!(server.requests("list of all"), 1, "no list was needed");
    });
}

#[test]
fn an_event_that_is_garbage_is_not_lost() {
    let server = Server::start(&["a"]);
    watching(&server, SHORT, async |watch| {
        watch.until("in sync", |watch| watch.names() == ["a"]).await;
        server.next_watches(&[Fault::Line(
            "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":7}}}",
        )]);
        server.change_unseen("a", "b");
        server.cut();
        watch.until("listed anew", |watch| watch.names() == ["b"]).await;
    });
}

#[test]
fn a_watch_that_hangs_is_taken_up_again() {
    let server = Server::start(&["a"]);
    let patience = Patience {
        watch_seconds: 1,
        ..SHORT
    };
    watching(&server, patience, async |watch| {
        watch.until("in sync", |watch| watch.names() == ["a"]).await;
        server.next_watches(&[Fault::Silent]);
        server.cut();
        server.until_request("watch", 2).await;
        server.change("a", "b");
        watch.until("seen", |watch| watch.names() == ["b"]).await;
    });
}

#[test]
fn a_watch_whose_answer_does_not_even_begin_is_given_up() {
    let server = Server::start(&["a"]);
    watching(&server, SHORT, async |watch| {
        watch.until("in sync", |watch| watch.names() == ["a"]).await;
        server.next_watches(&[Fault::Hang]);
        server.cut();
        server.until_request("watch", 2).await;
        server.change("a", "b");
        watch.until("seen", |watch| watch.names() == ["b"]).await;
    });
}

struct Watch {
    nodes: Table<Node>,
    status: watch::Receiver<WatchStatus>,
}

impl Watch {
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let mut reader = self.nodes.reader();
        let wait = async {
            while !holds(self) {
                reader.changed().await.unwrap();
            }
        };
        assert!(
            tokio::time::timeout(LIMIT, wait).await.is_ok(),
            "{what}: not within {LIMIT:?}; {:?}",
            self.status.borrow()
        );
    }

    fn names(&self) -> Vec<String> {
        let nodes = self.nodes.snapshot();
        nodes.iter().map(|node| node.name.clone()).collect()
    }
}

/// Watches a server's nodes while `test` runs.
fn watching(server: &Server, patience: Patience, test: impl AsyncFnOnce(&mut Watch)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut config = kube::Config::new(server.url().parse().unwrap());
        config.read_timeout = Some(Duration::from_secs(2));
        config.reset_reader_on_write = true;
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        let (writer, nodes) = table("nodes");
        let (sender, status) = watch::channel(WatchStatus::new("nodes"));
        let api = kube::Api::<NodeObject>::all(client);
        let run = run_with(
            api,
            watcher::Config::default(),
            Sink::new(writer, sender),
            patience,
        );
        let mut watch = Watch { nodes, status };
        tokio::select! {
            () = run => panic!("the watch has ended"),
            () = test(&mut watch) => {}
        }
    });
}
