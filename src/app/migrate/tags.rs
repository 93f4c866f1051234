//! `--tags-from`: the digests of tags that a storage does not contain.
//!
//! The file contains either lines of `REPOSITORY:TAG DIGEST`, with `#` comments, or the answers of Harbor's API to `GET
//! /projects/PROJECT/repositories/REPOSITORY/artifacts` (v2.0: an array of objects with `digest`, `tags[].name` and, in
//! later versions, `repository_name`), page after page. Harbor lists no signatures: with `with_accessory=true`, each
//! artifact lists its own signatures, and the tag of cosign follows from the subject.
//!
//! # Threats
//! The file comes from another machine. Its size is limited like that of an allowlist, every name and digest is checked,
//! and digests are looked up in the storage: the file can supply names, but no content.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use crate::oci::{Digest, Repository, Tag};
use crate::pipeline::allowlist::{InputProblem, Position, decode};

/// A tag in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedTag {
    pub at: Position,
    /// Absent in answers of earlier versions of Harbor.
    pub repository: Option<Repository>,
    pub tag: Tag,
    pub digest: Digest,
    /// Whether it is a signature that Harbor lists with its subject. It has this tag only if its manifest has no subject.
    pub is_accessory: bool,
}

#[derive(Deserialize)]
struct Artifact {
    repository_name: Option<String>,
    digest: String,
    tags: Option<Vec<Name>>,
    accessories: Option<Vec<Accessory>>,
}

/// An accessory. Of Harbor's types, only `signature.cosign` can have a tag.
#[derive(Deserialize)]
struct Accessory {
    #[serde(rename = "type")]
    kind: String,
    digest: String,
    subject_artifact_digest: Option<String>,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

/// Parses the bytes of `file`. Repositories belong to `registry`.
///
/// # Errors
/// All problems of the file.
pub fn parse(file: &str, bytes: &[u8], registry: &str) -> Result<Vec<ListedTag>, Vec<InputProblem>> {
    let text = decode(file, bytes).map_err(|problem| vec![problem])?;
    let mut reader = Reader { file, text, registry, given: Vec::new(), problems: Vec::new() };
    match text.trim_start().starts_with(['[', '{']) {
        true => reader.read_json(),
        false => reader.read_lines(),
    }
    reader.problems.extend(ambiguities(&reader.given));
    if reader.problems.is_empty() { Ok(reader.given) } else { Err(reader.problems) }
}

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    registry: &'a str,
    given: Vec<ListedTag>,
    problems: Vec<InputProblem>,
}

impl Reader<'_> {
    fn read_lines(&mut self) {
        for (line, content) in (1..).zip(self.text.lines()) {
            let content = content.split(" #").next().unwrap_or_default().trim();
            if content.is_empty() || content.starts_with('#') {
                continue;
            }
            let at = Position::line(self.file, line);
            match self.read_line(content, at.clone()) {
                Ok(given) => self.given.push(given),
                Err(text) => self.problems.push(InputProblem { at, text }),
            }
        }
    }

    fn read_line(&self, line: &str, at: Position) -> Result<ListedTag, String> {
        let mut words = line.split_whitespace();
        let (Some(name), Some(digest), None) = (words.next(), words.next(), words.next()) else {
            return Err("expected `REPOSITORY:TAG DIGEST`".into());
        };
        let Some((path, tag)) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) else {
            return Err(format!("{name:?} has no tag; expected `REPOSITORY:TAG DIGEST`"));
        };
        self.one(Some(path), tag, digest, at)
    }

    fn one(&self, path: Option<&str>, tag: &str, digest: &str, at: Position) -> Result<ListedTag, String> {
        let repository = path.map(|path| {
            Repository::new(self.registry, path).map_err(|e| format!("{path:?} is not a repository name: {}", e.reason))
        });
        let repository = repository.transpose()?;
        let tag = tag.parse().map_err(|_| format!("{tag:?} is not a tag"))?;
        let digest = digest.parse().map_err(|_| format!("{digest:?} is not a digest"))?;
        Ok(ListedTag { at, repository, tag, digest, is_accessory: false })
    }

    fn signature(&self, artifact: &Artifact, accessory: &Accessory, at: Position) -> Result<ListedTag, String> {
        let subject = accessory.subject_artifact_digest.as_ref().unwrap_or(&artifact.digest);
        let subject: Digest = subject.parse().map_err(|_| format!("{subject:?} is not a digest"))?;
        let tag = Tag::cosign(&subject, "sig");
        let given = self.one(artifact.repository_name.as_deref(), tag.as_str(), &accessory.digest, at)?;
        Ok(ListedTag { is_accessory: true, ..given })
    }

    fn read_json(&mut self) {
        let mut artifacts = Vec::new();
        for page in serde_json::Deserializer::from_str(self.text).into_iter::<Vec<Artifact>>() {
            match page {
                Ok(page) => artifacts.extend(page),
                Err(error) => {
                    let at = Position::line(self.file, (error.line() as u64).max(1));
                    let text = format!("expected the list of artifacts of Harbor's API: {error}");
                    self.problems.push(InputProblem { at, text });
                    break;
                }
            }
        }
        let lines = first_lines(self.text, &artifacts);
        let at = |digest: &str| Position::line(self.file, lines.get(digest).copied().unwrap_or(1));
        for (number, artifact) in (1..).zip(&artifacts) {
            for Name { name } in artifact.tags.iter().flatten() {
                let at = at(&artifact.digest);
                let given = self.one(artifact.repository_name.as_deref(), name, &artifact.digest, at.clone());
                self.note(number, at, given);
            }
            for accessory in artifact.accessories.iter().flatten().filter(|it| it.kind == "signature.cosign") {
                let at = at(&accessory.digest);
                let given = self.signature(artifact, accessory, at.clone());
                self.note(number, at, given);
            }
        }
    }

    fn note(&mut self, number: usize, at: Position, given: Result<ListedTag, String>) {
        match given {
            Ok(given) => self.given.push(given),
            Err(text) => self.problems.push(InputProblem { at, text: format!("artifact {number}: {text}") }),
        }
    }
}

