//! Checks files against their declarations.

use std::collections::BTreeSet;

use super::chunks::{self, Blob};
use super::declared::{Declarations, Declared};
use super::table::{BlobProof, Table};
use super::whole_volumes::WholeVolumes;
use super::{Depth, Problem, ProblemKind, Problems};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::chunks::Reader;
use crate::bundle::{CHUNKS, Proven, is_metadata, is_never_declared, is_tool};
use crate::content::chunks::Chunks;
use crate::content::in_parallel;
use crate::content::proof::{Hashed, Unproven, Wrong, prove, prove_chunks};
use crate::files::Layout;
use crate::oci::{Digest, MAX_MANIFEST_SIZE};

/// The input of the check.
pub struct Check<'a> {
    pub layout: &'a Layout,
    pub declared: &'a Declarations,
    /// The `chunks.b3`, if it may be used.
    pub table: &'a Table,
    /// What a signature has proven, if a signature is required.
    pub proven: Option<&'a Proven>,
    /// Volumes that were read before.
    pub read: &'a WholeVolumes<'a>,
    pub depth: Depth,
    pub events: &'a Events,
}

/// What proved the blobs, and why `chunks.b3` did not.
#[derive(Default)]
pub struct Proved {
    pub proof: Option<BlobProof>,
    pub reason: Option<&'static str>,
}

