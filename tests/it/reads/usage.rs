//! A list of images given as if it were an image.

use crate::reads::{all_output, assert_code, gapferry, path};
use crate::support::tempdir;

#[tokio::test]
async fn a_file_given_as_a_reference_is_refused_with_the_option_to_use() {
    let directory = tempdir();
    for name in ["images.txt", "list.yaml", "images"] {
        let file = directory.path().join(name);
        std::fs::write(&file, "127.0.0.1:1/app:1.0\n").unwrap();
        for command in ["export", "lock"] {
            let output = gapferry(&[command, path(&file), "-o", path(&directory.path().join("out"))]).await;
            assert_code(&output, 2);
            assert!(all_output(&output).contains(&format!("-f {}", path(&file))), "{}", all_output(&output));
        }
    }
}
