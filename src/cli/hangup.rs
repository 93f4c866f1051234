//! SIGHUP: what a process gets when the terminal it was started from goes away, such as a dropped ssh session.
//!
//! A process that was started with it ignored, as by nohup, is to go on without a terminal: an ignored SIGHUP stays ignored.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::base::error::{Error, Kind, Result};

/// The signal, unless it was ignored when this process started.
pub struct Hangup(Option<Signal>);

impl Hangup {
    /// # Errors
    /// The system does not let this process listen.
    pub fn listen() -> Result<Hangup> {
        let listen =
            || signal(SignalKind::hangup()).map_err(|e| Error::new(Kind::Disk, "listening for signals").because(e));
        // Without /proc this is not known, and the signal is left as it is.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let is_left = is_ignored(&status, SignalKind::hangup()).unwrap_or(true);
        if is_left { Ok(Hangup(None)) } else { listen().map(|signal| Hangup(Some(signal))) }
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => _ = signal.recv().await,
            None => std::future::pending().await,
        }
    }
}

/// Whether a signal is ignored, by the process's `status` (proc(5): `SigIgn`, a bit for each signal from 1 on, in hexadecimal).
fn is_ignored(status: &str, signal: SignalKind) -> Option<bool> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    let bit = u32::try_from(signal.as_raw_value()).ok()?.checked_sub(1)?;
    u64::from_str_radix(mask.trim(), 16).ok()?.checked_shr(bit).map(|bits| bits & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_signals_are_ignored_is_read_from_the_processs_status() {
        let ignored = |mask: &str, signal| is_ignored(&format!("SigBlk:\tffff\nSigIgn:\t{mask}\nSigCgt:\t0\n"), signal);
        assert_eq!(ignored("0000000000000001", SignalKind::hangup()), Some(true));
        assert_eq!(ignored("0000000000001000", SignalKind::hangup()), Some(false));
        assert_eq!(ignored("0000000000001002", SignalKind::interrupt()), Some(true));
        assert_eq!(ignored("x", SignalKind::hangup()), None);
        assert_eq!(is_ignored("", SignalKind::hangup()), None);
    }
}
