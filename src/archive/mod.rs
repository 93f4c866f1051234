//! Archive formats that are read by position: plain tars and zstd's seekable format. There is one strict reader for each.
//!
//! It must not depend on what an archive contains. Which names are valid, and what they mean, is decided by the modules above.

pub mod seekable;
pub mod tar;
