//! `gapferry import` into a server that behaves as Harbor does: what it finds out before pushing, what it says when Harbor
//! refuses, and that nothing is pushed when it can't succeed.

mod before;
mod carried;
mod during;
mod fixture;
mod later;
mod policies;
mod tokens;
