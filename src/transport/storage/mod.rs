//! The storage directory of distribution (`docker/registry/v2`, distribution 2.8 and 3, `registry/storage/paths.go`), as a
//! directory or in a plain tar, without a registry that serves it.
mod tree;
