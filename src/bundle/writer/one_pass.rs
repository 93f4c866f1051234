//! Writes a bundle in a single pass, for outputs that take bytes in order and return none: a pipe, a tape, a diode, a
//! compressor.
//!
//! What was written cannot be changed, so everything before the blobs follows from the contents, and everything known only
//! afterwards follows them.

use std::collections::HashMap;

use futures_util::StreamExt;
use futures_util::future::try_join;

use super::ahead::Ahead;
use super::sink::{Pipe, Section, StreamSink};
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::bundle::fileset::FileSet;
use crate::bundle::tar_plan::{BLOCK, END, PlannedFile};
use crate::bundle::{Tool, chunks};
use crate::content::Source;
use crate::content::chunks::{ChunkHasher, Chunks};
use crate::oci::{Descriptor, Digest, Repository};
use crate::pipeline::graph::{Graph, PlacedBlob};

/// What to write, and where its blobs are.
pub struct StreamWriter<'a> {
    pub files: &'a FileSet,
    pub source: &'a dyn Source,
    /// The repository of the source for each blob.
    pub places: HashMap<Digest, Repository>,
    /// Parallel blobs: one is written, the others are fetched ahead.
    pub jobs: usize,
    pub events: &'a Events,
}

/// A stream that was completely written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// SHA-256 of `bundle.json`.
    pub identity: Digest,
    /// Bytes of the tar.
    pub size: u64,
}

impl StreamWriter<'_> {
    /// Size of the tar in bytes.
    ///
    /// # Errors
    /// The sizes overflow.
    pub fn length(&self) -> Result<u64> {
        Ok(self.files.tar()?.length)
    }

    /// Writes everything to `sink`. The same contents give the same bytes, except for ECDSA signatures.
    ///
    /// # Errors
    /// The source or the sink fails, or a blob does not match its digest. The output then has no end mark, so every tar reader
    /// reports it as cut off, and it lacks the last piece of a wrong blob.
    pub async fn write(&self, sink: impl StreamSink + 'static) -> Result<Streamed> {
        let FileSet { identity, mtime, .. } = *self.files;
        let plan = self.files.tar()?;
        let blobs = self.placed()?;
        let bytes = blobs.iter().map(|placed| placed.blob.size).fold(0, u64::saturating_add);
        self.events.report(Event::Phase { phase: Phase::Transfer, items: blobs.len() as u64, bytes });
        let ahead = Ahead::new(self.source, self.jobs, self.events);
        let (fetching, mut fetched) = ahead.begin(&blobs);
        let mut pipe = Pipe::to(sink);
        let writing = async {
            let (mut files, mut chunks) = (plan.files.iter(), chunks::ChunksWriter::new(identity));
            for (own, file) in self.files.head.iter().zip(files.by_ref()) {
                whole(&mut pipe, file, own.read()?, mtime).await?;
            }
            for (tool, file) in self.files.tools.iter().zip(files.by_ref()) {
                pack(&mut pipe, file, tool, mtime).await?;
            }
            for (manifest, file) in self.files.manifests.iter().zip(files.by_ref()) {
                let bytes = manifest.bytes()?;
                chunks.add(&Chunks::of(&bytes));
                whole(&mut pipe, file, bytes, mtime).await?;
            }
            for (placed, file) in blobs.iter().zip(files.by_ref()) {
                pipe.begin(Section::Plain).await?;
                pipe.write(file.header_blocks(mtime).into()).await?;
                pipe.begin(Section::of(&placed.blob)).await?;
                let (mut pieces, mut hasher) = (fetched.next().await?, ChunkHasher::new());
                while let Some(piece) = pieces.next().await {
                    hasher.update(&piece);
                    pipe.write(piece).await?;
                }
                pieces.end()?;
                chunks.add(&hasher.finish());
                pipe.begin(Section::Plain).await?;
                pipe.write(padding(file.size)).await?;
            }
            if let Some(trailer) = &self.files.trailer {
                for (own, file) in trailer.files(chunks.finish())?.iter().zip(files) {
                    whole(&mut pipe, file, own.read()?, mtime).await?;
                }
            }
            pipe.write(vec![0; END as usize].into()).await
        };
        let written = try_join(fetching, writing).await;
        // The error of the sink explains why it stopped.
        pipe.finish(written.is_ok()).await.and(written)?;
        Ok(Streamed { identity, size: plan.length })
    }

    /// The blobs in tar order, with their repositories.
    fn placed(&self) -> Result<Vec<PlacedBlob>> {
        let placed = |blob: &Descriptor| {
            let missing = || Error::damaged(format!("no image has the blob {}", blob.digest));
            let repository = self.places.get(&blob.digest).ok_or_else(missing)?.clone();
            Ok(PlacedBlob { blob: blob.clone(), repository })
        };
        self.files.blobs.iter().map(placed).collect()
    }
}

/// The repository of each blob in a graph.
pub fn places(graph: &Graph) -> HashMap<Digest, Repository> {
    let mut places = HashMap::new();
    for image in &graph.images {
        for blob in &image.blobs {
            places.entry(blob.digest).or_insert_with(|| image.locked.reference.repository.clone());
        }
    }
    places
}

/// Writes a file whose bytes are all known. A signature may be shorter than planned; it takes the same space.
async fn whole(pipe: &mut Pipe, planned: &PlannedFile, bytes: bytes::Bytes, mtime: u64) -> Result<()> {
    let file = PlannedFile { size: bytes.len() as u64, ..planned.clone() };
    pipe.begin(Section::Plain).await?;
    pipe.write(file.header_blocks(mtime).into()).await?;
    pipe.write(bytes).await?;
    pipe.write(padding(file.size)).await
}

async fn pack(pipe: &mut Pipe, file: &PlannedFile, tool: &Tool, mtime: u64) -> Result<()> {
    pipe.begin(Section::Plain).await?;
    pipe.write(file.header_blocks(mtime).into()).await?;
    let mut reader = tool.reader()?;
    while let Some(piece) = reader.next().await {
        pipe.write(piece.map_err(|error| tool.changed(error))?).await?;
    }
    pipe.write(padding(file.size)).await
}

fn padding(size: u64) -> bytes::Bytes {
    let zeros: &'static [u8] = &[0; BLOCK as usize];
    let length = size.next_multiple_of(BLOCK) - size;
    bytes::Bytes::from_static(&zeros[..usize::try_from(length).unwrap_or_default()])
}
