//! The file of manifests that an earlier run has read: nothing counts that its digest does not prove, what is added is
//! found again, and a file that is none of ours is left alone.
#![no_main]

use std::collections::BTreeSet;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use gapferry::content::{Body, Checkpoint, Files, Need, ReferrerList, Source, TagList};
use gapferry::oci::{Descriptor, Digest, Manifest, Reference, Repository, media_type};
use gapferry::{Error, Result};
use libfuzzer_sys::fuzz_target;

/// Has one manifest, the same for whatever digest.
struct Registry(Manifest);

#[async_trait]
impl Source for Registry {
    async fn tags(&self, _: &Repository, _: Need) -> Result<TagList> {
        Ok(TagList::default())
    }
    async fn resolve(&self, _: &Reference, _: Need) -> Result<Option<Descriptor>> {
        Ok(None)
    }
    async fn manifest(&self, reference: &Reference, _: Need) -> Result<Option<Manifest>> {
        Ok(Some(self.0.clone()).filter(|manifest| reference.digest == Some(manifest.digest())))
    }
    async fn referrers(&self, _: &Repository, _: &Digest) -> Result<ReferrerList> {
        Ok(ReferrerList::default())
    }
    async fn blob(&self, _: &Repository, _: &Descriptor, _: u64) -> Result<Body> {
        Err(Error::input("reading a blob"))
    }

    async fn gave_wrong(&self, _: &Repository, _: &Descriptor, error: Error) -> Result<()> {
        Err(error)
    }

    fn counts_pulls(&self, _: &Repository) -> bool {
        false
    }

    fn files(&self) -> Option<&dyn Files> {
        None
    }
}

fuzz_target!(|data: &[u8]| {
    // Not through /proc/self/fd: the file is opened without following links.
    let directory = Path::new("/dev/shm").join(format!("gapferry-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory in memory");
    let path = directory.join("out.walk");
    std::fs::write(&path, data).expect("room in memory");
    gapferry_fuzz::bounded(1 << 20 | 64 * data.len(), || read_and_add(&path, data));
    std::fs::remove_dir_all(&directory).expect("ours");
});

fn read_and_add(path: &Path, data: &[u8]) {
    let added = index("added");
    let registry = Registry(added.clone());
    let kept = Checkpoint::new(&registry, Some(path.to_owned()));
    // The shortest entry has more bytes than its digest.
    let found = kept.left().map_or(0, |(manifests, _)| manifests);
    assert!(found <= data.len() / 71, "{found} of {} bytes", data.len());
    let named = digests(data);
    let proven: Vec<Digest> = named.iter().filter(|digest| get(&kept, digest)).copied().collect();
    assert!(get(&kept, &added.digest()));
    let (left, is_foreign) = (kept.left().is_some(), kept.obstacle().is_some());
    drop(kept);
    if is_foreign {
        assert_eq!(std::fs::read(path).expect("it is still there"), data);
        return;
    }
    assert!(left);
    let registry = Registry(index("another"));
    let again = Checkpoint::new(&registry, Some(path.to_owned()));
    let proven = proven.iter().filter(|digest| **digest != added.digest());
    proven.for_each(|digest| assert!(get(&again, digest), "{digest} is gone"));
    // A damaged entry that says it is that one stays as it is.
    assert!(named.contains(&added.digest()) || get(&again, &added.digest()), "nothing was kept");
    again.remove();
    assert!(!path.exists());
}

/// Whether it is there; if so, it is what the digest says.
fn get(source: &Checkpoint<'_>, digest: &Digest) -> bool {
    let reference = Repository::new("r.io", "a").expect("a name").with_digest(*digest);
    let Poll::Ready(found) =
        pin!(source.manifest(&reference, Need::Required)).poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("nothing to wait for");
    };
    let Some(manifest) = found.expect("no failure") else { return false };
    assert_eq!(Digest::of(digest.algorithm(), &manifest.bytes().unwrap()), *digest);
    true
}

fn index(name: &str) -> Manifest {
    let media_type = media_type::OCI_INDEX;
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}","manifests":[],"name":"{name}"}}"#);
    Manifest::parse(text.into_bytes().into(), None, None).expect("an index")
}

/// Whatever in there could be the digest of an entry.
fn digests(data: &[u8]) -> BTreeSet<Digest> {
    let words = data.split(|byte| byte.is_ascii_whitespace() || *byte == b'"');
    words.filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok()).collect()
}
