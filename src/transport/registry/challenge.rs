//! Parses `WWW-Authenticate`: what a registry requires (RFC 9110 §11.6.1, distribution `docs/spec/auth/token.md`).
//!
//! **Threats.** The header is foreign text. Nothing is sliced by assumption, an unknown or broken challenge is skipped, and a
//! realm is only a URL that the caller must judge before it sends credentials there. A realm without a host means the server
//! that sent the challenge, and can lead to no other.

use reqwest::Url;

use super::reply::Reply;

/// Maximum number of token servers to ask for one challenge.
const MOST_SERVERS: usize = 4;

/// A challenge that gapferry can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer(Bearer),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The URL of the token server.
    pub realm: String,
    pub service: Option<String>,
    /// What the refused request needed, according to the registry.
    pub scope: Option<String>,
    pub error: Option<String>,
    /// Whether Basic is accepted too.
    pub or_basic: bool,
    /// Other acceptable token servers.
    others: Vec<Bearer>,
}

impl Challenge {
    /// The challenge to answer among those in a registry's response.
    pub fn of(reply: &Reply) -> Option<Challenge> {
        Challenge::choose(reply.texts("www-authenticate"), reply.url())
    }

    /// The challenge to answer among those of the headers, in any order: a token server also issues tokens anonymously, and
    /// accepts what Basic would send. `asked` is the requested URL.
    pub fn choose(headers: impl Iterator<Item = impl AsRef<str>>, asked: &Url) -> Option<Challenge> {
        let all: Vec<Challenge> = headers.flat_map(|header| parse(header.as_ref())).collect();
        let or_basic = all.contains(&Challenge::Basic);
        let bearers = || all.iter().filter_map(Challenge::bearer);
        let resolved = |bearer: &Bearer| Some(Bearer { realm: bearer.address(asked)?, or_basic, ..bearer.clone() });
        let mut servers: Vec<Bearer> = Vec::new();
        for bearer in bearers().filter_map(resolved) {
            if servers.len() < MOST_SERVERS && !servers.iter().any(|known| known.is_same_server(&bearer)) {
                servers.push(bearer);
            }
        }
        let mut servers = servers.into_iter();
        match servers.next() {
            Some(first) => Some(Challenge::Bearer(Bearer { others: servers.collect(), ..first })),
            None if or_basic => Some(Challenge::Basic),
            None => bearers().next().cloned().map(Challenge::Bearer),
        }
    }

    fn bearer(&self) -> Option<&Bearer> {
        match self {
            Challenge::Bearer(bearer) => Some(bearer),
            Challenge::Basic => None,
        }
    }

    /// What the token lacked, if that is why the request was refused (RFC 6750 §3.1).
    pub fn missing_scope(&self) -> Option<&str> {
        match self {
            Challenge::Bearer(bearer) if bearer.error.as_deref() == Some("insufficient_scope") => {
                Some(bearer.scope.as_deref().unwrap_or_default())
            }
            _ => None,
        }
    }

    /// The scope that the registry names, if a token for `asked` does not cover it: behind a gateway, a repository may have
    /// another name.
    pub fn other_scope(&self, asked: &[String]) -> Option<&str> {
        let Challenge::Bearer(Bearer { scope: Some(scope), .. }) = self else { return None };
        let is_covered = |word: &str| asked.iter().any(|asked| covers(asked, word));
        (!scope.split_whitespace().all(is_covered)).then_some(scope)
    }
}

impl Bearer {
    /// The same challenge with each of the other token servers first.
    pub fn others(&self) -> impl Iterator<Item = Bearer> {
        (0..self.others.len()).map(|at| {
            let mut others = self.others.clone();
            let first = std::mem::replace(&mut others[at], Bearer { others: Vec::new(), ..self.clone() });
            Bearer { others, ..first }
        })
    }

    /// Whether both require a token of one server for one service.
    pub fn is_same_server(&self, other: &Bearer) -> bool {
        (&self.realm, &self.service) == (&other.realm, &other.service)
    }

    /// Whether the token server is Harbor's (`src/core/service/token`), which names its registry like this on any host.
    pub fn is_harbor(&self) -> bool {
        self.service.as_deref() == Some("harbor-registry")
    }

