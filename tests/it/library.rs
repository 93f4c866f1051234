//! The library as another program uses it: requests in, reports out. Each test says what such a program would lose
//! otherwise.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use crate::signed::keys::{Key, Kind};
use crate::support::embedded::Embedded;
use crate::support::registry::{Options, Registry};
use crate::support::{gapferry, images, tempdir};
use gapferry::app::{
    self, AuthRequest, Environment, ExportReport, ExportRequest, FingerprintRequest, ImportReport, ImportRequest,
    ListRequest, LoggingIn, LoginRequest, LoginTarget, LogoutRequest, Outcome, ProveRequest, PushOptions, PushReport,
    RegistryOptions, Trust, VerifyInput, VerifyRequest,
};
use gapferry::base::error::Kind as ErrorKind;
use gapferry::base::progress::{Event, Events, Recorder, Reporter};
use gapferry::bundle::Bundle;
use gapferry::credentials::{CredentialOrigin, Credentials};
use gapferry::pipeline::allowlist::Allowlist;
use gapferry::pipeline::receipt::ImageOutcome;
use gapferry::signing::PrivateKey;
use gapferry::transport::registry::AuthCheck;
use gapferry::verify::Refusal;
use serde_json::{Value, json};

/// A bundle of one image, as a directory, and an empty registry.
struct Fixture {
    directory: tempfile::TempDir,
    bundle: PathBuf,
    target: Embedded,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempdir();
        let below = |name: &str| directory.path().join(name);
        let source = Embedded::writable(&below("source"));
        images::oci("team/app", "1", &["content"]).push(&source);
        let bundle = below("bundle");
        let reference = format!("{}/team/app:1", source.host());
        gapferry().arg("export").arg(reference).arg("-o").arg(&bundle).assert().success();
        let target = Embedded::writable(&below("target"));
        Fixture { bundle, target, directory }
    }

    fn push(&self) -> PushOptions {
        PushOptions::to(format!("{}/mirror", self.target.host()))
    }

    fn import(&self, push: PushOptions, environment: &Environment) -> gapferry::Result<ImportReport> {
        let request = ImportRequest::new(vec![self.bundle.clone()], push);
        wait(app::import(request, environment))
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

fn a_blob_of(bundle: &Path) -> PathBuf {
    let mut blobs: Vec<PathBuf> =
        std::fs::read_dir(bundle.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect();
    blobs.sort();
    blobs.remove(0)
}

/// A caller would have to run the program and parse text to learn what arrived.
#[test]
fn an_import_returns_its_receipt_and_proof_as_values() {
    let fixture = Fixture::new();
    let events = Arc::new(Recorder::default());
    let environment = Environment::new(events.clone());
    let report = fixture.import(fixture.push(), &environment).unwrap();
    let PushReport::Pushed(pushed) = &report.push else { panic!("this was not a dry run") };
    assert_eq!(pushed.outcome, Outcome::Done);
    let image = &pushed.receipt.images[0];
    assert_eq!(image.outcome, ImageOutcome::Pushed);
    assert_eq!(image.reference.as_ref().unwrap().to_string(), format!("{}/mirror/team/app:1", fixture.target.host()));
    assert!(pushed.uploaded > 0 && pushed.failures.is_empty());
    assert!(events.events().iter().any(|event| matches!(event, Event::BlobFinished { .. })), "progress");

    let receipt = app::NamedReceipt { name: "the receipt".to_owned(), receipt: pushed.receipt.clone() };
    let registry = RegistryOptions::default();
    let request = ProveRequest { receipt, to: None, every_repository: false, dry_run: false, state: None, registry };
    let proof = wait(app::prove(&request, &environment)).unwrap().proof;
    assert_eq!((proof.outcome, proof.images.len()), (Outcome::Done, 1));
    assert_eq!(proof.read, proof.bytes);
}

/// A caller could not make a bundle without the program, or would have to parse text to learn what it contains or
/// lacks.
#[test]
fn an_export_returns_its_plan_and_result_as_values() {
    let fixture = Fixture::new();
    let output = fixture.directory.path().join("again.tar");
    let source = Embedded::writable(&fixture.directory.path().join("source2"));
    images::oci("team/app", "1", &["content"]).push(&source);
    let list = format!("{0}/team/app:1\n{0}/team/gone:1\n", source.host());
    let request = || {
        let list = Allowlist::parse_sources(&[], &[("list".to_owned(), list.clone().into_bytes())]).unwrap();
        let mut request = ExportRequest::new(list, output.clone());
        request.resolve.keep_going = true;
        request
    };
    // The lock's time is part of the identity.
    let environment = Environment { clock: || jiff::Timestamp::UNIX_EPOCH, ..Environment::default() };
    let planned = wait(app::export(ExportRequest { dry_run: true, ..request() }, &environment)).unwrap();
    let ExportReport::Planned(plan) = planned else { panic!("this was a dry run") };
    assert!(!output.exists() && plan.bytes_to_fetch > 0 && !plan.up_to_date);
    let report = wait(app::export(request(), &environment)).unwrap();
    assert_eq!(report.outcome(), Outcome::SomeImagesFailed);
    let ExportReport::Written(written) = report else { panic!("this was not a dry run") };
    assert_eq!((written.image_count, written.missing.len(), written.unchanged), (1, 1, false));
    assert_eq!((written.identity, written.bytes), (plan.identity, output.metadata().unwrap().len()));

    let bundle = VerifyInput::Files { paths: vec![output.clone()], full: true };
    let request = VerifyRequest { bundle, trust: Trust::default(), missing: None };
    let verified = app::verify(request, &environment).unwrap();
    assert_eq!((verified.outcome, verified.found.identity), (Outcome::Done, Some(written.identity)));
    assert_eq!(verified.found.missing, written.missing, "every reader reports what the bundle lacks");
}

/// A caller could not tell its user which file of the bundle is wrong, or part of a damaged bundle could arrive.
#[test]
fn a_refused_bundle_returns_its_problems_and_nothing_is_pushed() {
    let fixture = Fixture::new();
    let blob = a_blob_of(&fixture.bundle);
    std::fs::remove_file(&blob).unwrap();
    let error = fixture.import(fixture.push(), &Environment::default()).err().expect("a refusal");
    let refusal = Refusal::of(&error).expect("its problems");
    let name = format!("blobs/sha256/{}", blob.file_name().unwrap().to_str().unwrap());
    assert!(refusal.problems.iter().any(|problem| problem.path == name), "{error:?}");
    assert_eq!(fixture.target.get("/v2/mirror/team/app/tags/list").status, 404);
}

/// A script could not tell success by the same fields in every report.
#[test]
fn every_report_has_its_version_and_an_ok_field() {
    let fixture = Fixture::new();
    let target = format!("{}/mirror", fixture.target.host());
    let receipt = fixture.directory.path().join("receipt.json");
    let run = |arguments: &[&str]| -> Value {
        let output = gapferry().args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let (bundle, receipt) = (fixture.bundle.to_str().unwrap(), receipt.to_str().unwrap());
    for arguments in [
        &["import", bundle, "--to", &target, "--json", "--dry-run"][..],
        &["import", bundle, "--to", &target, "--json", "--receipt", receipt],
        &["prove", receipt, "--json"],
        &["list", bundle, "--json"],
        &["inspect", bundle, "--json"],
    ] {
        let report = run(arguments);
        assert_eq!([&report["version"], &report["ok"]], [&json!(1), &json!(true)], "{arguments:?}: {report}");
    }
    let listed = app::list(&ListRequest { bundle: vec![fixture.bundle.clone()] }).unwrap();
    assert_eq!(serde_json::to_value(&listed).unwrap(), run(&["list", bundle, "--json"]), "one struct, one JSON");
}

/// Records whether the bundle is signed when it is read back.
struct ReadBack {
    bundle: PathBuf,
    was_signed: Mutex<Option<bool>>,
}

impl Reporter for ReadBack {
    fn report(&self, event: Event) {
        let is_read_back = matches!(&event, Event::Status(text) | Event::Warning(text) if text.contains(": read back"));
        if is_read_back {
            let bundle = Bundle::open(&self.bundle).unwrap();
            *self.was_signed.lock().unwrap() = Some(bundle.has_signature());
        }
    }
}

/// A signature without space in the tar forces a rewrite: an unverified tar would go onto the medium.
#[test]
fn an_unchanged_bundle_is_read_back_after_it_is_signed() {
    let directory = tempdir();
    let source = Embedded::writable(&directory.path().join("source"));
    images::oci("team/app", "1", &["content"]).push(&source);
    let bundle = directory.path().join("b.tar");
    let export = |events: Events, sign_key: Option<Arc<PrivateKey>>| {
        let list = format!("{}/team/app:1\n", source.host()).into_bytes();
        let list = Allowlist::parse_sources(&[], &[("list".to_owned(), list)]).unwrap();
        let request = ExportRequest { sign_key, read_back: true, ..ExportRequest::new(list, bundle.clone()) };
        let report = wait(app::export(request, &Environment::new(events))).unwrap();
        let ExportReport::Written(written) = report else { panic!("this was not a dry run") };
        assert!(written.failure.is_none());
        written
    };
    assert!(export(Arc::new(Recorder::default()), None).signed_by.is_none());
    let key = Key::new(directory.path(), "key", Kind::Ed25519);
    let key = std::fs::read(&key.private).unwrap();
    let key = PrivateKey::parse(&key, "key", &|| panic!("the key has no passphrase")).unwrap();
    let events = Arc::new(ReadBack { bundle: bundle.clone(), was_signed: Mutex::default() });
    let written = export(events.clone(), Some(Arc::new(key)));
    assert!(written.unchanged && written.signed_by.is_some());
    assert_eq!(*events.was_signed.lock().unwrap(), Some(true));
}

/// Damages a blob of a bundle as soon as the bundle has its name.
struct BadMedium {
    bundle: PathBuf,
    is_done: AtomicBool,
}

impl Reporter for BadMedium {
    fn report(&self, _: Event) {
        let index = self.bundle.join("index.json");
        if index.exists() && !self.is_done.swap(true, Ordering::SeqCst) {
            std::fs::write(index, "what a bad stick gives back").unwrap();
        }
    }
}

/// A faulty medium would be carried away with a bundle under a valid name.
#[test]
fn an_export_that_reads_back_wrong_does_not_keep_the_bundles_name() {
    let directory = tempdir();
    let source = Embedded::writable(&directory.path().join("source"));
    images::oci("team/app", "1", &["content"]).push(&source);
    let bundle = directory.path().join("b");
    let list = format!("{}/team/app:1\n", source.host()).into_bytes();
    let list = Allowlist::parse_sources(&[], &[("list".to_owned(), list)]).unwrap();
    let events = Arc::new(BadMedium { bundle: bundle.clone(), is_done: AtomicBool::new(false) });
    let lock = Some(directory.path().join("lock"));
    let request = ExportRequest { read_back: true, lock, ..ExportRequest::new(list, bundle.clone()) };
    let error = wait(app::export(request, &Environment::new(events))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(!bundle.exists() && directory.path().join("b.partial").exists(), "{}", error.chain());
    assert!(directory.path().join("lock").exists(), "the lock is not lost with the bundle");
}

/// A caller would have to run the program to log its user in, or the login would go to the wrong user's files: those of
/// the process instead of the given environment.
#[test]
fn a_login_is_stored_where_the_environment_says_until_the_logout() {
    let credentials = Credentials::basic("me", "q7-Zk-right");
    let only_me = Options { credentials: Some(("me".into(), "q7-Zk-right".into())), ..Options::default() };
    let registry = Registry::with(only_me);
    images::oci("team/app", "1", &["x"]).push(&registry);
    let directory = tempdir();
    let file = directory.path().join("auth.json");
    let mut environment = Environment::default();
    environment.variables.insert("REGISTRY_AUTH_FILE".to_owned(), file.to_str().unwrap().to_owned());
    let target = LoginTarget::parse(registry.host()).unwrap();
    let log_in = |credentials| {
        let registry = RegistryOptions::default();
        let request = LoginRequest { target: target.clone(), credentials, authfile: None, registry };
        wait(app::login(&request, &environment))
    };
    let refused = log_in(Credentials::basic("me", "q7-Zk-other")).expect_err("a refusal");
    assert!(refused.kind() == ErrorKind::Unauthorized && refused.find::<LoggingIn>().is_some(), "{refused:?}");
    assert!(!file.exists(), "a refused login is not stored");
    let report = log_in(credentials).unwrap();
    let expected = CredentialOrigin::File { path: file.clone(), key: registry.host().to_owned() };
    assert_eq!((report.user.as_str(), &report.kept), ("me", &expected));
    assert_eq!((report.checked, report.stronger_variable), (AuthCheck::Accepted, None));

    let repository = LoginTarget::parse(&format!("{}/team/app", registry.host())).unwrap();
    let request = AuthRequest { target: repository, push: true, registry: RegistryOptions::default() };
    let check = || wait(app::auth_check(&request, &environment)).unwrap();
    let report = check();
    assert_eq!((report.credentials, report.user.as_deref()), (Some(expected.clone()), Some("me")));
    assert_eq!((report.ok, report.accepted, report.pull, report.push), (true, Some(true), Some(true), Some(true)));

    let request = LogoutRequest { target: Some(target.clone()), below: false, authfile: None };
    let report = app::logout(&request, &environment).unwrap();
    assert_eq!((report.forgotten, report.remaining), (vec![expected], None));
    let report = check();
    assert_eq!((report.ok, report.accepted, report.searched), (false, Some(false), vec![file]));
    assert_eq!(report.failure.expect("why").kind(), ErrorKind::Unauthorized);
}

/// A caller could ask about a right without naming a repository, and misread the answer.
#[test]
fn a_push_check_must_name_a_repository() {
    let target = LoginTarget::parse("registry.invalid").unwrap();
    let request = AuthRequest { target, push: true, registry: RegistryOptions::default() };
    let error = wait(app::auth_check(&request, &Environment::default())).expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::Input);
}

/// A caller could not show its user the fingerprint that the program prints and people compare by phone.
#[test]
fn library_and_command_line_give_the_same_fingerprint() {
    let fixture = Fixture::new();
    let report = app::fingerprint(FingerprintRequest { bundle: fixture.bundle.clone() }).unwrap();
    let printed = gapferry().arg("fingerprint").arg(&fixture.bundle).output().unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), format!("{}\n", report.fingerprint));
    let printed = gapferry().arg("fingerprint").arg(&fixture.bundle).arg("--json").output().unwrap();
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(serde_json::to_value(&report).unwrap(), printed, "one struct, one JSON");
}
