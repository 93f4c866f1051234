//! Merges all files into one allowlist: each selection once, and the settings of each registry once.

use std::collections::{BTreeMap, HashMap};

use super::{Allowlist, Found, InputProblem, Position, RegistrySettings, Rule};

pub(super) fn merge(found: Found) -> Result<Allowlist, Vec<InputProblem>> {
    let Found { rules, registries, mut notices, mut problems } = found;
    let rules = merge_rules(rules, &mut notices, &mut problems);
    let registries = merge_registries(registries, &mut problems);
    if problems.is_empty() { Ok(Allowlist { rules, registries, notices }) } else { Err(problems) }
}

fn merge_rules(rules: Vec<Rule>, notices: &mut Vec<String>, problems: &mut Vec<InputProblem>) -> Vec<Rule> {
    let mut merged: Vec<Rule> = Vec::with_capacity(rules.len());
    let mut by_selection: HashMap<String, usize> = HashMap::new();
    for rule in rules {
        let key = rule.select.to_string();
        let Some(first) = by_selection.get(&key).and_then(|index| merged.get(*index)) else {
            by_selection.insert(key, merged.len());
            merged.push(rule);
            continue;
        };
        match difference(first, &rule) {
            None => notices.push(format!("{}: {key} is already listed at {}; merged", rule.at, first.at)),
            Some(what) => {
                let text = format!("{key} is already listed at {} with {what}; keep one of the two", first.at);
                problems.push(InputProblem { at: rule.at, text });
            }
        }
    }
    merged
}

/// Returns where two rules with the same selection contradict each other. Their union might include a platform that
/// neither line requested under that name, so the user has to decide.
fn difference(first: &Rule, second: &Rule) -> Option<&'static str> {
    let sorted = |rule: &Rule| {
        let mut platforms = rule.platforms.clone();
        platforms.sort();
        platforms
    };
    match (sorted(first) == sorted(second), first.rename == second.rename) {
        (true, true) => None,
        (false, true) => Some("other platforms"),
        (true, false) => Some("another as="),
        (false, false) => Some("other platforms and another as="),
    }
}

fn merge_registries(
    registries: Vec<(Position, String, RegistrySettings)>,
    problems: &mut Vec<InputProblem>,
) -> BTreeMap<String, RegistrySettings> {
    let mut merged: BTreeMap<String, (Position, RegistrySettings)> = BTreeMap::new();
    for (at, host, settings) in registries {
        match merged.get(&host) {
            Some((first, known)) if *known != settings => {
                let text = format!("the settings of {host} differ from those at {first}; a registry has one set");
                problems.push(InputProblem { at, text });
            }
            Some(_) => {}
            None => {
                merged.insert(host, (at, settings));
            }
        }
    }
    merged.into_iter().map(|(host, (_, settings))| (host, settings)).collect()
}
