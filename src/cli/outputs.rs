//! Checks that no output replaces an input or another output. The check covers every command and uses only the options, before
//! any file is opened: [`USES`] says what a command does with each file that an option names.
//!
//! Two names mean the same file if they are equal after resolving all links. Directories and files that are changed in place
//! are also the same if they have the same inode. `-`, devices and pipes are ignored, because nothing in them is replaced.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::base::error::{Error, Result};
use crate::bundle::volumes::SetName;

/// What a command does with a file or directory that an option names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Reads it.
    Read,
    /// Reads it as a whole: a file written inside would damage it (a bundle or a storage).
    ReadWhole,
    /// Writes or changes it.
    Write,
    /// Writes a bundle or a storage: no other output may be inside it.
    WriteWhole,
    /// Derives the names of volumes from it.
    WriteVolumes,
    /// Writes files with names of their own into it.
    WriteBelow,
}

impl Use {
    fn writes(self) -> bool {
        matches!(self, Use::Write | Use::WriteWhole | Use::WriteVolumes)
    }

    fn is_whole(self) -> bool {
        matches!(self, Use::ReadWhole | Use::WriteWhole)
    }
}

/// Commands (empty: all others), option, and use. The first match applies.
const USES: &[(&[&str], &str, Use)] = &[
    (&["login", "logout"], "authfile", Use::Write),
    (&["prove"], "receipt", Use::Read),
    (&["split"], "output", Use::WriteVolumes),
    (&["lock", "inventory"], "output", Use::Write),
    (&["repair"], "output", Use::WriteBelow),
    (&["repair"], "files", Use::ReadWhole),
    (&["import"], "repair", Use::ReadWhole),
    (&["sign"], "bundle", Use::WriteWhole),
    (&["man"], "output", Use::WriteBelow),
    (&[], "allow", Use::Read),
    (&[], "arrived", Use::Read),
    (&[], "arrived_key", Use::Read),
    (&[], "authfile", Use::Read),
    (&[], "bundle", Use::ReadWhole),
    (&[], "ca_file", Use::Read),
    (&[], "cert_dir", Use::Read),
    (&[], "digestfile", Use::Write),
    (&[], "files", Use::Read),
    (&[], "key", Use::Read),
    (&[], "keys", Use::Read),
    (&[], "lock", Use::Write),
    (&[], "locked", Use::Read),
    (&[], "map", Use::Read),
    (&[], "missing", Use::Write),
    (&[], "newer_than", Use::Read),
    (&[], "output", Use::WriteWhole),
    (&[], "receipt", Use::Write),
    (&[], "registries_conf", Use::Read),
    (&[], "repair", Use::Read),
    (&[], "sign_key", Use::Read),
    (&[], "sign_passphrase_file", Use::Read),
    (&[], "since", Use::ReadWhole),
    (&[], "since_key", Use::Read),
    (&[], "state", Use::Write),
    (&[], "storage", Use::ReadWhole),
    (&[], "tags_from", Use::Read),
    (&[], "to_bundle", Use::WriteWhole),
    (&[], "to_dir", Use::WriteWhole),
    (&[], "to_storage", Use::WriteWhole),
    (&[], "tool_file", Use::Read),
    (&[], "volumes", Use::ReadWhole),
];

/// Outputs that continue the input of the same name: gapferry reads it completely first and then writes an updated version.
const CONTINUED: [(&str, &str); 3] = [("arrived", "receipt"), ("locked", "lock"), ("newer_than", "receipt")];

/// Outputs that are changed in place: the state of a proof, and the bundle to sign.
const CHANGED: [&str; 2] = ["state", "bundle"];

/// A file that a command writes next to a file that an option names.
struct DerivedOutput {
    /// As in [`USES`].
    commands: &'static [&'static str],
    option: &'static str,
    /// Written only if this option is given.
    with: Option<&'static str>,
    without: Option<&'static str>,
    /// How messages call it.
    what: &'static str,
    /// Appended to the name, either the given one or the target of a link.
    suffixes: &'static [&'static str],
    of: fn(&Path) -> PathBuf,
}

