//! Archive formats, read by position: plain tars and zstd's seekable format. One strict reader for each.
//!
//! It must not know what an archive holds: which names are good, and what they mean, is for the rooms above.

pub mod seekable;
pub mod tar;
