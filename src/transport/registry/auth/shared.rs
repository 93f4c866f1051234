//! Tokens that serve many repositories.
//!
//! Harbor's tokens apply to whole projects (`src/common/security/v2token`): Harbor looks at the project of a scope, whatever
//! the repository. One request for up to [`MOST_SCOPES`] projects, with one repository of each, returns a token for all their
//! repositories and the mounts between them. Each request for a token costs Harbor a password hash: hundreds of milliseconds
//! for a user.
//!
//! This is done only for repositories that were announced by a caller who knows that the registry is a Harbor, or that are
//! expected to be read where the challenge is Harbor's. Elsewhere a token is for one repository: other token servers grant
//! only the first of several scopes, or refuse all if one is denied, and tokens are cheap for them. If a shared token turns
//! out not to serve a project, the repositories of that project get their own tokens again.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::header::HeaderValue;

use super::scope::{Scopes, project};
use super::{Token, TokenSlot};

/// This many scopes fit into a request line of 8 KiB, which is nginx's limit, with names of usual length; [`MOST_BYTES`] is
/// for long ones. The token that names them all must also fit into a header.
const MOST_SCOPES: usize = 20;
const MOST_BYTES: usize = 6000;
/// Two groups fit into one request if their names are short; the token needs about 70 more bytes for each repository.
const MOST_JOINED_BYTES: usize = 5000;

/// Number of refused tokens to remember: more than parallel requests.
const MOST_BEFORE: usize = 64;

/// The right to push to, or to pull from, all of these paths.
type AllScopes = fn(&[String]) -> Scopes;

/// A token for several projects.
pub(in crate::transport::registry) struct Shared {
    /// A repository of each project. The credentials of the first are used for all.
    pub scopes: Scopes,
    projects: BTreeSet<String>,
    /// The credentials it belongs to: tokens of different accounts are never combined.
    account: usize,
    pub(super) token: TokenSlot,
    /// Earlier tokens that were refused, the latest last: other requests that used them may learn that later.
    before: Mutex<VecDeque<Token>>,
}

/// The shared tokens of a registry.
#[derive(Default)]
pub(super) struct SharedTokens(Mutex<State>);

#[derive(Default)]
struct State {
    groups: Vec<Arc<Shared>>,
    /// Projects that shared tokens turned out not to serve.
    alone: BTreeSet<String>,
}

impl Shared {
    fn new(paths: &[String], account: usize, scopes: AllScopes) -> Shared {
        let projects = paths.iter().map(|path| project(path).to_owned()).collect();
        Shared { scopes: scopes(paths), projects, account, token: TokenSlot::default(), before: Mutex::default() }
    }

    /// The token in a refused request: `token`, which was dropped now, or one that was dropped before.
    pub(super) fn dropped(&self, token: Option<Token>, refused: Option<&HeaderValue>) -> Option<Token> {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token {
            if before.len() == MOST_BEFORE {
                before.pop_front();
            }
            before.push_back(token);
        }
        before.iter().find(|token| token.is_sent_as(refused)).cloned()
    }

    fn covers(&self, scopes: &Scopes) -> bool {
        scopes.projects().all(|project| self.projects.contains(project))
    }

    pub fn paths(&self) -> Vec<String> {
        self.scopes.paths().map(str::to_owned).collect()
    }
}

impl SharedTokens {
    /// Forgets earlier groups and builds new ones from `accounts`: for each account the paths that its credentials apply to,
    /// one per project.
    pub fn announce(&self, accounts: Vec<Vec<String>>) -> Vec<Arc<Shared>> {
        let groups = groups(accounts, 0, Scopes::push_all);
        *self.lock() = State { groups: groups.clone(), alone: BTreeSet::new() };
        groups
    }

    /// Builds groups from `accounts` for reading, in addition to existing ones.
    pub fn expect(&self, accounts: Vec<Vec<String>>) {
        let mut state = self.lock();
        let first = state.groups.iter().map(|group| group.account + 1).max().unwrap_or(0);
        let is_new = |path: &String| !state.groups.iter().any(|group| group.projects.contains(project(path)));
        let accounts = accounts.into_iter().map(|paths| paths.into_iter().filter(is_new).collect());
        let new = groups(accounts.collect(), first, Scopes::pull_all);
        state.groups.extend(new);
    }

