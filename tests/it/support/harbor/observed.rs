//! A test's view of a server: its log and its content.

use gapferry::oci::{Digest, Manifest};

use super::{Harbor, Logged, Project};

impl Harbor {
    /// Every request so far.
    pub fn log(&self) -> Vec<Logged> {
        self.state().log.clone()
    }

    pub fn clear_log(&self) {
        self.state().log.clear();
    }

    /// Blobs whose bytes were accepted.
    pub fn uploads(&self) -> usize {
        let closed =
            |entry: &&Logged| entry.method == "PUT" && entry.path.contains("/blobs/uploads/") && entry.status == 201;
        self.log().iter().filter(closed).count()
    }

    /// Blobs that were mounted from another repository.
    pub fn mounts(&self) -> usize {
        let mounted = |entry: &&Logged| entry.method == "POST" && entry.path.contains("mount=") && entry.status == 201;
        self.log().iter().filter(mounted).count()
    }

    /// Requests that tried to change a repository, whatever the result.
    pub fn pushes(&self) -> Vec<Logged> {
        let mut log = self.log();
        log.retain(|entry| entry.path.starts_with("/v2/") && !matches!(entry.method.as_str(), "GET" | "HEAD"));
        log
    }

    /// Client mistakes that real Harbor answers with success and wrong accounting, or that its rules forbid.
    pub fn violations(&self) -> Vec<String> {
        self.state().violations.clone()
    }

    pub fn projects(&self) -> Vec<Project> {
        self.state().projects.values().cloned().collect()
    }

    /// The digest of a tag of `project/repository`.
    pub fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        self.state().repositories.get(repository)?.tags.get(tag).copied()
    }

    pub fn manifest(&self, repository: &str, digest: &Digest) -> Option<Manifest> {
        Some(self.state().repositories.get(repository)?.manifests.get(digest)?.manifest.clone())
    }

    pub fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        self.state().repositories.get(repository).is_some_and(|repository| repository.blobs.contains(digest))
    }

    /// Requests that contained a password.
    pub fn passwords(&self) -> usize {
        self.log().iter().filter(|entry| entry.basic).count()
    }

    /// Requests for a token.
    pub fn token_requests(&self) -> usize {
        self.log().iter().filter(|entry| entry.path.starts_with("/service/token")).count()
    }

    /// Uploads that were started and neither completed nor cancelled: their content stays in the storage for a week.
    pub fn open_uploads(&self) -> usize {
        self.state().uploads.len()
    }
}
