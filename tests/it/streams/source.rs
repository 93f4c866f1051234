//! Streams from sources that a registry cannot simulate: other digests, wrong bytes.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Mutex};

use gapferry::base::error::Kind;
use gapferry::base::progress::{Events, Silent};
use gapferry::bundle::Bundle;
use gapferry::bundle::{Section, StreamBuffer, StreamSink, StreamWriter, StreamedBundle, places};
use gapferry::pipeline::graph::{Graph, Image};
use gapferry::verify::{Depth, Report, check};

use crate::bundle::fixture::{Builder, noise, two_images};
use crate::support::tempdir;

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl StreamSink for Kept {
    fn begin(&mut self, _: Section) -> gapferry::Result<()> {
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> gapferry::Result<()> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> gapferry::Result<()> {
        Ok(())
    }
}

fn stream(builder: &Builder, jobs: usize) -> (gapferry::Result<()>, Vec<u8>) {
    let contents = builder.contents();
    let images = contents.lock.images.iter().map(|locked| Image {
        locked: locked.clone(),
        manifests: contents.manifests.clone(),
        blobs: contents.blobs.clone(),
    });
    let graph = Graph { images: images.collect(), ..Graph::default() };
    let (files, events) = (builder.files(), Arc::new(Silent) as Events);
    let stream = StreamWriter { files: &files, source: &builder.source, places: places(&graph), jobs, events: &events };
    let kept = Kept::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let written = runtime.block_on(stream.write(kept.clone()));
    let bytes = kept.0.lock().unwrap().clone();
    if let Ok(streamed) = &written {
        assert_eq!((streamed.size, stream.length().unwrap()), (bytes.len() as u64, bytes.len() as u64));
    }
    (written.map(drop), bytes)
}

fn report(bytes: &[u8]) -> gapferry::Result<Report> {
    let directory = tempdir();
    let path = directory.path().join("b.tar");
    std::fs::write(&path, bytes).unwrap();
    check(&path, Depth::Full, &(Arc::new(Silent) as Events))
}

#[test]
fn a_sha512_blob_is_in_the_stream_and_in_its_own_sums_file() {
    let large = noise(4, 3_000_000);
    let builder =
        Builder::new().sha512("registry.test/a:1", large).image("registry.test/b:1", &[noise(5, 100), vec![]]);
    let (written, bytes) = stream(&builder, 3);
    written.unwrap();
    let report = report(&bytes).unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

#[test]
fn the_stream_does_not_depend_on_how_many_blobs_are_fetched_ahead() {
    let layers: Vec<Vec<u8>> = (0..60).map(|n| noise(n, 1 + (n as usize * 7_919) % 400_000)).collect();
    let large = noise(99, 9_000_000);
    let builder = Builder::new().image("registry.test/a:1", &layers).image("registry.test/b:1", &[large]);
    let (one, first) = stream(&builder, 1);
    one.unwrap();
    for jobs in [2, 16, 100] {
        let (written, bytes) = stream(&builder, jobs);
        written.unwrap();
        assert!(bytes == first, "{jobs}");
    }
    let directory = tempdir();
    std::fs::write(directory.path().join("b.tar"), &first).unwrap();
    assert!(Bundle::open(&directory.path().join("b.tar")).unwrap().sizes_agree());
}

#[test]
fn a_failing_source_leaves_a_stream_that_reads_as_cut_short() {
    // Small blobs are fetched in full beforehand; large ones are already in flight.
    for length in [70_000, 40_000_000] {
        let builder = Builder::new().image("registry.test/a:1", &[noise(1, 50), noise(2, length), noise(3, 50)]);
        let blob = builder.layer(1).clone();
        builder.source.breaks.lock().unwrap().insert(blob.digest, blob.size - 1_000);
        let (written, bytes) = stream(&builder, 4);
        let error = written.unwrap_err().chain();
        assert!(error.contains("the connection broke"), "{error}");
        let cut = |report: Report| {
            report.problems.iter().any(|p| p.found.as_deref().is_some_and(|found| found.contains("cut short")))
        };
        // The source may have failed before any output; then there is no tar.
        assert!(report(&bytes).map_or(bytes.len() < 512, cut), "{} bytes", bytes.len());
    }
}

/// Fails after the last byte, as a device does.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Ok(0) => Err(io::Error::from_raw_os_error(5)),
            read => read,
        }
    }
}

#[test]
fn a_read_error_is_not_reported_as_the_end_of_the_pipe() {
    let builder = Builder::new().image("registry.test/a:1", &[noise(1, 500_000), noise(2, 500_000)]);
    let (written, bytes) = stream(&builder, 2);
    written.unwrap();
    let read = |input: Box<dyn Read>| {
        let (mut incoming, _) = StreamedBundle::open(Path::new("a pipe"), input, &mut |_| Ok(())).unwrap();
        let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
        let wanted = incoming.take_awaited();
        let ending = incoming.read(wanted, &StreamBuffer::default(), &came);
        let kinds: Vec<Option<Kind>> = std::iter::from_fn(|| coming.try_recv().ok())
            .map(|(_, outcome)| outcome.err().map(|error| error.kind()))
            .collect();
        (kinds, ending.problems)
    };
    let cut = bytes[..800_000].to_vec();
    let (kinds, problems) = read(Box::new(Failing(cut.clone().leak())));
    assert_eq!(kinds, [None, Some(Kind::Disk)]);
    assert!(problems.len() == 1 && problems[0].contains("os error 5"), "{problems:?}");
    let (kinds, problems) = read(Box::new(io::Cursor::new(cut)));
    assert_eq!(kinds, [None, Some(Kind::Damaged)]);
    assert!(problems.iter().any(|problem| problem.contains("ended after")), "{problems:?}");
}

/// Skipping a blob would shift all following files: the tar would look intact with files under wrong names.
#[test]
fn a_blob_without_a_known_source_fails_the_stream_before_any_output() {
    let builder = two_images();
    let (files, events) = (builder.files(), Arc::new(Silent) as Events);
    let places = HashMap::new();
    let stream = StreamWriter { files: &files, source: &builder.source, places, jobs: 2, events: &events };
    let kept = Kept::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let error = runtime.block_on(stream.write(kept.clone())).unwrap_err();
    assert!(files.blobs.iter().any(|blob| error.chain().contains(&blob.digest.to_string())), "{error:?}");
    assert!(kept.0.lock().unwrap().is_empty());
}
