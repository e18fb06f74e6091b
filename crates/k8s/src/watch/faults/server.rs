// SPDX-License-Identifier: Apache-2.0
//! As much of an API server as a watch of nodes needs, with faults to order. Plain HTTP, one thread per connection.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use serde_json::{Value, json};

/// What a request meets.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// This status, with this body.
    Status(u16, &'static str),
    /// 200 and no JSON.
    Garbage,
    /// The connection ends without an answer.
    Reset,
    /// No answer, until the client gives up.
    Hang,
    /// Of a watch: it begins, says this line, and ends.
    Line(&'static str),
    /// Of a watch: it begins, and says nothing for ever.
    Silent,
}

#[derive(Debug, Default)]
struct State {
    nodes: BTreeSet<String>,
    version: u64,
    events: Vec<(u64, Value)>,
    lists: VecDeque<Fault>,
    all_lists: Option<Fault>,
    watches: VecDeque<Fault>,
    /// Grows when all watches end.
    cuts: u64,
    requests: Vec<&'static str>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
pub(super) struct Server {
    address: String,
    shared: Arc<Shared>,
}

impl Server {
    pub(super) fn start(nodes: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared::default());
        {
            let mut state = shared.state.lock();
            state.nodes = nodes.iter().map(|&name| name.to_owned()).collect();
            state.version = 100;
        }
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = accepting.clone();
                // A client that goes away is none of our business.
                std::thread::spawn(move || drop(answer(&shared, stream)));
            }
        });
        Self { address, shared }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the next lists of everything meet, one after the other.
    pub(super) fn next_lists(&self, faults: &[Fault]) {
        self.state().lists.extend(faults);
    }

    /// What every list meets, the question whether anybody is there included.
    pub(super) fn all_lists(&self, fault: Option<Fault>) {
        self.state().all_lists = fault;
    }

    pub(super) fn next_watches(&self, faults: &[Fault]) {
        self.state().watches.extend(faults);
    }

    /// Ends all watches.
    pub(super) fn cut(&self) {
        self.state().cuts += 1;
        self.shared.changed.notify_all();
    }

    /// A node goes and another comes.
    pub(super) fn change(&self, gone: &str, new: &str) {
        let mut state = self.state();
        for (kind, name) in [("DELETED", gone), ("ADDED", new)] {
            state.version += 1;
            let version = state.version;
            let event = json!({"type": kind, "object": node(name, version)});
            state.events.push((version, event));
        }
        state.nodes.remove(gone);
        state.nodes.insert(new.to_owned());
        drop(state);
        self.shared.changed.notify_all();
    }

    /// The same, but no watch hears of it.
    pub(super) fn change_unseen(&self, gone: &str, new: &str) {
        let mut state = self.state();
        state.version += 2;
        state.nodes.remove(gone);
        state.nodes.insert(new.to_owned());
    }

    /// Requests of a kind so far: `list of all`, `list`, which counts those too, or `watch`.
    pub(super) fn requests(&self, kind: &str) -> usize {
        let state = self.state();
        state.requests.iter().filter(|one| one.starts_with(kind)).count()
    }

    pub(super) async fn until_request(&self, kind: &str, count: usize) {
        let begin = Instant::now();
        while self.requests(kind) < count {
            assert!(begin.elapsed() < super::LIMIT, "no {kind} came");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock()
    }
}

fn node(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "uid": name, "resourceVersion": version.to_string()},
        "spec": {"podCIDR": "10.244.0.0/24"},
    })
}

fn answer(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().ok_or_else(|| io::Error::other("nothing came"))??;
    while lines
        .next()
        .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
    {}
    let is = |parameter: &str| request.contains(parameter);
    let fault = {
        let mut state = shared.state.lock();
        let (kind, fault) = if is("watch=true") {
            ("watch", state.watches.pop_front())
        } else if is("limit=1&") || is("limit=1 ") {
            ("list of one", None)
        } else {
            ("list of all", state.lists.pop_front())
        };
        state.requests.push(kind);
        fault.or(if kind == "watch" { None } else { state.all_lists })
    };
    shared.changed.notify_all();
    match fault {
        None if is("watch=true") => watch(shared, stream, &request),
        None => whole(&mut stream, 200, &list(shared)),
        Some(Fault::Status(code, body)) => whole(&mut stream, code, body),
        Some(Fault::Garbage) => whole(&mut stream, 200, "<html>not what you want</html>"),
        Some(Fault::Reset) => Ok(()),
        Some(Fault::Hang) => wait_for_the_end(&stream),
        Some(Fault::Line(line)) => {
            begin(&mut stream)?;
            writeln!(stream, "{line}")?;
            // As if more would follow: the line alone must do.
            wait_for_the_end(&stream)
        }
        Some(Fault::Silent) => {
            begin(&mut stream)?;
            wait_for_the_end(&stream)
        }
    }
}

fn list(shared: &Shared) -> String {
    let state = shared.state.lock();
    let nodes = state.nodes.iter().map(|name| node(name, state.version));
    json!({
        "apiVersion": "v1", "kind": "NodeList",
        "metadata": {"resourceVersion": state.version.to_string()},
        "items": nodes.collect::<Vec<_>>(),
    })
    .to_string()
}

fn whole(stream: &mut TcpStream, code: u16, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
}

fn begin(stream: &mut TcpStream) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"
    )
}

fn wait_for_the_end(stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    while !reader.fill_buf()?.is_empty() {
        let length = reader.buffer().len();
        reader.consume(length);
    }
    Ok(())
}

fn number(request: &str, parameter: &str) -> u64 {
    let rest = request.split(&format!("{parameter}=")).nth(1).unwrap_or_default();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_default()
}

fn watch(shared: &Shared, mut stream: TcpStream, request: &str) -> io::Result<()> {
    begin(&mut stream)?;
    let mut seen = number(request, "resourceVersion");
    let end = Instant::now() + Duration::from_secs(number(request, "timeoutSeconds"));
    let mut state = shared.state.lock();
    let cuts = state.cuts;
    while state.cuts == cuts && Instant::now() < end {
        let new = state.events.iter().filter(|(version, _)| *version > seen);
        let lines: String = new.map(|(_, event)| format!("{event}\n")).collect();
        stream.write_all(lines.as_bytes())?;
        seen = state.version.max(seen);
        // That the time is up is seen by the loop.
        let _ = shared.changed.wait_until(&mut state, end);
    }
    Ok(())
}
