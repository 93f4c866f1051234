//! `gapferry` carries container images across an air gap.
//!
//! # The pipeline
//!
//! Discovery ends before transfer begins. Manifests are small, so all of them are read first. Then a plan is made and carried
//! out: each blob moves once, and an image gets its tag when its blobs have arrived. Every box is a value that can be printed and
//! tested. If an image or a companion is left out, the plan is made again without it. One-pass outputs (a pipe, `.tar.zst`) need
//! no plan: the list of files is their order.
//!
//! ```text
//! Allowlist ─expand, discover→ Lock, Graph ─plan→ Plan ─transfer→ bundle              export
//! bundle    ─open, assemble→   Lock, Graph ─plan (what the target has)→ Plan
//!                                                  ─transfer→ registry → Receipt      import
//! bundle    ─check→ Problems                                                          verify
//! bundle    ─list of files→ FileSet ─fill→ directory, tar, volumes                    convert, split, join
//!                                     ─in one pass→ stream, .tar.zst                  convert, export
//! storage   ─survey, audit, discover→ Graph, Problems ─plan, transfer→ registry, bundle
//!                                                                                     migrate
//! ```
//!
//! Export and import are the *same* walk, plan and transfer between a different [`content::Source`] and [`content::Sink`], except
//! for one-pass outputs.
//!
//! # The modules
//!
//! Every module has its own rank and uses only modules above it in this table; a test enforces this. Within a module,
//! dependencies have one direction too: no files depend on each other in a circle, except a module and those below it; another
//! test enforces that. Stages never name a concrete transport, and transports never name each other: only [`app`] connects them.
//!
//! | module | purpose |
//! |---|---|
//! | [`spool`] | bytes that are kept until the end of a run: in memory up to a limit, then in a temporary file |
//! | [`oci`] | vocabulary: digest, descriptor, platform, reference, manifest |
//! | [`base`] | errors, progress events, durable file operations, positions in files, threads for blocking work |
//! | [`archive`] | tar and seekable zstd, read by position |
//! | [`content`] | the contract for reading and writing; proves bytes: a blob while it is read, a file in its place |
//! | [`files`] | the files of an OCI layout, as a directory, a tar, several of them, or a stream |
//! | [`credentials`] | credentials for registries; secrets are masked by their type |
//! | [`routes`] | the mirrors of a registry (`registries.conf`) |
//! | [`signing`] | keys, signatures and what they prove; nothing about what is signed |
//! | [`transport`] | registries, the storage of a registry as a directory or tar, skopeo's `dir:` |
//! | [`pipeline`] | the stages, from an allowlist to a receipt; see its own table |
//! | [`bundle`] | the format, one list of files, and one writer for directories, tars, volumes and streams |
//! | [`increment`] | what need not be carried because it has arrived, and the proof of that |
//! | [`verify`] | every problem of a bundle, as data |
//! | [`serve`] | the embedded registry |
//! | [`app`] | the application as a library: each command from a request to a report |
//! | [`cli`] | one file per command: options, text, hints; the only module that prints results ([`base`] draws progress) |
//!
//! # Where to look
//!
//! - *Where is a bundle written?* In `bundle/writer`, by position or in one pass, for every command. Each form (`bundle/output`,
//!   `bundle/volumes/output.rs`) decides where files go, and syncs and names them when the writer says so. Recovery volumes, and
//!   lost volumes that they reconstruct, are computed rather than copied from a source (`bundle/volumes/computed.rs`). Files of
//!   volumes are opened, synced and named in `bundle/volumes/partial.rs`. `serve --writable` changes the layout that it serves,
//!   which is then no longer a bundle.
//! - *Where are bytes proven?* By their digest in [`content`]: [`content::proof`] compares bytes with it, in place or while they
//!   are copied; [`content::BlobReader`] proves a blob while it is read. [`oci::Digest::prove`] proves documents in memory.
//!   `verify` proves blobs by the BLAKE3 values in `chunks.b3` instead if these may be trusted, and locates damage with them
//!   (`verify/chunks.rs`). A repair compares the ranges that it fetches by BLAKE3, and recovery volumes describe whole volumes
//!   (`verify/whole_volumes.rs`); the result of either is proven by its digest.
//! - *What is a bundle's list of files?* [`bundle::fileset`], from the list in `bundle.json` to the bytes that are written.
//! - *What does a manifest refer to?* [`oci::Manifest::children`]. For a manifest that cannot be parsed, [`oci::digests_in`]
//!   finds what it may refer to, or says that it may be anything.
//! - *Which facts does an error carry?* A [`base::error::Kind`], optionally a [`base::error::Reason`], and values of the types
//!   that implement [`base::error::Fact`]; [`Error::find`] finds them.
//! - *What does a command do, apart from its command line?* `app/NAME.rs` or `app/NAME/mod.rs`, for example [`app::export()`].
//!   `split` and `join` are [`app::convert()`].
//!
//! # Decisions
//!
//! `docs/decisions` has the reasons. In short:
//!
//! - **Raw bytes are the truth.** A manifest travels as the bytes that were received. A digest changes only if the user asked for
//!   it (platform selection), and then the lock has both; and where two lists of signatures or referrers are joined at the target.
//! - **The tar is laid out before the first byte is fetched.** Descriptors state every size, so downloads write in place, in
//!   parallel, into one preallocated file, and the same contents give the same bytes, except for ECDSA signatures.
//! - **Inventory before push.** The target is asked about every node; a parent that exists says nothing about its children.
//! - **Problems are data.** A check returns problems and continues; an error means that it could not check.
//! - **Files of a storage are linked if nothing has to move** (`dir:` directories, a second storage). Such a link is proven to be
//!   the right file, and nothing that may be one is ever written into. These two ways have no plan, because a plan consists of
//!   repositories and they consist of images.
//! - **Nothing is published early**: `*.partial`, sync, rename; in a directory, `SHA256SUMS` is written last. What is repaired in
//!   place is proven before the first byte is written. What is signed has the sums and sizes that it states, and with `--full`
//!   the digests too.
//! - **The last piece of a blob is held back until its digest is proven** ([`content::BlobReader`]), so a wrong blob cannot be
//!   completed at a registry even if that registry proves nothing itself.
//! - **Small types of our own read the OCI structures**: digests are validated newtypes, and no received manifest is written back
//!   from a typed view. Where one has to change, its received JSON is edited.

#![forbid(unsafe_code)]

pub mod app;
pub mod archive;
pub mod base;
pub mod bundle;
pub mod cli;
pub mod content;
pub mod credentials;
pub mod files;
pub mod increment;
pub mod oci;
pub mod pipeline;
pub mod routes;
pub mod serve;
pub mod signing;
pub mod spool;
pub mod transport;
pub mod verify;

pub use base::error::{Error, Result};
