//! `gapferry` carries container images across an air gap.
//!
//! # The pipeline
//!
//! Discovery ends before transfer begins. Manifests are small: all of them are read first, then a plan is made and carried out:
//! each blob moves once, an image gets its tag when its blobs are there. Every box is a value that can be printed and tested.
//! Where an image or a companion is left out, the plan is made again without it. What is written in one pass (a pipe, `.tar.zst`)
//! needs no plan: the list of files is its order.
//!
//! ```text
//! Allowlist ─expand, discover→ Lock, Graph ─plan→ Plan ─transfer→ bundle              export
//! bundle    ─open, assemble→   Lock, Graph ─plan (what the target has)→ Plan
//!                                                  ─transfer→ registry → Receipt      import
//! bundle    ─check→ Problems                                                          verify
//! bundle    ─list of files→ FileSet ─fill→ directory, tar, volumes                    convert, split, join
//!                                     ─in one pass→ stream, .tar.zst                  convert, export
//! storage   ─survey, audit, discover→ Graph, problems ─plan, transfer→ registry, bundle migrate
//! ```
//!
//! Export and import are the *same* walk, plan and transfer between a different [`content::Source`] and
//! [`content::Sink`], except for one pass.
//!
//! # The rooms
//!
//! Every room has a rank of its own and names only rooms above it in this table; a test keeps it. Inside a room names lead one
//! way, too: no circle of files, but for a module and those below it; another test keeps that. Stages never name a concrete
//! transport and transports never name each other: only [`app`] joins them.
//!
//! | room | what it is for |
//! |---|---|
//! | [`spool`] | bytes that stay until the end of a run: in memory up to a bound, then in a temporary file |
//! | [`oci`] | vocabulary: digest, descriptor, platform, reference, manifest |
//! | [`base`] | errors, progress events, durable file operations, positions in files, threads for work that blocks |
//! | [`archive`] | tar and seekable zstd, read by position |
//! | [`content`] | the contract for reading and writing; bytes are proven here: a blob while it is read, a file where it is |
//! | [`files`] | the files of an OCI layout, as a directory, a tar, several of them, or a stream |
//! | [`credentials`] | who we are to a registry; secrets masked by type |
//! | [`routes`] | which mirrors stand before a registry (`registries.conf`) |
//! | [`signing`] | keys, signatures and what they prove; nothing of what is signed |
//! | [`transport`] | registries, the storage of a registry as directory or tar, skopeo's `dir:` |
//! | [`pipeline`] | the stages, from an allowlist to a receipt; see its own table |
//! | [`bundle`] | the format, one list of files, and one writer that brings it to a directory, a tar, volumes or a stream |
//! | [`increment`] | what need not be carried because it has arrived, and the proof of that |
//! | [`verify`] | every defect of a bundle, as data |
//! | [`serve`] | the embedded registry |
//! | [`app`] | the application as a library, a command from a request to a report |
//! | [`cli`] | one file per command: options, text, hints; the only room that prints results ([`base`] draws progress) |
//!
//! # Where to look
//!
//! - *Where is a bundle written?* In `bundle/writer`: by position or in one pass, for every command. Each form (`bundle/output`,
//!   `bundle/volumes/output.rs`) says where files go, and syncs and names them at the writer's word. Recovery volumes, and lost
//!   volumes that they rebuild, are computed, not copied from a source (`bundle/volumes/computed.rs`). The file of any volume is
//!   opened, synced and named in `bundle/volumes/partial.rs`. `serve --writable` changes the layout that it serves, which is no
//!   bundle then.
//! - *Where are bytes proven?* By their digest in [`content`]: [`content::proof`] holds bytes against it, in their place or while
//!   they are copied; [`content::BlobReader`] proves a blob while it is read. Documents in memory are proven by
//!   [`oci::Digest::prove`]. `verify` proves blobs by the BLAKE3 of `chunks.b3` instead where that may be trusted, and locates
//!   damage by it (`verify/chunks.rs`). A repair compares ranges that it fetches by BLAKE3, and recovery volumes say what whole
//!   volumes were (`verify/whole_volumes.rs`); what comes of either is proven by digest.
//! - *What is a bundle's list of files?* [`bundle::fileset`], from the list in `bundle.json` to the bytes that are written.
//! - *What does a manifest point to?* [`oci::Manifest::children`]. Of one that cannot be read, [`oci::digests_in`] finds what it
//!   may point to, or says that it may be anything.
//! - *Which facts does an error carry?* A [`base::error::Kind`], perhaps a [`base::error::Reason`], and values of the types that
//!   implement [`base::error::Fact`]; [`Error::find`] finds them.
//! - *What does a command do, apart from its command line?* `app/NAME.rs`, or `app/NAME/mod.rs`: [`app::export()`], say. `split` and
//!   `join` are [`app::convert()`].
//!
//! # Decisions
//!
//! - **Raw bytes are the truth.** A manifest travels as the bytes received. Digests change where the user asked for it (platform
//!   selection), and then old and new are in the lock; and where two lists of signatures or referrers become one at the target.
//! - **The tar is laid out before the first byte is fetched**: descriptors state every size, so downloads write in
//!   place, in parallel, into one preallocated file, and the same contents give the same bytes, but for ECDSA signatures.
//! - **Inventory before push**: the target is asked about every node; a parent that exists says nothing of its children.
//! - **Defects are data**: a check returns problems and keeps going; an error means that it could not check.
//! - **A storage's files are linked where nothing has to move** (`dir:` directories, a second storage): such a link is proven
//!   to be the file that was meant, and nothing that may be one is ever written into. These two ways have no plan: it is made
//!   of repositories, and they of images.
//! - **Nothing is published early**: `*.partial`, sync, rename; in a directory, `SHA256SUMS` is written last. What is repaired in
//!   its place is proven before the first byte is written. What is signed has the sums and sizes that it says, with `--full` the
//!   digests too.
//! - **A blob's last piece is withheld until its digest is proven** ([`content::BlobReader`]), so a wrong blob cannot be
//!   completed at a registry even if that registry proves nothing itself.
//! - The OCI structures are read by small types of our own rather than a library's: digests are validated newtypes, and
//!   no manifest that was received is written back from a typed view. Where one has to change, its JSON as received is edited.

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