/// Files of an unfinished bundle.
const UNFINISHED: &[&str] =
    &[".partial", ".partial.journal", ".partial.lock", ".partial.old", ".partial.old.journal", ".walk"];

const DERIVED_OUTPUTS: &[DerivedOutput] = &[
    DerivedOutput::new("receipt", "the signature of", &[".sig"], Path::to_path_buf).with("sign_key"),
    DerivedOutput::new("output", "the signature of", &[".sig"], Path::to_path_buf)
        .with("sign_key")
        .only(&["inventory"]),
    DerivedOutput::new("receipt", "the proof beside", &[".proving"], Path::to_path_buf)
        .without("state")
        .only(&["prove"]),
    DerivedOutput::new("receipt", "the proof beside", &[".proving"], Path::to_path_buf).with("prove"),
    DerivedOutput::new("output", "what is kept beside", &[".walk"], resolved).only(&["lock"]),
    DerivedOutput::new("output", "what is kept beside", UNFINISHED, resolved).only(&["export", "convert", "join"]),
    DerivedOutput::new("to_bundle", "what is kept beside", UNFINISHED, resolved),
];

impl DerivedOutput {
    const fn new(
        option: &'static str,
        what: &'static str,
        suffixes: &'static [&'static str],
        of: fn(&Path) -> PathBuf,
    ) -> DerivedOutput {
        DerivedOutput { commands: &[], option, with: None, without: None, what, suffixes, of }
    }

    const fn with(self, option: &'static str) -> DerivedOutput {
        DerivedOutput { with: Some(option), ..self }
    }

    const fn without(self, option: &'static str) -> DerivedOutput {
        DerivedOutput { without: Some(option), ..self }
    }

    const fn only(self, commands: &'static [&'static str]) -> DerivedOutput {
        DerivedOutput { commands, ..self }
    }

    fn is_written(&self, command: &str, id: &str, matches: &ArgMatches) -> bool {
        let is_here = self.option == id && (self.commands.is_empty() || self.commands.contains(&command));
        is_here
            && self.with.is_none_or(|option| is_given(matches, option))
            && !self.without.is_some_and(|option| is_given(matches, option))
    }
}

/// A file that the command line names.
struct Named {
    id: String,
    /// The option, as the user typed it.
    option: String,
    path: PathBuf,
    what: Use,
}

/// Checks all files of a command line.
///
/// # Errors
/// An output is an input or another output, or is inside one that may not contain other files. The error names both options.
pub fn check_distinct(command: &Command, matches: &ArgMatches) -> Result<()> {
    let all = named(command, matches);
    for (at, output) in all.iter().enumerate().filter(|(_, named)| named.what.writes()) {
        for (_, other) in
            all.iter().enumerate().filter(|(place, other)| *place < at || !other.what.writes() && *place != at)
        {
            check_pair(output, other)?;
        }
    }
    Ok(())
}

fn check_pair(output: &Named, other: &Named) -> Result<()> {
    if CONTINUED.contains(&(&*other.id, &*output.id)) {
        return Ok(());
    }
    // Writing images into a storage has checks of its own.
    let is_checked = other.id == "storage" && output.what == Use::WriteWhole;
    if is_checked && output.id == "to_dir" {
        return Ok(());
    }
    let (one, two) =
        (format!("{} {}", output.option, output.path.display()), format!("{} {}", other.option, other.path.display()));
    if is_same(output, other) {
        let text = match other.what.writes() {
            true => format!("{one} and {two} are the same file: each output needs its own"),
            false => format!("{one} would replace {two}, which is read: name another file"),
        };
        return Err(Error::input(text));
    }
    for (inner, outer, text) in
        [(output, other, format!("{one} lies inside {two}")), (other, output, format!("{two} lies inside {one}"))]
    {
        if inner.what.writes() && outer.what.is_whole() && !is_checked && is_inside(&inner.path, &whole(outer)) {
            return Err(Error::input(format!("{text}, which may hold nothing else: name another place")));
        }
    }
    Ok(())
}

