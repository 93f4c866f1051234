//! Every fault on the way, once for pulls and once for pushes: how the program ends and what it prints. A failure
//! leaves nothing half done, and the same command succeeds once the fault is gone.

use std::fmt::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{run, stderr};
use crate::support::faulty::{After, Fault, Form, Proxy, Stage};
use crate::support::images::{self, Image};
use crate::support::registry::Registry;
use crate::support::{gapferry, tempdir};

const LAYER: usize = 400_000;
/// More often than any client retries.
const ALWAYS: usize = usize::MAX;

/// How a run ends.
#[derive(Clone, Copy, Debug)]
enum Ends {
    /// Success, as if nothing had happened.
    Well,
    /// This exit code, and a message that names the image or the blob.
    With(i32),
}

use Ends::{Well, With};

impl Ends {
    /// The exit code of an import says only that an image failed.
    fn of_an_image(self) -> Ends {
        match self {
            Well => Well,
            With(_) => With(1),
        }
    }
}

/// A failure, how often it occurs, and how the run ends.
type Row = (Fault, usize, Ends);

/// The subject of a request; `layer` is its digest.
#[derive(Clone, Copy, Debug)]
enum At {
    Layer,
    Manifest,
    Session,
    Upload,
    Tag,
}

impl At {
    fn request(self, layer: &str) -> (&'static str, String) {
        match self {
            At::Layer => ("GET", format!("/blobs/{layer}")),
            At::Manifest => ("GET", "/manifests/".to_owned()),
            At::Session => ("POST", "/blobs/uploads/".to_owned()),
            At::Upload => ("PUT", layer.replace(':', "%3A")),
            At::Tag => ("PUT", "/manifests/".to_owned()),
        }
    }
}

/// Faults of any request.
fn anywhere() -> Vec<Row> {
    vec![
        (Fault::Reset(Stage::Request), 1, Well),
        (Fault::Reset(Stage::BeforeAnswer), 1, Well),
        (Fault::Reset(Stage::Headers), 1, Well),
        (Fault::Unauthorized, 1, Well),
        (Fault::ExpireTokens, 1, Well),
        (Fault::TooMany(After::Seconds(1)), 1, Well),
        (Fault::TooMany(After::Date(Duration::from_secs(2))), 1, Well),
        (Fault::TooMany(After::Seconds(7200)), 1, With(4)),
        (Fault::Status(500), 2, Well),
        (Fault::Status(502), 1, Well),
        (Fault::Status(503), 2, Well),
        (Fault::Status(504), 1, Well),
        (Fault::Status(503), ALWAYS, With(5)),
        (Fault::Reset(Stage::BeforeAnswer), ALWAYS, With(5)),
        (Fault::Unauthorized, ALWAYS, With(4)),
        (Fault::Status(403), 1, With(4)),
        (Fault::Stall(Stage::Request), 1, Well),
        (Fault::Stall(Stage::Headers), 1, Well),
    ]
}

/// Faults of any download.
fn reading() -> Vec<Row> {
    let mut rows = anywhere();
    rows.extend([
        (Fault::Reset(Stage::Body(0)), 1, Well),
        (Fault::Reset(Stage::Body(100)), 1, Well),
        (Fault::Stall(Stage::Body(100)), 1, Well),
        (Fault::Truncate(0), 1, Well),
        (Fault::Truncate(100), 2, Well),
        (Fault::Truncate(100), ALWAYS, With(5)),
        (Fault::Drip(30), 1, Well),
        (Fault::ExtraBytes(3), 2, Well),
        (Fault::ExtraBytes(3), ALWAYS, With(3)),
        (Fault::WrongDigest, 2, Well),
        (Fault::WrongDigest, ALWAYS, With(3)),
        (Fault::WrongLength(-1), 1, Well),
        (Fault::WrongLength(-1), ALWAYS, With(3)),
        (Fault::Page, 2, Well),
        (Fault::Page, ALWAYS, With(5)),
        (Fault::RedirectLoop, 1, With(5)),
        (Fault::Status(404), ALWAYS, With(4)),
    ]);
    rows
}

