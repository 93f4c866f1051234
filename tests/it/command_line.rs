//! The command line itself: exit codes, streams, signals and help, as scripts and people at a console rely on them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::images;
use crate::support::registry::{Options, Registry};
use crate::support::{commands, gapferry, gapferry_process, tempdir};

fn run(arguments: &[&str]) -> Output {
    gapferry().args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// A registry with one image, and its bundle.
struct TestSite {
    registry: Registry,
    reference: String,
    directory: tempfile::TempDir,
    bundle: PathBuf,
}

fn site() -> TestSite {
    let registry = Registry::start();
    images::oci("team/app", "1.0", &["content of the app"]).push(&registry);
    let reference = format!("{}/team/app:1.0", registry.host());
    let directory = tempdir();
    let bundle = directory.path().join("bundle");
    gapferry().args(["export", &reference, "-q", "-o"]).arg(&bundle).assert().success();
    TestSite { registry, reference, directory, bundle }
}

impl TestSite {
    fn bundle(&self) -> &str {
        self.bundle.to_str().unwrap()
    }
}

/// The largest blob of the bundle, which is not metadata.
fn any_blob(bundle: &Path) -> PathBuf {
    let files = std::fs::read_dir(bundle.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[test]
fn wrong_usage_or_input_exits_2_without_any_request() {
    let directory = tempdir();
    let bad = directory.path().join("bad.txt");
    std::fs::write(&bad, "nginx:1\nUPPER:1\nx=y\n").unwrap();
    let bad = bad.to_str().unwrap();
    for arguments in [
        &["export"][..],
        &["nonsense"],
        &["lock", "--no-such-option"],
        &["lock", "-f", bad],
        &["lock", "-f", "/nowhere/at/all"],
        &["verify", "/nowhere/at/all"],
        &["verify", directory.path().to_str().unwrap()],
        &["list", bad],
        &["import", directory.path().to_str().unwrap(), "--to", "localhost:1/UPPER"],
    ] {
        let output = run(arguments);
        assert_code(&output, 2);
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    let all = text(&run(&["lock", "-f", bad]).stderr);
    assert!(all.contains("bad.txt:2") && all.contains("bad.txt:3"), "every error of a file at once: {all}");
}

/// The reader would try what the message proposes, and fail again.
#[test]
fn an_error_in_the_options_proposes_nothing_that_cannot_work() {
    let unknown = run(&["export", "--frobnicate", "-o", "out"]);
    assert_code(&unknown, 2);
    assert!(!text(&unknown.stderr).contains("as a value"), "{}", text(&unknown.stderr));
    let mistyped = run(&["export", "--platfrm", "linux/amd64", "-o", "out"]);
    assert!(text(&mistyped.stderr).contains("--platform"), "{}", text(&mistyped.stderr));
    let both = run(&["export", "nginx", "--locked", "images.lock", "-o", "out"]);
    assert_code(&both, 2);
    assert!(text(&both.stderr).contains("cannot be used with"), "{}", text(&both.stderr));
    assert!(!text(&both.stderr).contains("Usage:"), "{}", text(&both.stderr));
}

#[test]
fn a_damaged_bundle_exits_3_from_verify_and_import_pushes_nothing() {
    let site = site();
    assert_code(&run(&["verify", site.bundle()]), 0);
    let blob = any_blob(&site.bundle);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes.pop();
    std::fs::write(&blob, bytes).unwrap();
    let output = run(&["verify", site.bundle()]);
    assert_code(&output, 3);
    let name = blob.file_name().unwrap().to_string_lossy().into_owned();
    assert!(text(&output.stdout).contains(&name), "{}", text(&output.stdout));
    let target = Registry::start();
    assert_code(&run(&["import", site.bundle(), "--to", target.host()]), 3);
    assert!(!target.requests().iter().any(|r| r.method == "POST" || r.method == "PUT"), "{:?}", target.requests());
}

#[test]
fn a_registrys_refusal_exits_4() {
    let site = site();
    assert_code(&run(&["lock", &format!("{}/team/app:gone", site.registry.host())]), 4);
    let closed = Registry::with(Options { credentials: Some(("me".into(), "right".into())), ..Options::default() });
    let reference = format!("{}/a:1", closed.host());
    assert_code(&run(&["lock", &reference]), 4);
    let output = run(&["lock", &reference, "--creds", "me:wrongSECRET", "-vv"]);
    assert_code(&output, 4);
    assert!(!text(&output.stderr).contains("wrongSECRET"), "{}", text(&output.stderr));
}

#[test]
fn an_unreachable_registry_exits_5() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let output = run(&["lock", &format!("127.0.0.1:{port}/a:1"), "--retries", "0"]);
    assert_code(&output, 5);
    assert!(text(&output.stderr).contains("hint:"), "{}", text(&output.stderr));
}

#[test]
fn one_failed_image_exits_1_and_the_others_arrive() {
    let registry = Registry::start();
    images::oci("good", "1", &["x"]).push(&registry);
    let index = images::oci_index("sparse", "1", "multi");
    index.push(&registry);
    let directory = tempdir();
    let bundle = directory.path().join("b.tar");
    let list = directory.path().join("list.txt");
    let host = registry.host();
    std::fs::write(&list, format!("{host}/good:1\n{host}/sparse:1 platform=linux/amd64\n")).unwrap();
    let mut export = gapferry();
    export.args(["export", "--index", "sparse", "-f"]).arg(&list).arg("-o").arg(&bundle).assert().success();
    let target = Registry::start();
    let output = run(&["import", bundle.to_str().unwrap(), "--to", target.host()]);
    assert_code(&output, 1);
    assert!(target.digest("good", "1").is_some() && target.digest("sparse", "1").is_none());
    assert!(text(&output.stderr).contains("failed:"), "{}", text(&output.stderr));
}

#[test]
fn the_command_line_overrides_the_environment() {
    let closed = Registry::with(Options { credentials: Some(("me".into(), "right".into())), ..Options::default() });
    images::oci("a", "1", &["x"]).push(&closed);
    let reference = format!("{}/a:1", closed.host());
    let lock = |creds: &[&str]| {
        let mut command = gapferry();
        command.env("GAPFERRY_CREDS", "me:right").args(["lock", &reference]).args(creds).output().unwrap()
    };
    assert_code(&lock(&[]), 0);
    assert_code(&lock(&["--creds", "me:wrong"]), 4);
    assert_code(&lock(&["--authfile", "/dev/null"]), 2);
    // Reading them in full would exhaust the memory.
    let (endless, work) = (tempdir(), tempdir());
    std::os::unix::fs::symlink("/dev/zero", endless.path().join("zero.crt")).unwrap();
    let endless = endless.path().to_str().unwrap();
    let large = work.path().join("large.pem");
    std::fs::File::create(&large).unwrap().set_len(17 << 20).unwrap();
    let too_large = "it has more than 16777216 bytes";
    for (option, path, says) in [
        ("--authfile", "/dev/zero", too_large),
        ("--ca-file", large.to_str().unwrap(), too_large),
        ("--ca-file", "/dev/zero", "it is not a regular file"),
        ("--cert-dir", endless, "it is not a regular file"),
    ] {
        let refused = lock(&[option, path]);
        assert_code(&refused, 2);
        assert!(text(&refused.stderr).contains(says), "{}", text(&refused.stderr));
    }
    let empty = tempdir();
    let authfile = empty.path().join("auth.json");
    std::fs::write(&authfile, "{}").unwrap();
    assert_code(&lock(&["--authfile", authfile.to_str().unwrap()]), 4);
}

#[test]
fn only_data_goes_to_stdout_and_everything_else_to_stderr() {
    let site = site();
    let lock = run(&["lock", &site.reference, "-vv"]);
    let parsed: serde_json::Value = serde_json::from_slice(&lock.stdout).unwrap();
    assert!(parsed["images"][0]["digest"].as_str().unwrap().starts_with("sha256:"), "{parsed}");
    for arguments in [
        &["list", site.bundle(), "--json"][..],
        &["verify", site.bundle(), "--json"],
        &["inspect", site.bundle(), "--json"],
        &["inspect", &site.reference, "--raw"],
        &["inspect", &site.reference, "--config"],
        &["export", &site.reference, "-o", site.bundle(), "--json"],
        &["export", &site.reference, "-o", site.bundle(), "--json", "--dry-run"],
    ] {
        let output = run(arguments);
        assert_code(&output, 0);
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_else(|e| panic!("{arguments:?}: {e}"));
    }
}

#[test]
fn quiet_prints_nothing_on_success() {
    let site = site();
    let out = site.directory.path().join("other.tar");
    let target = Registry::start();
    for arguments in [
        &["export", &site.reference, "-q", "-o", out.to_str().unwrap()][..],
        &["import", out.to_str().unwrap(), "-q", "--to", target.host()],
        &["import", out.to_str().unwrap(), "-q", "--to", target.host(), "--log-format", "json"],
    ] {
        let output = run(arguments);
        assert_code(&output, 0);
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{}", text(&output.stderr));
    }
}

#[test]
fn json_logs_are_one_object_per_line_including_errors() {
    let site = site();
    let out = site.directory.path().join("other.tar");
    let gone = format!("{}/team/app:gone", site.registry.host());
    let not_found = serde_json::json!("not-found");
    for (reference, code, last, hint) in [(&site.reference, 0, "notice", None), (&gone, 4, "error", Some(&not_found))] {
        let output = run(&["export", reference, "-vv", "--log-format", "json", "-o", out.to_str().unwrap()]);
        assert_code(&output, code);
        let lines: Vec<serde_json::Value> = text(&output.stderr)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect();
        let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
        assert_eq!(events.last(), Some(&last), "{events:?}");
        assert_eq!(lines.iter().rfind(|line| line["event"] == last).and_then(|line| line.get("hintCode")), hint);
    }
}

#[test]
fn a_closed_stdout_pipe_is_not_a_failure() {
    let site = site();
    for arguments in [&["list", site.bundle()][..], &["--help"], &["man"], &["completions", "bash"]] {
        let mut process =
            gapferry_process().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(process.stdout.take());
        let output = process.wait_with_output().unwrap();
        assert_code(&output, 0);
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    }
}

#[test]
fn a_full_disk_behind_stdout_is_a_failure() {
    let site = site();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = gapferry_process().args(["list", site.bundle()]).stdout(full).output().unwrap();
    assert_code(&output, 2);
}

#[test]
fn on_a_terminal_bars_and_logs_do_not_mix_and_the_result_stays_clean() {
    let site = site();
    let out = site.directory.path().join("other.tar");
    let program = env!("CARGO_BIN_EXE_gapferry");
    for (verbose, log) in [("", false), ("-v", true)] {
        let export = format!("{program} {verbose} export {0} {0} -o {1}", site.reference, out.display());
        // script(1) provides a terminal.
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &export, "/dev/null"]).env("TERM", "xterm").env("COLUMNS", "80").stdin(Stdio::null());
        let output = script.output().unwrap();
        assert_code(&output, 0);
        let screen = text(&output.stdout);
        assert!(screen.contains("note: ") && screen.contains("1 image"), "{screen:?}");
        assert_eq!(screen.contains("DEBUG"), log, "{screen:?}");
        let last: Vec<&str> = screen.trim_end().lines().rev().take(2).collect();
        assert!(last[0].starts_with("identity sha256:"), "{last:?}");
        std::fs::remove_file(&out).unwrap();
    }
}

/// Waits until the process handles SIGINT and SIGTERM itself.
fn until_signals_are_heeded(process: &Child) {
    let wanted = 1u64 << (Signal::TERM.as_raw() - 1) | 1u64 << (Signal::INT.as_raw() - 1);
    let mut caught = 0;
    while caught & wanted != wanted {
        std::thread::yield_now();
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        caught = u64::from_str_radix(mask.trim(), 16).unwrap();
    }
}

#[test]
fn ctrl_c_and_sigterm_stop_waiting_and_computing_runs_and_say_how_to_continue() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = gapferry_process();
        command.args(["lock", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        until_signals_are_heeded(&process);
        let pid = Pid::from_child(&process);
        kill_process(pid, signal).unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut message = String::new();
        stderr.read_line(&mut message).unwrap();
        assert!(message.contains("run the same command again"), "{message}");
        // The process still waits for input; a second signal ends it at once, unless it has ended already.
        let _ = kill_process(pid, signal);
        stderr.read_to_string(&mut message).unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(code), "{message}");
    }
}