    /// The realm as a URL. A path belongs to the server that was `asked`; a word is not an address.
    fn address(&self, asked: &Url) -> Option<String> {
        if is_web_address(&self.realm) {
            return Some(self.realm.clone());
        }
        let url = asked.join(&self.realm).ok().filter(|_| self.realm.starts_with('/'))?;
        (url.origin() == asked.origin()).then(|| url.to_string())
    }
}

fn is_web_address(realm: &str) -> bool {
    realm.parse::<Url>().is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

/// Whether one `type:name:actions` allows everything that another does.
fn covers(has: &str, wanted: &str) -> bool {
    let (Some((has, may)), Some((wanted, must))) = (has.rsplit_once(':'), wanted.rsplit_once(':')) else {
        return has == wanted;
    };
    has == wanted && must.split(',').all(|action| may.split(',').any(|allowed| allowed == action))
}

/// All known challenges of one header, which may contain several, separated by commas like their parameters.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = header.trim_start_matches([' ', '\t', ',']);
    while !rest.is_empty() {
        let scheme_end = rest.find([' ', '\t', ',']).unwrap_or(rest.len());
        let scheme = &rest[..scheme_end];
        let (parameters, remaining) = parameters(&rest[scheme_end..]);
        found.extend(challenge(scheme, parameters));
        // Without progress, the rest is not a list of challenges.
        if remaining.len() >= rest.len() {
            break;
        }
        rest = remaining;
    }
    found
}

fn challenge(scheme: &str, parameters: Vec<(String, String)>) -> Option<Challenge> {
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let mut bearer = Bearer::default();
    for (name, value) in parameters {
        match name.as_str() {
            // Of two realms, the address counts, wherever it is.
            "realm" if is_web_address(&bearer.realm) => {}
            "realm" => bearer.realm = value,
            "service" => bearer.service = Some(value),
            "scope" => bearer.scope = Some(value),
            "error" => bearer.error = Some(value),
            _ => {}
        }
    }
    (!bearer.realm.is_empty()).then_some(Challenge::Bearer(bearer))
}

/// Separators of parameters; some gateways write a semicolon, as in other headers.
const SEPARATORS: [char; 4] = [' ', '\t', ',', ';'];

/// `name=value` pairs up to the next scheme, and the rest from there.
fn parameters(text: &str) -> (Vec<(String, String)>, &str) {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start_matches(SEPARATORS);
    while let Some((name, after)) = name_before_equals(rest) {
        let (value, remaining) = value(after);
        pairs.push((name.to_ascii_lowercase(), value));
        rest = remaining.trim_start_matches(SEPARATORS);
    }
    (pairs, rest)
}

fn name_before_equals(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.split_once('=')?;
    let name = name.trim_end();
    let token = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c));
    token.then_some((name, after.trim_start()))
}