fn pulls() -> Vec<(At, Row)> {
    let layer = [
        (Fault::WrongLength(1), 2, Well),
        (Fault::WrongLength(1), ALWAYS, With(3)),
        (Fault::WrongType("text/plain"), 1, Well),
        (Fault::IgnoreRange, 1, Well),
        (Fault::WrongRange, 1, Well),
        (Fault::Redirect("elsewhere".to_owned()), 1, Well),
    ];
    let rows = reading().into_iter().chain(layer).map(|row| (At::Layer, row));
    let manifest = [(Fault::WrongType("text/plain"), 1, Well)];
    rows.chain(reading().into_iter().chain(manifest).map(|row| (At::Manifest, row))).collect()
}

fn pushes() -> Vec<(At, Row)> {
    let forms = [Form::Relative, Form::Absolute, Form::Changing];
    let session = forms.map(|form| (Fault::Location(form), ALWAYS, Well)).into_iter();
    let session =
        session.chain([(Fault::Page, 1, With(5)), (Fault::Status(404), 1, With(1)), (Fault::Status(413), 1, With(1))]);
    let upload = [
        (Fault::Reset(Stage::RequestBody(0)), 1, Well),
        (Fault::Reset(Stage::RequestBody(LAYER / 2)), 2, Well),
        (Fault::Cancelled, 1, Well),
        (Fault::Status(416), 1, Well),
        // A web page does not end an upload: the client checks whether the blob exists.
        (Fault::Page, 1, Well),
        (Fault::Hasty(503), 1, Well),
        (Fault::Hasty(413), 1, With(1)),
        (Fault::Status(412), 1, With(1)),
        // One retry, and then the content is correct.
        (Fault::WrongDigest, 1, Well),
    ];
    let tag = [
        (Fault::Status(412), 1, With(1)),
        (Fault::Status(413), 1, With(1)),
        (Fault::ExtraBytes(1), 1, Well),
        (Fault::Page, 1, Well),
        (Fault::Page, ALWAYS, With(1)),
        (Fault::ExtraBytes(1), ALWAYS, With(1)),
    ];
    let anywhere = || anywhere().into_iter().map(|(fault, times, ends)| (fault, times, ends.of_an_image()));
    // If nothing answers, the registry is down. If only uploads get 503, `/v2/` shows that it is up, and the image
    // fails.
    let down = |(fault, times, ends)| match (&fault, times) {
        (Fault::Reset(_), ALWAYS) => (fault, times, With(5)),
        // No upload is accepted at all, so the registry itself refuses.
        (Fault::Unauthorized, ALWAYS) => (fault, times, With(4)),
        (Fault::Status(403), _) => (fault, ALWAYS, With(4)),
        _ => (fault, times, ends),
    };
    let rows = anywhere().chain(session).map(|row| (At::Session, down(row)));
    // Slow storage of an upload is not a stall; the client's own tests cover it.
    let upload = anywhere().filter(|(fault, ..)| !matches!(fault, Fault::Stall(_))).chain(upload);
    // The answer never comes, but the registry has the blob, as a lookup shows.
    let upload = upload.map(|(fault, times, ends)| match (&fault, times) {
        (Fault::Reset(Stage::BeforeAnswer), ALWAYS) => (fault, times, Well),
        _ => (fault, times, ends),
    });
    let rows = rows.chain(upload.map(|row| (At::Upload, row)));
    rows.chain(anywhere().chain(tag).map(|row| (At::Tag, row))).collect()
}

fn image() -> Image {
    images::oci("team/app", "1", &[&images::noise(1, LAYER)])
}

#[test]
fn under_any_fault_an_export_writes_a_correct_bundle_or_none_and_says_why() {
    let (source, image, directory) = (Registry::start(), image(), tempdir());
    image.push(&source);
    let layer = image.blob_digests().pop().unwrap();
    each(pulls(), |n, at, row| {
        let proxy = Proxy::with_tokens(source.host());
        disturb(&proxy, at, row, &image);
        let out = directory.path().join(format!("{n}.tar"));
        let (reference, path) = (format!("{}/{}", proxy.address, image.name()), out.display().to_string());
        let arguments = ["export", &reference, "-o", &path, "--retries", "3", "--stall-timeout", "3s"];
        let name = match at {
            At::Layer => format!("blob {layer} of {}/{}", proxy.address, image.repository),
            _ => reference.clone(),
        };
        check_row(&proxy, &arguments, row, &name, || match row.2 {
            With(_) if out.exists() => Err("a bundle exists".to_owned()),
            With(_) => Ok(()),
            Well => holds(&out, &image),
        })?;
        holds(&out, &image)
    });
}