    /// The group that serves `scopes`. A mount from a project of one group into another uses a token for both groups, as far
    /// as one request can name them.
    pub fn serving(&self, scopes: &Scopes) -> Option<Arc<Shared>> {
        let mut state = self.lock();
        let State { groups, alone } = &mut *state;
        if scopes.projects().any(|project| alone.contains(project)) {
            return None;
        }
        if let Some(known) = groups.iter().find(|group| group.covers(scopes)) {
            return Some(known.clone());
        }
        let first = scopes.projects().next()?;
        let home = groups.iter().find(|group| group.projects.contains(first))?.clone();
        let mut paths = home.paths();
        for other in scopes.projects().filter(|project| !home.projects.contains(*project)) {
            let group = groups.iter().find(|group| group.projects.contains(other) && group.account == home.account)?;
            paths.extend(group.scopes.paths().find(|path| project(path) == other).map(str::to_owned));
        }
        // One more token for the two groups, and not one for each project that something is mounted from.
        let bytes = |path: &str| path.len() + 70;
        let mut room = MOST_JOINED_BYTES.saturating_sub(paths.iter().map(|path| bytes(path)).sum());
        let is_of = |group: &&Arc<Shared>| {
            group.account == home.account && scopes.projects().any(|project| group.projects.contains(project))
        };
        for path in groups.iter().filter(is_of).flat_map(|group| group.paths()) {
            if bytes(&path) <= room && !paths.contains(&path) {
                room -= bytes(&path);
                paths.push(path);
            }
        }
        let joined = Arc::new(Shared::new(&paths, home.account, Scopes::push_all));
        groups.push(joined.clone());
        Some(joined)
    }

    /// The token could not be obtained.
    pub fn drop_group(&self, group: &Arc<Shared>) {
        self.lock().groups.retain(|known| !Arc::ptr_eq(known, group));
    }

