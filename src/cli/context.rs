//! What every command shares: events, output, the clock and the environment.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::arrange::GLOBAL_OPTIONS;
use super::hint;
use super::password::AskOnTerminal;
use crate::app::{Environment, ErrorDetail, ErrorReport, Hint, HintCode, JsonReport};
pub use crate::app::{check_writable, write_file};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::{Event, Events, Json, Lines, Terminal, plain, shown_json, shown_line};

const RED: &str = "\x1b[1;31m";
const CYAN: &str = "\x1b[1;36m";
const RESET: &str = "\x1b[0m";

/// Options of every command.
#[derive(Args)]
pub struct Global {
    /// Print only warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = GLOBAL_OPTIONS)]
    quiet: bool,
    /// Log what gapferry does; -vv: everything
    ///
    /// Secrets are masked.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = GLOBAL_OPTIONS)]
    verbose: u8,
    /// Format of progress and messages on standard error
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text", hide_short_help = true)]
    #[arg(help_heading = GLOBAL_OPTIONS)]
    log_format: LogFormat,
    /// When to use colours
    ///
    /// auto: on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_short_help = true)]
    #[arg(help_heading = GLOBAL_OPTIONS)]
    color: When,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Progress bars on a terminal, otherwise lines
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum When {
    Auto,
    Always,
    Never,
}

/// The context of a command.
pub struct Context {
    /// What the library receives.
    pub environment: Environment,
    terminal: Option<Arc<Terminal>>,
    json: bool,
    quiet: bool,
    color: bool,
    /// Whether a report was printed as JSON.
    has_reported: AtomicBool,
    /// Whether the command has `--keep-going`, and can leave out what it cannot get.
    pub may_keep_going: bool,
}

impl Context {
    pub fn new(global: &Global) -> Context {
        let is_terminal = std::io::stderr().is_terminal() && draws(std::env::var_os("TERM").as_deref());
        let json = global.log_format == LogFormat::Json;
        let terminal = (is_terminal && !json && !global.quiet).then(|| Arc::new(Terminal::default()));
        let events: Events = match &terminal {
            Some(terminal) => terminal.clone(),
            None if json => Arc::new(Json::new(global.quiet)),
            None => Arc::new(Lines::new(global.quiet)),
        };
        let color = match global.color {
            When::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            When::Always => true,
            When::Never => false,
        };
        let (quiet, may_keep_going) = (global.quiet, false);
        let passwords = Arc::new(AskOnTerminal(terminal.clone()));
        let environment = Environment { passwords, ..Environment::of_process(events) };
        let context =
            Context { environment, terminal, json, quiet, color, has_reported: AtomicBool::new(false), may_keep_going };
        context.trace(global.verbose);
        context
    }

    /// Sends logs of the library to the same place as bars and messages, so that they do not interleave.
    fn trace(&self, verbose: u8) {
        let filter = match verbose {
            0 => return,
            1 => "gapferry=debug",
            _ => "trace,h2=info,mio=info",
        };
        let terminal = self.terminal.clone();
        let writer = move || LogWriter { terminal: terminal.clone() };
        let logs = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(filter)).with_writer(writer);
        // Only tests install a second subscriber in one process.
        let _ = match self.json {
            true => logs.json().try_init(),
            false => logs.with_ansi(false).with_target(false).try_init(),
        };
    }