/// A quoted string (with `\` escapes), one in single quotes as some gateways write it, or a bare token.
fn value(text: &str) -> (String, &str) {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        let end = text.find(SEPARATORS).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let quoted = &text[1..];
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            c if c == quote => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Url {
        "https://r.io:5000/v2/a/manifests/1".parse().unwrap()
    }

    fn first(header: &str) -> Option<Challenge> {
        Challenge::choose([header].into_iter(), &asked())
    }

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Option<Challenge> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (service, scope) = (owned(service), owned(scope));
        Some(Challenge::Bearer(Bearer { realm: realm.into(), service, scope, ..Bearer::default() }))
    }

    #[test]
    fn the_forms_registries_send_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        assert_eq!(
            first(hub),
            bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push"))
        );
        assert_eq!(first(r#"Basic realm="Registry Realm""#), Some(Challenge::Basic));
        assert_eq!(first("basic"), Some(Challenge::Basic));
        assert_eq!(first(r#"BEARER realm=https://a/t , Service = "s""#), bearer("https://a/t", Some("s"), None));
        assert_eq!(first(r#"Negotiate, NTLM, Bearer realm="https://a/\"t""#), bearer("https://a/\"t", None, None));
        assert_eq!(first(r#"Digest realm="x", nonce="y", Basic realm="z""#), Some(Challenge::Basic));
    }

    #[test]
    fn of_several_challenges_the_one_that_can_be_answered_is_chosen() {
        let tokens =
            |or_basic| Some(Challenge::Bearer(Bearer { realm: "https://a/t".into(), or_basic, ..Bearer::default() }));
        let bearer = r#"Bearer realm="https://a/t""#;
        let choose = |headers: &[&str]| Challenge::choose(headers.iter().copied(), &asked());
        assert_eq!(choose(&[&format!(r#"Basic realm="r", {bearer}"#)]), tokens(true));
        assert_eq!(choose(&[r#"Basic realm="r""#, bearer]), tokens(true));
        assert_eq!(choose(&[bearer, r#"Basic realm="r""#]), tokens(true));
        assert_eq!(choose(&["Negotiate", "NTLM", bearer]), tokens(false));
        assert_eq!(choose(&[&format!("Negotiate YII==, {bearer}")]), tokens(false));
        assert_eq!(choose(&[r#"Bearer realm="registry""#, bearer]), tokens(false));
        assert_eq!(choose(&[r#"Bearer realm="registry", Basic realm="r""#]), Some(Challenge::Basic));
        assert_eq!(choose(&["Negotiate", "Digest nonce=x"]), None);
        for unanswerable in ["Bearer", "Bearer service=\"s\"", "Bearer realm=\"\"", "Bearer realm=\"ftp://a/t\""] {
            assert_eq!(choose(&[unanswerable, bearer]), tokens(false), "{unanswerable}");
            assert_eq!(choose(&[&format!("{unanswerable}, {bearer}")]), tokens(false), "{unanswerable}");
        }
    }

    #[test]
    fn of_several_token_servers_each_can_be_asked() {
        let servers = |header: &str| match first(header) {
            Some(Challenge::Bearer(bearer)) => {
                let all: Vec<Bearer> = std::iter::once(bearer.clone()).chain(bearer.others()).collect();
                assert!(all.iter().all(|one| one.others.len() + 1 == all.len()), "none is lost: {all:?}");
                all.into_iter().map(|one| one.realm).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        let two = r#"Bearer realm="https://a/t", Bearer realm="https://b/t", Bearer realm="https://a/t""#;
        assert_eq!(servers(two), ["https://a/t", "https://b/t"]);
        let many: Vec<String> = (0..100).map(|n| format!(r#"Bearer realm="https://h{n}/t""#)).collect();
        assert_eq!(servers(&many.join(", ")).len(), MOST_SERVERS);
    }

    #[test]
    fn a_realm_is_found_however_it_is_written() {
        let realm = |header: &str| match first(header) {
            Some(Challenge::Bearer(bearer)) => bearer.realm,
            other => panic!("{header}: {other:?}"),
        };
        for header in [
            "Bearer realm='https://a/t',service='s'",
            r#"Bearer realm="https://a/t",realm="registry""#,
            r#"Bearer realm="registry",service="s",realm="https://a/t""#,
            r#"Bearer realm="https://a/t",realm="https://b/t""#,
            r#"Bearer realm="https://a/t";service="s""#,
            r#"Bearer service=s; realm=https://a/t; scope="x""#,
        ] {
            assert_eq!(realm(header), "https://a/t", "{header}");
        }
        assert_eq!(realm(r#"Bearer realm="/token?x=1""#), "https://r.io:5000/token?x=1");
        assert_eq!(
            realm(r#"Bearer realm="//evil.io/token""#),
            "//evil.io/token",
            "that is another server, and no address"
        );
        assert_eq!(realm(r#"Bearer realm="registry""#), "registry");
    }

    #[test]
    fn a_scope_that_is_not_ours_is_noticed() {
        let asked = ["repository:a/b:pull,push".to_owned(), "repository:c:pull".to_owned()];
        let named = |scope: &str| {
            let challenge = Challenge::Bearer(Bearer { scope: Some(scope.to_owned()), ..Bearer::default() });
            challenge.other_scope(&asked).map(str::to_owned)
        };
        for ours in ["repository:a/b:pull", "repository:a/b:push,pull", "repository:c:pull repository:a/b:push", ""] {
            assert_eq!(named(ours), None, "{ours}");
        }
        for other in ["repository:hub/a/b:pull", "repository:c:push", "registry:catalog:*"] {
            assert_eq!(named(other).as_deref(), Some(other));
        }
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for header in ["", ",,,", "Bearer", "Bearer realm=", "Bearer service=\"x\"", "=\"", "é=é", "Bearer é", "\"\"\""]
        {
            assert_eq!(first(header), None, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic_or_hang(header in "[ -~é]{0,60}") {
            let _ = parse(&header);
        }
    }
}
