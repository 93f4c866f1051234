//! `gapferry inspect`: one image, at a registry or in a bundle.

mod companions;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Value, json};

use super::allowlist::missing_lines;
use super::context::Context;
use super::exit::Outcome;
use super::registry::RegistryArgs;
use super::table;
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::plain_piece;
use crate::base::progress::units::bytes;
use crate::bundle::Bundle;
use crate::content::{Cached, Source};
use crate::oci::{Child, Kind as ManifestKind, Manifest, Platform, Reference, Repository, Role, media_type};
use crate::pipeline::lock::{Lock, LockedImage, MissingImage, MissingReason};
use crate::pipeline::select::{self, lacks, offered_platform};

/// The largest config that is shown, in bytes.
const MAX_CONFIG: u64 = 4 * 1024 * 1024;

/// What of a config is shown, as JSON pointers.
const CONFIG_LINES: [(&str, &str); 5] = [
    ("created", "/created"),
    ("user", "/config/User"),
    ("entrypoint", "/config/Entrypoint"),
    ("command", "/config/Cmd"),
    ("directory", "/config/WorkingDir"),
];

const ABOUT: &str = "\
Shows one image, at a registry or in a bundle: digest, media type, platforms, layers, config, and what accompanies it: \
signatures, attestations, SBOMs, by tag or as referrers. Of an index its manifests are shown, attestations with the platform that \
they are about; --platform goes down to one of them.";

const AFTER: &str = "\
Examples:
  gapferry inspect nginx:1.27
  gapferry inspect images.tar#docker.io/library/nginx:1.27
  gapferry inspect images.001.tar images.002.tar#docker.io/library/nginx:1.27
  gapferry inspect nginx:1.27 --raw | sha256sum
  gapferry inspect nginx:1.27 --platform linux/arm64 --config | jq .config.Env";

/// Show an image at a registry or in a bundle
#[derive(clap::Args)]
#[command(long_about = ABOUT, after_long_help = AFTER)]
pub struct Args {
    /// A reference, a bundle, or BUNDLE#REF for one image of a bundle; several are volumes of one bundle
    #[arg(value_name = "REF|BUNDLE[#REF]", required = true)]
    image: Vec<String>,
    /// Print the manifest's exact bytes
    #[arg(long, conflicts_with_all = ["config", "json"])]
    raw: bool,
    /// Print the config's exact bytes
    #[arg(long, conflicts_with = "json")]
    config: bool,
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Of an index, look at the manifest of this platform
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    registry: RegistryArgs,
}

pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let mut name = None;
    for text in &args.image {
        let (path, own) = text.split_once('#').map_or((text.as_str(), None), |(path, name)| (path, Some(name)));
        paths.push(path.into());
        name = own.or(name);
    }
    if name.is_some() || paths.len() > 1 || paths.iter().any(|path| path.exists()) {
        let bundle = Bundle::open_any(&paths)?;
        let image = in_bundle(&bundle, name)?;
        let reference = image.reference.repository.with_digest(image.digest);
        let shown = show(&args, bundle.layout(), &reference, Some((bundle.lock(), image)), context).await;
        return shown.map_err(|error| match bundle.json().is_increment() {
            true => error.while_doing("this bundle is an increment: part of the image is expected at the target"),
            false => error,
        });
    }
    let reference = at_registry(args.image.first().map_or("", String::as_str))?;
    let names = [reference.repository.registry().to_owned()];
    let registries = args.registry.connect(names, &BTreeMap::new(), context)?;
    show(&args, &registries, &reference, None, context).await
}

/// A reference; without tag and digest, `latest`, as everywhere.
fn at_registry(text: &str) -> Result<Reference> {
    let parse = |text: &str| text.parse::<Reference>().map_err(|e| Error::input("reading what to inspect").because(e));
    let reference = parse(text)?;
    if reference.target().is_some() { Ok(reference) } else { parse(&format!("{text}:latest")) }
}