#[test]
fn under_any_fault_an_import_leaves_a_correct_image_or_none_and_says_why() {
    let (source, image, directory) = (Registry::start(), image(), tempdir());
    image.push(&source);
    let bundle = directory.path().join("bundle.tar").display().to_string();
    super::succeed(&["export", &format!("{}/{}", source.host(), image.name()), "-o", &bundle]);
    let target = Registry::start();
    each(pushes(), |n, at, row| {
        let proxy = Proxy::with_tokens(target.host());
        disturb(&proxy, at, row, &image);
        let (to, repository) = (format!("{}/row{n}", proxy.address), format!("row{n}/{}", image.repository));
        let arguments = ["import", &bundle, "--to", &to, "--retries", "3", "--stall-timeout", "3s"];
        let lands = || match target.digest(&repository, "1") {
            Some(digest) if digest == image.digest() => Ok(true),
            Some(digest) => Err(format!("{repository}:1 is {digest}")),
            None => Ok(false),
        };
        check_row(&proxy, &arguments, row, &format!("{to}/{}", image.name()), || match (lands(), row) {
            // If every try under a tag is altered in transit, the registry stores the altered manifest; the import
            // reports it.
            (Err(_), (Fault::ExtraBytes(_), ALWAYS, _)) => Ok(()),
            (other, _) => other.map(drop),
        })?;
        match lands()? {
            true => Ok(()),
            false => Err(format!("{repository}:1 is not there")),
        }
    });
}

/// Plays every row, several at a time because they mostly wait, and reports all that fail.
fn each(rows: Vec<(At, Row)>, play: impl Fn(usize, At, &Row) -> Result<(), String> + Sync) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(String::new()));
    let lane = || {
        loop {
            let n = next.fetch_add(1, Ordering::SeqCst);
            let Some((at, row)) = rows.get(n) else { return };
            if let Err(what) = play(n, *at, row) {
                writeln!(failures.lock().unwrap(), "{at:?} {row:?}: {what}").unwrap();
            }
        }
    };
    std::thread::scope(|scope| (0..6).for_each(|_| drop(scope.spawn(lane))));
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "\n{failures}");
}

fn disturb(proxy: &Proxy, at: At, (fault, times, _): &Row, image: &Image) {
    let layer = image.blob_digests().pop().unwrap();
    let (method, part) = at.request(&layer);
    let fault = match fault {
        Fault::Redirect(_) => Fault::Redirect(proxy.elsewhere().address.clone()),
        other => other.clone(),
    };
    // The client requests a range only after a break.
    let breaks = matches!(fault, Fault::IgnoreRange | Fault::WrongRange);
    if breaks {
        proxy.when(method, &part).fault(Fault::Truncate(LAYER / 4));
    }
    proxy.when(method, &part).nth(if breaks { 2 } else { 1 }).times(*times).fault(fault);
}

/// Runs once with the fault, checks the state after it, and runs again without it.
fn check_row(
    proxy: &Proxy,
    arguments: &[&str],
    (fault, _, ends): &Row,
    name: &str,
    seen: impl Fn() -> Result<(), String>,
) -> Result<(), String> {
    let output = run(arguments);
    let (code, message) = (output.status.code(), stderr(&output));
    let happened = proxy.done().iter().any(|(_, done)| std::mem::discriminant(done) == std::mem::discriminant(fault));
    if !happened {
        return Err(format!("it did not happen: {:?}\n{message}", proxy.done()));
    }
    match ends {
        Well if code == Some(0) => {}
        With(expected) if code == Some(*expected) && message.contains(name) => {}
        _ => return Err(format!("exit code {code:?}, saying\n{message}")),
    }
    seen()?;
    if proxy.elsewhere().seen().iter().any(|request| !request.header("authorization").is_empty()) {
        return Err("credentials went to another host".to_owned());
    }
    // The same command again, without the fault.
    proxy.heal();
    let again = run(arguments);
    match again.status.success() {
        true => Ok(()),
        false => Err(format!("it does not end well afterwards\n{}", stderr(&again))),
    }
}

/// Verifies the bundle and checks that it contains exactly this image.
fn holds(bundle: &Path, image: &Image) -> Result<(), String> {
    let verified = gapferry().arg("verify").arg(bundle).output().map_err(|e| e.to_string())?;
    let listed = gapferry().args(["list", "--json"]).arg(bundle).output().map_err(|e| e.to_string())?;
    match verified.status.success() && String::from_utf8_lossy(&listed.stdout).contains(&image.digest()) {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&verified.stdout).into_owned()),
    }
}
