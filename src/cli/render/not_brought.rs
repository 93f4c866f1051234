//! Renders companions that a push could not carry.

use std::collections::BTreeMap;

use super::named;
use crate::app::{LeftOut, NotBrought};
use crate::base::progress::units::count;
use crate::cli::companions;
use crate::oci::{Reference, Tag};

/// One line per failed companion, or one per registry if all failed for the same reason.
pub fn failures(left: &NotBrought) -> impl Iterator<Item = String> + '_ {
    let list = "the list was left alone, so it does not name all that the bundle has: ";
    let kinds = [(&left.obstructed, ""), (&left.unlisted, list), (&left.refused, "the target refuses it: ")];
    kinds.into_iter().flat_map(|(companions, text)| by_reason(companions, text))
}

/// One line for each reason why lists could not be read.
pub fn warnings(left: &NotBrought) -> impl Iterator<Item = String> + '_ {
    let denied = left.denied.first_key_value().map(|(_, reason)| {
        format!(
            "{} left unchanged: this account may not read what the target has there. Give it the right to pull, and run the same \
             command again to add what the bundle has ({reason})",
            counted(&left.denied)
        )
    });
    let forbidden = left.forbidden.first_key_value().map(|(_, reason)| {
        format!(
            "{} left unchanged: a policy of the project forbids reading what the target has there. To add the bundle's signatures, run \
             the same command again with an account that may read artifacts there, or once the policy allows pulling ({reason})",
            counted(&left.forbidden)
        )
    });
    denied.into_iter().chain(forbidden)
}

/// A line about lists that the target has already.
pub fn notice(left: &NotBrought) -> Option<String> {
    let (tag, reason) = left.hidden.first_key_value()?;
    let tags = counted(&left.hidden);
    Some(format!(
        "{tags} left unchanged: a policy of the project hides what the target has there. The bundle's lists are in the same \
         repositories; {} tells an account that may read artifacts whether the tags mean them ({reason})",
        tag.repository.registry()
    ))
}

/// A line about companions that are held back while their subjects cannot be pulled.
pub fn left_out(left: &LeftOut) -> String {
    format!(
        "{} not brought ({}): whether their subject belongs to the image cannot be read while a policy of the project hides it. \
         Run the same command again once the image can be pulled",
        companions::counted(&left.companions, false),
        named(&left.images)
    )
}

/// One line for all companions of a registry with the same reason.
fn by_reason(companions: &BTreeMap<Reference, String>, text: &str) -> Vec<String> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Reference>> = BTreeMap::new();
    for (name, reason) in companions {
        groups.entry((name.repository.registry(), reason.as_str())).or_default().push(name);
    }
    let line = |((_, reason), names): ((&str, &str), Vec<&Reference>)| match names.as_slice() {
        [name] => format!("companion {name}: {text}{reason}"),
        [first, ..] => format!("{} companions (the first: {first}): {text}{reason}", names.len()),
        [] => String::new(),
    };
    groups.into_iter().map(line).collect()
}

/// `2 signature tags and 1 list of referrers`.
fn counted(tags: &BTreeMap<Reference, String>) -> String {
    let lists = tags.keys().filter(|tag| tag.tag.as_ref().is_some_and(Tag::is_referrers_list)).count();
    let of_referrers = format!("{lists} list{} of referrers", if lists == 1 { "" } else { "s" });
    match tags.len() - lists {
        0 => of_referrers,
        signatures if lists == 0 => count(signatures, "signature tag"),
        signatures => format!("{} and {of_referrers}", count(signatures, "signature tag")),
    }
}
