//! Concrete places that content comes from and goes to. They never name each other; only the application joins them
//! with the stages.

pub mod dir;
pub mod registry;
pub mod storage;
