//! Every exit code of `gapferry --help`, for every command where it can occur. No command prints a secret.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support;
use crate::support::barrier::Barrier;
use crate::support::images::{self, noise};
use crate::support::registry::{Options, Registry};
use crate::support::{gapferry, gapferry_process, tempdir};

fn run(arguments: &[&str]) -> Output {
    gapferry().args(arguments).output().unwrap()
}

fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Every command line exits with `code` and prints each of `says`.
#[track_caller]
fn all_end_with(code: i32, rows: &[&[&str]], says: &[&str]) {
    for arguments in rows {
        let output = run(arguments);
        let text = both(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
        assert!(!text.contains("panicked"), "{arguments:?}: {text}");
        for words in says {
            assert!(text.contains(words), "{arguments:?} does not print {words:?}: {text}");
        }
    }
}

/// A registry with `team/app:1`, and its bundle.
struct TestSite {
    registry: Registry,
    reference: String,
    directory: tempfile::TempDir,
    bundle: PathBuf,
}

fn site() -> TestSite {
    let registry = Registry::start();
    images::oci("team/app", "1", &["content of the app"]).push(&registry);
    let reference = format!("{}/team/app:1", registry.host());
    let directory = tempdir();
    let bundle = directory.path().join("bundle");
    gapferry().args(["export", &reference, "-q", "-o"]).arg(&bundle).assert().success();
    TestSite { registry, reference, directory, bundle }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `host:port` where nothing listens: the port was free a moment ago.
fn nobody() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn success_exits_0_for_every_command() {
    let site = site();
    let (bundle, directory) = (path(&site.bundle), site.directory.path());
    let (tar, man) = (directory.join("b.tar"), directory.join("man"));
    let target = Registry::start();
    let named = format!("{bundle}#{}", site.reference);
    let auth = directory.join("auth.json");
    let rows: &[&[&str]] = &[
        &["--help"],
        &["--version"],
        &["help", "import"],
        &["export", &site.reference, "-o", path(&tar)],
        &["lock", &site.reference],
        &["verify", bundle],
        &["verify", path(&tar)],
        &["list", bundle],
        &["inspect", &site.reference],
        &["inspect", &named],
        &["import", bundle, "--to", target.host()],
        &["login", target.host(), "-u", "me", "-p", "x", "--authfile", path(&auth)],
        &["auth", "check", target.host(), "--push", "a"],
        &["logout", target.host(), "--authfile", path(&auth)],
        &["completions", "bash"],
        &["man", "--dir", path(&man)],
    ];
    all_end_with(0, rows, &[]);
}

#[test]
fn a_missing_bundle_or_file_exits_2_and_is_named() {
    let gone = "/nowhere/at/all.tar";
    let host = nobody();
    let rows: &[&[&str]] = &[
        &["verify", gone],
        &["list", gone],
        &["inspect", "/nowhere/at/all.tar#a"],
        &["import", gone, "--to", &host],
        &["serve", gone, "--listen", "127.0.0.1:0"],
        &["export", "-f", gone, "-o", "/tmp/never"],
        &["export", "--locked", gone, "-o", "/tmp/never"],
        &["lock", "-f", gone],
    ];
    all_end_with(2, rows, &["/nowhere/at/all.tar", "No such file"]);
}

#[test]
fn a_malformed_allowlist_exits_2_and_lists_every_error_with_its_line() {
    let directory = tempdir();
    let text = directory.path().join("list.txt");
    std::fs::write(&text, "a:1\nUPPER:1\nb:1 nonsense=1\nc:1 platform=linux\nd@sha256:12\n").unwrap();
    let yaml = directory.path().join("list.yaml");
    std::fs::write(&yaml, "- ref: UPPER:1\n- ref: b:1\n  nonsense: 1\n- c:1\n").unwrap();
    let out = directory.path().join("out.tar");
    let bundle = site();
    let rows: &[&[&str]] = &[
        &["export", "-f", path(&text), "-o", path(&out)],
        &["lock", "-f", path(&text)],
        &["import", path(&bundle.bundle), "--to", "127.0.0.1:9", "--allow", path(&text)],
    ];
    all_end_with(2, rows, &["list.txt:2", "list.txt:3", "list.txt:4", "list.txt:5"]);
    all_end_with(2, &[&["lock", "-f", path(&yaml), "-f", path(&text)]], &["list.yaml:1", "list.yaml:3", "list.txt:2"]);
    assert!(!out.exists());
}

#[test]
fn a_bundle_with_broken_sums_exits_3_from_every_command_that_opens_it() {
    let site = site();
    let bundle = path(&site.bundle);
    std::fs::write(site.bundle.join("bundle.json"), "{\"gapferryBundle\": 1, ").unwrap();
    let named = format!("{bundle}#x");
    let rows: &[&[&str]] = &[
        &["verify", bundle],
        &["list", bundle],
        &["inspect", bundle],
        &["inspect", &named],
        &["import", bundle, "--to", "127.0.0.1:9"],
    ];
    all_end_with(3, rows, &["bundle.json"]);
}

#[test]
fn an_image_missing_at_the_registry_exits_4_and_is_named() {
    let site = site();
    let gone = format!("{}/team/gone:1", site.registry.host());
    let out = site.directory.path().join("never.tar");
    let rows: &[&[&str]] =
        &[&["export", &gone, "-o", path(&out)], &["lock", &gone], &["inspect", &gone], &["inspect", &gone, "--raw"]];
    all_end_with(4, rows, &[&gone, "hint:"]);
    assert!(!out.exists());
}

#[test]
fn a_wrong_password_exits_4_with_a_hint_where_to_put_the_right_one() {
    let closed = Registry::with(Options { credentials: Some(("user".into(), "right".into())), ..Options::default() });
    let site = site();
    let reference = format!("{}/team/app:1", closed.host());
    let out = site.directory.path().join("never.tar");
    for creds in [&[][..], &["--creds", "user:wrong"]] {
        let rows: [&[&str]; 4] = [
            &["export", &reference, "-o", path(&out)],
            &["lock", &reference],
            &["inspect", &reference],
            &["import", path(&site.bundle), "--to", closed.host()],
        ];
        for row in rows {
            all_end_with(4, &[&[row, creds].concat()], &["--creds", "--authfile"]);
        }
    }
    assert!(!out.exists());
}

#[test]
fn a_refused_connection_exits_5_and_names_the_address() {
    let site = site();
    let host = nobody();
    let reference = format!("{host}/team/app:1");
    let (out, auth) = (site.directory.path().join("never.tar"), site.directory.path().join("never.json"));
    let rows: &[&[&str]] = &[
        &["export", &reference, "-o", path(&out), "--retries", "0"],
        &["lock", &reference, "--retries", "0"],
        &["inspect", &reference, "--retries", "0"],
        &["import", path(&site.bundle), "--to", &host, "--retries", "0"],
        &["login", &host, "-u", "me", "-p", "x", "--authfile", path(&auth), "--retries", "0"],
        &["auth", "check", &host, "--retries", "0"],
    ];
    all_end_with(5, rows, &[&host, "hint:"]);
    assert!(!out.exists() && !auth.exists());
}

/// Exports two images, of which one cannot be pushed.
fn export_of_a_whole_and_a_sparse_image(registry: &Registry, bundle: &Path) -> assert_cmd::Command {
    images::oci("good", "1", &["x"]).push(registry);
    images::oci_index("sparse", "1", "multi").push(registry);
    let references = ["good", "sparse"].map(|name| format!("{}/{name}:1", registry.host()));
    let mut export = gapferry();
    export.arg("export").args(references).args(["--index", "sparse", "--platform", "linux/amd64", "-o"]).arg(bundle);
    export
}

#[test]
fn a_partial_failure_exits_1_and_the_summary_counts_the_images() {
    let (registry, directory) = (Registry::start(), tempdir());
    let bundle = directory.path().join("b.tar");
    let mut export = export_of_a_whole_and_a_sparse_image(&registry, &bundle);
    export.assert().success();
    let target = Registry::start();
    let rows: &[&[&str]] = &[&["import", path(&bundle), "--to", target.host()]];
    all_end_with(1, rows, &["failed:", "1 image pushed, 1 failed", "--index trim"]);
    // On a second run, the present image is not pushed again, and the other still fails.
    all_end_with(1, rows, &["failed:", "1 present, 1 failed"]);
    assert_eq!(target.tags("good"), ["1"]);
}

#[test]
fn an_unwritable_receipt_or_lock_exits_2_after_the_images_outcomes() {
    let (registry, directory) = (Registry::start(), tempdir());
    let bundle = directory.path().join("b.tar");
    let mut export = export_of_a_whole_and_a_sparse_image(&registry, &bundle);
    let output = export.args(["--lock", "/dev/full"]).output().unwrap();
    let text = both(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.find("identity sha256:") < text.find("error: writing /dev/full"), "{text}");
    all_end_with(0, &[&["verify", path(&bundle)]], &["OK"]);
    for (full, other) in [("--receipt", "--digestfile"), ("--digestfile", "--receipt")] {
        let (target, file) = (Registry::start(), directory.path().join(&other[2..]));
        let import = ["import", path(&bundle), "--to", target.host(), full, "/dev/full", other, path(&file)];
        let output = run(&import);
        let text = both(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let message = ["failed:", "1 image pushed, 1 failed", "error: writing /dev/full"].map(|words| text.find(words));
        assert!(message.iter().all(Option::is_some) && message.is_sorted(), "{text}");
        assert!(
            std::fs::read_to_string(file).unwrap().contains("/good:1"),
            "one unwritable file does not prevent the other"
        );
    }
}

/// Runs gapferry until a request waits at `barrier`, sends `signal`, and returns the output.
fn stop_at(barrier: &Barrier, arguments: &[&str], signal: Signal) -> Output {
    let mut command = gapferry_process();
    let process = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    barrier.wait();
    kill_process(Pid::from_child(&process), signal).unwrap();
    process.wait_with_output().unwrap()
}

#[test]
fn an_export_stopped_in_a_blob_exits_130_or_143_and_resumes() {
    let registry = Registry::start();
    let image = images::oci("team/app", "1", &[&noise(1, 1 << 20), &noise(2, 1 << 20)]);
    image.push(&registry);
    let layer = format!("GET /v2/team/app/blobs/{}", support::sha256(&image.blobs[2]));
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        for name in ["b.tar", "b"] {
            let barrier = Barrier::before(registry.host(), &layer);
            let directory = tempdir();
            let out = directory.path().join(name);
            let reference = format!("{}/team/app:1", barrier.host());
            let arguments = ["export", &reference, "-o", path(&out), "-j", "1"];
            let output = stop_at(&barrier, &arguments, signal);
            assert_eq!(output.status.code(), Some(code), "{}", both(&output));
            assert!(both(&output).contains("run the same command again"), "{}", both(&output));
            assert!(!out.exists(), "a stopped export published a bundle");
            barrier.open();
            all_end_with(0, &[&arguments], &[]);
            all_end_with(0, &[&["verify", path(&out)]], &["OK"]);
        }
    }
}

#[test]
fn an_import_stopped_in_an_upload_exits_130_or_143_leaves_no_tag_and_resumes() {
    let source = Registry::start();
    images::oci("team/app", "1", &[&noise(1, 1 << 20), &noise(2, 1 << 20)]).push(&source);
    let directory = tempdir();
    let bundle = directory.path().join("b.tar");
    let reference = format!("{}/team/app:1", source.host());
    all_end_with(0, &[&["export", &reference, "-o", path(&bundle)]], &[]);
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let target = Registry::start();
        let barrier = Barrier::before(target.host(), "/blobs/uploads/");
        let arguments = ["import", path(&bundle), "--to", barrier.host()];
        let output = stop_at(&barrier, &arguments, signal);
        assert_eq!(output.status.code(), Some(code), "{}", both(&output));
        assert_eq!(target.tags("team/app"), [""; 0]);
        barrier.open();
        all_end_with(0, &[&arguments], &[]);
        assert_eq!(target.tags("team/app"), ["1"]);
    }
}

/// The secret itself, and its Basic authentication form.
const PASSWORD: &str = "hunter2secret";
const ENCODED: &str = "dXNlcjpodW50ZXIyc2VjcmV0";

#[track_caller]
fn assert_no_secret(text: &str) {
    for secret in [PASSWORD, ENCODED] {
        assert!(!text.contains(secret), "the secret is printed: {text}");
    }
}

#[test]
fn no_command_ever_prints_a_secret() {
    let secret = Options { credentials: Some(("user".into(), PASSWORD.into())), ..Options::default() };
    let (closed, other) = (Registry::with(secret), Registry::start());
    images::oci("team/app", "1", &["x"]).push(&closed);
    let reference = format!("{}/team/app:1", closed.host());
    let gone = format!("{}/team/app:gone", closed.host());
    let unreachable = format!("{}/a:1", nobody());
    let directory = tempdir();
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (out, receipt, lock, log) = (file("b.tar"), file("receipt.json"), file("lock.json"), file("authfile"));
    let auths = format!(r#"{{"auths": {{"{}": {{"auth": "{ENCODED}"}}}}}}"#, closed.host());
    std::fs::write(&log, auths).unwrap();
    let skopeo = file("sync.yaml");
    let yaml = format!(
        "{}:\n  tls-verify: false\n  credentials: {{username: user, password: {PASSWORD}}}\n  images: {{team/app: ['1']}}\n",
        closed.host()
    );
    std::fs::write(&skopeo, &yaml).unwrap();
    let broken = file("broken.yaml");
    std::fs::write(&broken, yaml.replace("images:", "nonsense:")).unwrap();
    let creds = format!("user:{PASSWORD}");
    let rows: &[(&[&str], i32)] = &[
        (&["export", &reference, "-o", &out, "--lock", &lock, "--creds", &creds], 0),
        (&["export", "-f", &skopeo, "-o", &out], 0),
        (&["lock", "-f", &skopeo], 0),
        (&["lock", "-f", &broken], 2),
        (&["lock", &reference, "--authfile", &log], 0),
        (&["lock", &gone, "--creds", &creds], 4),
        (&["lock", &unreachable, "--creds", &creds, "--retries", "1"], 5),
        (&["inspect", &reference, "--creds", &creds], 0),
        (&["inspect", &reference, "--creds", &format!("{creds}wrong")], 4),
        (&["import", &out, "--to", closed.host(), "--creds", &creds, "--receipt", &receipt], 0),
        (&["import", &out, "--to", other.host(), "--creds", &creds], 0),
        (&["login", closed.host(), "-u", "user", "-p", PASSWORD, "--authfile", &log], 0),
        (&["login", closed.host(), "--creds", &creds], 2),
        (&["auth", "check", closed.host(), "--authfile", &log, "--push", "new/app"], 0),
        (&["auth", "check", closed.host(), "--json", "--creds", &creds], 0),
        // Typical mistakes: the secret in the wrong place.
        (&["lock", &format!("{creds}@{reference}")], 2),
        (&["import", &out, "--to", &format!("http://{creds}@{}", closed.host())], 2),
        (&["lock", &reference, "--creds", &creds, "--no-such-option"], 2),
        (&["lock", &reference, "--creds", &creds, "--authfile", &log], 2),
    ];
    for (arguments, code) in rows {
        for log in [&["-vv"][..], &["-vv", "--log-format", "json"], &[]] {
            let output = run(&[arguments, log].concat());
            let text = both(&output);
            assert_no_secret(&text);
            assert_eq!(output.status.code(), Some(*code), "{arguments:?}: {text}");
        }
    }
    let output =
        gapferry().env("GAPFERRY_CREDS", &creds).args(["lock", &reference, "-vv", "-j", "x"]).output().unwrap();
    assert_no_secret(&both(&output));
    let output = gapferry().env("GAPFERRY_CREDS", &creds).args(["lock", "--help"]).output().unwrap();
    assert_no_secret(&both(&output));
    let proxy = format!("http://{creds}@{}", nobody());
    let mut behind_proxy = gapferry();
    behind_proxy.env("HTTPS_PROXY", &proxy).env("HTTP_PROXY", &proxy);
    let output = behind_proxy.args(["lock", "registry.example/a:1", "-vv", "--retries", "0"]).output().unwrap();
    assert_no_secret(&both(&output));
    for written in [&out, &receipt, &lock] {
        assert_no_secret(&String::from_utf8_lossy(&std::fs::read(written).unwrap()));
    }
}
