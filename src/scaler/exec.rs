use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::driver::{DriverError, ErrorKind};
use super::hook::{Carrier, Hook};
use super::http::first_line;
use crate::config::model;
use crate::types::format_duration;

/// The most that is kept of what a program says.
const OUTPUT: u64 = 1 << 20;
/// What a program has said is waited for so long after its end: it may have left children behind that keep its output open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Scales by running a program: it gets on its standard input what a [`Webhook`](super::Webhook) gets by POST, and may answer the same on its
/// standard output.
///
/// It runs in a process group of its own, which is killed when it takes too long. What it leaves running when it ends in time stays.
///
/// **Errors**: any exit code but 0 is a refusal, with the last line of its standard error.
pub type Exec = Hook<Program>;

/// The way of an [`Exec`].
#[derive(Debug)]
pub struct Program {
    settings: model::Exec,
}

impl Hook<Program> {
    /// For a pool, as it is configured.
    pub fn new(pool: &str, settings: &model::Exec) -> Exec {
        Hook::with(pool, Program { settings: settings.clone() }, settings.converge)
    }
}

impl Carrier for Program {
    fn kind(&self) -> &'static str {
        "exec"
    }

    fn carry<'a>(&'a self, _: &'a str, message: Bytes) -> LocalBoxFuture<'a, Result<Bytes, DriverError>> {
        Box::pin(self.run(message))
    }
}

impl Program {
    async fn run(&self, message: Bytes) -> Result<Bytes, DriverError> {
        let mut group = self.start().map_err(|error| self.unstarted(&error))?;
        let ended = tokio::time::timeout(self.settings.timeout, converse(&mut group.child, message)).await;
        let name = self.name();
        match ended {
            Err(_) => {
                let span = format_duration(self.settings.timeout);
                let advice =
                    "see why it takes so long, or raise `exec.timeout`; it is run again with the same decision id";
                Err(DriverError {
                    what: format!("{name} had not ended within {span} and was killed"),
                    advice: advice.to_owned(),
                    kind: ErrorKind::Unreachable,
                })
            }
            Ok(Err(error)) => Err(self.unstarted(&error)),
            Ok(Ok(spoken)) => {
                group.ended = true;
                if spoken.status.success() { Ok(spoken.out.into()) } else { Err(refused(name, &spoken)) }
            }
        }
    }

    fn start(&self) -> io::Result<Group> {
        let (program, arguments) = self.settings.command.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        command.args(arguments).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Ok(Group { child: command.spawn()?, ended: false })
    }

    fn name(&self) -> &str {
        self.settings.command.first().map_or("the program", String::as_str)
    }

    fn unstarted(&self, error: &io::Error) -> DriverError {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => {
                "name a program that is there in the scaler's `exec.command`, best with its whole path"
            }
            io::ErrorKind::PermissionDenied => "make it executable for this process's user",
            _ => "see to the machine's limits of processes and memory",
        };
        DriverError {
            what: format!("cannot run {}: {error}", self.name()),
            advice: advice.to_owned(),
            kind: ErrorKind::Refused,
        }
    }
}

/// A program with all that it has started, killed unless it has ended: also where nobody waits for it any more.
struct Group {
    child: Child,
    ended: bool,
}

impl Drop for Group {
    fn drop(&mut self) {
        let number = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        // The number is still its own: it has not been waited for.
        if let Some(number) = number.filter(|_| !self.ended) {
            let _ = kill_process_group(number, Signal::KILL);
        }
    }
}

struct Spoken {
    status: ExitStatus,
    out: Vec<u8>,
    err: Vec<u8>,
}

async fn converse(child: &mut Child, message: Bytes) -> io::Result<Spoken> {
    let (input, out, err) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut input) = input {
            // A program that does not want to read it may still be right.
            let _ = input.write_all(&message).await;
        }
    };
    let (mut said_out, mut said_err) = (Vec::new(), Vec::new());
    let reading = async { tokio::join!(read(out, &mut said_out), read(err, &mut said_err), write) };
    let status = {
        let mut reading = std::pin::pin!(reading);
        let mut done = false;
        let status = tokio::select! {
            status = child.wait() => status?,
            _ = &mut reading => { done = true; child.wait().await? }
        };
        if !done {
            let _ = tokio::time::timeout(LAST_WORDS, reading).await;
        }
        status
    };
    Ok(Spoken { status, out: said_out, err: said_err })
}

/// Reads to the end, of which no more than so much is kept: a program that talks on is not to be stopped by a full pipe.
async fn read(from: Option<impl AsyncRead + Unpin>, said: &mut Vec<u8>) {
    if let Some(mut from) = from {
        let _ = (&mut from).take(OUTPUT).read_to_end(said).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
}

fn refused(name: &str, spoken: &Spoken) -> DriverError {
    let last = spoken.err.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().map(first_line).unwrap_or_default();
    let said = if last.is_empty() { String::new() } else { format!(": {last}") };
    DriverError {
        what: format!("{name} ended with {}{said}", spoken.status),
        advice: "see in what it says why it refuses; it is run again with the same decision id".to_owned(),
        kind: ErrorKind::Refused,
    }
}
