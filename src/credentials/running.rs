//! Helper programs while they run: they may wait for a PIN, a browser or a smart card. Somebody hears of one that keeps us
//! waiting, and none outlives us.

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

/// A helper that needs nobody has answered by then.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The most that a helper may say on either stream, in bytes: tokens have some thousand, lists of servers a hundred for each.
const MOST_SAID: u64 = 1024 * 1024;

/// Variables that begin like this hold what is no business of a helper.
const SECRET_VARIABLES: [&str; 2] = [super::AMBIENT, "COSIGN_PASSWORD"];

/// Of the process, as its end is: a command that is stopped does not come back to a helper it waits for.
static HELPERS: Mutex<Helpers> = Mutex::new(Helpers { events: None, ending: false, running: Vec::new() });

struct Helpers {
    events: Option<Events>,
    ending: bool,
    running: Vec<Pid>,
}

/// A helper has ended.
static GONE: Notify = Notify::const_new();

fn helpers() -> MutexGuard<'static, Helpers> {
    HELPERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where it is told, from now on, that a credential helper keeps this process waiting.
pub fn report_helpers_to(events: Events) {
    helpers().events = Some(events);
}

/// The process is about to end: no more helpers are started, those that run are asked to end, or with `now` made to.
pub fn end_helpers(now: bool) {
    let mut helpers = helpers();
    helpers.ending = true;
    let signal = if now { Signal::KILL } else { Signal::TERM };
    for pid in &helpers.running {
        // One that is gone already needs none.
        let _ = kill_process(*pid, signal);
    }
}

/// Waits until no helper runs. What one has started itself may still.
pub async fn helpers_gone() {
    loop {
        // Hears from here on, so that none ends unheard.
        let gone = GONE.notified();
        if helpers().running.is_empty() {
            return;
        }
        gone.await;
    }
}

/// Tells whoever wants to know.
pub(super) fn warn(text: String) {
    let events = helpers().events.clone();
    if let Some(events) = events {
        events.report(Event::Warning(text));
    }
}

/// What the program says to `input`; `on_delay` is called once if it has not answered when `patience` is over.
///
/// # Errors
/// It cannot be started or listened to, or the process is about to end.
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
        // It may end before what it says does, which others may hold open, or after.
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

/// Whether a variable holds credentials or a passphrase of ours.
fn is_secret(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    SECRET_VARIABLES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

fn start(command: &mut Command) -> io::Result<Child> {
    let mut helpers = helpers();
    if helpers.ending {
        return Err(io::ErrorKind::Interrupted.into());
    }
    // A helper is asked for one secret; it gets no others.
    for name in std::env::vars_os().map(|(name, _)| name).filter(|name| is_secret(name)) {
        command.env_remove(name);
    }
    let child = command.spawn()?;
    helpers.running.push(Pid::from_child(&child));
    Ok(child)
}

/// Waits for the end, but leaves the status there: the number is not another's before it is off the list.
fn note_end(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
    helpers().running.retain(|running| *running != pid);
    GONE.notify_waiters();
}

/// All that it says on either stream.
fn converse(child: &mut Child, input: &str) -> io::Result<(Vec<u8>, Vec<u8>)> {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that answers without reading is no failure.
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

/// All that it says on one stream. One that says too much is ended, or the other stream might stay open for ever.
fn all_of(stream: Option<impl Read>, pid: Pid) -> io::Result<Vec<u8>> {
    let said = stream.map_or(Ok(Some(Vec::new())), |stream| read_all(stream, MOST_SAID))?;
    said.ok_or_else(|| {
        // One that is gone already needs none. Its number is not another's before its end is waited for.
        let _ = kill_process(pid, Signal::KILL);
        io::Error::other(format!("it says more than {MOST_SAID} bytes"))
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
        // Whoever is told enters it: untold, the helper would wait for ever.
        let reported = run(&mut helper, "h.io", Duration::ZERO, || std::fs::write(&pin, "1234\n").unwrap()).unwrap();
        assert_eq!((&reported.stdout[..], &reported.stderr[..]), (&b"h.io 1234\n"[..], &b"more\n"[..]));
    }

    #[test]
    fn a_helper_that_never_stops_talking_is_ended_and_fills_no_memory() {
        for script in ["yes", "yes >&2", "exec yes", "exec yes >&2"] {
            let mut helper = Command::new("sh");
            helper.args(["-c", script]);
            let error = run(&mut helper, "h.io", Duration::from_secs(3600), || panic!("told")).unwrap_err();
            assert_eq!(error.to_string(), "it says more than 1048576 bytes", "{script}");
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
