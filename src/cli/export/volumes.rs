//! Options of an export to volumes.

use crate::bundle::volumes::{Shape, VolumeOptions, VolumeSelection};
use crate::cli::volume_size::{SIZES, parse, parse_number};

#[derive(clap::Args)]
pub struct VolumeArgs {
    /// Write volumes of at most SIZE, such as 4GB, fat32, dvd, bd
    #[arg(long, value_name = "SIZE", value_parser = parse, long_help = SIZES, help_heading = "Output")]
    #[arg(conflicts_with = "repair")]
    volume_size: Option<u64>,
    /// Also write N recovery volumes, which can replace any N lost volumes
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, help_heading = "Output")]
    #[arg(requires = "volume_size", hide_short_help = true)]
    recovery: u32,
    /// Write only volume N again, identical to the first time
    ///
    /// Repeat the other options of the first run: --volume-size, --recovery, --since and tools. The printed identity must
    /// equal that of the other volumes. Because every volume repeats the lock and all manifests, --companions and
    /// --keep-going are rejected where they would change the lock.
    #[arg(long, value_name = "N", value_parser = parse_number, help_heading = "Output", hide_short_help = true)]
    #[arg(requires_all = ["volume_size", "locked"])]
    only_volume: Option<u32>,
}

impl VolumeArgs {
    /// The options for volumes, if volumes were requested.
    pub fn wanted(&self) -> Option<VolumeOptions> {
        let shape = Shape { limit: self.volume_size?, recovery: self.recovery };
        Some(VolumeOptions { shape, selection: VolumeSelection::of(self.only_volume) })
    }
}
