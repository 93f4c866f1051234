//! Arranges the help of all commands: the list of commands in groups, two examples below `-h`, and the options that many
//! commands share in one short table.
//!
//! Everything is derived from the commands themselves. Manual pages and completions use the commands as they are.

use clap::{Arg, ArgAction, Command};

/// The commands in the order of the list, below the headings of their groups.
const GROUPS: [(&str, &[&str]); 7] = [
    ("Carry", &["export", "verify", "import", "lock", "list"]),
    ("Registries", &["inspect", "prove", "serve", "login", "logout", "auth"]),
    ("Media", &["split", "join", "convert", "repair"]),
    ("Trust", &["sign", "fingerprint"]),
    ("Increments", &["inventory"]),
    ("Old storage", &["migrate", "check"]),
    ("Help", &["guide", "man", "completions"]),
];

/// Headings of options that many commands share.
pub const REGISTRY_OPTIONS: &str = "Registry options";
pub const GLOBAL_OPTIONS: &str = "Global options";

/// Columns of a terminal that every line of an example and of a table fits into.
const COLUMNS: usize = 80;
/// Ends a list of options that is not complete.
const MORE: &str = "(more: --help)";
/// Examples below `-h`.
const SHORT_EXAMPLES: usize = 2;

/// The command line with the help that people see.
pub fn arrange(command: Command) -> Command {
    let groups = groups(&command);
    let global = shared(&command, GLOBAL_OPTIONS);
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command =
        names.iter().fold(command, |command, name| command.mut_subcommand(name, |sub| arrange_command(sub, &global)));
    let template = format!("{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n{groups}{{after-help}}\n");
    let global: Vec<Arg> = built_in().into_iter().chain(global).collect();
    let (short, long) = (after_short(&command, &[], &global), after_long(&command, &[], &global));
    let command = command.mut_args(hide_shared).help_template(template);
    command.after_help(short).after_long_help(long)
}

fn arrange_command(command: Command, global: &[Arg]) -> Command {
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command =
        names.iter().fold(command, |command, name| command.mut_subcommand(name, |sub| arrange_command(sub, global)));
    let registry = shared(&command, REGISTRY_OPTIONS);
    let (short, long) = (after_short(&command, &registry, global), after_long(&command, &registry, global));
    command.mut_args(hide_shared).after_help(short).after_long_help(long)
}

/// The two options that clap itself adds to the program. The template has no room for its list of options.
fn built_in() -> [Arg; 2] {
    [
        Arg::new("help").short('h').long("help").action(ArgAction::Help).help("Print help (-h: one screen)"),
        Arg::new("version").short('V').long("version").action(ArgAction::Version).help("Print the version"),
    ]
}

/// Options that the tables show.
fn shared(command: &Command, heading: &str) -> Vec<Arg> {
    command.get_arguments().filter(|arg| arg.get_help_heading() == Some(heading)).cloned().collect()
}

fn hide_shared(arg: Arg) -> Arg {
    match arg.get_help_heading() {
        Some(REGISTRY_OPTIONS | GLOBAL_OPTIONS) => arg.hide_short_help(true).hide_long_help(true),
        _ => arg,
    }
}

fn groups(command: &Command) -> String {
    let about = |name: &str| {
        command.find_subcommand(name).and_then(Command::get_about).map(ToString::to_string).unwrap_or_default()
    };
    let line = |name: &&str| format!("  {name:<12} {}\n", about(name));
    let group =
        |(heading, names): &(&str, &[&str])| format!("{heading}:\n{}", names.iter().map(line).collect::<String>());
    GROUPS.iter().map(group).collect::<String>().trim_end().to_owned()
}

/// Below `-h`: the first examples, and the names of shared options.
fn after_short(command: &Command, registry: &[Arg], global: &[Arg]) -> String {
    let mut parts: Vec<String> = Vec::new();
    let manual = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
    let examples = first_examples(&manual);
    if !examples.is_empty() {
        parts.push(format!("Examples:\n{}", examples.join("\n")));
    }
    let names = |heading: &str, options: &[Arg]| {
        let usual = options.iter().filter(|arg| !arg.is_hide_short_help_set()).filter_map(Arg::get_long);
        let more = options.iter().any(Arg::is_hide_short_help_set).then_some(MORE);
        (!options.is_empty()).then(|| names_line(heading, usual.chain(more)))
    };
    let names = [names(REGISTRY_OPTIONS, registry), names(GLOBAL_OPTIONS, global)];
    parts.push(names.into_iter().flatten().collect::<Vec<_>>().join("\n"));
    parts.join("\n\n")
}

/// The first lines of the examples in a manual.
fn first_examples(manual: &str) -> Vec<&str> {
    let lines = manual.lines().skip_while(|line| *line != "Examples:").skip(1);
    lines.take_while(|line| line.starts_with("  gapferry ")).take(SHORT_EXAMPLES).collect()
}

