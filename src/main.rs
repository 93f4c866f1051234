//! Parse, run, print the error and its hint, exit code — nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    gapferry::cli::main()
}
