//! A bundle in one pass, from its first byte to its last: for whatever takes bytes in order and gives none back, a pipe, a
//! tape, a diode, a compressor.
//!
//! Nothing that was written can be changed, so `bundle.json` says nothing of chunks: it stands before blobs that nobody has
//! read. All else is known from the contents; a blob that goes by another digest than sha256 is read twice.

mod ahead;
mod compressed;
mod incoming;
mod outlet;

use std::collections::HashMap;

use futures_util::StreamExt;
use futures_util::future::try_join;

use super::format::{self, BUNDLE_JSON, Known, Metadata};
use super::offsets::{TarFile, TarPlan};
use super::{Contents, Options, Tool, signed};
use crate::base::error::{Error, Result};
use crate::base::progress::{Event, Events, Phase};
use crate::content::{Origin, Slice, Source};
use crate::oci::{Algorithm, Descriptor, Digest, Repository};
use crate::pipeline::graph::Graph;
use ahead::{Ahead, Placed};
pub use compressed::Compressed;
pub use incoming::{Arrived, Ending, Hand, Incoming};
pub use outlet::{Kind, Outlet, Pipe};

/// A tar ends with two empty blocks.
const END: usize = 1024;
const BLOCK: u64 = 512;

/// What is to be written, and where its blobs are.
pub struct Stream<'a> {
    /// Of `graph`.
    pub contents: &'a Contents,
    pub options: &'a Options,
    pub graph: &'a Graph,
    pub source: &'a dyn Source,
    /// Blobs at a time: one is written, the others are fetched ahead.
    pub jobs: usize,
    pub events: &'a Events,
}

/// A stream that was written to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streamed {
    /// sha256 of `bundle.json`.
    pub identity: Digest,
    /// Bytes of the tar.
    pub size: u64,
}

