// SPDX-License-Identifier: Apache-2.0
//! Container logs: a file per run of a container, in the format that container runtimes write (`TIME STREAM F LINE`), and
//! an empty file beside it when the run has ended.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use k8s_openapi::jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncSeekExt as _, AsyncWriteExt as _, BufReader};

/// The most that is kept of one run's output; what comes later is dropped, and the log says so.
const LOG_MAX: u64 = 64 << 20;
/// The longest line; longer ones are cut into several.
const LINE_MAX: usize = 16 << 10;
/// How often a follower looks for more: it is a person.
const LOOK_FOR_MORE: Duration = Duration::from_millis(50);
/// How many lines may wait to be written.
const LINES_WAITING: usize = 256;

/// What a reader wants of a log.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    /// Wait for what comes.
    pub(super) follow: bool,
    /// Only so many last lines.
    pub(super) tail: Option<u64>,
    /// Only lines of that time or later.
    pub(super) since: Option<Timestamp>,
    /// With the time before each line.
    pub(super) timestamps: bool,
    /// At most so many bytes.
    pub(super) limit: Option<u64>,
}

/// The file of a run of a container; runs are numbered from one.
pub(super) fn path(pod_logs: &Path, container: &str, run: u32) -> PathBuf {
    pod_logs
        .join(container)
        .join(format!("{}.log", run.saturating_sub(1)))
}

/// The file of a container's last run, or of the one before.
pub(super) fn latest(pod_logs: &Path, container: &str, previous: bool) -> Option<PathBuf> {
    let runs = (1..).take_while(|run| path(pod_logs, container, *run).exists());
    let run = runs
        .last()?
        .checked_sub(u32::from(previous))
        .filter(|run| *run > 0)?;
    Some(path(pod_logs, container, run))
}

/// Starts to write the two streams of a run to `path`, in tasks that end with them.
pub(super) async fn write<O, E>(path: PathBuf, stdout: O, stderr: E) -> io::Result<()>
where
    O: AsyncRead + Send + Unpin + 'static,
    E: AsyncRead + Send + Unpin + 'static,
{
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let file = File::create(&path).await?;
    let (lines, written) = tokio::sync::mpsc::channel(LINES_WAITING);
    tokio::spawn(read_lines("stdout", stdout, lines.clone()));
    tokio::spawn(read_lines("stderr", stderr, lines));
    tokio::spawn(async move {
        write_lines(file, written).await;
        // Without it a follower waits for the pod's end instead.
        let _ = File::create(end_of(&path)).await;
    });
    Ok(())
}

/// The selected lines of a log, as they were printed.
pub(super) async fn read(
    path: PathBuf,
    selection: Selection,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + use<>> {
    let mut file = File::open(&path).await?;
    let start = match selection.tail {
        Some(lines) => tail_offset(&path, lines).await?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start)).await?;
    let left = selection.limit.unwrap_or(u64::MAX);
    let open = selection.follow;
    let reader = Reader {
        path,
        file: BufReader::new(file),
        partial: Vec::new(),
        open,
        left,
        selection,
    };
    Ok(stream::try_unfold(reader, |mut reader| async move {
        Ok(reader.next().await?.map(|bytes| (bytes, reader)))
    }))
}

struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    /// The beginning of a line whose end is not written yet.
    partial: Vec<u8>,
    /// Whether more may come.
    open: bool,
    left: u64,
    selection: Selection,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.left > 0 {
            if self.file.read_until(b'\n', &mut self.partial).await? > 0 && self.partial.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                let Some(mut text) = self.select(&line) else {
                    continue;
                };
                text.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= text.len() as u64;
                return Ok(Some(text.into()));
            }
            if !self.open {
                return Ok(None);
            }
            // What was written before the end is read after it was seen.
            self.open = self.path.exists() && !end_of(&self.path).exists();
            if self.open {
                tokio::time::sleep(LOOK_FOR_MORE).await;
            }
        }
        Ok(None)
    }

    fn select(&self, line: &[u8]) -> Option<Vec<u8>> {
        let time_end = line.iter().position(|byte| *byte == b' ')?;
        if let Some(since) = self.selection.since {
            let time: Timestamp = std::str::from_utf8(&line[..time_end]).ok()?.parse().ok()?;
            if time < since {
                return None;
            }
        }
        // TIME, STREAM, TAG.
        let text = line.splitn(4, |byte| *byte == b' ').nth(3)?;
        if !self.selection.timestamps {
            return Some(text.to_vec());
        }
        Some([&line[..=time_end], text].concat())
    }
}

struct Line {
    stream: &'static str,
    text: Vec<u8>,
}

async fn read_lines(
    stream: &'static str,
    pipe: impl AsyncRead + Unpin,
    lines: tokio::sync::mpsc::Sender<Line>,
) {
    let mut pipe = BufReader::with_capacity(LINE_MAX, pipe);
    let mut text = Vec::new();
    while let Ok(bytes) = pipe.fill_buf().await {
        if bytes.is_empty() {
            break;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |end| end + 1).min(LINE_MAX);
        text.extend_from_slice(&bytes[..taken]);
        pipe.consume(taken);
        if (end.is_some() || text.len() >= LINE_MAX)
            && lines
                .send(Line {
                    stream,
                    text: std::mem::take(&mut text),
                })
                .await
                .is_err()
        {
            return;
        }
    }
    if !text.is_empty() {
        // Nobody to read it is nobody to tell.
        let _ = lines.send(Line { stream, text }).await;
    }
}

