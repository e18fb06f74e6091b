// SPDX-License-Identifier: Apache-2.0
//! `thalweg-cni`, the CNI plugin: it checks a call, hands it to the agent over one Unix socket, prints the answer.
//!
//! It holds no network logic, reads no file but the container's namespace, and starts in about a millisecond. Standard output
//! only ever carries the JSON of the specification.

mod agent;
mod queue;

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Instant;

use agent::Cause;
use cni::protocol::{Call, Reply};
use cni::{Command, Env, Error, Invocation, LogLevel, NetConf, Version, Wishes, codes};
use serde_json::Value;

fn main() -> ExitCode {
    let started = Instant::now();
    if std::env::var_os("CNI_COMMAND").is_none() {
        let versions = Version::ALL.map(Version::as_str).join(", ");
        let _ = writeln!(
            std::io::stderr(),
            "{} (specification {versions}), run by container runtimes with CNI_COMMAND set",
            cni::ABOUT,
        );
        return ExitCode::SUCCESS;
    }
    let invocation = read_stdin().and_then(|stdin| {
        let parsed = Invocation::parse(|key| std::env::var(key).ok(), &stdin);
        parsed.map_err(|error| (stated_version(&stdin), error))
    });
    let (version, answer) = match invocation {
        Err((version, error)) => (version, Err(error)),
        Ok(Invocation::Version(asked)) => (Version::NEWEST, Ok(Some(Version::reply(asked.as_deref())))),
        Ok(Invocation::Call(env, conf)) => {
            let answer = run(&env, &conf);
            trace(&env, &conf, started, answer.is_ok());
            (conf.version, answer)
        }
    };
    print(version, answer)
}

/// Runs one checked call. `Ok(None)` is success with nothing to print.
fn run(env: &Env, conf: &NetConf) -> Result<Option<Value>, Error> {
    match env.command {
        Command::Add => add(env, conf),
        Command::Del => del(env, conf),
        Command::Check => check(env, conf),
        Command::Gc => done(agent::call(&conf.socket, &gc_call(conf), None)?),
        Command::Status => status(conf),
        Command::Version => Ok(Some(Version::reply(None))),
    }
}

fn add(env: &Env, conf: &NetConf) -> Result<Option<Value>, Error> {
    let (path, netns) = agent::open_netns(env)?;
    let call = Call::Add {
        attachment: env.attachment.clone(),
        pod: env.pod.clone(),
        netns: path,
        wishes: Wishes {
            mac: conf.wishes.mac.clone().or_else(|| env.mac.clone()),
            ..conf.wishes.clone()
        },
        previous: conf.prev_result.clone().map(Box::new),
    };
    match agent::call(&conf.socket, &call, Some(&netns))? {
        Reply::Added(result) => Ok(Some(result.to_json(conf.version, &conf.dns))),
        Reply::Failed(error) => Err(error),
        // The plugins before ours have done it: their result is the list's, as it is.
        Reply::Done if conf.prev_result_raw.is_some() => Ok(conf.prev_result_raw.clone()),
        Reply::Done => Err(unexpected("ADD")),
    }
}

/// DEL never waits for an agent that is down: the runtime must get rid of the container, and the agent does the rest later.
fn del(env: &Env, conf: &NetConf) -> Result<Option<Value>, Error> {
    let call = Call::Del {
        attachment: env.attachment.clone(),
    };
    match agent::call(&conf.socket, &call, None) {
        Ok(reply) => done(reply),
        Err(failure) if failure.cause == Cause::Unintelligible => Err(failure.into()),
        Err(failure) => {
            let queued = queue::add(&conf.socket, &env.attachment)?;
            // An agent that has begun to listen meanwhile can do it now. It looks into the queue every half a minute too, so that
            // one that is stuck need not be waited for a second time.
            if failure.cause == Cause::Away
                && let Ok(Reply::Done) = agent::call(&conf.socket, &call, None)
            {
                queue::forget(&queued);
            }
            Ok(None)
        }
    }
}

fn check(env: &Env, conf: &NetConf) -> Result<Option<Value>, Error> {
    let (path, netns) = agent::open_netns(env)?;
    let addresses = conf
        .prev_result
        .as_ref()
        .map(|prev| prev.addresses_of(&env.attachment.ifname))
        .unwrap_or_default();
    let call = Call::Check {
        attachment: env.attachment.clone(),
        netns: path,
        addresses,
    };
    done(agent::call(&conf.socket, &call, Some(&netns))?)
}

fn gc_call(conf: &NetConf) -> Call {
    Call::Gc {
        network: conf.name.clone(),
        valid: conf.valid_attachments.clone().unwrap_or_default(),
    }
}

fn status(conf: &NetConf) -> Result<Option<Value>, Error> {
    match agent::call(&conf.socket, &Call::Status, None) {
        Ok(reply) => done(reply),
        // Running pods keep their network without an agent: 50, not 51.
        Err(failure) => {
            let error = Error::from(failure);
            Err(Error {
                code: codes::NOT_AVAILABLE,
                ..error
            })
        }
    }
}

fn done(reply: Reply) -> Result<Option<Value>, Error> {
    match reply {
        Reply::Done => Ok(None),
        Reply::Failed(error) => Err(error),
        Reply::Added(_) => Err(unexpected("this call")),
    }
}

fn unexpected(what: &str) -> Error {
    Error::new(
        codes::PROTOCOL,
        format!("the agent's answer to {what} is of another kind"),
        "install thalweg-cni and thalweg of one release",
    )
}

fn read_stdin() -> Result<Vec<u8>, (Version, Error)> {
    let mut bytes = Vec::new();
    let limit = cni::MAX_STDIN as u64 + 1;
    let fail = |code, msg: String| {
        (
            Version::NEWEST,
            Error::new(code, msg, "the container runtime passes the configuration"),
        )
    };
    std::io::stdin()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(codes::IO_FAILURE, format!("cannot read standard input: {error}")))?;
    if bytes.len() > cni::MAX_STDIN {
        return Err(fail(
            codes::DECODING_FAILURE,
            format!(
                "the configuration on standard input is longer than {} bytes",
                cni::MAX_STDIN
            ),
        ));
    }
    Ok(bytes)
}

/// The version to answer in when the call is refused: the caller's, if it can be made out.
fn stated_version(stdin: &[u8]) -> Version {
    serde_json::from_slice::<Value>(stdin)
        .ok()
        .and_then(|conf| Version::parse(conf.get("cniVersion")?.as_str()?).ok())
        .unwrap_or(Version::NEWEST)
}

fn print(version: Version, answer: Result<Option<Value>, Error>) -> ExitCode {
    let (value, code) = match answer {
        Ok(value) => (value, ExitCode::SUCCESS),
        Err(error) => (Some(error.to_json(version)), ExitCode::FAILURE),
    };
    match value.map(|value| writeln!(std::io::stdout(), "{value}")) {
        Some(Err(_)) => ExitCode::FAILURE,
        Some(Ok(())) | None => code,
    }
}

fn trace(env: &Env, conf: &NetConf, started: Instant, ok: bool) {
    if conf.log_level == LogLevel::Debug {
        let Env {
            command, attachment, ..
        } = env;
        let _ = writeln!(
            std::io::stderr(),
            "thalweg-cni {} {}/{} ok={ok} {} us",
            command.as_str(),
            attachment.container_id,
            attachment.ifname,
            started.elapsed().as_micros(),
        );
    }
}
