//! A bundle on several media: written as volumes, read from them, and restored where some are lost.

mod export;
mod forged;
mod lost;
mod read;
mod recover;
mod repaired;
mod split;
mod stale;
mod taken;