fn is_same(output: &Named, other: &Named) -> bool {
    let is_volume = |output: &Named, file: &Path| {
        let part = SetName::of_part(&resolved(file)).map(|(set, _)| set);
        output.what == Use::WriteVolumes && part == Some(SetName::of(&resolved(&output.path)))
    };
    match (output.what == Use::WriteVolumes, other.what == Use::WriteVolumes) {
        (false, false) => are_same(output, other),
        _ => is_volume(output, &other.path) || is_volume(other, &output.path),
    }
}

/// A file that is replaced loses only one name; other hard links keep the old content. A directory, or a file that is changed
/// in place, is the same under all its names.
fn are_same(output: &Named, other: &Named) -> bool {
    let (one, two) = (&output.path, &other.path);
    let is_changed = CHANGED.contains(&&*output.id);
    match (one.metadata(), two.metadata()) {
        (Ok(one), Ok(two)) if is_changed || one.is_dir() => (one.dev(), one.ino()) == (two.dev(), two.ino()),
        _ => resolved(one) == resolved(two),
    }
}

/// The part that may not contain other files. A storage may have other files next to its content directory.
fn whole(outer: &Named) -> PathBuf {
    let content = outer.path.join("docker");
    if outer.id == "storage" && content.is_dir() { content } else { outer.path.clone() }
}

fn is_inside(inner: &Path, outer: &Path) -> bool {
    let (inner, outer) = (resolved(inner), resolved(outer));
    inner != outer && inner.starts_with(&outer)
}

/// The path with all links resolved, as far as it exists.
pub fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut at = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(at.pop()),
            part => at.push(part),
        }
        at = at.canonicalize().unwrap_or(at);
    }
    at
}

/// Every file that the command line names, and the files derived from them.
fn named(command: &Command, matches: &ArgMatches) -> Vec<Named> {
    let Some((name, matches)) = matches.subcommand() else { return Vec::new() };
    let Some(command) = command.find_subcommand(name) else { return Vec::new() };
    if matches.subcommand().is_some() {
        return named(command, matches);
    }
    let mut all = Vec::new();
    for arg in command.get_arguments().filter(|arg| names_a_file(arg)) {
        let Some(what) = use_of(name, arg.get_id().as_str()) else { continue };
        let what = match what {
            Use::WriteWhole if has(matches, "volume_size") => Use::WriteVolumes,
            what => what,
        };
        for path in values(matches, arg).filter(|path| is_replaced(path)) {
            let (id, option) = (arg.get_id().to_string(), shown(arg));
            for derived in DERIVED_OUTPUTS.iter().filter(|derived| derived.is_written(name, &id, matches)) {
                let option = format!("{} {option}", derived.what);
                all.extend(derived.suffixes.iter().map(|suffix| {
                    let mut path = (derived.of)(&path).into_os_string();
                    path.push(suffix);
                    Named { id: format!("{id}{suffix}"), option: option.clone(), path: path.into(), what: Use::Write }
                }));
            }
            all.push(Named { id, option, path, what });
        }
    }
    all
}

fn use_of(command: &str, id: &str) -> Option<Use> {
    let fits = |(commands, known, _): &&(&[&str], &str, Use)| {
        *known == id && (commands.is_empty() || commands.contains(&command))
    };
    USES.iter().find(fits).map(|(.., what)| *what)
}

fn names_a_file(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == value_parser!(PathBuf).type_id()
}

fn has(matches: &ArgMatches, id: &str) -> bool {
    matches.try_get_raw(id).is_ok_and(|values| values.is_some())
}

/// Whether the option was given on the command line; a flag always has a value.
fn is_given(matches: &ArgMatches, id: &str) -> bool {
    has(matches, id) && matches.value_source(id) != Some(ValueSource::DefaultValue)
}

fn values<'m>(matches: &'m ArgMatches, arg: &Arg) -> impl Iterator<Item = PathBuf> + use<'m> {
    let values = matches.try_get_raw(arg.get_id().as_str()).ok().flatten();
    values.into_iter().flatten().map(|value: &OsStr| PathBuf::from(value))
}

