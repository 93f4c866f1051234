//! Increments: what has arrived does not cross again, and nothing is believed to have arrived that has not.

mod asked;
mod baseline;
mod chain;
mod fixture;
mod lacking;
mod orphans;
mod prune;
