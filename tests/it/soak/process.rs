//! One run of the program, which may be killed before its end.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::soak::test_site::EPOCH;
use crate::support::faulty::{Dice, Proxy, Traffic};
use crate::support::gapferry_process_of;

/// The precision of a kill.
const TICK: Duration = Duration::from_millis(2);
/// Ticks between two checks from outside.
const LOOK: u32 = 5;
/// Longer than any run may take, including the time to stop.
const FOREVER: Duration = Duration::from_secs(120);

/// When the program is stopped, and how.
#[derive(Clone, Copy, Debug)]
pub struct Kill {
    signal: Signal,
    /// After this many requests or bytes from its start.
    requests: usize,
    bytes: usize,
}

impl Kill {
    /// At a random point within the first `requests`.
    pub fn by(dice: &mut Dice, requests: usize) -> Kill {
        let signal = dice.choose(vec![Signal::KILL, Signal::KILL, Signal::TERM, Signal::INT]);
        let bytes = if dice.one_in(3) { dice.size() } else { usize::MAX };
        Kill { signal, requests: 1 + dice.below(requests), bytes }
    }

    fn is_due(&self, before: &Traffic, now: &Traffic) -> bool {
        now.requests - before.requests >= self.requests || now.bytes - before.bytes >= self.bytes
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct End {
    pub status: ExitStatus,
    /// The signal that was sent.
    pub signal: Option<Signal>,
    /// Its messages.
    pub message: String,
}

/// Runs the program over a faulty connection. A run that waits for a silent registry is killed, like a user who loses
/// patience. `watch` checks the visible state meanwhile.
pub fn run(
    arguments: &[String],
    proxy: &Proxy,
    kill: Option<Kill>,
    mut watch: impl FnMut() -> Result<(), String>,
) -> Result<End, String> {
    let before = proxy.traffic();
    let mut process = program();
    process.args(arguments).env("SOURCE_DATE_EPOCH", EPOCH);
    process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = process.spawn().map_err(|e| e.to_string())?;
    let ended = listen(&mut child);
    let (started, mut ticks, mut signal, mut longest) = (Instant::now(), 0, None, Duration::ZERO);
    let message = loop {
        match ended.recv_timeout(TICK) {
            Ok(message) => break message,
            Err(RecvTimeoutError::Disconnected) => break String::new(),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = proxy.traffic();
        let due = kill.filter(|kill| kill.is_due(&before, &now)).map(|kill| kill.signal);
        let due = due.or((now.stalls > before.stalls).then_some(Signal::INT));
        if let (None, Some(due)) = (signal, due) {
            kill_process(Pid::from_child(&child), due).map_err(|e| e.to_string())?;
            signal = Some(due);
        }
        ticks += 1;
        let seen = match () {
            () if started.elapsed() > FOREVER => Err(format!("it does not end; the longest look took {longest:?}")),
            () if ticks % LOOK == 0 => {
                let began = Instant::now();
                let seen = watch();
                longest = longest.max(began.elapsed());
                seen
            }
            () => Ok(()),
        };
        if let Err(what) = seen {
            let _ = child.kill();
            let _ = child.wait();
            let message = ended.recv().unwrap_or_default();
            return Err(format!("{what}, and was sent {signal:?}\n{message}"));
        }
    };
    let status = child.wait().map_err(|e| e.to_string())?;
    proxy.release();
    Ok(End { status, signal, message })
}

/// The program of this build, or the one named by `GAPFERRY`.
pub fn program() -> Command {
    let given = std::env::var_os("GAPFERRY").filter(|path| !path.is_empty());
    // A background campaign of a script ignores SIGINT, and the program would inherit that until it installs its
    // handlers.
    let mut command = gapferry_process_of("env".as_ref());
    command.arg("--default-signal=INT").arg(given.as_deref().unwrap_or(env!("CARGO_BIN_EXE_gapferry").as_ref()));
    command
}

/// Its messages, available once it has printed them all.
fn listen(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let mut stderr = child.stderr.take().expect("a pipe");
    std::thread::spawn(move || {
        let mut message = Vec::new();
        let _ = stderr.read_to_end(&mut message);
        let _ = sender.send(String::from_utf8_lossy(&message).into_owned());
    });
    receiver
}