    /// Removes the bars; the next output stands alone.
    pub fn end(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.clear();
        }
    }

    /// Prints a line for people, unless `--quiet` is given.
    pub fn say(&self, line: &str) {
        self.environment.events.report(Event::Status(line.to_owned()));
    }

    /// Prints several lines that belong together.
    pub fn say_lines<L: AsRef<str>>(&self, lines: &[L]) {
        if self.quiet {
            return;
        }
        let lines = || lines.iter().map(AsRef::as_ref);
        if self.json {
            return self.environment.events.report(Event::Notice(lines().collect::<Vec<_>>().join("\n")));
        }
        match &self.terminal {
            Some(terminal) => terminal.aside(|| lines().for_each(to_stderr)),
            None => lines().for_each(to_stderr),
        }
    }

    /// Prints the error that ends the run, its causes and the hint.
    pub fn failed(&self, error: &Error) {
        let hint = self.hint_for(error);
        if self.json {
            return log_failure("error", &error.lines().join("\n"), hint);
        }
        let mut lines = error.lines().into_iter();
        self.labelled("error:", RED, &lines.next().unwrap_or_default());
        lines.for_each(|line| to_stderr(&line));
        if let Some(hint) = hint {
            self.hint(hint);
        }
    }

    /// Prints a hint.
    pub fn hint(&self, hint: Hint) {
        match self.json {
            true => log_failure("hint", hint.text, Some(hint)),
            false => self.labelled("hint:", CYAN, hint.text),
        }
    }

    /// Prints the failure as JSON on standard output, unless a report was already printed.
    pub fn report_failure(&self, error: &Error) {
        if !self.has_reported.load(Ordering::Relaxed) {
            let hint = self.hint_for(error);
            // The exit code reports the failure anyway.
            let _ = self.print_json(&ErrorReport::new(ErrorDetail { hint, ..ErrorDetail::of(error) }));
        }
    }

    fn hint_for(&self, error: &Error) -> Option<Hint> {
        let code = hint::for_error(error);
        let code = if self.may_keep_going { code.map(hint::that_may_keep_going) } else { code };
        code.map(hint::with_text)
    }

    /// A line that starts with a label, which may have a colour.
    fn labelled(&self, label: &str, color: &str, line: &str) {
        let (color, reset) = if self.color { (color, RESET) } else { ("", "") };
        to_stderr_as_is(&format!("{color}{label}{reset} {}", shown_line(line)));
    }

    /// Whether messages are JSON objects, to be read one by one.
    pub fn logs_json(&self) -> bool {
        self.json
    }

    /// Prints an image that failed among others that did not.
    pub fn failed_image(&self, text: &str, hint: Option<HintCode>) {
        let hint = hint.map(hint::with_text);
        if self.json {
            return log_failure("image-failed", text, hint);
        }
        self.labelled("failed:", RED, text);
        if let Some(hint) = hint {
            to_stderr(&format!("  hint: {}", hint.text));
        }
    }

    /// Prints data to standard output. A reader that has gone away (`| head`) is not an error.
    pub fn print(&self, text: &str) -> Result<()> {
        self.print_bytes(plain(text).as_bytes())
    }

    pub fn print_bytes(&self, bytes: &[u8]) -> Result<()> {
        self.end();
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::new(Kind::Disk, "writing to standard output").because(error))
            }
            _ => Ok(()),
        }
    }

    /// Prints a report as indented JSON on standard output.
    pub fn print_json(&self, value: &impl JsonReport) -> Result<()> {
        self.has_reported.store(true, Ordering::Relaxed);
        self.print(&as_json(value)?)
    }
}

fn as_json(report: &impl JsonReport) -> Result<String> {
    let text = serde_json::to_string_pretty(report);
    Ok(text.map_err(|e| Error::input("writing JSON").because(e))? + "\n")
}

/// Whether a terminal of this type can redraw a line. A serial console or an editor's shell says `dumb`.
fn draws(term: Option<&OsStr>) -> bool {
    term.is_some_and(|term| !term.is_empty() && term != "dumb")
}

/// Prints a failure to standard output before a context exists. The exit code reports it anyway.
pub fn print_failure(report: &ErrorReport) {
    if let Ok(text) = as_json(report) {
        let _ = std::io::stdout().lock().write_all(plain(&text).as_bytes());
    }
}

/// A line of the JSON log.
fn log_failure(event: &str, text: &str, hint: Option<Hint>) {
    let (code, hint) = (hint.map(|hint| hint.code), hint.map(|hint| hint.text));
    let line = serde_json::json!({ "event": event, "text": text, "hintCode": code, "hint": hint });
    to_stderr_as_is(&shown_json(line));
}

/// Prints one line, whatever the text contains.
fn to_stderr(line: &str) {
    to_stderr_as_is(&shown_line(line));
}

fn to_stderr_as_is(line: &str) {
    // If standard error is closed, there is no other place to report it.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

struct LogWriter {
    terminal: Option<Arc<Terminal>>,
}

/// Each record arrives complete, with its line end.
impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let record = String::from_utf8_lossy(bytes);
        let print = || to_stderr(record.strip_suffix('\n').unwrap_or(&record));
        match &self.terminal {
            Some(terminal) => terminal.aside(print),
            None => print(),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a serial console, bars would be garbage, and without them a transfer would be silent for hours.
    #[test]
    fn a_terminal_that_cannot_redraw_a_line_gets_plain_lines() {
        assert!(draws(Some(OsStr::new("xterm-256color"))));
        for cannot in [None, Some(OsStr::new("")), Some(OsStr::new("dumb"))] {
            assert!(!draws(cannot), "{cannot:?}");
        }
    }
}