/// `Registry options: --authfile --creds (more: --help)`
fn names_line<'a>(heading: &str, names: impl Iterator<Item = &'a str>) -> String {
    let word = |name: &str| if name == MORE { format!(" {name}") } else { format!(" --{name}") };
    wrapped(&format!("{heading}:{}", names.map(word).collect::<String>()), 2)
}

/// Lines of at most [`COLUMNS`]; all but the first are indented.
fn wrapped(text: &str, indent: usize) -> String {
    let (mut lines, mut width) = (String::new(), 0);
    // Spaces at the beginning and between columns stay as they are.
    for word in text.split_inclusive(' ') {
        if width + word.trim_end().chars().count() > COLUMNS {
            lines.truncate(lines.trim_end().len());
            lines.push_str(&format!("\n{:indent$}", ""));
            width = indent;
        }
        lines.push_str(word);
        width += word.chars().count();
    }
    lines
}

/// Below `--help`: the rest of the manual, and tables of shared options.
fn after_long(command: &Command, registry: &[Arg], global: &[Arg]) -> String {
    let manual = command.get_after_long_help().map(ToString::to_string);
    let more = "`gapferry guide credentials-and-tls` explains these options.";
    let registry = (!registry.is_empty()).then(|| format!("{}\n{more}", table(REGISTRY_OPTIONS, registry)));
    let global = Some(table(GLOBAL_OPTIONS, global).trim_end().to_owned());
    [manual, registry, global].into_iter().flatten().collect::<Vec<_>>().join("\n\n")
}

/// Options with their values and one line each.
fn table(heading: &str, options: &[Arg]) -> String {
    let named = |arg: &Arg| {
        let short = arg.get_short().map_or("    ".to_owned(), |short| format!("-{short}, "));
        let value = match arg.get_action().takes_values() {
            true => arg.get_value_names().and_then(|names| names.first()).map(|name| format!(" <{name}>")),
            false => None,
        };
        format!("  {short}--{}{}", arg.get_long().unwrap_or_default(), value.unwrap_or_default())
    };
    let width = options.iter().map(|arg| named(arg).len()).max().unwrap_or_default();
    let line = |arg: &Arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let defaults: Vec<String> = arg.get_default_values().iter().map(|value| value.display().to_string()).collect();
        let default =
            match defaults.first().filter(|_| arg.get_action().takes_values() && !arg.is_hide_default_value_set()) {
                Some(default) => format!(" [default: {default}]"),
                None => String::new(),
            };
        wrapped(&format!("{:<width$}  {help}{default}", named(arg)), width + 2) + "\n"
    };
    format!("{heading}:\n{}", options.iter().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all(command: &Command) -> Vec<Command> {
        let below = command.get_subcommands().filter(|sub| sub.get_name() != "help");
        below.flat_map(|sub| std::iter::once(sub.clone()).chain(all(sub))).collect()
    }

    /// A command without a group would be missing from `gapferry --help`.
    #[test]
    fn every_command_is_in_one_group() {
        let command = crate::cli::command();
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let distinct: BTreeSet<&str> = listed.iter().copied().collect();
        assert_eq!(listed.len(), distinct.len(), "a command is in two groups");
        let commands: BTreeSet<&str> = command.get_subcommands().map(Command::get_name).collect();
        assert_eq!(distinct, commands);
    }

    /// The short help of a command fits one screen, and shows how to call it.
    #[test]
    fn short_help_fits_one_screen() {
        let mut arranged = arrange(crate::cli::command()).term_width(COLUMNS);
        arranged.build();
        for mut command in std::iter::once(arranged.clone()).chain(all(&arranged)) {
            let (name, text) = (command.get_name().to_owned(), command.render_help().to_string());
            let lines = text.lines().count();
            assert!(lines <= 40, "{name} -h has {lines} lines:\n{text}");
            let examples = text.lines().filter(|line| line.starts_with("  gapferry ")).count();
            assert!(
                command.has_subcommands() || examples == SHORT_EXAMPLES,
                "{name} -h has {examples} examples:\n{text}"
            );
        }
    }

    /// An operator who reports a problem looks for the version here.
    #[test]
    fn the_help_of_the_program_lists_help_and_version() {
        let mut arranged = arrange(crate::cli::command());
        for text in [arranged.render_help().to_string(), arranged.render_long_help().to_string()] {
            assert!(text.contains("--help") && text.contains("--version"), "{text}");
        }
    }

    /// An example that wraps cannot be copied, and a table that wraps cannot be read.
    #[test]
    fn examples_and_tables_fit_a_terminal() {
        let mut arranged = arrange(crate::cli::command()).term_width(COLUMNS);
        arranged.build();
        for command in std::iter::once(arranged.clone()).chain(all(&arranged)) {
            let text = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            let is_fixed = |line: &&str| line.starts_with(' ');
            for line in text.lines().filter(is_fixed) {
                assert!(line.chars().count() <= COLUMNS, "{}: {line}", command.get_name());
            }
        }
    }
}
