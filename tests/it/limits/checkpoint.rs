//! A limit that ends a run does not end the job: the next run resumes where this one stopped.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::limits::shop::{Shop, is_pull};
use crate::limits::{all_output, gapferry};
use crate::support;
use crate::support::faulty::{After, Answer, Fault, Proxy, Server};
use crate::support::images;
use crate::support::registry::Registry;

const IMAGES: usize = 10;

/// A registry of ten images that grants a number of pulls and then demands a wait of six hours; the test grants more.
struct Limited {
    server: Server,
    left: Arc<AtomicUsize>,
    at_the_end: Arc<Mutex<Option<Job>>>,
}

type Job = Box<dyn FnOnce() + Send>;

impl Limited {
    async fn start() -> Limited {
        let images: Vec<(String, String)> =
            (0..IMAGES).map(|n| (format!("team/app:{n}"), format!("layer {n}"))).collect();
        let named: Vec<(&str, &str)> = images.iter().map(|(name, content)| (&name[..], &content[..])).collect();
        let (shop, left) = (Shop::with(&named), Arc::new(AtomicUsize::new(0)));
        let (granted, at_the_end) = (left.clone(), Arc::new(Mutex::new(None::<Job>)));
        let job = at_the_end.clone();
        let take = move || {
            let before = granted.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            if let Some(job) = job.lock().unwrap().take_if(|_| before == Ok(1)) {
                job();
            }
            before.is_ok()
        };
        let server = Server::registry(move |request, _| match is_pull(request) && !take() {
            true => Answer::new(429).with("Retry-After", "21600"),
            false => shop.answer(request),
        });
        Limited { server: server.await, left, at_the_end }
    }

    /// Runs `job` when the last granted pull arrives.
    fn at_the_end(&self, job: impl FnOnce() + Send + 'static) {
        *self.at_the_end.lock().unwrap() = Some(Box::new(job));
    }

    fn grant(&self, pulls: usize) {
        self.left.store(pulls, Ordering::SeqCst);
    }

    fn list(&self) -> Vec<String> {
        (0..IMAGES).map(|n| format!("{}/team/app:{n}", self.server.address)).collect()
    }

    /// Writes a lock of all images to this file.
    async fn lock(&self, file: &Path) -> Output {
        let (file, references) = (file.display().to_string(), self.list());
        let arguments = ["lock", "-o", &file].into_iter().chain(references.iter().map(String::as_str));
        gapferry(&arguments.collect::<Vec<_>>()).await
    }

