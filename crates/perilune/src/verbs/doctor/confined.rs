//! What runs a model's own code: the sandbox's layers, Python, the reader of PDFs.

use super::Line;
use crate::verbs::data::wait;
use anyhow::Context;
use perilune_agent::sandbox::{Finding, Interpreter, Layer, Layers, examine};
use perilune_agent::tools::{Confined, Pdf};
use std::fs::read_to_string;

pub(super) fn look() -> anyhow::Result<Vec<Line>> {
    let mut lines = layers()?;
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    lines.push(match Interpreter::find(&search_path) {
        Ok(found) => Line::ok("python", "interpreter", found.executable.display().to_string()),
        Err(error) => Line::limit(
            "python",
            "interpreter",
            error.to_string(),
            "without it runs have no tool `python`; all others work",
        ),
    });
    lines.push(match Pdf::find(&search_path, Confined::default()) {
        Some(_) => Line::ok("python", "pdftotext", "found: runs read PDFs"),
        None => Line::limit(
            "python",
            "pdftotext",
            "none on PATH: runs read no PDFs",
            "install poppler's tools (Debian: poppler-utils)",
        ),
    });
    Ok(lines)
}

/// Every layer, tried around a program that does nothing.
fn layers() -> anyhow::Result<Vec<Line>> {
    let scratch = tempfile::tempdir().context("no folder can be made in TMPDIR to try the sandbox in")?;
    let findings = match wait(examine(scratch.path()))? {
        Ok(findings) => findings,
        Err(error) => {
            let why = format!("the sandbox cannot be started, so runs have no `shell` and `python`: {error}");
            return Ok(vec![Line::unknown("sandbox", "layers", why)]);
        }
    };
    let tolerated = Layers::default();
    let mut lines: Vec<Line> = findings.iter().map(|finding| line(finding, &tolerated)).collect();
    let missing: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.refused.is_some() && finding.for_want_of.is_none())
        .filter(|finding| !tolerated.tolerates(finding.layer))
        .map(|finding| finding.layer.name())
        .collect();
    lines.push(if missing.is_empty() {
        Line::ok("sandbox", "tools", "`shell` and `python` are offered to models of 16,384 tokens and more")
    } else {
        let missing = missing.join(", ");
        let found = format!("runs have no `shell` and `python`, and read no PDFs, for want of {missing}");
        Line::limit(
            "sandbox",
            "tools",
            found,
            "see the layers above; files, search and web work without them",
        )
    });
    Ok(lines)
}

fn line(finding: &Finding, tolerated: &Layers) -> Line {
    let name = finding.layer.name();
    match &finding.refused {
        None => Line::ok("sandbox", name, "stands"),
        Some(why) if tolerated.tolerates(finding.layer) => {
            let found = format!("refused ({why}); limits for each process hold without it");
            Line::limit("sandbox", name, found, "none is needed; docs/sandbox.md says what it would add")
        }
        Some(why) => match finding.for_want_of {
            Some(beneath) => {
                let found = format!("refused: it stands on {beneath}");
                Line::limit("sandbox", name, found, format!("see {beneath}"))
            }
            None => Line::limit("sandbox", name, format!("refused: {why}"), remedy(finding.layer)),
        },
    }
}

fn remedy(layer: Layer) -> String {
    match layer {
        Layer::Landlock => {
            "needs Linux 5.13 or later with `landlock` among its security modules (boot parameter lsm=)"
                .to_owned()
        }
        Layer::Seccomp => {
            "needs a kernel with seccomp filters, and a container that lets processes set them".to_owned()
        }
        Layer::CleanStart | Layer::Capabilities | Layer::ResourceLimits | Layer::ControlGroup => {
            "the kernel or the container's runtime refuses it: ask whoever runs it".to_owned()
        }
        _ => namespaces(),
    }
}

/// Which of the system's switches forbids namespaces.
fn namespaces() -> String {
    let is = |file: &str, value: &str| {
        read_to_string(format!("/proc/sys/{file}")).is_ok_and(|text| text.trim() == value)
    };
    let switches = [
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user/max_user_namespaces", "0", "10000"),
    ];
    let set: Vec<String> = switches
        .iter()
        .filter(|(file, forbids, _)| is(file, forbids))
        .map(|(file, _, allows)| format!("`sysctl -w {}={allows}`", file.replace('/', ".")))
        .collect();
    if set.is_empty() {
        return "no switch of the system forbids it, so the container's runtime may: it has to allow user namespaces and \
                mounts in them"
            .to_owned();
    }
    format!("as root {}", set.join(" and "))
}
