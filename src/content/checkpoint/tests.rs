use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::*;

/// A registry that has every manifest of the form below, and counts pulls.
#[derive(Default)]
struct Pulls(AtomicUsize);

fn manifest(n: usize) -> Manifest {
    let text = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[],"n":{n}}}"#, media_type::OCI_INDEX);
    Manifest::parse(Bytes::from(text), None, None).unwrap()
}

fn by_digest(n: usize) -> Reference {
    Repository::new("h", "a").unwrap().with_digest(manifest(n).digest())
}

#[async_trait]
impl Source for Pulls {
    async fn tags(&self, _: &Repository, _: Need) -> Result<TagList> {
        Ok(TagList::default())
    }
    async fn resolve(&self, _: &Reference, _: Need) -> Result<Option<Descriptor>> {
        Ok(None)
    }
    async fn manifest(&self, reference: &Reference, _: Need) -> Result<Option<Manifest>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok((0..10).map(manifest).find(|manifest| Some(manifest.digest()) == reference.digest))
    }
    async fn referrers(&self, _: &Repository, _: &Digest) -> Result<ReferrerList> {
        Ok(ReferrerList::default())
    }
    async fn blob(&self, _: &Repository, blob: &Descriptor, _: u64) -> Result<Body> {
        panic!("{blob:?}")
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

struct Fixture {
    directory: tempfile::TempDir,
    pulls: Pulls,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture { directory: tempfile::tempdir().unwrap(), pulls: Pulls::default() }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("deep/out.tar.walk")
    }

    /// One run that reads these manifests. Returns how many of them were pulled.
    async fn run(&self, wanted: &[usize]) -> usize {
        let before = self.pulls.0.load(Ordering::SeqCst);
        let kept = Checkpoint::new(&self.pulls, Some(self.path()));
        for n in wanted {
            assert_eq!(
                kept.manifest(&by_digest(*n), Need::Required).await.unwrap().unwrap().bytes().unwrap(),
                manifest(*n).bytes().unwrap()
            );
        }
        self.pulls.0.load(Ordering::SeqCst) - before
    }
}

#[tokio::test]
async fn what_one_run_has_read_the_next_does_not_ask_for() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(&[1, 2]).await, 2);
    assert_eq!(fixture.run(&[1, 2, 3]).await, 1);
    assert_eq!(fixture.run(&[3, 2, 1]).await, 0);
    let kept = Checkpoint::new(&fixture.pulls, Some(fixture.path()));
    assert_eq!(kept.left(), Some((3, fixture.path().as_path())));
    kept.remove();
    assert!(!fixture.path().exists());
}

#[tokio::test]
async fn a_file_cut_anywhere_gives_what_is_whole_and_is_added_to_there() {
    let fixture = Fixture::new();
    fixture.run(&[1, 2]).await;
    let whole = std::fs::read(fixture.path()).unwrap();
    for cut in RECOGNIZABLE..whole.len() {
        std::fs::write(fixture.path(), &whole[..cut]).unwrap();
        fixture.run(&[1, 2]).await;
        assert_eq!(std::fs::read(fixture.path()).unwrap(), whole, "cut at {cut}");
    }
}

#[tokio::test]
async fn damaged_and_forged_entries_are_pulled_again() {
    let fixture = Fixture::new();
    fixture.run(&[1]).await;
    let text = std::fs::read_to_string(fixture.path()).unwrap();
    let first = std::str::from_utf8(FIRST_LINE).unwrap();
    let text = text.strip_prefix(first).unwrap();
    let digest = manifest(1).digest().to_string();
    for wrong in [
        text.replace("\"n\":1", "\"n\":2"),
        text.replace(&digest, &manifest(2).digest().to_string()),
        text.replace(&digest, "sha256:../../x"),
        text.replace(' ', " 9"),
        text.replace(' ', "  "),
        text.replace("application/vnd.oci.image.index", "text/html"),
        "x".repeat(10_000),
        format!("{digest} 18446744073709551615 {}\n", media_type::OCI_INDEX),
    ] {
        std::fs::write(fixture.path(), format!("{first}{wrong}")).unwrap();
        assert_eq!(fixture.run(&[1]).await, 1, "{wrong}");
    }
}

#[tokio::test]
async fn a_link_in_its_place_is_not_followed_and_the_job_continues() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path().parent().unwrap()).unwrap();
    let target = fixture.directory.path().join("precious");
    std::fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, fixture.path()).unwrap();
    assert_eq!(fixture.run(&[1]).await, 1);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "precious");
}

