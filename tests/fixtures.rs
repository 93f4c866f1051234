//! What is kept in `fixtures/` is what its script makes: nobody has to trust bytes that came from somewhere.

mod support;

use std::path::Path;
use std::process::Command;

use support::{files_below, tempdir};

#[test]
fn the_fixtures_are_what_their_script_makes_on_any_machine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let work = tempdir();
    let made = work.path().join("connected");
    let status = Command::new(root.join("scripts/make-fixtures")).arg(&made).status().unwrap();
    assert!(status.success());
    let (kept, made) = (files_below(&root.join("fixtures/connected")), files_below(&made));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&kept), names(&made));
    assert!(kept == made, "the content of some file differs");
}
