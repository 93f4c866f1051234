//! Reads passwords from the terminal, without echo, or from standard input.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::stdin::take_stdin;
use crate::app::Passwords;
use crate::base::bounded::read_all;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Terminal;
use crate::credentials::{Credentials, Secret};

/// Maximum length of a password in bytes. Tokens of cloud registries have a few thousand.
const MOST: u64 = 64 * 1024;

/// The purpose of standard input with `--creds-stdin`.
pub const CREDS: &str = "the credentials (--creds-stdin)";

/// Reads `USER:PASSWORD` from standard input.
///
/// # Errors
/// Standard input is empty or has another form. The error does not repeat the input.
pub fn from_stdin() -> Result<Credentials> {
    Credentials::parse(&secret_from_stdin(CREDS)?)
        .map_err(|_| Error::input("--creds-stdin: standard input is not USER:PASS"))
}

/// Reads all of standard input, without one final line end. `what` names the purpose in errors.
///
/// # Errors
/// Standard input is empty, too long, not UTF-8, or already claimed for another purpose.
pub fn secret_from_stdin(what: &'static str) -> Result<String> {
    take_stdin(what)?;
    let attempt = || format!("reading {what} from standard input");
    let read = read_all(std::io::stdin().lock(), MOST);
    let bytes = read.map_err(|e| Error::new(Kind::Disk, attempt()).because(e))?;
    let bytes = bytes.ok_or_else(|| Error::input(format!("{}: more than {MOST} bytes", attempt())))?;
    let mut text = String::from_utf8(bytes).map_err(|_| Error::input(format!("{}: it is not UTF-8", attempt())))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(Error::input(format!("{}: it is empty", attempt())));
    }
    Ok(text)
}

/// Asks for a password on the terminal.
pub struct AskOnTerminal(pub Option<Arc<Terminal>>);

impl Passwords for AskOnTerminal {
    fn password_of(&self, user: &str) -> Result<Secret> {
        if let Some(terminal) = &self.0 {
            terminal.clear();
        }
        ask_password(user, "--creds names no password", "write --creds USER:PASSWORD or use --creds-stdin")
            .map(Secret::new)
    }
}

/// Asks for a user name on the terminal. `why` and `instead` are as for [`ask_password`].
pub fn ask_user(registry: &str, why: &str, instead: &str) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::input(format!("{why}, and there is no terminal to ask on: {instead}")));
    }
    let _ = write!(std::io::stderr(), "User at {registry}: ");
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    read.map_err(|e| Error::new(Kind::Input, "asking for the user").because(e))?;
    Ok(line.trim().to_owned())
}

/// The terminal settings to restore while a question without echo is open.
static ASKING: Mutex<Option<Termios>> = Mutex::new(None);

/// Restores echo if the program is stopped during a question.
pub fn restore_terminal() {
    if let Some(former) = ASKING.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // This fails if the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &former);
    }
}

/// Asks on the terminal, without echo. `why` says why gapferry has to ask, and `instead` what to do without a terminal.
pub fn ask_password(user: &str, why: &str, instead: &str) -> Result<String> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::input(format!("{why}, and there is no terminal to ask on: {instead}")));
    }
    let fail = |e: std::io::Error| Error::new(Kind::Input, "asking for the password").because(e);
    let former = tcgetattr(&stdin).map_err(|e| fail(e.into()))?;
    let mut hidden = former.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    *ASKING.lock().unwrap_or_else(PoisonError::into_inner) = Some(former);
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|e| fail(e.into()))?;
    let _ = write!(std::io::stderr(), "Password of {user}: ");
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    restore_terminal();
    let _ = writeln!(std::io::stderr());
    read.map_err(fail)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
