//! Images that are not there.
