//! A bundle out of a pipe: what is said of it is what would be said of a file; and no blob is at hand that is not what its
//! name says.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use futures_util::StreamExt;
use gapferry::bundle::{StreamBuffer, StreamSource, StreamedBundle};
use gapferry::bundle::volumes::Opened;
use gapferry::verify::{Depth, check, check_opened, pass};
use gapferry::content::{BlobReader, Source};
use gapferry::oci::Descriptor;
use gapferry::base::progress::{Events, Silent};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let bytes = gapferry_fuzz::with_checksums(data);
    let (_kept, path) = gapferry_fuzz::file(&bytes);
    let events: Events = Arc::new(Silent);
    let passed = gapferry_fuzz::bounded(64 << 20 | 64 * bytes.len(), || {
        let layout = pass(Path::new("a pipe"), &bytes[..], &mut |_| Ok(()), &events)?;
        check_opened(&Opened::Whole(Box::new(layout)), Depth::Full, &events)
    });
    if let (Ok(passed), Ok(read)) = (&passed, check(&path, Depth::Full, &events)) {
        assert_eq!(passed.is_clean(), read.is_clean(), "{:#?}\n{:#?}", passed.problems, read.problems);
        assert_eq!(passed.identity, read.identity);
    }
    let _ = gapferry_fuzz::bounded(64 << 20 | 64 * bytes.len(), || import(&bytes));
});

fn import(bytes: &[u8]) -> gapferry::Result<()> {
    let (mut incoming, layout) = StreamedBundle::open(Path::new("a pipe"), bytes, &mut |_| Ok(()))?;
    let (wanted, buffer) = (incoming.take_awaited(), Arc::new(StreamBuffer::default()));
    let (came, mut coming) = tokio::sync::mpsc::unbounded_channel();
    let ending = incoming.read(wanted.clone(), &buffer, &came);
    drop(came);
    assert_eq!(ending.length.min(bytes.len() as u64), ending.length);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let arrived = StreamSource { buffer, rest: &layout };
    let repository = "registry.test/a".parse().expect("a name");
    let mut finished = 0;
    while let Ok((digest, outcome)) = coming.try_recv() {
        finished += 1;
        assert!(wanted.contains(&digest));
        let Some(size) = layout.size_of(&digest.blob_path()).filter(|_| outcome.is_ok()) else { continue };
        let blob = Descriptor::new("", digest, size);
        runtime.block_on(async {
            let body = arrived.blob(&repository, &blob, 0).await.expect("it is at hand");
            let mut reader = BlobReader::new(&blob, body).expect("from its start");
            while let Some(piece) = reader.next().await {
                piece.expect("it was proven");
            }
        });
    }
    assert_eq!(finished, wanted.len(), "each is reported once");
    Ok(())
}
