//! Which file a name refers to.

/// The status of a file or directory.
pub type Stat = rustix::fs::Stat;

/// What has a name at one moment: nothing (the default), or this file or directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupant(pub(super) Option<Identity>);

/// The identity of a file: device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub fn new(device: u64, inode: u64) -> Identity {
        Identity { device, inode }
    }

    pub fn of(stat: &Stat) -> Identity {
        // Their types differ between platforms.
        #[allow(clippy::unnecessary_cast)]
        Identity::new(stat.st_dev as u64, stat.st_ino as u64)
    }

    /// Whether `directory` lists this file under the given inode. If directories list other inodes than files have, no file
    /// matches.
    pub fn is_listed(&self, directory: Identity, inode: u64) -> bool {
        *self == Identity::new(directory.device, inode)
    }
}
