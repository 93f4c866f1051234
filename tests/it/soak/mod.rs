//! Random failures: whole exports and imports over connections where anything may fail, with the program killed at any
//! moment and started again, until the images are at the target or something is wrong. A seed determines everything.
//!
//! `scripts/soak` runs as many rounds as wanted; the tests run a few.

mod campaign;
mod process;
mod round;
mod test_site;

use std::time::Duration;

use campaign::Campaign;

#[test]
fn no_fault_and_no_kill_leaves_a_wrong_or_half_image() {
    let campaign = Campaign { seed: 3, first: 0, rounds: 10, at_most: Duration::from_secs(300), lanes: 5 };
    campaign.run();
}

#[test]
#[ignore = "takes as long as it is told to: scripts/soak"]
fn soak() {
    Campaign::from_environment().run();
}
