//! The places that content comes from and goes to. They never depend on each other; only the application connects them with
//! the stages.

pub mod dir;
pub mod registry;
pub mod storage;
