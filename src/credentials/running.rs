//! Runs credential helpers, which may wait for a PIN, a browser or a smart card. A helper that keeps gapferry waiting is
//! reported, and none outlives it.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::Notify;

use crate::base::bounded::read_all;
use crate::base::progress::{Event, Events};

/// Helpers that need no person have answered by then.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Maximum output of a helper on either stream in bytes: tokens have some thousand, lists of servers a hundred for each.
const MOST_SAID: u64 = 1024 * 1024;

/// Prefixes of variables that helpers must not see.
const SECRET_VARIABLES: [&str; 2] = [super::AMBIENT, "COSIGN_PASSWORD"];

/// Global, because ending the process is: a stopped command does not return to a helper it waits for.
static HELPERS: Mutex<Helpers> = Mutex::new(Helpers { events: None, ending: false, running: Vec::new() });

struct Helpers {
    events: Option<Events>,
    ending: bool,
    running: Vec<Pid>,
}

/// Notified when a helper has ended.
static GONE: Notify = Notify::const_new();

fn helpers() -> MutexGuard<'static, Helpers> {
    HELPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets where to report that a credential helper keeps this process waiting.
pub fn report_helpers_to(events: Events) {
    helpers().events = Some(events);
}

/// The process is about to end: starts no more helpers, and asks the running ones to end, or kills them with `now`.
pub fn end_helpers(now: bool) {
    let mut helpers = helpers();
    helpers.ending = true;
    let signal = if now { Signal::KILL } else { Signal::TERM };
    for pid in &helpers.running {
        // It may have ended already.
        let _ = kill_process(*pid, signal);
    }
}

/// Waits until no helper is running; processes that they started may still be.
pub async fn helpers_gone() {
    loop {
        // Registered before the check, so that no end is missed.
        let gone = GONE.notified();
        if helpers().running.is_empty() {
            return;
        }
        gone.await;
    }
}

/// Reports a warning.
pub(super) fn warn(text: String) {
    let events = helpers().events.clone();
    if let Some(events) = events {
        events.report(Event::Warning(text));
    }
}

/// Runs the program with `input` and returns its output. `on_delay` is called once if it has not answered after `patience`.
///
/// # Errors
/// It cannot be started or read, or the process is about to end.
pub(super) fn run(
    command: &mut Command,
    input: &str,
    patience: Duration,
    on_delay: impl FnOnce() + Send,
) -> io::Result<Output> {
    let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
    let pid = Pid::from_child(&child);
    let output = thread::scope(|scope| {
        let (over, answered) = mpsc::channel::<()>();
        let watch = move || {
            if answered.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                on_delay();
            }
        };
        let threads = Builder::new().spawn_scoped(scope, watch);
        // It may end before its streams do, which others may hold open, or after them.
        let threads = threads.and_then(|_| Builder::new().spawn_scoped(scope, move || note_end(pid)));
        let output = threads.and_then(|_| converse(&mut child, input));
        drop(over);
        if output.is_err() {
            let _ = child.kill();
        }
        output
    });
    note_end(pid);
    let status = child.wait()?;
    output.map(|(stdout, stderr)| Output { status, stdout, stderr })
}

/// Whether a variable contains credentials or a passphrase of ours.
fn is_secret(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    SECRET_VARIABLES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

fn start(command: &mut Command) -> io::Result<Child> {
    let mut helpers = helpers();
    if helpers.ending {
        return Err(io::ErrorKind::Interrupted.into());
    }
    // A helper is asked for one secret and receives no others.
    for name in std::env::vars_os().map(|(name, _)| name).filter(|name| is_secret(name)) {
        command.env_remove(name);
    }
    let child = command.spawn()?;
    helpers.running.push(Pid::from_child(&child));
    Ok(child)
}

/// Waits for the end without collecting the status, so that the process ID is not reused before it is off the list.
fn note_end(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
    helpers().running.retain(|running| *running != pid);
    GONE.notify_waiters();
}

/// Everything it prints on either stream.
fn converse(child: &mut Child, input: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper may answer without reading its input.
        let _ = writeln!(stdin, "{input}");
    }
    let (stdout, stderr, pid) = (child.stdout.take(), child.stderr.take(), Pid::from_child(child));
    thread::scope(|scope| {
        let complaints = Builder::new().spawn_scoped(scope, move || all_of(stderr, pid))?;
        let answer = all_of(stdout, pid);
        let complaints = complaints.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        Ok((answer?, complaints?))
    })
}

/// Everything it prints on one stream. A helper that prints too much is killed; otherwise the other stream might stay open
/// forever.
fn all_of(stream: Option<impl Read>, pid: Pid) -> io::Result<Vec<u8>> {
    let said = stream.map_or(Ok(Some(Vec::new())), |stream| read_all(stream, MOST_SAID))?;
    said.ok_or_else(|| {
        // It may have ended already. Its process ID is not reused before its status is collected.
        let _ = kill_process(pid, Signal::KILL);
        io::Error::other(format!("it printed more than {MOST_SAID} bytes"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_hears_of_a_helper_that_waits_and_its_answer_still_counts() {
        let directory = tempfile::tempdir().unwrap();
        let pin = directory.path().join("pin");
        assert!(Command::new("mkfifo").arg(&pin).status().unwrap().success());
        let mut helper = Command::new("sh");
        helper.arg("-c").arg("read server; read pin < \"$0\"; echo \"$server $pin\"; echo more >&2").arg(&pin);
        // The listener enters the PIN; without the report, the helper would wait forever.
        let reported = run(&mut helper, "h.io", Duration::ZERO, || std::fs::write(&pin, "1234\n").unwrap()).unwrap();
        assert_eq!((&reported.stdout[..], &reported.stderr[..]), (&b"h.io 1234\n"[..], &b"more\n"[..]));
    }

    #[test]
    fn a_helper_that_never_stops_talking_is_ended_and_fills_no_memory() {
        for script in ["yes", "yes >&2", "exec yes", "exec yes >&2"] {
            let mut helper = Command::new("sh");
            helper.args(["-c", script]);
            let error = run(&mut helper, "h.io", Duration::from_secs(3600), || panic!("told")).unwrap_err();
            assert_eq!(error.to_string(), "it printed more than 1048576 bytes", "{script}");
        }
    }

    #[test]
    fn nobody_hears_of_a_helper_that_answers() {
        let mut helper = Command::new("sh");
        helper.args(["-c", "cat; echo $$"]);
        let message = run(&mut helper, "h.io", Duration::from_secs(3600), || panic!("told")).unwrap();
        let message = String::from_utf8(message.stdout).unwrap();
        let (input, pid) = message.trim_end().split_once('\n').unwrap();
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        assert!(input == "h.io" && !helpers().running.contains(&pid));
    }
}
