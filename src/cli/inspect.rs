//! `gapferry inspect`: shows one image in a registry or a bundle.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::allowlist::missing_lines;
use super::context::Context;
use super::exit::CommandOutcome;
use super::registry::RegistryArgs;
use super::table;
use crate::app::{
    self, InspectReport, InspectRequest, InspectedChild, InspectedContent, InspectedImage, RawPart, ShownCompanion,
};
use crate::base::error::{Error, Result};
use crate::base::progress::plain_piece;
use crate::base::progress::units::bytes;
use crate::bundle::Form;
use crate::oci::{Platform, Reference, Role};

/// The fields of a config that are shown, as JSON pointers.
const CONFIG_LINES: [(&str, &str); 5] = [
    ("created", "/created"),
    ("user", "/config/User"),
    ("entrypoint", "/config/Entrypoint"),
    ("command", "/config/Cmd"),
    ("directory", "/config/WorkingDir"),
];

const ABOUT: &str = "\
Shows one image in a registry or a bundle: digest, media type, platforms, layers, config and companions (signatures, \
attestations, SBOMs). For an index it shows the manifests, and attestations with their platform; --platform selects \
one manifest.";

const AFTER: &str = "\
Examples:
  gapferry inspect nginx:1.27
  gapferry inspect images.tar#docker.io/library/nginx:1.27
  gapferry inspect nginx:1.27 --raw | sha256sum
  gapferry inspect nginx:1.27 --platform linux/arm64 --config | jq .config.Env
  gapferry inspect images.001.tar images.002.tar#docker.io/library/nginx:1.27";

/// Show an image in a registry or a bundle
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// Reference, bundle, or BUNDLE#REF for one image of a bundle
    ///
    /// A name that ends in .tar or .tar.zst, or starts with `/` or `.`, is always a bundle. Several arguments are volumes of
    /// one bundle.
    #[arg(value_name = "REF|BUNDLE[#REF]", required = true)]
    image: Vec<String>,
    /// Print the exact bytes of the manifest
    #[arg(long, conflicts_with_all = ["config", "json"])]
    raw: bool,
    /// Print the exact bytes of the config
    #[arg(long, conflicts_with = "json")]
    config: bool,
    /// Print the image as JSON
    #[arg(long)]
    json: bool,
    /// Show the manifest for this platform
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<CommandOutcome> {
    let (raw, config, json) = (args.raw, args.config, args.json);
    let request = args.request()?;
    if raw || config {
        let part = if raw { RawPart::Manifest } else { RawPart::Config };
        context.print_bytes(&app::inspect_bytes(&request, part, &context.environment).await?)?;
        return Ok(CommandOutcome::Done);
    }
    let report = app::inspect(&request, &context.environment).await?;
    match json {
        true => context.print_json(&report)?,
        false => context.print(&as_text(&report))?,
    }
    Ok(CommandOutcome::Done)
}

impl Args {
    fn request(self) -> Result<InspectRequest> {
        let mut paths: Vec<PathBuf> = Vec::new();
        let mut name = None;
        for text in &self.image {
            // A file name may contain `#`; a reference may not.
            let (path, own) = match text.rsplit_once('#').filter(|_| !Path::new(text).exists()) {
                Some((path, own)) => (path, Some(own)),
                None => (text.as_str(), None),
            };
            paths.push(path.into());
            if let (Some(one), Some(other)) = (name, own) {
                let text = format!("two images are named, {one} and {other}; inspect one at a time");
                return Err(Error::input(text));
            }
            name = own.or(name);
        }
        let is_bundle = name.is_some() || paths.len() > 1 || paths.iter().any(|path| path.exists() || is_path(path));
        let image = match is_bundle {
            true => InspectedImage::InBundle { paths, name: name.map(str::to_owned) },
            false => InspectedImage::AtRegistry(reference(self.image.first().map_or("", String::as_str))?),
        };
        Ok(InspectRequest { image, platform: self.platform, registry: self.registry.options()? })
    }
}

/// Whether the text can only be meant as a path, even if there is no such file.
fn is_path(text: &Path) -> bool {
    Form::named(text) != Form::Directory || text.starts_with("/") || text.starts_with(".") || text.starts_with("..")
}

fn reference(text: &str) -> Result<Reference> {
    text.parse::<Reference>().map_err(|e| Error::input("reading what to inspect").because(e))
}

fn as_text(report: &InspectReport) -> String {
    let mut text = format!("{}\n", report.reference);
    let mut line = |name: &str, value: &str| text.push_str(&format!("  {name:<10} {}\n", plain_piece(value)));
    line("digest", &report.digest.to_string());
    line("type", &report.media_type);
    line("size", &bytes(report.size));
    if !report.platforms.is_empty() {
        let platforms: Vec<String> = report.platforms.iter().map(Platform::to_string).collect();
        line("platforms", &platforms.join(", "));
    }
    if let InspectedContent::Image { image_config, .. } = &report.content {
        for (name, pointer) in CONFIG_LINES {
            config_line(image_config.as_ref(), pointer).into_iter().for_each(|value| line(name, &value));
        }
    }
    report.artifact_type.iter().for_each(|artifact| line("artifact", artifact));
    report.subject.iter().for_each(|subject| line("subject", &subject.digest.to_string()));
    let rows: Vec<Vec<String>> = report.children.iter().map(row).collect();
    let missing = missing_lines(report.missing.as_deref().unwrap_or_default());
    let blank = (!missing.is_empty()).then(String::new);
    let missing: String = blank.into_iter().chain(missing).map(|line| line + "\n").collect();
    let content = table::render(&["CONTENT", "SIZE", "DIGEST"], &rows);
    format!("{text}\n{content}{}{missing}", companions(report))
}

fn row(child: &InspectedChild) -> Vec<String> {
    let what = match (child.role, &child.attestation_of, child.descriptor.platform()) {
        (_, Some(of), _) => format!("attestation of {of}"),
        (_, _, Some(platform)) => platform.to_string(),
        (Role::Config, ..) => "config".to_owned(),
        (Role::ForeignLayer, ..) => "foreign layer".to_owned(),
        (Role::Layer, ..) => "layer".to_owned(),
        (Role::Manifest, ..) => "manifest".to_owned(),
    };
    vec![what, bytes(child.descriptor.size), child.descriptor.digest.to_string()]
}

/// The companions, below the content of the image; empty if there are none.
fn companions(report: &InspectReport) -> String {
    let more = match report.attached_unknown {
        true => "\nwhat else is attached is unknown: its registry did not say\n",
        false => "",
    };
    if report.companions.is_empty() {
        return more.to_owned();
    }
    let row = |own: &ShownCompanion| {
        let found_by = own.attached.tag.as_ref().map_or_else(|| "referrer".to_owned(), ToString::to_string);
        let (size, digest) = (bytes(own.attached.size), own.attached.digest.to_string());
        vec![own.kind.to_string(), own.about.clone(), size, digest, found_by]
    };
    let rows: Vec<Vec<String>> = report.companions.iter().map(row).collect();
    format!("\n{}{more}", table::render(&["COMPANION", "OF", "SIZE", "DIGEST", "FOUND BY"], &rows))
}

/// Renders a field of the config on one line, or nothing if it is empty. Control characters stay escaped, as in JSON.
fn config_line(config: Option<&Value>, pointer: &str) -> Option<String> {
    match config?.pointer(pointer)? {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.escape_debug().to_string()),
        Value::Array(list) if list.is_empty() => None,
        Value::Null => None,
        other => Some(other.to_string()),
    }
}
