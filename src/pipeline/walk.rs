//! Leads from one reference to a complete [`Image`].
//!
//! [`Walk::discover`] resolves a reference, finds what travels with it, and makes the lock entry. [`Walk::assemble`]
//! follows an existing lock entry. Both read only manifests, and the configs of single images for their platform. After
//! the walk every size is known, and nothing has been transferred.

mod attached;
mod left_behind;
mod locked;
mod lost;
mod modes;
mod platforms;
mod recall;
mod request;
mod tree;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::base::error::{Error, Kind, Result};
use crate::base::position::ReferencePositions;
use crate::base::progress::units::count;
use crate::base::progress::{Event, Events};
use crate::content::{Cached, Need, Source};
use crate::oci::{Descriptor, Manifest, Platform, Reference, Repository};
use crate::pipeline::graph::{Image, LeftBehind};
use crate::pipeline::lock::{Absent, Attached, IndexMode, LockedImage, Selection};
use crate::pipeline::select::{self, SelectedRoot};
use locked::LockedAnswer;
pub use locked::{FormerCompanions, KeptCompanions, LockedCompanions, LockedLost};
use lost::LostCompanions;
pub use modes::Modes;
use platforms::{check_has, check_has_any};
pub use platforms::{other_platform, platform_of_config};
pub use recall::EarlierImages;
pub use request::{LockOrigin, Options, Platforms, Referrers, Wanted};
use tree::Tree;

/// Maximum size of an image config that is read for its platform, in bytes (as in docker-archive readers).
pub const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// Walks a source. One walk serves a whole job, so that images share what they have in common.
pub struct Walk<'a> {
    source: &'a Cached<'a>,
    options: Options,
    events: Events,
    /// Images of earlier locks that are used without asking the registry.
    known: EarlierImages,
    recalled: AtomicUsize,
    /// Index modes of earlier entries, and the images that keep theirs.
    modes: Modes,
    kept_modes: Mutex<BTreeMap<Reference, IndexMode>>,
    /// Companions of an earlier lock or bundle, and which of them were kept.
    former: FormerCompanions,
    kept_companions: Mutex<KeptCompanions>,
    /// Companions of the lock that a registry denies and that therefore count as gone.
    denied_companions: Mutex<BTreeSet<Reference>>,
    left_behind: Mutex<Vec<LeftBehind>>,
    companions: LockedCompanions,
    leaves_withheld: bool,
    leaves_lost_companions: bool,
    /// Where the images of a lock are in its file.
    written: ReferencePositions,
    platforms: Platforms,
    /// The tags of each repository, if the registry lists them. They show which companions cannot exist.
    tags: Mutex<HashMap<Repository, attached::KnownTags>>,
    /// Registries that were reported as not listing referrers.
    silent: Mutex<HashSet<String>>,
    lost: LostCompanions,
    /// Repositories that were reported as listing referrers which do not name the subject.
    foreign: Mutex<HashSet<Repository>>,
    /// The end of that warning: what it means for the command, and what to do about it.
    silent_effect: &'static str,
}

