//! SIGHUP: sent to a process when its terminal goes away, for example when an ssh session drops.
//!
//! A process that was started with SIGHUP ignored, as by nohup, must keep running without a terminal: an ignored SIGHUP stays
//! ignored.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::base::error::{Error, Kind, Result};

/// The signal, unless it was ignored when this process started.
pub struct Hangup(Option<Signal>);

impl Hangup {
    /// Starts listening.
    ///
    /// # Errors
    /// The system does not allow it.
    pub fn listen() -> Result<Hangup> {
        let listen =
            || signal(SignalKind::hangup()).map_err(|e| Error::new(Kind::Disk, "listening for signals").because(e));
        // Without /proc this is unknown, and the signal is left alone.
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let is_left = is_ignored(&status, SignalKind::hangup()).unwrap_or(true);
        if is_left { Ok(Hangup(None)) } else { listen().map(|signal| Hangup(Some(signal))) }
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        match &mut self.0 {
            Some(signal) => _ = signal.recv().await,
            None => std::future::pending().await,
        }
    }
}

/// Whether a signal is ignored according to the process's `status` (proc(5): `SigIgn`, one bit per signal from 1, in
/// hexadecimal).
///
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
