//! The command itself.

use crate::support::{self, sha256, tempdir};

#[test]
fn serve_prints_its_address_and_exits_cleanly_on_a_signal() {
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    let work = tempdir();
    let layout = work.path().join("new");
    let serve = |arguments: &[&str]| {
        let mut command = support::gapferry_process();
        command.arg("serve").arg(&layout).args(["--listen", "127.0.0.1:0"]).args(arguments);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut address = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut address).unwrap();
        (process, address.trim().to_owned())
    };
    let stop = |process: std::process::Child| {
        let id = rustix::process::Pid::from_child(&process);
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        let output = process.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stderr).unwrap()
    };
    let (process, address) = serve(&["--writable"]);
    leaves_no_core_dump(process.id());
    let blob = format!("http://{address}/v2/a/blobs/uploads/?digest={}", sha256(b"x"));
    support::http::request("POST", blob).body("x").send().expect(201);
    assert!(stop(process).contains("pull and push"));
    let (process, address) = serve(&[]);
    assert_eq!(support::http::get(format!("http://{address}/v2/a/blobs/{}", sha256(b"x"))).expect(200).body, b"x");
    assert!(stop(process).contains("read-only"));
    let help = String::from_utf8(support::gapferry().args(["serve", "--help"]).output().unwrap().stdout).unwrap();
    assert!(help.contains("no authentication"), "{help}");
    let tar = work.path().join("x.tar");
    std::fs::write(&tar, "").unwrap();
    support::gapferry().arg("serve").arg(&tar).arg("--writable").assert().code(2);
}

/// Without it, a script would have to match text meant for people to learn the chosen port and the tags.
#[test]
fn with_json_the_report_has_the_address_and_the_tags_and_comes_when_the_server_is_ready() {
    use std::process::Stdio;
    let mut command = support::gapferry_process();
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/connected");
    command.args(["serve", bundle, "--listen", "127.0.0.1:0", "--json"]);
    let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut printed =
        serde_json::Deserializer::from_reader(process.stdout.take().unwrap()).into_iter::<serde_json::Value>();
    let report = printed.next().unwrap().unwrap();
    assert_eq!((&report["version"], &report["ok"], &report["writable"]), (&1.into(), &true.into(), &false.into()));
    let references: Vec<&str> =
        report["references"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect();
    assert!(references.contains(&"library/hello:1.0"), "{references:?}");
    let address = report["address"].as_str().unwrap();
    support::http::get(format!("http://{address}/v2/library/hello/manifests/1.0")).expect(200);
    let id = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(printed.next().is_none(), "one object, whatever happens");
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

/// A core dump contains all secrets. The /proc files of a process that is not dumpable belong to root.
fn leaves_no_core_dump(id: u32) {
    use std::os::unix::fs::MetadataExt;
    let limits = std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"]);
    let own = rustix::process::geteuid().as_raw();
    let owner = std::fs::metadata(format!("/proc/{id}/environ")).unwrap().uid();
    assert!(own == 0 || owner != own, "{owner}");
}
