//! Random faults: whole exports and imports over faulty connections, with the program killed at any moment and
//! restarted, until the images are at the target or something is wrong. Everything follows from a seed.
//!
//! `scripts/soak` runs as many rounds as wanted; the tests run a few.

mod campaign;
mod process;
mod round;
mod test_site;

use std::time::Duration;

use campaign::Campaign;

#[test]
fn random_faults_and_kills_leave_no_wrong_or_partial_image() {
    let campaign = Campaign { seed: 3, first: 0, rounds: 10, at_most: Duration::from_secs(300), lanes: 5 };
    campaign.run();
}

#[test]
#[ignore = "takes as long as it is told to: scripts/soak"]
fn soak() {
    Campaign::from_environment().run();
}
