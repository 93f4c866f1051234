//! A bundle on several media: volumes are written, read, and restored if some are lost.

mod export;
mod forged;
mod lost;
mod read;
mod recover;
mod repaired;
mod split;
mod stale;
mod taken;