/// The image of a bundle that is meant: by its full name, its short name, or because it is the only one.
fn in_bundle<'b>(bundle: &'b Bundle, name: Option<&str>) -> Result<&'b LockedImage> {
    let images = &bundle.lock().images;
    let names = || images.iter().map(|image| format!("  {}", image.name()));
    let Some(name) = name else {
        return match images.as_slice() {
            [only] => Ok(only),
            several => {
                let text = format!("the bundle has {} images; name one of them as BUNDLE#REF:", several.len());
                Err(Error::input(text).listing(names()))
            }
        };
    };
    let full = name.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_default();
    let found = images.iter().find(|image| {
        let own = image.name();
        own == name || own == full || image.reference.to_string() == full
    });
    let wanted = name.parse::<Reference>().ok();
    let is_wanted = |missing: &&MissingImage| wanted.as_ref().is_some_and(|wanted| missing.covers(wanted));
    let covering = bundle.lock().missing.iter().filter(is_wanted);
    // What is said of the image itself counts more than what is said of its repository.
    let why = match covering.min_by_key(|missing| missing.reason == MissingReason::TagsIncomplete) {
        Some(MissingImage { reference, reason: MissingReason::TagsIncomplete, .. }) => {
            format!("; the list of tags of {reference} may have been short when the bundle was made")
        }
        Some(missing) => format!(", which was asked for and could not be had: {}", missing.reason),
        None => String::new(),
    };
    found.ok_or_else(|| Error::input(format!("the bundle has no {name}{why}; it has:")).listing(names()))
}

/// Of a bundle, `locked` is the image and the lock it is in; a registry is asked.
async fn show(
    args: &Args,
    source: &dyn Source,
    reference: &Reference,
    locked: Option<(&Lock, &LockedImage)>,
    context: &Context,
) -> Result<Outcome> {
    let source = Cached::new(source, None);
    let root = need(&source, reference).await?;
    let manifest = match &args.platform {
        Some(platform) => child_of(&source, reference, &root, platform).await?,
        None => root.clone(),
    };
    if args.raw {
        context.print_bytes(&manifest.bytes()?)?;
    } else if args.config {
        context.print_bytes(&config_of(&source, &reference.repository, &manifest).await?)?;
    } else if args.json {
        let config = read_config(&source, &reference.repository, &manifest).await?;
        let companions = companions::of(&source, reference, (&root, &manifest), locked, context).await;
        let mut value = as_json(reference, &manifest, config.as_ref());
        value["companions"] = companions.found.iter().map(|own| own.as_json()).collect();
        value["attachedUnknown"] = companions.unknown.into();
        if let Some((lock, _)) = locked {
            value["missing"] = json!(lock.missing);
        }
        context.print_json(&value)?;
    } else {
        let config = read_config(&source, &reference.repository, &manifest).await?;
        let companions = companions::of(&source, reference, (&root, &manifest), locked, context).await;
        let text = as_text(reference, &manifest, config.as_ref()) + &companions::table(&companions);
        let missing = locked.map(|(lock, _)| missing_lines(&lock.missing)).unwrap_or_default();
        let blank = (!missing.is_empty()).then(String::new);
        let missing: String = blank.into_iter().chain(missing).map(|line| line + "\n").collect();
        context.print(&(text + &missing))?;
    }
    Ok(Outcome::Done)
}

async fn need(source: &Cached<'_>, reference: &Reference) -> Result<Manifest> {
    let missing = || Error::new(Kind::NotFound, format!("inspecting {reference}: it is not there"));
    source.manifest(reference).await?.ok_or_else(missing)
}

async fn child_of(source: &Cached<'_>, reference: &Reference, root: &Manifest, wanted: &Platform) -> Result<Manifest> {
    if !select::is_selectable(root) {
        return Ok(root.clone());
    }
    let children = root.children();
    let offered = || children.iter().filter_map(|child| Some((child, offered_platform(child)?)));
    let Some(Child { descriptor, .. }) = wanted.best(offered()).first().copied() else {
        let has = offered().map(|(_, has)| has);
        return Err(lacks(&[wanted.to_string()], has).while_doing(format!("inspecting {reference}")));
    };
    need(source, &reference.repository.with_digest(descriptor.digest)).await
}

async fn config_of(source: &Cached<'_>, repository: &Repository, manifest: &Manifest) -> Result<Bytes> {
    let none = || Error::input("it has no config; of an index, name one image with --platform");
    source.small_blob(repository, manifest.config().ok_or_else(none)?, MAX_CONFIG).await
}

