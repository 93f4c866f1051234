//! Stops a command cleanly on Ctrl-C, SIGTERM and SIGHUP. A second Ctrl-C or SIGTERM ends it immediately; a second SIGHUP does
//! not, because a vanishing terminal may send several. SIGXFSZ is ignored: the write that exceeds the file size limit (`ulimit
//! -f`) fails with an error instead.
//!
//! The command runs in its own thread, because some commands compute or wait for input and would not notice a signal.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::context::Context;
use super::exit::CommandOutcome;
use super::hangup::Hangup;
use super::password;
use crate::base::error::{Error, Kind, Result};
use crate::credentials::{end_helpers, helpers_gone};

/// How long a stopped command waits for answers about tags that it is writing.
const TO_BE_ANSWERED: Duration = Duration::from_secs(1);
/// How long a stopped command may take to close files, and a helper to restore the terminal. Computations and reads are not
/// waited for.
const TO_LET_GO: Duration = Duration::from_secs(3);
/// Stack of the command's thread in bytes; the same as the main thread's.
const STACK: usize = 8 << 20;

/// Runs a command until it ends or the process receives a signal.
///
/// # Errors
/// The command failed, or could not be started.
pub fn run_until_stopped<F>(
    runtime: &Runtime,
    context: &Arc<Context>,
    command: impl FnOnce(Arc<Context>) -> F + Send + 'static,
) -> Result<CommandOutcome>
where
    F: Future<Output = Result<CommandOutcome>>,
{
    let signals = {
        let _runtime = runtime.enter();
        Signals::listen()?
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (end, ended) = oneshot::channel();
    let (handle, its_context, publishing) =
        (runtime.handle().clone(), context.clone(), context.environment.publishing.clone());
    let work = move || {
        let outcome = handle.block_on(async {
            let stopped = async {
                let _ = stopped.await;
                let _ = tokio::time::timeout(TO_BE_ANSWERED, publishing.close()).await;
            };
            tokio::select! {
                outcome = command(its_context) => Some(outcome),
                // Dropping the command closes what it has open.
                () = stopped => None,
            }
        });
        // After a second signal, the receiver is gone.
        let _ = end.send(outcome);
    };
    let thread = std::thread::Builder::new().name("command".to_owned()).stack_size(STACK).spawn(work);
    let thread = thread.map_err(|e| Error::new(Kind::Disk, "starting").because(e))?;
    match runtime.block_on(wait(ended, stop, signals, context)) {
        End::Itself(outcome) => outcome,
        End::Stopped(outcome) => Ok(outcome),
        End::Panicked => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => Err(Error::new(Kind::Interrupted, "running")),
        },
    }
}

enum End {
    Itself(Result<CommandOutcome>),
    Stopped(CommandOutcome),
    /// A bug in this program; the panic message has been printed.
    Panicked,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Hangup,
}

impl Signals {
    fn listen() -> Result<Signals> {
        let listen = |kind| signal(kind).map_err(|e| Error::new(Kind::Disk, "listening for signals").because(e));
        // Handling the signal is enough to keep it from ending the process.
        drop(listen(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?);
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        Ok(Signals { interrupt, terminate, hangup: Hangup::listen()? })
    }

    async fn next(&mut self) -> CommandOutcome {
        tokio::select! {
            _ = self.interrupt.recv() => CommandOutcome::Interrupted,
            _ = self.terminate.recv() => CommandOutcome::Terminated,
            () = self.hangup.next() => CommandOutcome::HungUp,
        }
    }

    /// Waits for the next signal that is not SIGHUP; a dropped session may send several of those.
    async fn next_order(&mut self) {
        while self.next().await == CommandOutcome::HungUp {}
    }
}

async fn wait(
    mut ended: oneshot::Receiver<Option<Result<CommandOutcome>>>,
    stop: oneshot::Sender<()>,
    mut signals: Signals,
    context: &Context,
) -> End {
    let outcome = tokio::select! {
        outcome = &mut ended => {
            // Ends helpers that the command no longer waits for.
            let_go(std::future::ready(()), &mut signals).await;
            return outcome.ok().flatten().map_or(End::Panicked, End::Itself);
        }
        outcome = signals.next() => outcome,
    };
    context.end();
    context.say("stopped; nothing is lost: run the same command again to continue");
    let _ = stop.send(());
    let_go(async { drop(ended.await) }, &mut signals).await;
    password::restore_terminal();
    End::Stopped(outcome)
}

/// Asks credential helpers to end, waits for them and for the command, and kills those that do not end. A signal cuts the wait
/// short.
async fn let_go(ended: impl Future<Output = ()>, signals: &mut Signals) {
    end_helpers(false);
    tokio::select! {
        _ = tokio::time::timeout(TO_LET_GO, async { tokio::join!(ended, helpers_gone()) }) => {}
        () = signals.next_order() => {}
    }
    end_helpers(true);
}