    /// The registry refused `token` for these scopes. If it is no longer fresh, it may have expired; otherwise it does not
    /// serve these projects.
    pub fn refused(&self, token: &Token, scopes: &Scopes) {
        if token.is_fresh() {
            self.lock().alone.extend(scopes.projects().map(str::to_owned));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For each account the paths that one request can name; accounts are counted from `first`.
fn groups(accounts: Vec<Vec<String>>, first: usize, scopes: AllScopes) -> Vec<Arc<Shared>> {
    let mut groups = Vec::new();
    for (account, paths) in (first..).zip(accounts) {
        let mut group: Vec<String> = Vec::new();
        for path in paths {
            let bytes: usize = group.iter().map(|path| path.len() + 40).sum();
            if group.len() == MOST_SCOPES || bytes + path.len() + 40 > MOST_BYTES && !group.is_empty() {
                groups.push(Arc::new(Shared::new(&std::mem::take(&mut group), account, scopes)));
            }
            group.push(path);
        }
        if !group.is_empty() {
            groups.push(Arc::new(Shared::new(&group, account, scopes)));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Repository;

    fn push(path: &str) -> Scopes {
        Scopes::push(&Repository::new("h", path).unwrap())
    }

    fn mount(to: &str, from: &str) -> Scopes {
        push(to).and_pull(&Repository::new("h", from).unwrap())
    }

    fn announced(projects: usize) -> SharedTokens {
        let tokens = SharedTokens::default();
        tokens.announce(vec![(0..projects).map(|n| format!("p{n:02}/x")).collect()]);
        tokens
    }

    fn is_same(one: &Option<Arc<Shared>>, two: &Option<Arc<Shared>>) -> bool {
        one.as_ref().zip(two.as_ref()).is_some_and(|(one, two)| Arc::ptr_eq(one, two))
    }

    #[test]
    fn one_token_serves_the_repositories_of_twenty_projects_and_the_mounts_between_them() {
        let tokens = announced(45);
        assert_eq!(tokens.lock().groups.len(), 3);
        let first = tokens.serving(&push("p00/any/thing"));
        assert!(is_same(&first, &tokens.serving(&mount("p19/a", "p03/b"))));
        assert!(!is_same(&first, &tokens.serving(&push("p20/a"))));
        assert!(tokens.serving(&push("other/a")).is_none(), "nobody announced it");
        // A layer that goes from one project into all others needs one more token for each group.
        let into = |n: usize| tokens.serving(&mount(&format!("p{n:02}/a"), "p00/b"));
        let joined: Vec<_> = (20..45).map(into).collect();
        assert!(joined.iter().all(Option::is_some));
        assert_eq!(tokens.lock().groups.len(), 5);
    }

    #[test]
    fn one_token_more_serves_all_mounts_between_two_groups() {
        let tokens = announced(30);
        for from in 0..30 {
            for to in (0..30).filter(|to| *to != from) {
                assert!(tokens.serving(&mount(&format!("p{to:02}/a"), &format!("p{from:02}/b"))).is_some());
            }
        }
        assert_eq!(tokens.lock().groups.len(), 3);
        // Long names need several groups, and none of them exceeds the size of a request.
        let tokens = SharedTokens::default();
        let name = |n: usize| format!("p{n:02}/{}", "x".repeat(200));
        tokens.announce(vec![(0..40).map(name).collect()]);
        for from in 20..40 {
            assert!(tokens.serving(&mount("p00/a", &format!("p{from}/b"))).is_some());
        }
        let longest = tokens.lock().groups.iter().map(|group| group.paths().concat().len()).max();
        assert!(longest <= Some(6000), "{longest:?}");
    }

    #[test]
    fn what_is_to_be_read_shares_tokens_beside_what_is_pushed() {
        let tokens = announced(1);
        tokens.expect(vec![vec!["p00/x".into(), "q/x".into()], vec!["r/x".into()]]);
        let pull = |path: &str| tokens.serving(&Scopes::pull(&Repository::new("h", path).unwrap()));
        assert!(is_same(&pull("p00/y"), &tokens.serving(&push("p00/z"))), "the token that pushes reads, too");
        assert!(pull("q/y").is_some() && pull("r/y").is_some() && !is_same(&pull("q/y"), &pull("r/y")));
        assert!(tokens.serving(&mount("q/y", "r/y")).is_none());
    }

    /// Otherwise the last of many requests with the same token would drop its successor permanently.
    #[test]
    fn a_token_that_was_refused_is_known_after_its_successors_were_refused_too() {
        let token = |secret: &str| {
            let (fetched, renew_at) = (std::time::Instant::now(), std::time::Instant::now());
            Token { secret: crate::credentials::Secret::new(secret.to_owned()), fetched, renew_at, granted: None }
        };
        let sent = |secret: &str| super::super::token::header("Bearer", secret).ok();
        let tokens = announced(2);
        let group = tokens.serving(&push("p00/x")).unwrap();
        for secret in ["one", "two"] {
            assert!(group.dropped(Some(token(secret)), sent(secret).as_ref()).is_some());
        }
        assert!(group.dropped(None, sent("one").as_ref()).is_some_and(|token| token.is_sent_as(sent("one").as_ref())));
        assert!(group.dropped(None, sent("three").as_ref()).is_none());
    }

    #[test]
    fn tokens_of_two_accounts_are_never_one() {
        let tokens = SharedTokens::default();
        tokens.announce(vec![vec!["a/x".into()], vec!["b/x".into()]]);
        assert!(tokens.serving(&push("a/y")).is_some() && tokens.serving(&push("b/y")).is_some());
        assert!(tokens.serving(&mount("a/y", "b/y")).is_none());
    }

    #[test]
    fn long_names_make_smaller_groups() {
        let tokens = SharedTokens::default();
        let name = |n: usize| format!("p{n}/{}", "x".repeat(1000));
        tokens.announce(vec![(0..20).map(name).collect()]);
        assert_eq!(tokens.lock().groups.len(), 4);
    }
}