/// Returns the first line that contains each digest of the artifacts: parsed values have no positions.
fn first_lines<'a>(text: &str, artifacts: &'a [Artifact]) -> HashMap<&'a str, u64> {
    let own = artifacts.iter().map(|artifact| &artifact.digest);
    let below = artifacts.iter().flat_map(|artifact| artifact.accessories.iter().flatten()).map(|it| &it.digest);
    let wanted: HashSet<&str> = own.chain(below).map(String::as_str).collect();
    let mut found = HashMap::new();
    for (number, line) in (1..).zip(text.split('\n')) {
        for digest in line.split('"').filter_map(|piece| wanted.get(piece)) {
            found.entry(*digest).or_insert(number);
        }
    }
    found
}

/// Returns the tags that have two digests, as far as their repositories are known.
pub fn ambiguities(all: &[ListedTag]) -> Vec<InputProblem> {
    let mut known: HashMap<(&Repository, &Tag), &ListedTag> = HashMap::new();
    let mut problems = Vec::new();
    // Several signatures of one image can be listed, of which one has the tag.
    for given in all.iter().filter(|given| !given.is_accessory) {
        let Some(repository) = &given.repository else { continue };
        let first = *known.entry((repository, &given.tag)).or_insert(given);
        if first.digest != given.digest {
            let (path, tag) = (repository.path(), &given.tag);
            let text = format!("{path}:{tag} is already given at {} with another digest", first.at);
            problems.push(InputProblem { at: given.at.clone(), text });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(digit: char) -> String {
        format!("sha256:{}", digit.to_string().repeat(64))
    }

    fn names(text: &str) -> Vec<String> {
        let given = parse("tags", text.as_bytes(), "localhost").unwrap();
        let name = |given: &ListedTag| {
            let path = given.repository.as_ref().map_or("?", |repository| repository.path());
            format!("{path}:{} {} {}", given.tag, given.digest.short(), given.at)
        };
        given.iter().map(name).collect()
    }

    fn problems(text: &str) -> Vec<String> {
        parse("tags", text.as_bytes(), "localhost").unwrap_err().iter().map(InputProblem::to_string).collect()
    }

    #[test]
    fn lines_and_both_versions_of_harbors_answer_give_the_same_tags() {
        let (a, b) = (hex('a'), hex('b'));
        let lines = names(&format!("# names\n\nteam/app:1 {a}\nteam/app:2\t{b}  # the newer\n"));
        assert_eq!(lines.len(), 2);
        assert!(lines[1].starts_with("team/app:2 ") && lines[1].ends_with(" tags:4"), "{lines:?}");
        let json = format!(
            r#"[{{"id":1,"repository_name":"team/app","digest":"{a}","tags":[{{"name":"1","immutable":false}}]}},
{{"digest":"{b}","tags":null,"repository_name":"team/app"}}]
[{{"digest":"{b}","tags":[{{"name":"2"}},{{"name":"latest"}}]}}]"#
        );
        let json = names(&json);
        assert_eq!(json.len(), 3);
        assert!(json[0].starts_with("team/app:1 ") && json[2].starts_with("?:latest "), "{json:?}");
    }

    #[test]
    fn a_signature_among_harbors_accessories_gets_the_tag_of_cosign() {
        let (a, b, c) = (hex('a'), hex('b'), hex('c'));
        let json = format!(
            r#"[{{"repository_name":"team/app","digest":"{a}","tags":[{{"name":"1"}}],"accessories":[
{{"type":"signature.cosign","digest":"{b}","subject_artifact_digest":"{a}"}},
{{"type":"subject.accessory","digest":"{c}","subject_artifact_digest":"{a}"}}]}},
{{"repository_name":"team/app","digest":"{b}","tags":null,"accessories":null}}]"#
        );
        let names = names(&json);
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[1].starts_with(&format!("team/app:sha256-{}.sig ", &a[7..])), "{names:?}");
        assert!(problems(&json.replace(&b, "sha256:1"))[0].contains("artifact 1"));
    }

    #[test]
    fn all_problems_are_reported_together_with_their_lines() {
        let (a, b) = (hex('a'), hex('b'));
        let reported = problems(&format!(
            "team/app {a}\nteam/app:1\nTeam/app:1 {a}\nteam/app:1 sha256:12\nteam/app:1 {a}\nteam/app:1 {b}\nteam/app:.x {a}\n"
        ));
        let lines: Vec<&str> = reported.iter().filter_map(|reported| reported.split(": ").next()).collect();
        assert_eq!(lines, ["tags:1", "tags:2", "tags:3", "tags:4", "tags:7", "tags:6"], "{reported:?}");
        let reported = problems(&format!(
            "[{{\"repository_name\":\"Team/app\",\"digest\":\"{a}\",\"tags\":[{{\"name\":\"1\"}}]}},\n\
             {{\"repository_name\":\"team/app\",\"digest\":\"{b}\",\"tags\":[{{\"name\":\"a b\"}}]}}]"
        ));
        assert!(
            reported[0].starts_with("tags:1: artifact 1: ") && reported[1].starts_with("tags:2: artifact 2: "),
            "{reported:?}"
        );
        assert!(problems("{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}")[0].starts_with("tags:1: "));
        assert!(problems("[{\n\"tags\":[]}]")[0].contains("digest"));
    }
}