impl Check<'_> {
    /// Checks the size and digest of every declared file, and that every file is declared.
    pub fn run(&self, problems: &mut Problems) -> Proved {
        let Check { layout, declared, table, depth, events, .. } = *self;
        let Declarations { files: declared, by_names, .. } = declared;
        let names: BTreeSet<&str> = declared.iter().map(|declared| declared.path.as_str()).collect();
        for (path, _) in layout.entries().filter(|(path, _)| !names.contains(path)) {
            // Without a list, any metadata could have been declared.
            let may_be = if *by_names { is_metadata(path) || is_tool(path) } else { is_never_declared(path) };
            if !may_be {
                problems.push(undeclared(path));
            }
        }
        // It is not declared, so it cannot be found missing.
        if layout.is_directory(CHUNKS) {
            problems.push(Problem::new(CHUNKS, ProblemKind::Malformed).found("a directory"));
        }
        let proved = self.proved();
        let by_chunks = table.reader.as_ref().filter(|_| proved.proof.is_some_and(|proof| proof != BlobProof::Digest));
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
                (Some(size), _) => match by_chunks.and_then(|table| root(table, file)) {
                    Some(root) => in_chunks.push(Blob { declared: file, size, root }),
                    None if depth != Depth::Structure || is_small_metadata(&file.path, size) => {
                        to_hash.push((file, size));
                    }
                    None => {}
                },
            }
        }
        // The largest first: if one came last, all other cores would wait for it.
        to_hash.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        let left = to_hash.iter().filter(|(file, _)| self.hashed(file).is_none()).map(|(_, size)| *size);
        let sizes = left.chain(in_chunks.iter().map(|blob| blob.size));
        let (items, bytes) = ((to_hash.len() + in_chunks.len()) as u64, sizes.fold(0, u64::saturating_add));
        events.report(Event::Phase { phase: Phase::Verify, items, bytes });
        if let Some(table) = by_chunks {
            problems.extend(chunks::check(layout, table, &in_chunks, events));
        }
        let found = in_parallel(&to_hash, |(file, size)| {
            let found = self.hash(file, *size);
            events.report(Event::ItemDone);
            found
        });
        let mut misleading = Vec::new();
        for found in found {
            match found {
                Verdict::Right => {}
                Verdict::Misleading(blob) => misleading.push(blob),
                Verdict::Wrong(problem) => problems.push(problem),
            }
        }
        problems.extend(chunks::misled(&misleading));
        proved
    }

    /// The hash of a file that was read before, in a stream or as part of its volume. A volume's hash has no chunks, so it
    /// is not used if there is a `chunks.b3` to compare with.
    fn hashed(&self, file: &Declared) -> Option<&Hashed> {
        let of_volume = || self.read.of_bundle(&file.path, &file.digest).filter(|_| self.table.reader.is_none());
        self.layout.passed(&file.path).or_else(of_volume)
    }

    /// Checks a file against its digest, and against `chunks.b3` in the same pass.
    fn hash(&self, file: &Declared, size: u64) -> Verdict {
        let Check { layout, table, depth, events, .. } = *self;
        let table = table.reader.as_ref().filter(|_| depth != Depth::Structure);
        let table = table.filter(|table| root(table, file).is_some());
        let wrong =
            |found: Digest| Problem::new(&file.path, ProblemKind::WrongDigest).expected(file.digest).found(found);
        let located = |problem: Problem, chunks: Option<&Chunks>| match table.zip(chunks) {
            Some((table, chunks)) => chunks::located(table, file, size, chunks, problem),
            None => problem,
        };
        if let Some(hashed) = self.hashed(file) {
            return match hashed.prove(&file.digest) {
                Ok(()) => Verdict::Right,
                Err(Wrong { found, chunks }) => Verdict::Wrong(located(wrong(found), chunks.as_ref())),
            };
        }
        let unreadable = |text: String| Verdict::Wrong(Problem::new(&file.path, ProblemKind::Unreadable).found(text));
        let slice = match layout.slice(&file.path) {
            Ok(Some(slice)) => slice,
            Ok(None) => return Verdict::Right,
            Err(error) => return unreadable(error.chain()),
        };
        let digest = file.digest;
        events.report(Event::BlobStarted { digest, size: slice.size(), present: 0 });
        let progress = |bytes| events.report(Event::BlobAdvanced { digest, bytes });
        let proven = match table {
            Some(_) => prove_chunks(&slice, &digest, &progress).map(Some),
            None => prove(&slice, &digest, &progress).map(|()| None),
        };
        events.report(Event::BlobFinished { digest });
        match proven {
            Ok(chunks) if table.zip(chunks.as_ref()).is_none_or(|(table, chunks)| table.says(&digest, chunks)) => {
                Verdict::Right
            }
            Ok(_) => Verdict::Misleading(digest),
            Err(Unproven::Unreadable(error)) => unreadable(error.to_string()),
            Err(Unproven::Wrong(Wrong { found, chunks })) => Verdict::Wrong(located(wrong(found), chunks.as_ref())),
        }
    }

    fn proved(&self) -> Proved {
        let by_digest = |reason| Proved { proof: Some(BlobProof::Digest), reason };
        match self.depth {
            Depth::Structure => Proved::default(),
            Depth::Full => by_digest(None),
            Depth::Chunks => match self.table.proof(self.layout, self.proven) {
                Ok(proof) => Proved { proof: Some(proof), reason: None },
                Err(reason) => by_digest(Some(reason)),
            },
        }
    }
}

fn root(table: &Reader, file: &Declared) -> Option<crate::content::chunks::Chained> {
    table.root(&file.digest).filter(|_| file.path.starts_with("blobs/"))
}

fn undeclared(path: &str) -> Problem {
    let unfinished = path.ends_with(".partial");
    let problem = Problem::new(path, ProblemKind::Undeclared);
    if unfinished { problem.found("a file of an unfinished export") } else { problem }
}

/// Whether an import relies on this file before the first push. The names of manifests do not differ from those of other blobs:
/// the small ones are all hashed here, the others when they are read as manifests. Tools are not pushed, so nothing else
/// would prove them.
fn is_small_metadata(path: &str, size: u64) -> bool {
    is_tool(path) || !path.starts_with("blobs/") && size <= 16 * MAX_MANIFEST_SIZE
}

enum Verdict {
    Right,
    Wrong(Problem),
    /// The blob is right, and its values in `chunks.b3` are wrong.
    Misleading(Digest),
}
