//! The vocabulary of the OCI image and distribution specifications.
//!
//! Values only: nothing here opens a socket or reads the clock, and the only file is the [`spool`](crate::spool), which stores
//! the bytes of many manifests. Input is validated once, into newtypes ([`Digest`], [`Reference`], [`Repository`], [`Tag`],
//! [`Platform`]), and the rest of the program relies on them. A manifest is its exact bytes ([`Manifest`]); every parsed view
//! is derived from them, and [`Manifest::children`] is the only function that knows what a readable manifest points to.

mod descriptor;
mod digest;
mod hex;
mod interned;
mod json;
mod long;
mod manifest;
pub mod media_type;
mod object;
mod platform;
mod reference;
mod userinfo;
mod view;
mod weight;

pub use descriptor::{Described, Descriptor};
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use hex::{Blake3, bare_sha256, optional_bare_sha256};
pub use json::{Amount, Count, MOST_MEMORY, Totals, fits_in_memory, has_at_most_values, memory_of_json, values_in};
pub use manifest::{
    Child, Kind, MAX_MANIFEST_SIZE, Manifest, ManifestError, ManifestOutline, NotKept, Role, digests_in,
};
pub use media_type::MediaType;
pub use platform::{Platform, PlatformError};
pub use reference::{COSIGN_SUFFIXES, Reference, ReferenceError, Repository, Tag};
pub use userinfo::{NO_PASSWORD_HERE, without_password};
pub use weight::Exempt;