impl<'a> Walk<'a> {
    pub fn new(source: &'a Cached<'a>, options: Options, events: Events) -> Walk<'a> {
        let (known, recalled, platforms, tags, silent, lost) = Default::default();
        let (former, kept_companions, denied_companions, foreign, written) = Default::default();
        let (modes, kept_modes, left_behind, companions, leaves_withheld, silent_effect) = Default::default();
        let leaves_lost_companions = false;
        Walk {
            source,
            options,
            events,
            known,
            recalled,
            modes,
            kept_modes,
            former,
            kept_companions,
            denied_companions,
            left_behind,
            companions,
            leaves_withheld,
            leaves_lost_companions,
            written,
            platforms,
            tags,
            silent,
            lost,
            foreign,
            silent_effect,
        }
    }

    /// Sets the end of the warning about a registry that does not list referrers: what that means for the command, and
    /// which of its options help.
    pub fn with_silent_effect(self, effect: &'static str) -> Walk<'a> {
        Walk { silent_effect: effect, ..self }
    }

    /// Sets what to do with the companions of a lock.
    pub fn with_companions(self, companions: LockedCompanions) -> Walk<'a> {
        Walk { companions, ..self }
    }

    /// Assembles images of a lock without manifests that the source has but withholds because of a policy: for a target
    /// that already has them.
    pub fn leaving_withheld(self) -> Walk<'a> {
        Walk { leaves_withheld: true, ..self }
    }

    /// Assembles images of a lock without companions that their registries no longer have. The entries then say that
    /// more companions may exist. A companion that is only unreachable at the moment still makes its image fail.
    pub fn leaving_lost_companions(self, leaves: bool) -> Walk<'a> {
        Walk { leaves_lost_companions: leaves, ..self }
    }

    /// Sets where the images of a lock are in its file, for messages.
    pub fn with_written(self, written: ReferencePositions) -> Walk<'a> {
        Walk { written, ..self }
    }

    /// Returns where the images of a lock are in its file.
    pub fn written(&self) -> &ReferencePositions {
        &self.written
    }

    /// Keeps the index modes of earlier entries if no mode is requested.
    pub fn with_modes(self, modes: Modes) -> Walk<'a> {
        Walk { modes, ..self }
    }

    /// Keeps the companions in `former` for images whose companions a registry does not list.
    pub fn with_former(self, former: FormerCompanions) -> Walk<'a> {
        Walk { former, ..self }
    }

    /// Returns how many companions images keep only because current ones could not be looked up.
    pub fn kept_companions(&self) -> KeptCompanions {
        *self.kept_companions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns companions of the lock that a registry denies. They count as gone, because some registries deny what
    /// they no longer have.
    pub fn denied_companions(&self) -> BTreeSet<Reference> {
        self.denied_companions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_kept_mode(&self, reference: &Reference, mode: IndexMode) {
        self.kept_modes.lock().unwrap_or_else(PoisonError::into_inner).insert(reference.clone(), mode);
    }

    /// Returns the images whose index mode comes only from an earlier entry.
    pub fn kept_modes(&self) -> BTreeMap<Reference, IndexMode> {
        self.kept_modes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the referrers of indexes of which only some platforms are carried, sorted by reference.
    pub fn left_behind(&self) -> Vec<LeftBehind> {
        let mut all = self.left_behind.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.sort_by(|one, other| one.reference.cmp(&other.reference));
        all
    }

    /// Uses `platforms` instead of reading the configs of these images.
    pub fn with_platforms(self, platforms: Platforms) -> Walk<'a> {
        Walk { platforms, ..self }
    }

    /// Uses entries of `known` that match a request, without asking what their tags refer to now.
    pub fn with_known(self, known: EarlierImages) -> Walk<'a> {
        Walk { known, ..self }
    }

    /// Reports companions that registries named but did not return.
    pub fn report_lost(&self) {
        self.lost.report(&self.events);
    }

    /// Number of images that were taken from `known` without asking.
    pub fn recalled(&self) -> usize {
        self.recalled.load(Ordering::Relaxed)
    }

    /// Resolves `wanted`, and reads everything that travels with it.
    ///
    /// # Errors
    /// The reference does not exist, cannot be read, is not a manifest, or lacks a platform; or a tag declared
    /// immutable has moved. The message starts with the reference.
    pub async fn discover(&self, wanted: &Wanted) -> Result<Image> {
        let image = self.recall_or_discover(wanted).await;
        image.map_err(|error| error.while_doing(format!("image {}", wanted.shown())))
    }

    /// Returns only the lock entry: known images are not read.
    ///
    /// # Errors
    /// Those of [`Walk::discover`].
    pub async fn pin(&self, wanted: &Wanted) -> Result<LockedImage> {
        match recall::entry(self, wanted) {
            Some(locked) => {
                self.recalled.fetch_add(1, Ordering::Relaxed);
                Ok(locked)
            }
            None => self.discover(wanted).await.map(|image| image.locked),
        }
    }

    /// The source of this walk.
    pub fn source(&self) -> &'a Cached<'a> {
        self.source
    }

    /// Returns only the manifest of a lock entry.
    ///
    /// # Errors
    /// The manifest is gone, or the selection now gives another one.
    pub async fn root(&self, locked: &LockedImage, origin: LockOrigin) -> Result<Manifest> {
        let root = match (&locked.selection, origin) {
            (Some(selection), LockOrigin::Registry) => self.select_again(locked, selection).await?,
            _ => self.need_locked(locked, &locked.descriptor()).await?,
        };
        if root.digest() != locked.digest {
            let text = format!("the selection now gives {}, the lock says {}", root.digest(), locked.digest);
            return Err(Error::damaged(text));
        }
        Ok(root)
    }

    /// Returns only the manifest of a companion that a lock entry names.
    ///
    /// # Errors
    /// The companion is gone or denied. The message says what its tag refers to now.
    pub async fn companion(&self, locked: &LockedImage, companion: &Attached) -> Result<Manifest> {
        locked::companion(self, locked, companion).await
    }

    /// Rebuilds the image of a lock entry exactly.
    ///
    /// # Errors
    /// Content that the lock names is gone or differs from the lock. The message starts with the reference.
    pub async fn assemble(&self, locked: &LockedImage, origin: LockOrigin) -> Result<Image> {
        let image = self.assemble_inner(locked, origin).await;
        image.map_err(|error| error.while_doing(format!("image {}", self.written.shown(&locked.reference))))
    }

    async fn recall_or_discover(&self, wanted: &Wanted) -> Result<Image> {
        if let Some(image) = recall::image(self, wanted).await? {
            self.recalled.fetch_add(1, Ordering::Relaxed);
            return Ok(image);
        }
        let image = self.discover_inner(wanted).await?;
        recall::check_unmoved(self, &image.locked)?;
        Ok(image)
    }

    async fn discover_inner(&self, wanted: &Wanted) -> Result<Image> {
        let repository = &wanted.reference.repository;
        let found = self.need(&wanted.reference).await?;
        self.check_tag_agrees(&wanted.reference).await?;
        let wanted = &self.without_lacking(&found, wanted);
        let (root, mut absent, selection) = self.apply_platforms(&found, wanted).await?;
        let kept = self.modes.of(wanted).filter(|_| self.options.index.is_none());
        let mut tree = match self.options.index.or(kept) {
            Some(IndexMode::Sparse) => {
                let (tree, not_found) = Tree::of_sparse(self.source, repository, root.clone(), &absent).await?;
                if kept.is_some() && !not_found.is_empty() {
                    self.note_kept_mode(&wanted.reference, IndexMode::Sparse);
                }
                self.report_not_found(&wanted.reference, &not_found);
                absent.extend(not_found);
                tree
            }
            _ => Tree::of(self.source, repository, root.clone(), &absent).await?,
        };
        let platforms = self.platforms(wanted, &tree, &root).await?;
        // If a child was selected, the index states its platform, and its config may be less exact.
        if selection.is_none() {
            match self.options.available_platforms {
                true => check_has_any(&wanted.platforms, &platforms)?,
                false => check_has(&wanted.platforms, &platforms)?,
            }
        }
        if let Some(selection) = &selection {
            left_behind::note(self, &wanted.reference, &found, selection).await;
        }
        let found = match self.options.referrers {
            Referrers::Leave => attached::FoundCompanions::default(),
            Referrers::Look | Referrers::Require => {
                let found = self.find_attached(repository, &mut tree).await?;
                match self.former.get(&wanted.reference) {
                    Some(former) => locked::retain_companions(self, former, &mut tree, found).await?,
                    None => found,
                }
            }
        };
        let (blobs, foreign) = tree.blobs(self.options.foreign_layers);
        self.report_foreign(&wanted.reference, foreign.len());
        let mut image = Image {
            locked: LockedImage {
                reference: wanted.reference.clone(),
                rename: wanted.rename.clone(),
                source: repository.registry().to_owned(),
                digest: root.digest(),
                media_type: root.media_type().to_owned(),
                size: root.size(),
                total_size: 0,
                platforms,
                selection,
                absent: absent.into_iter().chain(foreign).collect(),
                attached: found.attached,
                attached_unknown: found.unknown,
            },
            manifests: tree.into_manifests(),
            blobs,
        };
        image.locked.total_size = image.total_size();
        check_subjects(image)
    }

    async fn assemble_inner(&self, locked: &LockedImage, origin: LockOrigin) -> Result<Image> {
        let repository = &locked.reference.repository;
        let mut tree = match (self.leaves_withheld, self.root(locked, origin).await) {
            (true, Err(error)) if !tree::is_withheld(&error) => return Err(error),
            (true, root) => {
                Tree::of_readable(self.source, repository, locked.digest, root.ok(), &locked.absent).await?
            }
            (false, root) => Tree::of(self.source, repository, root?, &locked.absent).await?,
        };
        let found = locked::add(self, locked, &mut tree).await?;
        let is_partial = tree.is_partial();
        let absent = |blob: &Descriptor| locked.absent.iter().any(|absent| absent.digest == blob.digest);
        let (mut blobs, _) = tree.blobs(true);
        blobs.retain(|blob| !absent(blob));
        let (attached, attached_unknown) = (found.attached, found.unknown || found.lacks);
        let locked_now = LockedImage { attached, attached_unknown, ..locked.clone() };
        let mut image = Image { locked: locked_now, manifests: tree.into_manifests(), blobs };
        match self.companions {
            LockedCompanions::Remaining => return Ok(image),
            LockedCompanions::Today | LockedCompanions::None => image.locked.total_size = image.total_size(),
            LockedCompanions::Locked if found.lacks => image.locked.total_size = image.total_size(),
            LockedCompanions::Locked => {}
        }
        if image.total_size() != image.locked.total_size && !is_partial {
            let text = format!("it has {} bytes of content, the lock says {}", image.total_size(), locked.total_size);
            return Err(Error::damaged(text));
        }
        check_subjects(image)
    }

    /// Reads a manifest that must exist.
    async fn need(&self, reference: &Reference) -> Result<Manifest> {
        let missing = || Error::new(Kind::NotFound, format!("not found at {}", reference.repository.registry()));
        self.source.manifest(reference, Need::Required).await?.ok_or_else(missing)
    }

    /// Reads a manifest that a lock names. If it is gone, the error says what the tag refers to now.
    async fn need_locked(&self, locked: &LockedImage, descriptor: &Descriptor) -> Result<Manifest> {
        let repository = &locked.reference.repository;
        let read = self.source.manifest(&repository.with_digest(descriptor.digest), Need::Required).await;
        let denial = match locked::given(read)? {
            LockedAnswer::Manifest(manifest) => return Ok(manifest.described_as(&descriptor.media_type)?),
            LockedAnswer::Nothing => None,
            LockedAnswer::Denial(denial) => Some(denial),
        };
        let now = match &locked.reference.tag {
            Some(tag) => match self.source.resolve(&repository.with_tag(tag.clone()), Need::Required).await {
                Ok(Some(found)) => format!("; the tag {tag} now refers to {}", found.digest),
                Ok(None) => format!("; the tag {tag} is gone too"),
                Err(error) if matches!(error.kind(), Kind::RateLimited | Kind::Interrupted) => return Err(error),
                Err(_) => String::new(),
            },
            None => String::new(),
        };
        Err(locked::lost(denial, repository, descriptor.digest, "", &now))
    }

    async fn select_again(&self, locked: &LockedImage, selection: &Selection) -> Result<Manifest> {
        let original = self.need_locked(locked, &selection.original).await?;
        let select = |platforms: &[Platform]| select::select(&original, platforms, selection.index).map(|it| it.root);
        let root = match select(&selection.platforms) {
            Ok(root) if root.digest() == locked.digest => Ok(root),
            // An older lock may have selected other variants for the same platforms, and names them.
            now => select(&locked.platforms).ok().filter(|then| then.digest() == locked.digest).map_or(now, Ok),
        };
        match root? {
            SelectedRoot::Manifest(root) => Ok(root),
            SelectedRoot::Child(child) => self.need_locked(locked, &child).await,
        }
    }

    /// For `name:tag@digest`, the digest counts. A tag that refers to something else by now is worth a warning, not an
    /// error.
    async fn check_tag_agrees(&self, reference: &Reference) -> Result<()> {
        let (Some(tag), Some(digest)) = (&reference.tag, reference.digest) else { return Ok(()) };
        let now = match self.source.resolve(&reference.repository.with_tag(tag.clone()), Need::Required).await {
            Ok(Some(found)) if found.digest == digest => return Ok(()),
            Ok(Some(found)) => format!("the tag now refers to {}", found.digest),
            Ok(None) => "the registry has no such tag".to_owned(),
            Err(error) if matches!(error.kind(), Kind::RateLimited | Kind::Interrupted) => return Err(error),
            Err(error) => format!("the tag could not be looked up: {}", error.chain()),
        };
        self.events.report(Event::Warning(format!("{reference}: {now}; the digest counts")));
        Ok(())
    }

    fn report_not_found(&self, reference: &Reference, not_found: &[Absent]) {
        let Some(first) = not_found.first() else { return };
        let text = format!(
            "{reference}: its index names {} that {} does not have or denies, {} first; the index is carried without them (--index sparse)",
            count(not_found.len(), "manifest"),
            reference.repository.registry(),
            first.digest
        );
        self.events.report(Event::Warning(text));
    }

    fn report_foreign(&self, reference: &Reference, count: usize) {
        if count > 0 {
            let text = format!("{reference}: {count} foreign layers are not carried; --foreign-layers fetches them");
            self.events.report(Event::Notice(text));
        }
    }

    async fn find_attached(&self, repository: &Repository, tree: &mut Tree) -> Result<attached::FoundCompanions> {
        attached::find(self, repository, tree).await
    }
}

/// Checks that the subjects of the image's manifests are part of the image.
///
/// # Errors
/// A manifest below the image's own has a subject that is not part of the image.
fn check_subjects(image: Image) -> Result<Image> {
    let mut foreign = image.foreign_subjects().into_iter();
    let problem = foreign.find_map(|one| image.locked.subject_problem(one.manifest, one.subject));
    problem.map_or(Ok(image), |problem| Err(Error::damaged(problem)))
}