impl Stream<'_> {
    /// How long the tar is, in bytes.
    ///
    /// # Errors
    /// Sizes that no file could have.
    pub fn length(&self) -> Result<u64> {
        let mut metadata = format::metadata(self.contents, &self.options.tool, &silent(HashMap::new()))?;
        if let Some(room) = signed::room(self.options.key.as_deref()) {
            signed::put(&mut metadata, room);
        }
        Ok(self.plan(&metadata)?.length)
    }

    /// Writes all of it to `outlet`. The same contents give the same bytes, but for an ECDSA signature.
    ///
    /// # Errors
    /// The source's or the outlet's, or a blob that is not what its digest says. What went out until then has no end mark, so
    /// every reader of a tar calls it cut short; the last piece of a wrong blob has not gone out.
    pub async fn write(&self, outlet: impl Outlet + 'static) -> Result<Streamed> {
        let kept = self.fetch_unnamed().await?;
        let sha256 = self.sums(&kept)?;
        let mut metadata = format::metadata(self.contents, &self.options.tool, &silent(sha256))?;
        if let Some(key) = &self.options.key {
            let signature = signed::signature(key, &metadata)?;
            signed::put(&mut metadata, signature);
        }
        let plan = self.plan(&metadata)?;
        let bundle_json = metadata.iter().find(|file| file.path == BUNDLE_JSON);
        let identity = Digest::sha256(bundle_json.map_or(&[], |file| &file.bytes));
        let mtime = u64::try_from(self.contents.lock.created.as_second()).unwrap_or_default();
        let blobs = self.placed();
        let bytes = blobs.iter().map(|placed| placed.blob.size).fold(0, u64::saturating_add);
        self.events.report(Event::Phase { phase: Phase::Transfer, items: blobs.len() as u64, bytes });
        let ahead = Ahead::new(self.source, self.jobs, self.events, kept);
        let (fetching, mut fetched) = ahead.begin(&blobs);
        let mut pipe = Pipe::to(outlet);
        let writing = async {
            let mut files = plan.files.iter();
            for (bytes, file) in metadata.into_iter().map(|file| file.bytes.into()).zip(files.by_ref()) {
                whole(&mut pipe, file, bytes, mtime).await?;
            }
            for (tool, file) in self.contents.tools.iter().zip(files.by_ref()) {
                pack(&mut pipe, file, tool, mtime).await?;
            }
            for (manifest, file) in self.contents.manifests.iter().zip(files.by_ref()) {
                whole(&mut pipe, file, manifest.bytes()?, mtime).await?;
            }
            for (placed, file) in blobs.iter().zip(files) {
                pipe.begin(Kind::Plain).await?;
                pipe.write(file.header_blocks(mtime).into()).await?;
                pipe.begin(Kind::of(&placed.blob)).await?;
                let mut pieces = fetched.next().await?;
                while let Some(piece) = pieces.next().await {
                    pipe.write(piece).await?;
                }
                pieces.end()?;
                pipe.begin(Kind::Plain).await?;
                pipe.write(padding(file.size)).await?;
            }
            pipe.write(vec![0; END].into()).await
        };
        let written = try_join(fetching, writing).await;
        // What the outlet says is why it took no more.
        pipe.finish(written.is_ok()).await.and(written)?;
        Ok(Streamed { identity, size: plan.length })
    }

    fn plan(&self, metadata: &[Metadata]) -> Result<TarPlan> {
        let files = metadata.iter().map(|file| (file.path.to_owned(), file.bytes.len() as u64));
        TarPlan::new(files.chain(self.contents.files()))
    }

    /// The blobs in the order of the tar, and where each is.
    fn placed(&self) -> Vec<Placed> {
        let mut places: HashMap<Digest, &Repository> = HashMap::new();
        for image in &self.graph.images {
            for blob in &image.blobs {
                places.entry(blob.digest).or_insert(&image.locked.reference.repository);
            }
        }
        let placed = |blob: &Descriptor| {
            let repository = (*places.get(&blob.digest)?).clone();
            Some(Placed { blob: blob.clone(), repository })
        };
        self.contents.blobs.iter().filter_map(placed).collect()
    }

    /// `SHA256SUMS` wants the sha256 of every file, and stands before them: what does not go by it is fetched first, into
    /// files without a name.
    async fn fetch_unnamed(&self) -> Result<HashMap<Digest, Slice>> {
        let mut kept = HashMap::new();
        for Placed { blob, repository } in self.placed() {
            if blob.digest.algorithm() != Algorithm::Sha256 {
                let origin = Origin { source: self.source, repository: &repository };
                kept.insert(blob.digest, ahead::keep(&blob, &origin).await?);
            }
        }
        Ok(kept)
    }

    fn sums(&self, kept: &HashMap<Digest, Slice>) -> Result<HashMap<Digest, Digest>> {
        let others =
            self.contents.manifests.iter().filter(|manifest| manifest.digest().algorithm() != Algorithm::Sha256);
        let mut sums: HashMap<Digest, Digest> = others
            .map(|manifest| Ok((manifest.digest(), Digest::sha256(&manifest.bytes()?))))
            .collect::<Result<_>>()?;
        for (digest, slice) in kept {
            let sum = slice.hash(Algorithm::Sha256, &|_| ());
            sums.insert(*digest, sum.map_err(|e| Error::disk("reading", slice.path(), e))?);
        }
        Ok(sums)
    }
}

/// A file that is at hand as a whole.
async fn whole(pipe: &mut Pipe, file: &TarFile, bytes: bytes::Bytes, mtime: u64) -> Result<()> {
    pipe.begin(Kind::Plain).await?;
    pipe.write(file.header_blocks(mtime).into()).await?;
    pipe.write(bytes).await?;
    pipe.write(padding(file.size)).await
}

async fn pack(pipe: &mut Pipe, file: &TarFile, tool: &Tool, mtime: u64) -> Result<()> {
    pipe.begin(Kind::Plain).await?;
    pipe.write(file.header_blocks(mtime).into()).await?;
    let mut reader = tool.reader()?;
    while let Some(piece) = reader.next().await {
        pipe.write(piece.map_err(|error| tool.changed(error))?).await?;
    }
    pipe.write(padding(file.size)).await
}

fn silent(sha256: HashMap<Digest, Digest>) -> Known {
    Known { sha256, chunks: None }
}

fn padding(size: u64) -> bytes::Bytes {
    let zeros: &'static [u8] = &[0; BLOCK as usize];
    let length = size.next_multiple_of(BLOCK) - size;
    bytes::Bytes::from_static(&zeros[..usize::try_from(length).unwrap_or_default()])
}
