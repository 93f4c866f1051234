//! Increments: content that has arrived does not cross again, and nothing counts as arrived without evidence.

mod asked;
mod baseline;
mod chain;
mod fixture;
mod lacking;
mod orphans;
mod prune;
