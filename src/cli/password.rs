//! Passwords that are typed or piped: a question without echo, and standard input.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::stdin::take_stdin;
use crate::app::Passwords;
use crate::base::bounded::read_all;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Terminal;
use crate::credentials::{Credentials, Secret};

/// Longer is no password, in bytes; tokens of cloud registries have some thousand.
const MOST: u64 = 64 * 1024;

/// What standard input is with `--creds-stdin`.
pub const CREDS: &str = "the credentials (--creds-stdin)";

/// `USER:PASSWORD` from standard input.
///
/// # Errors
/// Nothing there, or something else; nothing of it is repeated.
pub fn from_stdin() -> Result<Credentials> {
    Credentials::parse(&secret_from_stdin(CREDS)?)
        .map_err(|_| Error::input("--creds-stdin: standard input is not USER:PASS"))
}

/// All of standard input but one line end at its end. `what` it is, for errors.
///
/// # Errors
/// Nothing there, too much, or no text; standard input is read for something else already.
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

/// Asks on the terminal that standard input is, on a line of its own.
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

/// Asks on the terminal. `why` it has to is as for [`ask_password`].
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

/// How the terminal was before a question without echo, while it is asked.
static ASKING: Mutex<Option<Termios>> = Mutex::new(None);

/// Echo comes back if the program is stopped while it asks for a password.
pub fn restore_terminal() {
    if let Some(former) = ASKING.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // It fails if the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, &former);
    }
}

/// Asks on the terminal, without echo. `why` it has to, and what to do `instead` where there is no terminal.
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
