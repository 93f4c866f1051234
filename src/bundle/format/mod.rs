//! The files of a bundle that are not blobs: their names, and how they are written and read. See `docs/format.md`.

pub mod chunks;
mod document;
mod file_entry;
mod metadata;
mod signatures;
pub mod sums;
mod tool_path;

pub(super) use document::check_number;
pub use document::{BundleJson, FORMAT_VERSION, LAST_TIME, MAX_BUNDLE_JSON, identity_of};
pub use file_entry::FileEntry;
pub use metadata::{MAX_DOCKER_JSON, MOST_DOCKER_VALUES, Metadata};
pub use signatures::{
    CHUNKS_SIGNATURE, DIGITS, MAX_SIGNATURE, MOST_SIGNATURES, SIGNATURE, head_of, is_metadata, is_never_declared,
    is_signature, name_of_key, signatures_of, signed_file,
};
pub use tool_path::{TOOLS, is_tool};
pub(super) use tool_path::{mode_of, problem_of_name};

pub const OCI_LAYOUT: &str = "oci-layout";
pub const BUNDLE_JSON: &str = "bundle.json";
pub const INDEX_JSON: &str = "index.json";
pub const DOCKER_JSON: &str = "manifest.json";
/// The sums of files named by sha512; exists only if there are any.
pub const SUMS512: &str = "SHA512SUMS";
pub const SUMS: &str = "SHA256SUMS";
/// BLAKE3 of every mebibyte of the blobs. It is derived: nothing declares or requires it.
pub const CHUNKS: &str = "chunks.b3";
/// Distinguishes a repair file from a bundle.
pub const REPAIR_JSON: &str = "repair.json";
/// The directory with a volume's own data.
pub const VOLUMES: &str = "volumes/";