    /// The GET requests for each tag or digest, including refused ones.
    fn pulls(&self) -> BTreeMap<String, usize> {
        let mut pulls = BTreeMap::new();
        for request in self.server.seen().iter().filter(|request| is_pull(request)) {
            *pulls.entry(request.target.clone()).or_default() += 1;
        }
        pulls
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_interrupted_by_rate_limits_finishes_after_several_runs() {
    for name in ["b.tar", "b"] {
        let limited = Limited::start().await;
        let directory = support::tempdir();
        let out = directory.path().join("deep").join(name).display().to_string();
        let references = limited.list();
        let mut arguments = vec!["export", "-o", &out];
        arguments.extend(references.iter().map(String::as_str));
        for _ in 0..2 {
            limited.grant(4);
            let output = gapferry(&arguments).await;
            let text = all_output(&output);
            assert_eq!(output.status.code(), Some(4), "{text}");
            assert!(text.contains("kept in") && text.contains("6 h 0 min"), "{text}");
            assert!(text.lines().count() < 10, "one limit is reported once: {text}");
        }
        limited.grant(2);
        let output = gapferry(&arguments).await;
        assert!(output.status.success(), "{}", all_output(&output));
        let refused: usize = limited.pulls().values().sum::<usize>() - IMAGES;
        assert!((2..=4).contains(&refused), "no image was pulled twice: {:?}", limited.pulls());
        assert!(gapferry(&["verify", &out]).await.status.success());
        let left: Vec<_> = std::fs::read_dir(directory.path().join("deep")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_interrupted_by_a_rate_limit_is_finished_by_the_next_run() {
    let limited = Limited::start().await;
    let directory = support::tempdir();
    let lock = directory.path().join("images.lock");
    limited.grant(9);
    assert_eq!(limited.lock(&lock).await.status.code(), Some(4));
    assert!(!lock.exists());
    limited.grant(1);
    let output = limited.lock(&lock).await;
    assert!(output.status.success(), "{}", all_output(&output));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_killed_while_waiting_for_the_limit_is_resumed() {
    let limited = Limited::start().await;
    let directory = support::tempdir();
    let out = directory.path().join("b.tar").display().to_string();
    let references = limited.list();
    // One request at a time, so at most one is unanswered when the limit is reached.
    let mut arguments = vec!["export", "-j", "1", "-o", &out];
    arguments.extend(references.iter().map(String::as_str));
    limited.grant(5);
    let patient = [&arguments[..], &["--max-wait", "12h"]].concat();
    let mut process = support::gapferry_process().args(&patient).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let waiting = lines.map_while(Result::ok).find(|line| line.starts_with("waiting "));
    let waiting = waiting.expect("the program reports that it waits");
    assert!(waiting.contains("6 h 0 min") && waiting.contains("429"), "{waiting}");
    process.kill().unwrap();
    process.wait().unwrap();
    limited.grant(5);
    let output = gapferry(&arguments).await;
    assert!(output.status.success(), "{}", all_output(&output));
}

#[test]
fn an_import_that_hits_a_limit_stops_and_the_next_run_does_the_rest() {
    let (source, target) = (Registry::start(), Registry::start());
    let names: Vec<String> = (0..IMAGES).map(|n| format!("team/app{n}")).collect();
    names.iter().for_each(|name| images::oci(name, "1", &[name]).push(&source));
    let directory = support::tempdir();
    let bundle = directory.path().join("b").display().to_string();
    let references: Vec<String> = names.iter().map(|name| format!("{}/{name}:1", source.host())).collect();
    support::gapferry().arg("export").args(&references).args(["-o", &bundle]).assert().success();
    let proxy = Proxy::before(target.host());
    proxy.when("PUT", "/blobs/uploads/").nth(4).always().fault(Fault::TooMany(After::Seconds(21600)));
    let import = |to: &str| support::gapferry().args(["import", &bundle, "--to", to]).output().unwrap();
    let output = import(&proxy.address);
    let text = all_output(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    // Only requests in flight were refused, and none was sent after them.
    assert!(proxy.done().len() <= 6, "{:?}", proxy.done());
    assert!(text.contains("6 h 0 min"), "{text}");
    assert!(import(target.host()).status.success());
    assert!(names.iter().all(|name| target.tags(name) == ["1"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mistake_in_the_list_wastes_no_successful_pull_with_or_without_a_limit() {
    // A missing image costs a pull too.
    for first in [IMAGES + 1, 5] {
        let limited = Limited::start().await;
        let directory = support::tempdir();
        let out = directory.path().join("b.tar").display().to_string();
        let (there, gone) = (limited.list(), format!("{}/team/app:gone", limited.server.address));
        let with = |more: &[String]| {
            let all = ["export", "-o", &out].map(str::to_owned).into_iter();
            all.chain(more.iter().cloned()).chain(there.iter().cloned()).collect::<Vec<_>>()
        };
        limited.grant(first);
        let wrong = with(&[gone]);
        let output = gapferry(&wrong.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(output.status.code(), Some(4), "{}", all_output(&output));
        let text = all_output(&output);
        let kept = text.lines().find_map(|line| line.split_once(" manifests kept")?.0.parse::<usize>().ok());
        let kept = kept.unwrap_or_else(|| panic!("{text}"));
        assert!(kept >= first - 1, "{text}");
        // Each image needs one granted pull.
        limited.grant(IMAGES - kept);
        let right = with(&[]);
        let output = gapferry(&right.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(output.status.code(), Some(0), "{}", all_output(&output));
        assert!(!directory.path().join("b.tar.walk").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_missing_from_one_image_wastes_no_pull_of_the_others() {
    let names: Vec<String> = (0..30).map(|n| format!("team/app:{n}")).collect();
    let shop = Shop::with(&names.iter().map(|name| (&name[..], &name[..])).collect::<Vec<_>>());
    let server = Server::registry(move |request, _| shop.answer(request)).await;
    let directory = support::tempdir();
    let (list, out) = (directory.path().join("images.txt"), directory.path().join("b").display().to_string());
    let pulls = || server.seen().iter().filter(|request| is_pull(request)).count();
    for (platform, code, pulled) in [("linux/amr64", 2, 30), ("linux/amd64", 0, 0)] {
        let line = |name: &String| match name.as_str() {
            "team/app:7" => format!("{}/{name} platform={platform}\n", server.address),
            _ => format!("{}/{name}\n", server.address),
        };
        std::fs::write(&list, names.iter().map(line).collect::<String>()).unwrap();
        let before = pulls();
        let output = gapferry(&["export", "-f", list.to_str().unwrap(), "-o", &out]).await;
        assert_eq!(output.status.code(), Some(code), "{}", all_output(&output));
        assert_eq!(pulls() - before, pulled, "{platform}: {}", all_output(&output));
    }
    assert!(!directory.path().join("b.walk").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unrelated_file_with_the_checkpoints_name_is_kept_and_reported_once() {
    let limited = Limited::start().await;
    let directory = support::tempdir();
    let (out, walk) = (directory.path().join("b").display().to_string(), directory.path().join("b.walk"));
    std::fs::write(&walk, "12 km, sunny\n").unwrap();
    let references = limited.list();
    let mut arguments = vec!["export", "-o", &out];
    arguments.extend(references.iter().map(String::as_str));
    for (pulls, code) in [(4, 4), (IMAGES, 0)] {
        limited.grant(pulls);
        let output = gapferry(&arguments).await;
        let text = all_output(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert_eq!(text.matches("b.walk").count(), 1, "{text}");
        assert_eq!(std::fs::read_to_string(&walk).unwrap(), "12 km, sunny\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_cannot_be_written_keeps_the_pulled_manifests() {
    let limited = Limited::start().await;
    let directory = support::tempdir();
    let lock = directory.path().join("images.lock");
    limited.grant(9);
    assert_eq!(limited.lock(&lock).await.status.code(), Some(4));
    limited.grant(1);
    // When the last manifest is pulled, another file takes the name.
    let taken = lock.clone();
    limited.at_the_end(move || std::fs::create_dir(taken).unwrap());
    let output = limited.lock(&lock).await;
    assert_eq!(output.status.code(), Some(2), "{}", all_output(&output));
    std::fs::remove_dir(&lock).unwrap();
    let pulled = limited.pulls();
    let output = limited.lock(&lock).await;
    assert!(output.status.success(), "{}", all_output(&output));
    assert_eq!(limited.pulls(), pulled);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
}
