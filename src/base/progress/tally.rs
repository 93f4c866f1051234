//! Progress of a phase, counted from events; shared by the renderers that print lines.

use super::{Event, Phase};

#[derive(Debug, Default)]
pub struct Tally {
    pub phase: Option<Phase>,
    pub items: u64,
    pub items_done: u64,
    pub bytes: u64,
    pub bytes_done: u64,
}

impl Tally {
    /// Counts one event. Returns `true` if it started another phase.
    pub fn count(&mut self, event: &Event) -> bool {
        match event {
            Event::Phase { phase, items, bytes } => {
                *self = Tally { phase: Some(*phase), items: *items, bytes: *bytes, ..Tally::default() };
                return true;
            }
            Event::ItemDone => self.items_done += 1,
            Event::BlobStarted { present, .. } => self.bytes_done = self.bytes_done.saturating_add(*present),
            Event::BlobAdvanced { bytes, .. } => self.bytes_done = self.bytes_done.saturating_add(*bytes),
            Event::BlobRestarted { bytes, .. } => self.bytes_done = self.bytes_done.saturating_sub(*bytes),
            Event::BlobFinished { .. }
            | Event::Status(_)
            | Event::Notice(_)
            | Event::Warning(_)
            | Event::Incomplete(_)
            | Event::Failure(_)
            | Event::Waiting { .. }
            | Event::Http(_) => {}
        }
        false
    }
}
