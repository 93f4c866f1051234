//! Files against what is declared of them.

use std::collections::BTreeSet;

use super::chunks::{self, Blob, Written};
use super::declared::Declared;
use super::{Depth, Problem, ProblemKind, Problems};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::{BUNDLE_JSON, BundleJson, SIGNATURE, SUMS, is_tool};
use crate::content::in_parallel;
use crate::files::Layout;
use crate::oci::{Algorithm, Digest, MAX_MANIFEST_SIZE};

/// Every declared file against its size and digest, and every file against the declarations.
pub fn check(
    layout: &Layout,
    declared: &[Declared],
    bundle: Option<&BundleJson>,
    depth: Depth,
    events: &Events,
    problems: &mut Problems,
) {
    let names: BTreeSet<&str> = declared.iter().map(|declared| declared.path.as_str()).collect();
    for (path, _) in layout.entries().filter(|(path, _)| !names.contains(path)) {
        if !matches!(path, BUNDLE_JSON | SUMS | SIGNATURE) {
            problems.push(undeclared(path));
        }
    }
    let (mut to_hash, mut in_chunks): (Vec<(&Declared, u64)>, Vec<Blob>) = Default::default();
    for file in declared {
        match (layout.size_of(&file.path), file.size) {
            (None, _) => {
                let problem = Problem::new(&file.path, ProblemKind::Missing);
                problems.push(match file.size {
                    Some(size) => problem.expected(format!("{size} bytes")),
                    None => problem,
                });
            }
            (Some(found), Some(size)) if found != size => problems.push(
                Problem::new(&file.path, ProblemKind::WrongSize)
                    .expected(format!("{size} bytes"))
                    .found(format!("{found} bytes")),
            ),
            (Some(size), _) => match file.blake3 {
                Some(root) if depth == Depth::Chunks => in_chunks.push(Blob { declared: file, size, root }),
                _ if depth != Depth::Structure || is_small_metadata(&file.path, size) => to_hash.push((file, size)),
                _ => {}
            },
        }
    }
    // The largest first: one that comes last would keep all other cores waiting.
    to_hash.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let sizes = to_hash.iter().map(|(_, size)| *size).chain(in_chunks.iter().map(|blob| blob.size));
    let (items, bytes) = ((to_hash.len() + in_chunks.len()) as u64, sizes.fold(0, u64::saturating_add));
    events.report(Event::Phase { phase: Phase::Verify, items, bytes });
    if let Some(bundle) = bundle {
        problems.extend(chunks::check(layout, bundle, &in_chunks, events));
    }
    let found = in_parallel(&to_hash, |(file, _)| {
        let problem = hash(layout, file, events);
        events.report(Event::ItemDone);
        problem
    });
    let written = bundle.filter(|_| found.iter().any(Option::is_some)).map(|bundle| Written::new(layout, bundle));
    let told = found.into_iter().zip(to_hash).filter_map(|(problem, (declared, size))| {
        let Some((written, root)) = written.as_ref().zip(declared.blake3) else { return problem };
        Some(chunks::located(written, &Blob { declared, size, root }, problem?))
    });
    problems.extend(told);
}

fn undeclared(path: &str) -> Problem {
    let unfinished = path.ends_with(".partial");
    let problem = Problem::new(path, ProblemKind::Undeclared);
    if unfinished { problem.found("a file of an unfinished export") } else { problem }
}

/// What an import relies on before the first push. Manifests cannot be told from other blobs by name: small ones are
/// all hashed here, the others when they are read as manifests. Tools go no further: nobody else would prove them.
fn is_small_metadata(path: &str, size: u64) -> bool {
    is_tool(path) || !path.starts_with("blobs/") && size <= 16 * MAX_MANIFEST_SIZE
}

fn hash(layout: &Layout, file: &Declared, events: &Events) -> Option<Problem> {
    let expected = format!("sha256:{}", file.sha256);
    if let Some(sums) = layout.passed(&file.path) {
        return compare(file, &expected, &|algorithm| match algorithm {
            Algorithm::Sha256 => Ok(sums.sha256),
            Algorithm::Sha512 => sums.own.ok_or_else(|| std::io::Error::other("it has passed")),
        });
    }
    let slice = match layout.slice(&file.path) {
        Ok(slice) => slice?,
        Err(error) => return Some(Problem::new(&file.path, ProblemKind::Unreadable).found(error.chain())),
    };
    let id = file.sha256.sha256().unwrap_or(Digest::ZEROS);
    let size = slice.size();
    events.report(Event::BlobStarted { digest: id, size, present: 0 });
    let progress = |bytes| events.report(Event::BlobAdvanced { digest: id, bytes });
    let problem = compare(file, &expected, &|algorithm| match algorithm {
        Algorithm::Sha256 => slice.hash(algorithm, &progress),
        Algorithm::Sha512 => slice.hash(algorithm, &|_| ()),
    });
    events.report(Event::BlobFinished { digest: id });
    problem
}

/// Against what is declared; and, for a blob, against its own name. `hash` is of its bytes.
fn compare(file: &Declared, expected: &str, hash: &dyn Fn(Algorithm) -> std::io::Result<Digest>) -> Option<Problem> {
    let unreadable = |e: std::io::Error| Some(Problem::new(&file.path, ProblemKind::Unreadable).found(e));
    let found = match hash(Algorithm::Sha256) {
        Ok(found) => found,
        Err(error) => return unreadable(error),
    };
    let own_name = Digest::of_blob_path(&file.path);
    if found.to_string() != expected {
        let expected = own_name.map_or_else(|| expected.to_owned(), |name| name.to_string());
        return Some(Problem::new(&file.path, ProblemKind::WrongDigest).expected(expected).found(found));
    }
    let own_name = own_name?;
    let real = match own_name.algorithm() {
        Algorithm::Sha256 => Ok(found),
        Algorithm::Sha512 => hash(Algorithm::Sha512),
    };
    match real {
        Ok(real) if real == own_name => None,
        Ok(real) => Some(Problem::new(&file.path, ProblemKind::WrongDigest).expected(own_name).found(real)),
        Err(error) => unreadable(error),
    }
}
