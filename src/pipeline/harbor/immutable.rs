//! Immutable tags (Harbor API 2.0, `GET /projects/{project}/immutabletagrules`), found before anything is sent. Only an
//! account that manages a project may read its rules; for any other account the push decides.
//!
//! **Threats.** The patterns come from a server. They become expressions of the `regex` crate, which are linear in time
//! and limited in size. A pattern that cannot be parsed matches nothing.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use futures_util::stream::{StreamExt, TryStreamExt};
use regex::{Regex, RegexBuilder};
use serde::Deserialize;

use crate::base::error::Result;
use crate::content::Api;
use crate::oci::Reference;

use super::{AT_ONCE, Client, Harbor, json, project_of};

/// Maximum size of a compiled pattern in bytes.
const MOST_BYTES: usize = 1 << 20;

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    disabled: bool,
    #[serde(default)]
    tag_selectors: Option<Vec<Selector>>,
    #[serde(default)]
    scope_selectors: Option<BTreeMap<String, Vec<Selector>>>,
}

#[derive(Deserialize)]
struct Selector {
    decoration: String,
    pattern: String,
}

/// Returns those of `tags` that the rules of their projects make immutable, if this account may read the rules.
///
/// # Errors
/// Harbor did not answer.
pub async fn immutable_tags(api: &dyn Api, harbor: &Harbor, tags: &BTreeSet<Reference>) -> Result<HashSet<Reference>> {
    let client = Client { api, account: harbor.account() };
    let mut projects: BTreeMap<&str, Vec<&Reference>> = BTreeMap::new();
    for tag in tags {
        if let Some(project) = project_of(&tag.repository) {
            projects.entry(project).or_default().push(tag);
        }
    }
    let asked = futures_util::stream::iter(projects);
    let immutable = asked
        .map(|(project, tags)| async move { client.with_account_of(project).immutable_among(project, tags).await })
        .buffered(AT_ONCE);
    let found: Result<Vec<Vec<Reference>>> = immutable.try_collect().await;
    let found = found.map_err(|e| e.while_doing(format!("reading the immutability rules of {}", harbor.registry())))?;
    Ok(found.into_iter().flatten().collect())
}

impl Client<'_> {
    async fn immutable_among(&self, project: &str, tags: Vec<&Reference>) -> Result<Vec<Reference>> {
        let answer = self.project(project, "/immutabletagrules?page_size=100").await?;
        let rules: Vec<Rule> = json::<Option<Vec<Rule>>>(&answer).flatten().unwrap_or_default();
        let rules: Vec<Rule> = rules.into_iter().filter(|rule| !rule.disabled).collect();
        let is_immutable = |tag: &&Reference| rules.iter().any(|rule| rule.covers(tag));
        Ok(tags.into_iter().filter(is_immutable).cloned().collect())
    }
}

impl Rule {
    fn covers(&self, reference: &Reference) -> bool {
        let Some((_, repository)) = reference.repository.in_project() else { return false };
        let tag = reference.tag.as_ref().map(ToString::to_string);
        let repositories = self.scope_selectors.iter().flat_map(|scopes| scopes.get("repository")).flatten();
        let tags = self.tag_selectors.as_deref().unwrap_or_default();
        !tags.is_empty()
            && repositories.into_iter().all(|selector| selector.selects(repository))
            && tags.iter().all(|selector| tag.as_deref().is_some_and(|tag| selector.selects(tag)))
    }
}

impl Selector {
    fn selects(&self, name: &str) -> bool {
        let Some(pattern) = expression(&self.pattern) else { return false };
        match self.decoration.as_str() {
            "matches" | "repoMatches" => pattern.is_match(name),
            "excludes" | "repoExcludes" => !pattern.is_match(name),
            _ => false,
        }
    }
}

/// A pattern of Go's `doublestar`: `**` matches anything, `*` and `?` anything but a slash; `{a,b}`, `[a-z]`; `\`
/// escapes.
fn expression(pattern: &str) -> Option<Regex> {
    let mut text = String::from("^(?s:");
    let mut depth = 0_u32;
    let mut characters = pattern.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '*' if characters.next_if_eq(&'*').is_some() => text.push_str(".*"),
            '*' => text.push_str("[^/]*"),
            '?' => text.push_str("[^/]"),
            '{' => {
                depth += 1;
                text.push_str("(?:");
            }
            '}' if depth > 0 => {
                depth -= 1;
                text.push(')');
            }
            ',' if depth > 0 => text.push('|'),
            '[' => {
                text.push('[');
                if characters.next_if(|c| matches!(c, '!' | '^')).is_some() {
                    text.push('^');
                }
                loop {
                    match characters.next()? {
                        ']' => break text.push(']'),
                        '-' => text.push('-'),
                        c => text.push_str(&regex::escape(&c.to_string())),
                    }
                }
            }
            '\\' => text.push_str(&regex::escape(&characters.next()?.to_string())),
            c => text.push_str(&regex::escape(&c.to_string())),
        }
    }
    text.push_str(")$");
    RegexBuilder::new(&text).size_limit(MOST_BYTES).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_to_harbor() {
        for (pattern, fits, fits_not) in [
            ("**", "anything", "-"),
            ("v*", "v1.0", "1.0"),
            ("*", "team", "team/app"),
            ("team/**", "team/a/b", "other/a"),
            ("{1,2}.?", "2.7", "3.7"),
            ("v[0-9].[!x]", "v1.y", "v1.x"),
            ("a\\*", "a*", "ab"),
            ("1.0", "1.0", "1x0"),
        ] {
            let expression = expression(pattern).unwrap();
            assert!(expression.is_match(fits), "{pattern} {fits}");
            assert!(!expression.is_match(fits_not) || pattern == "**", "{pattern} {fits_not}");
        }
        for broken in ["[a", "{a", "a\\", "[z-a]"] {
            assert!(expression(broken).is_none(), "{broken}");
        }
    }

    #[test]
    fn a_rule_counts_for_its_repositories_and_only_if_it_is_on() {
        let rule = |text: &str| serde_json::from_str::<Rule>(text).unwrap();
        let tags = r#""tag_selectors":[{"decoration":"matches","kind":"doublestar","pattern":"v*"}]"#;
        let scope = |decoration: &str| {
            format!(r#""scope_selectors":{{"repository":[{{"decoration":"{decoration}","pattern":"team/**"}}]}}"#)
        };
        let reference = |text: &str| text.parse::<Reference>().unwrap();
        let matches = rule(&format!("{{{tags},{}}}", scope("repoMatches")));
        assert!(matches.covers(&reference("h.io/base/team/a:v1")));
        assert!(
            !matches.covers(&reference("h.io/base/other/a:v1")) && !matches.covers(&reference("h.io/base/team/a:1"))
        );
        let excludes = rule(&format!("{{{tags},{}}}", scope("repoExcludes")));
        assert!(
            excludes.covers(&reference("h.io/base/other/a:v1")) && !excludes.covers(&reference("h.io/base/team/a:v1"))
        );
        assert!(!rule(r#"{"tag_selectors":null}"#).covers(&reference("h.io/base/a:v1")), "it selects nothing");
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in "[a-z*?{},!\\\\\\[\\]-]{0,40}") {
            let _ = expression(&pattern).map(|expression| expression.is_match("team/a"));
        }
    }
}
