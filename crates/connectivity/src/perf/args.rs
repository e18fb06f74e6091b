// SPDX-License-Identifier: Apache-2.0
//! The load generator's command line: `thalweg perf …`. Every verb prints JSON, one object per line.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use serde::Serialize;
use serde_json::json;

use super::server::Server;
use super::{DEFAULT_PORT, Kind, PerfError, Workload, affinity, ask, client, probe, soak};

/// Makes load and asks questions from inside a pod.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, clap::Subcommand)]
enum Verb {
    /// Answer clients until killed
    #[command(alias = "soak-server")]
    Server(ServerArgs),
    /// Measure
    Client(ClientArgs),
    /// Keep connections busy until SIGTERM, SIGINT or the end of the duration; then say what they suffered
    SoakClient(SoakArgs),
    /// Try to open a TCP connection
    Connect {
        /// With whom
        address: SocketAddr,
        /// Seconds to wait
        #[arg(long, default_value_t = 3.0)]
        timeout: f64,
    },
    /// Ask the server whom it sees
    Whoami(Target),
    /// Ask which server answers at an address, by a new connection or socket each time
    Ask(AskArgs),
    /// Hold a connection and ask by new ones, until they go to another server
    Linger {
        /// The echo port of a server or service: to hold a connection to
        hold: SocketAddr,
        /// The port that says who answers
        ask: SocketAddr,
        /// The server that new connections are to go to
        #[arg(long)]
        server: String,
        /// Seconds to wait for that
        #[arg(long, default_value_t = 20.0)]
        timeout: f64,
    },
    /// Send data, read its echo at the same time, and compare
    Bulk {
        #[command(flatten)]
        target: Target,
        /// How much
        #[arg(long, default_value_t = 4 << 20)]
        bytes: u64,
    },
    /// Hold many connections at once
    Many {
        #[command(flatten)]
        target: Target,
        /// How many
        #[arg(long, default_value_t = 200)]
        connections: usize,
    },
    /// Exchange datagrams of one size
    Datagrams {
        #[command(flatten)]
        target: Target,
        /// Bytes each
        #[arg(long, default_value_t = 64)]
        size: usize,
        /// How many
        #[arg(long, default_value_t = 10)]
        count: usize,
    },
    /// Listen for forged datagrams
    Listen {
        /// Where
        address: SocketAddr,
        /// Seconds to wait
        #[arg(long, default_value_t = 10.0)]
        timeout: f64,
    },
    /// Send datagrams with a forged source
    Forge {
        /// To whom
        address: SocketAddr,
        /// The source address
        #[arg(long)]
        source: IpAddr,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct AskArgs {
    /// Whom
    address: SocketAddr,
    /// By datagrams
    #[arg(long)]
    udp: bool,
    /// How often
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Before that, wait until this happens, without counting
    #[arg(long, value_enum)]
    until: Option<ask::Until>,
    /// Seconds to wait for that
    #[arg(long, default_value_t = 20.0)]
    timeout: f64,
}

#[derive(Clone, Debug, clap::Args)]
struct ServerArgs {
    /// Listen on these addresses only
    #[arg(long)]
    listen: Vec<IpAddr>,
    /// The first of four neighbouring ports
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Stay on this CPU
    #[arg(long)]
    cpu: Option<usize>,
    /// End when standard input ends
    #[arg(long)]
    until_eof: bool,
    /// What the server calls itself; without it, this machine's name
    #[arg(long)]
    name: Option<String>,
    /// Go on after SIGTERM, until killed
    #[arg(long)]
    ignore_sigterm: bool,
}

#[derive(Clone, Debug, clap::Args)]
struct ClientArgs {
    /// What to measure
    kind: Kind,
    #[command(flatten)]
    target: Target,
    /// Connections at once
    #[arg(long, default_value_t = 1)]
    flows: usize,
    /// Seconds to count
    #[arg(long, default_value_t = 3.0)]
    duration: f64,
    /// Seconds to run before counting
    #[arg(long, default_value_t = 0.3)]
    warmup: f64,
    /// Stay on this CPU
    #[arg(long)]
    cpu: Option<usize>,
}

#[derive(Clone, Debug, clap::Args)]
struct SoakArgs {
    #[command(flatten)]
    target: Target,
    /// TCP connections
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Milliseconds between exchanges on one connection
    #[arg(long, default_value_t = 20)]
    interval: u64,
    /// Milliseconds between datagrams; 0: none
    #[arg(long, default_value_t = 2)]
    udp_interval: u64,
    /// Seconds; 0: until a signal
    #[arg(long, default_value_t = 0.0)]
    duration: f64,
    /// End when standard input ends
    #[arg(long)]
    until_eof: bool,
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Target {
    /// The server
    target: IpAddr,
    /// The server's first port
    #[arg(long, default_value_t = DEFAULT_PORT)]
    port: u16,
}

/// Why the verb failed.
#[derive(Debug, thiserror::Error)]
pub enum ArgsError {
    /// The work failed.
    #[error(transparent)]
    Perf(#[from] PerfError),
    /// The result could not be written.
    #[error("cannot write the result: {0}")]
    Write(#[from] std::io::Error),
}

impl Args {
    /// Runs the verb; results go to `out`.
    pub fn run(self, out: &mut dyn Write) -> Result<(), ArgsError> {
        match self.verb {
            Verb::Server(args) => serve(&args, out),
            Verb::Client(args) => print(out, &client::run(&args.workload())?),
            Verb::SoakClient(args) => soak_client(&args, out),
            Verb::Connect { address, timeout } => print(
                out,
                &json!({ "connect": probe::connect_once(address, seconds(timeout))? }),
            ),
            Verb::Whoami(Target { target, port }) => print(out, &probe::whoami(target, port)?),
            Verb::Ask(args) => print(out, &args.ask()),
            Verb::Linger {
                hold,
                ask,
                server,
                timeout,
            } => print(out, &ask::linger(hold, ask, &server, seconds(timeout))?),
            Verb::Bulk {
                target: Target { target, port },
                bytes,
            } => print(out, &probe::bulk(target, port, bytes)?),
            Verb::Many {
                target: Target { target, port },
                connections,
            } => print(out, &probe::many(target, port, connections)?),
            Verb::Datagrams {
                target: Target { target, port },
                size,
                count,
            } => print(out, &probe::datagrams(target, port, size, count)?),
            Verb::Listen { address, timeout } => print(out, &probe::listen(address, seconds(timeout))?),
            Verb::Forge { address, source } => {
                print(out, &json!({ "forged": probe::forge(source, address)? }))
            }
        }
    }
}

impl AskArgs {
    fn ask(&self) -> ask::Answers {
        let protocol = if self.udp {
            ask::Protocol::Udp
        } else {
            ask::Protocol::Tcp
        };
        if let Some(until) = self.until {
            ask::wait(self.address, protocol, until, seconds(self.timeout));
        }
        ask::many(self.address, protocol, self.count)
    }
}

impl ClientArgs {
    fn workload(&self) -> Workload {
        Workload {
            kind: self.kind,
            target: self.target.target,
            port: self.target.port,
            flows: self.flows.max(1),
            warmup: seconds(self.warmup),
            duration: seconds(self.duration),
            cpu: self.cpu,
        }
    }
}

fn serve(args: &ServerArgs, out: &mut dyn Write) -> Result<(), ArgsError> {
    if let Some(cpu) = args.cpu {
        affinity::pin(cpu)?;
    }
    if args.ignore_sigterm {
        let signals: SigSet = std::iter::once(Signal::SIGTERM).collect();
        signals.thread_block().map_err(std::io::Error::from)?;
    }
    let name = args.name.clone().unwrap_or_else(machine);
    Server::bind(&args.listen, args.port)?.start(&name)?;
    print(out, &json!({ "listening": args.port }))?;
    if args.until_eof {
        wait_for_eof();
        return Ok(());
    }
    loop {
        thread::park();
    }
}

fn soak_client(args: &SoakArgs, out: &mut dyn Write) -> Result<(), ArgsError> {
    let ready = soak::open(soak::Soak {
        target: args.target.target,
        port: args.target.port,
        connections: args.connections,
        interval: Duration::from_millis(args.interval),
        udp_interval: Duration::from_millis(args.udp_interval),
    })?;
    let stop = stop_on_signal()?;
    print(out, &json!({ "connected": args.connections }))?;
    if args.until_eof {
        stop_after(&stop, wait_for_eof)?;
    }
    if args.duration > 0.0 {
        let duration = seconds(args.duration);
        stop_after(&stop, move || thread::sleep(duration))?;
    }
    print(out, &ready.run(&stop))
}

/// Blocks SIGTERM and SIGINT in this thread and those it starts; one of its own waits for them.
fn stop_on_signal() -> Result<Arc<AtomicBool>, ArgsError> {
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().map_err(std::io::Error::from)?;
    let stop = Arc::new(AtomicBool::new(false));
    stop_after(&stop, move || {
        // Fails only for a set of signals that makes no sense.
        let _ = signals.wait();
    })?;
    Ok(stop)
}

fn stop_after(stop: &Arc<AtomicBool>, wait: impl FnOnce() + Send + 'static) -> Result<(), PerfError> {
    let stop = Arc::clone(stop);
    thread::Builder::new()
        .spawn(move || {
            wait();
            stop.store(true, Ordering::Relaxed);
        })
        .map_err(PerfError::Thread)?;
    Ok(())
}

/// This machine's name, or nothing where it has none that is text.
fn machine() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    name.into_string().unwrap_or_default()
}

fn wait_for_eof() {
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).is_ok_and(|length| length > 0) {}
}

fn print<T: Serialize>(out: &mut dyn Write, value: &T) -> Result<(), ArgsError> {
    let mut line = serde_json::to_vec(value).map_err(std::io::Error::from)?;
    line.push(b'\n');
    out.write_all(&line)?;
    Ok(out.flush()?)
}

fn seconds(number: f64) -> Duration {
    Duration::try_from_secs_f64(number).unwrap_or(Duration::ZERO)
}