#[tokio::test]
async fn what_is_in_the_way_is_named_so_that_a_limited_run_does_not_start_over_each_time() {
    let fixture = Fixture::new();
    let why = || Checkpoint::new(&fixture.pulls, Some(fixture.path())).obstacle().map(|(_, why)| why.to_string());
    assert_eq!(why(), None);
    std::fs::create_dir_all(fixture.path()).unwrap();
    assert!(why().is_some_and(|why| why.contains("directory")));
    std::fs::remove_dir(fixture.path()).unwrap();
    std::os::unix::fs::symlink("nowhere", fixture.path()).unwrap();
    assert!(why().is_some_and(|why| why.contains("symbolic link")));
    std::fs::remove_file(fixture.path()).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, fixture.path(), rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert!(why().is_some_and(|why| why.contains("not a regular file")));
    std::fs::remove_file(fixture.path()).unwrap();
    let other = Checkpoint::new(&fixture.pulls, Some(fixture.path()));
    other.manifest(&by_digest(1), Need::Required).await.unwrap();
    assert!(why().is_some_and(|why| why.contains("another run")));
}

#[tokio::test]
async fn two_runs_at_once_do_not_spoil_each_others_entries() {
    let fixture = Fixture::new();
    let first = Checkpoint::new(&fixture.pulls, Some(fixture.path()));
    first.manifest(&by_digest(1), Need::Required).await.unwrap();
    let second = Checkpoint::new(&fixture.pulls, Some(fixture.path()));
    assert_eq!(second.found, 0);
    second.manifest(&by_digest(2), Need::Required).await.unwrap();
    second.remove();
    first.manifest(&by_digest(3), Need::Required).await.unwrap();
    drop(first);
    assert_eq!(fixture.run(&[1, 3]).await, 0);
}

#[tokio::test]
async fn what_another_run_kept_is_not_cut_off_by_one_that_could_not_read_it() {
    let fixture = Fixture::new();
    let first = Checkpoint::new(&fixture.pulls, Some(fixture.path()));
    first.manifest(&by_digest(1), Need::Required).await.unwrap();
    let locked_out = Checkpoint::new(&fixture.pulls, Some(fixture.path()));
    drop(first);
    locked_out.manifest(&by_digest(2), Need::Required).await.unwrap();
    locked_out.remove();
    assert_eq!(fixture.run(&[1]).await, 0);
}

#[tokio::test]
async fn what_another_run_began_meanwhile_is_not_cut_off() {
    let fixture = Fixture::new();
    let early = Checkpoint::new(&fixture.pulls, Some(fixture.path()));
    fixture.run(&[1]).await;
    early.manifest(&by_digest(2), Need::Required).await.unwrap();
    early.remove();
    assert_eq!(fixture.run(&[1]).await, 0);
}

#[tokio::test]
async fn a_file_that_is_none_of_ours_is_neither_written_to_nor_removed() {
    let fixture = Fixture::new();
    std::fs::create_dir(fixture.path().parent().unwrap()).unwrap();
    for theirs in ["12 km, sunny", "gapferry is a tool that carries images", "\n", "", "gap"] {
        std::fs::write(fixture.path(), theirs).unwrap();
        let kept = Checkpoint::new(&fixture.pulls, Some(fixture.path()));
        kept.manifest(&by_digest(1), Need::Required).await.unwrap();
        assert_eq!(kept.left(), None);
        let message = kept.obstacle().map(|(_, why)| why.to_string());
        assert_eq!(message.as_deref(), Some("gapferry did not write it, so it stays as it is"), "{theirs}");
        kept.remove();
        assert_eq!(std::fs::read_to_string(fixture.path()).unwrap(), theirs);
    }
}

#[tokio::test]
async fn a_dry_run_reads_what_is_kept_and_writes_nothing() {
    let fixture = Fixture::new();
    fixture.run(&[1]).await;
    let before = std::fs::read(fixture.path()).unwrap();
    let kept = Checkpoint::reading(&fixture.pulls, &fixture.path());
    kept.manifest(&by_digest(1), Need::Required).await.unwrap();
    kept.manifest(&by_digest(2), Need::Required).await.unwrap();
    kept.remove();
    assert_eq!(fixture.pulls.0.load(Ordering::SeqCst), 2);
    assert_eq!(std::fs::read(fixture.path()).unwrap(), before);
}
