//! `gapferry guide`: the guide of docs/guide, for a side that has no internet.
//!
//! Its pages are written in the little of Markdown that reads as plain text: headings, paragraphs, lists, tables and fenced
//! code, no line longer than 80 columns.

use std::io::{IsTerminal, Seek, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use clap::builder::PossibleValuesParser;

use super::context::Context;
use super::exit::CommandOutcome;
use crate::base::error::Result;

/// The pages by name, in the order in which a reader needs them.
const PAGES: [(&str, &str); 8] = [
    ("first-export", include_str!("../../docs/guide/first-export.md")),
    ("discs", include_str!("../../docs/guide/discs.md")),
    ("increments", include_str!("../../docs/guide/increments.md")),
    ("damaged-media", include_str!("../../docs/guide/damaged-media.md")),
    ("moving-a-registry", include_str!("../../docs/guide/moving-a-registry.md")),
    ("credentials-and-tls", include_str!("../../docs/guide/credentials-and-tls.md")),
    ("signatures", include_str!("../../docs/guide/signatures.md")),
    ("automation", include_str!("../../docs/guide/automation.md")),
];

const ABOUT: &str = "\
Shows a page of the guide. Without TOPIC, it lists the pages.

On a terminal the page is shown by the program in PAGER, or by less. Set PAGER=cat to print it.";

const AFTER: &str = "\
Examples:
  gapferry guide
  gapferry guide first-export
  gapferry guide moving-a-registry | lpr";

/// Show the guide: whole tasks, step by step
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Page to show
    #[arg(value_parser = PossibleValuesParser::new(PAGES.map(|(name, _)| name)))]
    topic: Option<String>,
}

pub fn run(args: &Args, context: &Context) -> Result<CommandOutcome> {
    let page = args.topic.as_ref().and_then(|topic| PAGES.iter().find(|(name, _)| name == topic));
    match page {
        Some((_, text)) => show(&as_text(text), context)?,
        None => context.print(&contents())?,
    }
    Ok(CommandOutcome::Done)
}

fn contents() -> String {
    let title = |text: &str| text.lines().next().unwrap_or_default().trim_start_matches("# ").to_owned();
    let line = |(name, text): &(&str, &str)| format!("  {name:<20} {}\n", title(text));
    format!("Pages of the guide:\n{}\nShow one: gapferry guide TOPIC\n", PAGES.iter().map(line).collect::<String>())
}

/// Through a pager on a terminal, otherwise to standard output.
fn show(text: &str, context: &Context) -> Result<()> {
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        become_pager(text);
    }
    context.print(text)
}

/// Replaces this process by the pager, which then has the keyboard and Ctrl-C to itself. Returns if that is not possible.
fn become_pager(text: &str) {
    let pager = std::env::var("PAGER").ok();
    let mut command = match pager.as_deref() {
        Some("" | "cat") => return,
        Some(pager) => {
            let mut shell = Command::new("sh");
            // A pager that cannot be started must not cost the reader the page.
            shell.arg("-c").arg(format!("{pager} || cat"));
            shell
        }
        None => Command::new("less"),
    };
    if std::env::var_os("LESS").is_none() {
        // Ends at once if all of it fits, and leaves it on the screen.
        command.env("LESS", "FX");
    }
    let file = || -> std::io::Result<std::fs::File> {
        let mut file = tempfile::tempfile()?;
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Ok(file)
    };
    if let Ok(file) = file() {
        // It returns only where the program cannot be started: then the text is printed.
        let _ = command.stdin(Stdio::from(file)).exec();
    }
}

/// A page as plain text: headings are underlined, code is indented, and the marks of Markdown go away.
fn as_text(page: &str) -> String {
    let mut text = String::new();
    let mut is_code = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
            continue;
        }
        let (shown, rule) = match line.split_once(' ') {
            _ if is_code => (format!("    {line}"), None),
            Some(("#", heading)) => (heading.to_owned(), Some("=")),
            Some(("##", heading)) => (heading.to_owned(), Some("-")),
            _ => (line.replace("**", ""), None),
        };
        text.push_str(shown.trim_end());
        text.push('\n');
        if let Some(rule) = rule {
            text.push_str(&rule.repeat(shown.chars().count()));
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An operator reads the guide on an 80-column console without a browser.
    #[test]
    fn every_page_fits_a_terminal() {
        for (name, page) in PAGES {
            assert!(page.starts_with("# "), "{name} has no title");
            for line in as_text(page).lines() {
                assert!(line.chars().count() <= 80, "{name}: {line}");
                assert!(!line.contains("]("), "{name} has a link, which plain text cannot show: {line}");
            }
        }
    }

    /// A page that exists in the repository and not in the program is missing on the isolated side.
    #[test]
    fn every_page_of_the_repository_is_compiled_in() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/guide");
        let files =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = files.filter(|name| name != "README.md").collect();
        files.sort();
        let mut pages: Vec<String> = PAGES.iter().map(|(name, _)| format!("{name}.md")).collect();
        pages.sort();
        assert_eq!(files, pages);
    }

    #[test]
    fn headings_are_underlined_and_code_is_indented() {
        let page = "# Title\n\nSome **bold** text.\n\n```\ngapferry list x.tar   # it\n```\n\n## Next\n";
        let text = "Title\n=====\n\nSome bold text.\n\n    gapferry list x.tar   # it\n\nNext\n----\n";
        assert_eq!(as_text(page), text);
    }
}
