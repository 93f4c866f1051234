//! The stages between a source and a sink: from an allowlist to references, complete images, a plan, and the transfer.
//!
//! Every stage is a function from values to values. Stages use a [`Source`](crate::content::Source) and a
//! [`Sink`](crate::content::Sink) and never name a concrete transport. They know nothing of bundles, which belong to
//! the modules above.
//!
//! ```text
//! allowlist → resolve → walk, select → lock, graph → plan → transfer → receipt
//! ```
//!
//! | stage | purpose |
//! |---|---|
//! | [`allowlist`] | text, YAML and skopeo's YAML to rules that know their line |
//! | [`resolve`], [`walk`], [`select`] | rules to references, references to complete images, platforms from an index |
//! | [`companion`] | kinds of companions, and lists of signatures that both sides have added to |
//! | [`lock`], [`graph`] | what each reference meant; everything below it |
//! | [`plan`], [`transfer`] | what has to move where; moving it |
//! | [`naming`], [`harbor`], [`receipt`] | names at the target, what Harbor needs, what arrived |
//! | [`prove`] | everything that a registry should have, read back over HTTP |

pub mod allowlist;
pub mod companion;
pub mod graph;
pub mod harbor;
pub mod lock;
pub mod naming;
pub mod plan;
pub mod prove;
pub mod receipt;
pub mod resolve;
pub mod select;
pub mod transfer;
pub mod walk;