async fn write_lines(mut file: File, mut lines: tokio::sync::mpsc::Receiver<Line>) {
    let mut written = 0u64;
    while let Some(mut line) = lines.recv().await {
        if written > LOG_MAX {
            continue;
        }
        if line.text.last() != Some(&b'\n') {
            line.text.push(b'\n');
        }
        let mut record = format!("{:.9} {} F ", Timestamp::now(), line.stream).into_bytes();
        record.extend_from_slice(&line.text);
        written += record.len() as u64;
        if written > LOG_MAX {
            let last = format!(
                "{:.9} stderr F [the log is full; what follows is dropped]\n",
                Timestamp::now()
            );
            record.extend_from_slice(last.as_bytes());
        }
        if file.write_all(&record).await.is_err() || file.flush().await.is_err() {
            return;
        }
    }
}

fn end_of(log: &Path) -> PathBuf {
    log.with_extension("end")
}

/// Where the last so many lines begin.
async fn tail_offset(path: &Path, lines: u64) -> io::Result<u64> {
    let text = tokio::fs::read(path).await?;
    let end = text.len().saturating_sub(1);
    let newlines = text[..end]
        .iter()
        .enumerate()
        .rev()
        .filter(|(_, byte)| **byte == b'\n');
    if lines == 0 {
        return Ok(text.len() as u64);
    }
    let before = newlines
        .map(|(at, _)| at as u64 + 1)
        .nth(usize::try_from(lines - 1).unwrap_or(usize::MAX));
    Ok(before.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::TryStreamExt as _;

    async fn log(dir: &Path, text: &'static str) -> PathBuf {
        let path = path(dir, "c", 1);
        write(path.clone(), text.as_bytes(), &b""[..]).await.unwrap();
        let follow = Selection {
            follow: true,
            ..Selection::default()
        };
        read(path.clone(), follow)
            .await
            .unwrap()
            .try_collect::<Vec<_>>()
            .await
            .unwrap();
        path
    }

    async fn text(log: &Path, selection: Selection) -> String {
        let parts: Vec<Bytes> = read(log.to_owned(), selection)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        String::from_utf8(parts.concat()).unwrap()
    }

    #[tokio::test]
    async fn a_log_is_read_back_whole_and_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), "one\ntwo\nthree").await;
        let all = Selection::default;
        let in_an_hour = Timestamp::now() + k8s_openapi::jiff::SignedDuration::from_hours(1);
        let cases = [
            (all(), "one\ntwo\nthree\n"),
            (
                Selection {
                    tail: Some(2),
                    ..all()
                },
                "two\nthree\n",
            ),
            (
                Selection {
                    tail: Some(9),
                    ..all()
                },
                "one\ntwo\nthree\n",
            ),
            (
                Selection {
                    tail: Some(0),
                    ..all()
                },
                "",
            ),
            (
                Selection {
                    limit: Some(5),
                    ..all()
                },
                "one\nt",
            ),
            (
                Selection {
                    since: Some(in_an_hour),
                    ..all()
                },
                "",
            ),
        ];
        for (selection, expected) in cases {
            assert_eq!(text(&log, selection).await, expected);
        }
    }

    #[tokio::test]
    async fn lines_come_with_their_times_when_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), "one\ntwo\n").await;
        let text = text(
            &log,
            Selection {
                timestamps: true,
                ..Selection::default()
            },
        )
        .await;
        let times: Vec<&str> = text.lines().map(|line| line.split_once(' ').unwrap().0).collect();
        assert!(
            times.len() == 2 && times.iter().all(|time| time.parse::<Timestamp>().is_ok()),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_follower_sees_what_comes_and_then_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let (mut writer, reader) = tokio::io::duplex(64);
        let path = dir.path().join("0.log");
        write(path.clone(), reader, &b""[..]).await.unwrap();
        let stream = read(
            path,
            Selection {
                follow: true,
                ..Selection::default()
            },
        )
        .await
        .unwrap();
        futures::pin_mut!(stream);
        writer.write_all(b"a\n").await.unwrap();
        assert_eq!(stream.try_next().await.unwrap().unwrap(), "a\n");
        writer.write_all(b"b\n").await.unwrap();
        assert_eq!(stream.try_next().await.unwrap().unwrap(), "b\n");
        drop(writer);
        assert_eq!(stream.try_next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn the_last_run_and_the_one_before_are_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(latest(dir.path(), "c", false), None);
        log(dir.path(), "x").await;
        assert_eq!(latest(dir.path(), "c", false), Some(dir.path().join("c/0.log")));
        assert_eq!(latest(dir.path(), "c", true), None);
        write(path(dir.path(), "c", 2), &b""[..], &b""[..]).await.unwrap();
        assert_eq!(latest(dir.path(), "c", true), Some(dir.path().join("c/0.log")));
    }
}
