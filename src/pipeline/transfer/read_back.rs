//! Reads manifests back: the target does not always have what it claims to have, or has just accepted.

use std::sync::PoisonError;

use super::Transfer;
use crate::base::error::{Error, Kind, Reason, Result};
use crate::base::progress::Event;
use crate::content::Lookup;
use crate::oci::{Digest, Reference, Tag};

impl Transfer<'_> {
    /// Whether the target delivers a manifest that it claims to have. If it may not be read, the claim counts.
    pub(super) async fn is_there(&self, name: &Reference) -> Result<bool> {
        match self.sink.read_manifest(name).await {
            Err(error) if is_denial(&error) || error.reason() == Some(&Reason::PullPolicy) => Ok(true),
            found => Ok(found?.is_some()),
        }
    }

    /// If this account may push and not read, storing the manifest is the proof. Reports that once per registry.
    fn note_unread(&self, name: &Reference, denied: &Error) {
        let registry = name.repository.registry();
        if self.unread.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned()) {
            let why = denied.chain();
            let text = format!(
                "this account may not read what it pushes to {registry}; the accepted manifests are the only proof: \
                 {why}"
            );
            self.events.report(Event::Notice(text));
        }
    }

    /// Reads back what was just put. If a policy forbids that, records it and returns the reason.
    pub(super) async fn check_stored(&self, name: &Reference, digest: Digest) -> Result<Option<String>> {
        let why = self.read_back(name, digest).await?;
        if why.is_some() {
            let mut withheld = self.withheld.lock().unwrap_or_else(PoisonError::into_inner);
            withheld.insert((name.repository.clone(), digest));
        }
        Ok(why)
    }

    /// Requests a manifest that was just put: distribution answers 201 and stores nothing if its cache remembers a
    /// manifest that a garbage collection has deleted. Returns the reason if a policy forbids reading it.
    async fn read_back(&self, name: &Reference, digest: Digest) -> Result<Option<String>> {
        let found = match self.sink.resolve(name).await {
            Err(error) if is_denial(&error) => {
                self.note_unread(name, &error);
                return Ok(None);
            }
            found => found?,
        };
        match found {
            Lookup::Found(found) if found.digest == digest => Ok(None),
            Lookup::Blocked(why) => Ok(Some(why)),
            // Others may have joined theirs already: lists are read once more at the end.
            Lookup::Found(_) if name.tag.as_ref().is_some_and(Tag::is_list) => Ok(None),
            Lookup::Found(found) => {
                let text = format!(
                    "reading back {name}: it was set to {digest} and now means {}: something else may have changed it",
                    found.digest
                );
                Err(Error::damaged(text))
            }
            Lookup::Absent => {
                // The text is the same for everything that was not stored.
                let text = "the registry accepted the manifest and does not have it, or a cache in front of it \
                            returns an old answer";
                let why = Error::damaged(text);
                let text = format!("reading back {name}, put as {digest}");
                Err(Error::damaged(text).because(why.with_reason(Reason::DamagedTarget)))
            }
        }
    }
}

/// Whether a registry refuses to tell this account what it has.
fn is_denial(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unauthorized | Kind::Refused) && error.reason().is_none() && error.stopped().is_none()
}
