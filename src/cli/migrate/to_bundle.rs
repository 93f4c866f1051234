//! The images of a storage as a bundle, made as export makes one.

use std::collections::HashSet;
use std::sync::Arc;

use super::choice::Which;
use super::collect::{Collected, Companions, collect};
use super::report::{self, Asked, Fate};
use super::{faults, refuse_inside};
use crate::app;
use crate::base::document::Document;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::units::{bytes, count, duration};
use crate::bundle::{Bundle, Contents, Finished, Options, Tool, Whole, Writer};
use crate::cli::context::Context;
use crate::cli::exit::Outcome;
use crate::cli::read_back::ReadBackArgs;
use crate::cli::signing::signed_by;
use crate::content::{Files, LinkMode};
use crate::pipeline::graph::Graph;
use crate::pipeline::lock::Lock;
use crate::signing::PrivateKey;
use crate::transport::storage::{Depth, Storage};

/// Where a bundle comes from and goes.
pub struct Job<'a> {
    pub read_back: &'a ReadBackArgs,
    pub storage: &'a Storage,
    pub which: &'a Which,
    pub companions: Companions,
    pub link: LinkMode,
    /// Nothing is written when anything is wrong, however late it is found.
    pub strict: bool,
    /// Images, then blobs, at a time.
    pub jobs: usize,
    /// Signs the bundle.
    pub key: Option<Arc<PrivateKey>>,
    /// They go with it.
    pub tools: Vec<Tool>,
    pub asked: Asked<'a>,
}

/// What one try came to.
struct Ended {
    finished: Finished,
    moved: u64,
    linked: u64,
}

impl Job<'_> {
    /// To be asked before the storage is read.
    ///
    /// # Errors
    /// There is something else, another run writes it, it lies in the storage, or it cannot have links.
    pub fn check(&self) -> Result<()> {
        if matches!(self.link, LinkMode::Hard | LinkMode::Reflink) && Writer::is_tar(self.asked.to) {
            return Err(Error::input("a tar has no links: leave out --link, or name a directory"));
        }
        refuse_inside(self.storage, self.asked.to)?;
        Writer::check_free(self.asked.to)?;
        Writer::former(self.asked.to).map(drop)
    }

    /// Writes every image of `collected` that is whole; what is wrong with the others is told. Blobs are proven while they are
    /// linked or copied: when one of them is wrong, the whole storage is looked at with digests, so that each image it costs
    /// is known, and the others are written then.
    ///
    /// # Errors
    /// The disk's, or there is nothing to write.
    pub async fn write(&self, mut collected: Collected, context: &Context) -> Result<Outcome> {
        let mut tried = self.attempt(&collected, context).await;
        if let Err(error) = &tried
            && matches!(error.kind(), Kind::Damaged | Kind::Disk)
            && !error.is_disk_full()
            && !self.strict
        {
            let again = collect(self.storage, self.which, Depth::Digest, self.companions, self.jobs, context)?;
            if whole(&again) != whole(&collected) {
                context.end();
                context.say("The storage is damaged; every byte of it was looked at, and what is whole is written.");
                collected = again;
                tried = self.attempt(&collected, context).await;
                if tried.as_ref().is_ok_and(|ended| ended.as_ref().is_some_and(|ended| ended.finished.unchanged)) {
                    Writer::abandon(self.asked.to)?;
                }
            }
        }
        context.end();
        faults::tell(&collected.faults, context);
        let Some(ended) = tried? else {
            context.say(&format!("{}: no image is whole; nothing was written", self.asked.to.display()));
            return report::Ended::default().finish(&collected, &self.asked, context);
        };
        self.read_back.prove([ended.finished.path.clone()], context).await?;
        self.tell(&ended, &collected, context);
        app::add_signature(&ended.finished, self.key.as_deref(), &context.events)?;
        if let Some(key) = &self.key {
            context.say(&signed_by(key.public()));
        }
        let Ended { finished, moved, linked } = ended;
        let fate = || if finished.unchanged { Fate::Present } else { Fate::Written };
        let fates = collected.whole().map(|_| fate()).collect();
        let ended = report::Ended { fates, linked, copied: moved, bundle: Some(finished) };
        ended.finish(&collected, &self.asked, context)
    }

    /// `None`: there is no image that could be written.
    async fn attempt(&self, collected: &Collected, context: &Context) -> Result<Option<Ended>> {
        let images: Vec<_> = collected.whole().map(|(_, image)| image.clone()).collect();
        if images.is_empty() {
            let is_empty = collected.images.is_empty() && collected.lost() == 0;
            let nothing = Error::input(format!("{} has no images", self.storage.shown("").display()));
            return if is_empty { Err(nothing) } else { Ok(None) };
        }
        let (created, exact) = context.environment.bundle_time()?;
        let locked = images.iter().map(|image| image.locked.clone()).collect();
        let lock = Lock { version: Lock::VERSION, created, load_platform: None, images: locked, missing: Vec::new() };
        let graph = Graph { images, ..Graph::default() };
        let mut contents = Contents::new(lock, &graph)?.carrying(self.tools.clone());
        if !exact {
            contents = contents.continuing(Bundle::open(self.asked.to).ok().as_ref().map(Bundle::former))?;
        }
        if let Some(finished) = Writer::up_to_date(self.asked.to, &contents, Whole::Proven(&context.events)) {
            return Ok(Some(Ended { finished, moved: 0, linked: 0 }));
        }
        let job = app::Job {
            output: self.asked.to,
            contents,
            options: Options { link: self.link, device: self.storage.device(), key: self.key.clone(), volumes: None },
            graph: &graph,
            source: self.storage,
            jobs: self.jobs,
            lost: &app::Lost::default(),
        };
        let written = app::write(job, &context.events).await?;
        Ok(Some(Ended { finished: written.finished, moved: written.moved, linked: written.linked }))
    }

    fn tell(&self, ended: &Ended, collected: &Collected, context: &Context) {
        let failed = collected.failed();
        let Ended { finished, moved, linked } = ended;
        let images = count(collected.whole().count(), "image");
        let lost = if failed > 0 { format!(", {failed} failed") } else { String::new() };
        let blobs = count(usize::try_from(*linked).unwrap_or(usize::MAX), "blob");
        context.say(&format!(
            "{}: {}, {images}{lost}, {}; {blobs} linked, {} copied, {}; {}",
            finished.path.display(),
            if finished.unchanged { "unchanged" } else { "written" },
            bytes(finished.size),
            bytes(*moved),
            faults::counted(&collected.faults),
            duration(self.asked.started.elapsed()),
        ));
        context.say(&format!("identity {}", finished.identity));
    }
}

/// The images that can be written, by their names.
fn whole(collected: &Collected) -> HashSet<String> {
    collected.whole().map(|(found, _)| found.name()).collect()
}
