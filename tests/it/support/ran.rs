//! The outcome of one run of the program.

/// The exit code and output of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// Runs the command to its end.
    pub fn of(command: &mut assert_cmd::Command) -> Ran {
        let output = command.output().expect("running gapferry");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    pub fn ended(self, code: i32) -> Ran {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub fn reported(self, words: &[&str]) -> Ran {
        let missing = words.iter().find(|words| !self.stderr.contains(**words));
        assert_eq!(missing, None, "{}", self.stderr);
        self
    }
}