/// The config of an image, as JSON; an artifact's config is its own affair.
async fn read_config(source: &Cached<'_>, repository: &Repository, manifest: &Manifest) -> Result<Option<Value>> {
    match manifest.config() {
        Some(config) if media_type::is_image_config(&config.media_type) => {
            let bytes = source.small_blob(repository, config, MAX_CONFIG).await?;
            Ok(serde_json::from_slice(&bytes).ok())
        }
        _ => Ok(None),
    }
}

/// The platforms of an index, or the one an image's config names.
fn platforms(manifest: &Manifest, config: Option<&Value>) -> Vec<String> {
    let children = manifest.children();
    let offered = children.iter().filter_map(offered_platform).map(Platform::to_string);
    let own = config.and_then(|config| serde_json::from_value::<Platform>(config.clone()).ok());
    let own = own.filter(|platform| !platform.is_unknown()).map(|platform| platform.to_string());
    offered.chain(own).collect()
}

fn as_json(reference: &Reference, manifest: &Manifest, config: Option<&Value>) -> Value {
    let child_json = |child: &Child| {
        let mut value = json!(child.descriptor);
        if let Some(of) = companions::attested(manifest, child) {
            value["attestationOf"] = of.into();
        }
        value
    };
    let children: Vec<Value> = manifest.children().iter().map(child_json).collect();
    let of = |role: fn(Role) -> bool| -> Vec<Value> {
        let children = manifest.children();
        children.iter().filter(|child| role(child.role)).map(|child| json!(child.descriptor)).collect()
    };
    let mut value = json!({
        "reference": reference.to_string(),
        "digest": manifest.digest(),
        "mediaType": manifest.media_type(),
        "size": manifest.size(),
        "platforms": platforms(manifest, config),
    });
    if manifest.kind() == ManifestKind::Index {
        value["manifests"] = Value::Array(children);
    } else {
        value["config"] = json!(manifest.config());
        value["imageConfig"] = config.cloned().unwrap_or_default();
        value["layers"] = Value::Array(of(|role| matches!(role, Role::Layer | Role::ForeignLayer)));
    }
    if let Some(subject) = manifest.subject() {
        value["subject"] = json!(subject);
    }
    if let Some(artifact_type) = manifest.artifact_type() {
        value["artifactType"] = json!(artifact_type);
    }
    value
}

fn as_text(reference: &Reference, manifest: &Manifest, config: Option<&Value>) -> String {
    let mut text = format!("{reference}\n");
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<10} {}\n", plain_piece(&value)));
    line("digest", manifest.digest().to_string());
    line("type", manifest.media_type().to_owned());
    line("size", bytes(manifest.size()));
    let platforms = platforms(manifest, config);
    if !platforms.is_empty() {
        line("platforms", platforms.join(", "));
    }
    for (name, pointer) in CONFIG_LINES {
        config_line(config, pointer).into_iter().for_each(|value| line(name, value));
    }
    manifest.artifact_type().into_iter().for_each(|artifact| line("artifact", artifact));
    manifest.subject().into_iter().for_each(|subject| line("subject", subject.digest.to_string()));
    let row = |child: &Child| {
        let what = match (child.role, child.descriptor.platform()) {
            _ if companions::attested(manifest, child).is_some() => {
                format!("attestation of {}", companions::attested(manifest, child).unwrap_or_default())
            }
            (_, Some(platform)) => platform.to_string(),
            (Role::Config, None) => "config".to_owned(),
            (Role::ForeignLayer, None) => "foreign layer".to_owned(),
            (Role::Layer, None) => "layer".to_owned(),
            (Role::Manifest, None) => "manifest".to_owned(),
        };
        vec![what, bytes(child.descriptor.size), child.descriptor.digest.to_string()]
    };
    let rows: Vec<Vec<String>> = manifest.children().iter().map(row).collect();
    text.push('\n');
    text + &table::render(&["CONTENT", "SIZE", "DIGEST"], &rows)
}

/// A field of the config on one line; empty ones are not worth it. Control characters stay escaped, as JSON has them.
fn config_line(config: Option<&Value>, pointer: &str) -> Option<String> {
    match config?.pointer(pointer)? {
        Value::String(text) if text.is_empty() => None,
        Value::String(text) => Some(text.escape_debug().to_string()),
        Value::Array(list) if list.is_empty() => None,
        Value::Null => None,
        other => Some(other.to_string()),
    }
}