/// Whether writing the path would replace something.
fn is_replaced(path: &Path) -> bool {
    let is_stream = ["/dev", "/proc"].iter().any(|streams| path.starts_with(streams)) || path == Path::new("-");
    !is_stream && path.metadata().map_or(true, |metadata| metadata.is_file() || metadata.is_dir())
}

fn shown(arg: &Arg) -> String {
    let name = || arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => name().unwrap_or_else(|| arg.get_id().as_str().to_ascii_uppercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn walk(command: &Command, see: &mut impl FnMut(&str, &Arg)) {
        command.get_arguments().for_each(|arg| see(command.get_name(), arg));
        command.get_subcommands().for_each(|own| walk(own, see));
    }

    /// An option without a row in USES could overwrite a file without a check.
    #[test]
    fn the_use_of_every_file_is_known() {
        let mut seen = 0;
        walk(&super::super::command(), &mut |command, arg| {
            if names_a_file(arg) {
                let id = arg.get_id().as_str();
                assert!(use_of(command, id).is_some(), "what {command} does with {id} is not in USES");
                seen += 1;
            }
        });
        assert!(seen > 60, "{seen}");
        for (commands, id, _) in USES {
            let mut found = false;
            walk(&super::super::command(), &mut |command, arg| {
                found |= arg.get_id() == id && (commands.is_empty() || commands.contains(&command));
            });
            assert!(found, "no command has {id} any more");
        }
    }

    /// The error for a command line. `@` stands for a directory that contains every name used except `new`.
    fn message(line: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir_all(at("dir/sub")).unwrap();
        for name in ["file", "other", "b.tar", "x.001.tar", "x.002.tar", "dir/file"] {
            std::fs::write(at(name), "").unwrap();
        }
        std::fs::hard_link(at("file"), at("hard")).unwrap();
        std::os::unix::fs::symlink("file", at("soft")).unwrap();
        std::os::unix::fs::symlink("dir", at("way")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let line = line.replace('@', &format!("{}/", directory.path().display()));
        let command = super::super::Cli::command();
        let arguments = format!("gapferry {line}");
        let matches = command.clone().try_get_matches_from(arguments.split(' '));
        let matches = matches.unwrap_or_else(|e| panic!("{line}: {e}"));
        check_distinct(&command, &matches).err().map(|error| error.chain()).unwrap_or_default()
    }

    /// Command lines that would destroy a file, and the two options that name it.
    const REFUSED: &[(&str, &str, &str)] = &[
        ("export a -o @b.tar --since @b.tar", "--output", "--since"),
        ("export a -o @x.tar --volume-size 1G --since @x.001.tar", "--output", "--since"),
        ("export -f @file -o @new --lock @file", "--lock", "--file"),
        ("export a -o @new --lock @new/lock", "--lock", "--output"),
        ("export -f @file -o @new --lock @new.partial", "--lock", "--output"),
        ("export -f @new.walk -o @new", "--file", "--output"),
        ("export a -o @soft --lock @file.walk", "--lock", "--output"),
        ("export a -o @new --lock @other --sign-key @new.partial.lock", "--sign-key", "--output"),
        ("export --locked @other --repair @file -o @file", "--output", "--repair"),
        ("export a -o @file --sign-key @file", "--output", "--sign-key"),
        ("import @b.tar --to h --receipt @b.tar", "--receipt", "BUNDLE"),
        ("import @dir --to h --receipt @dir/new", "--receipt", "BUNDLE"),
        ("import @way --to h --receipt @dir/sub/new", "--receipt", "BUNDLE"),
        ("import @x.001.tar @x.002.tar --to h --receipt @x.002.tar", "--receipt", "BUNDLE"),
        ("import @b.tar --to h --receipt @new --digestfile @new", "--digestfile", "--receipt"),
        ("import @b.tar --to h --receipt @new --digestfile @dir/../new", "--digestfile", "--receipt"),
        ("import @b.tar --to h --receipt @way/new --digestfile @dir/new", "--digestfile", "--receipt"),
        ("import @b.tar --to h --receipt @new --sign-key @file --digestfile @new.sig", "--digestfile", "--receipt"),
        ("import @b.tar --to h --prove --receipt @new --digestfile @new.proving", "--digestfile", "--receipt"),
        ("inventory h -f @file --sign-key @new.sig -o @new", "--sign-key", "--output"),
        ("prove @file --ca-file @file.proving", "--ca-file", "RECEIPT"),
        ("prove @other --state @file --registries-conf @hard", "--state", "--registries-conf"),
        ("import @b.tar --to h --missing @file --repair @soft", "--missing", "--repair"),
        ("import @b.tar --to h --state @file --map @dir/../file", "--state", "--map"),
        ("inventory h -f @file -o @file", "--output", "--file"),
        ("convert @b.tar -o @b.tar", "--output", "BUNDLE"),
        ("join @x.001.tar @x.002.tar -o @x.001.tar", "--output", "VOLUME"),
        ("lock -f @file -o @soft", "--output", "--file"),
        ("lock -f @new.walk -o @new", "--file", "--output"),
        ("lock a --ca-file @file -o @file", "--output", "--ca-file"),
        ("login h --authfile @file --ca-file @file", "--authfile", "--ca-file"),
        ("migrate @dir --to h --receipt @dir/new", "--receipt", "STORAGE"),
        ("migrate @dir --to h --tags-from @file --digestfile @file", "--digestfile", "--tags-from"),
        ("migrate @b.tar --to-bundle @b.tar", "--to-bundle", "STORAGE"),
        ("migrate @dir --to-dir @file --tags-from @file", "--to-dir", "--tags-from"),
        ("migrate @dir --to-storage @way", "--to-storage", "STORAGE"),
        ("prove @file --state @file", "--state", "RECEIPT"),
        ("sign @b.tar --key @b.tar", "BUNDLE", "--key"),
        ("split @x.001.tar -o @x.tar --volume-size 1G", "--output", "BUNDLE"),
        ("verify @b.tar --missing @b.tar", "--missing", "BUNDLE"),
    ];

    #[test]
    fn no_command_writes_over_what_it_reads() {
        for (line, output, other) in REFUSED {
            let message = message(line);
            assert!(message.contains(output) && message.contains(other), "{line}: {message:?}");
        }
    }

    /// A new command or output needs a row in [`REFUSED`].
    #[test]
    fn every_output_is_tried() {
        walk(&super::super::command(), &mut |command, arg| {
            let id = arg.get_id().as_str();
            let is_output = names_a_file(arg) && use_of(command, id).is_some_and(Use::writes);
            // logout has no other file.
            if is_output && command != "logout" {
                let is_tried = |(line, output, other): &&(&str, &str, &str)| {
                    line.starts_with(&format!("{command} ")) && [*output, *other].contains(&&*shown(arg))
                };
                assert!(REFUSED.iter().any(|row| is_tried(&row)), "{command} {}", shown(arg));
            }
        });
    }

    #[test]
    fn what_costs_nothing_is_not_refused() {
        for line in [
            "import @b.tar --to h --newer-than @file --receipt @file",
            "import @b.tar --to h --prune --arrived @file --receipt @file",
            "export --locked @file -o @new --lock @file",
            "export a -o @b.tar --volume-size 1G --since @b.tar",
            "export -f @dir/file -o @dir/new --lock @dir/lock",
            "split @b.tar -o @b.tar --volume-size 1G",
            "repair @x.001.tar @x.002.tar -o @.",
            "repair @b.tar @other",
            "import @b.tar --to h --receipt /dev/stdout --digestfile /dev/stdout",
            "import @b.tar --to h --receipt @pipe --digestfile @pipe",
            "import - --to h --receipt - --allow -",
            "import @b.tar --to h --ca-file @file --map @file",
            "prove @file",
            "prove @file --state @new --ca-file @file.proving",
            "import @b.tar --to h --receipt @new --digestfile @new.proving",
        ] {
            assert_eq!(message(line), "", "{line}");
        }
    }
}