#[test]
fn an_interrupted_export_publishes_nothing_and_resumes() {
    let site = site();
    let out = site.directory.path().join("new.tar");
    // This server never answers, so the export keeps waiting.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let reference = format!("127.0.0.1:{}/a:1", silent.local_addr().unwrap().port());
    let mut command = gapferry_process();
    command.args(["export", &site.reference, &reference, "-o"]).arg(&out).stderr(Stdio::piped());
    let process = command.spawn().unwrap();
    let _connection = silent.accept().unwrap();
    kill_process(Pid::from_child(&process), Signal::INT).unwrap();
    let output = process.wait_with_output().unwrap();
    assert_code(&output, 130);
    assert!(!out.exists());
    gapferry().args(["export", &site.reference, "-o"]).arg(&out).assert().success();
}

#[test]
fn help_fits_80_columns_and_has_examples_and_short_help_fits_one_screen() {
    for (command, _) in commands() {
        let help = |option: &str| {
            let arguments = command.split_whitespace().chain([option]);
            let output = gapferry().env("COLUMNS", "80").args(arguments).output().unwrap();
            assert_code(&output, 0);
            text(&output.stdout)
        };
        let (short, long) = (help("-h"), help("--help"));
        assert!(short.lines().count() <= 45, "{command} -h has {} lines", short.lines().count());
        assert!(long.contains("Examples:\n  gapferry "), "{command} has no examples");
        for line in short.lines().chain(long.lines()) {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
    }
}

#[test]
fn help_and_guide_list_the_same_exit_codes() {
    let codes = |text: &str, margin: &str| -> Vec<String> {
        let rows = text.lines().filter_map(|line| line.strip_prefix(margin));
        let codes =
            rows.filter_map(|row| row.split_whitespace().next().map(|code| code.trim_end_matches(',').to_owned()));
        codes.filter(|code| code.chars().all(|c| c.is_ascii_digit())).collect()
    };
    let guide = text(&run(&["guide", "automation"]).stdout);
    let help = text(&run(&["--help"]).stdout);
    assert_eq!(codes(&help, "  "), ["0", "1", "2", "3", "4", "5", "6", "7", "130"]);
    assert_eq!(codes(&help, "  "), codes(&guide, "|"));
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempdir();
    let there = directory.path().join("man1");
    gapferry().args(["man", "-o"]).arg(&there).assert().success();
    for (command, _) in commands() {
        let name = if command.is_empty() {
            "gapferry.1".to_owned()
        } else {
            format!("gapferry-{}.1", command.replace(' ', "-"))
        };
        let page = std::fs::read_to_string(there.join(&name)).unwrap();
        assert!(page.contains(".SH NAME") && page.contains("Examples:"), "{name}");
    }
    let main = text(&run(&["man"]).stdout);
    assert!(main.contains("Exit codes:") && main.contains("gapferry\\-export(1)"), "{main}");
}

#[test]
fn completions_exist_for_every_shell_and_bash_can_load_them() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(text(&run(&["completions", shell]).stdout).contains("export"), "{shell}");
    }
    let directory = tempdir();
    let script = directory.path().join("gapferry.bash");
    std::fs::write(&script, run(&["completions", "bash"]).stdout).unwrap();
    assert!(std::process::Command::new("bash").arg("-n").arg(&script).status().unwrap().success());
}

#[test]
fn the_guide_is_printed_in_full_into_a_pipe() {
    let contents = text(&run(&["guide"]).stdout);
    let topics: Vec<&str> =
        contents.lines().filter_map(|line| line.strip_prefix("  ")?.split_whitespace().next()).collect();
    assert!(topics.contains(&"first-export") && topics.contains(&"moving-a-registry"), "{contents}");
    for topic in topics {
        // A pager starts only on a terminal.
        let output = gapferry().env("PAGER", "false").args(["guide", topic]).output().unwrap();
        assert_code(&output, 0);
        let source = std::fs::read_to_string(format!("{}/docs/guide/{topic}.md", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let last = source.lines().rfind(|line| !line.is_empty() && !line.starts_with("```")).unwrap();
        assert!(text(&output.stdout).trim_end().ends_with(last.trim()), "{topic} is cut short");
    }
    let unknown = run(&["guide", "cooking"]);
    assert_code(&unknown, 2);
    assert!(text(&unknown.stderr).contains("first-export"), "an unknown topic does not list those that exist");
}
