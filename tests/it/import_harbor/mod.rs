//! `gapferry import` into a server that behaves like Harbor: what it checks before pushing, how it reports Harbor's
//! refusals, and that it pushes nothing when it cannot succeed.

mod before;
mod carried;
mod during;
mod fixture;
mod later;
mod policies;
mod tokens;
