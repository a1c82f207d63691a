//! How small many similar versions become.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::report::{Figure, Scale, readable};
use crate::tools::{Stage, bytes_below, text};

/// Packages of which every published release is taken, as npm knows them: their archives are sources, and
/// fetching one runs nothing.
const PACKAGES: [&str; 3] = ["semver", "debug", "commander"];

/// Every byte of the store after `gc --aggressive`, beside every byte of git's after its own.
pub fn after_packing(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let mut figures = variants(stage, scale.pick(2_000, 100))?;
    for package in PACKAGES.into_iter().take(scale.pick(3, 1)) {
        let versions = releases(stage, package, scale.pick(usize::MAX, 5));
        let versions = versions.with_context(|| format!("the releases of {package} could not be fetched"))?;
        let what = format!("{} releases of {package}", versions.len());
        figures.extend(compare(stage, package, &what, |root, at| match versions.get(at) {
            Some(version) => unpack(version, root).map(|()| true),
            None => Ok(false),
        })?);
    }
    Ok(figures)
}

/// One file that an agent writes again and again, as the seed describes it.
fn variants(stage: &Stage, count: usize) -> Result<Vec<Figure>> {
    compare(stage, "variants", &format!("{count} generated variants"), |root, at| {
        if at == count {
            return Ok(false);
        }
        // A long module of which each variant rewrites a few functions.
        let mut lines: Vec<String> =
            (0..20).flat_map(|part| text(part, 0).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let mut state = at as u64 + 1;
        for change in 0..12 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let line = (state >> 33) as usize % lines.len();
            lines[line] = format!("    return combine(value, {}, {change})", state % 9_973);
        }
        fs::write(root.join("solution.py"), lines.join("\n"))?;
        Ok(true)
    })
}

/// Commits version after version with both tools in turns, then packs once with each, helios first.
fn compare(stage: &Stage, name: &str, what: &str, mut version: impl FnMut(&Path, usize) -> Result<bool>) -> Result<Vec<Figure>> {
    let (ours, theirs) = (stage.folder(&format!("{name}-helios"))?, stage.folder(&format!("{name}-git"))?);
    let (helios, git) = (stage.helios(&ours), stage.git(&theirs));
    helios.run(&["init"])?;
    git.run(&["init", "--quiet"])?;
    let mut at = 0;
    loop {
        let more = version(&ours, at)?;
        ensure!(version(&theirs, at)? == more, "both have the same versions");
        if !more {
            break;
        }
        helios.run(&["commit", "-m", "next", "--work", ".", "--allow-empty"])?;
        git.run(&["add", "--all"])?;
        git.run(&["commit", "--quiet", "--allow-empty", "--message", "next"])?;
        at += 1;
    }
    let sizes =
        || -> Result<(f64, f64)> { Ok((bytes_below(&ours.join(".helios"))? as f64, bytes_below(&theirs.join(".git"))? as f64)) };
    helios.run(&["engine", "stop"])?;
    let (_, loose) = sizes()?;
    let millis = helios.timed(&[&["gc", "--aggressive"]])?;
    helios.run(&["engine", "stop"])?;
    let begin = Instant::now();
    git.run(&["gc", "--quiet", "--aggressive", "--prune=now"])?;
    let git_millis = begin.elapsed().as_secs_f64() * 1e3;
    let (packed, git_packed) = sizes()?;
    let kib = |bytes: f64| format!("{} KiB", readable(bytes / 1024.0));
    Ok(vec![
        Figure::new(format!("store of {what} after gc --aggressive"), packed / 1024.0, "KiB")
            .against(format!("git gc --aggressive: {}", kib(git_packed)))
            .times(git_packed / packed, Some(1.25)),
        Figure::new(format!("store of {what}, beside git before its gc"), packed / 1024.0, "KiB")
            .against(format!("git before gc: {} (the seed claims 90 % less)", kib(loose)))
            .times(loose / packed, Some(10.0)),
        Figure::new(format!("gc --aggressive of {what}"), millis, "ms")
            .against(format!("once each, helios first; git gc --aggressive: {} ms", readable(git_millis)))
            .times(git_millis / millis, Some(1.0)),
    ])
}

/// The archives of a package's releases, oldest first: all of them, or the newest `most`.
fn releases(stage: &Stage, package: &str, most: usize) -> Result<Vec<PathBuf>> {
    let folder = stage.folder(&format!("releases-{package}"))?;
    let npm = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("npm").args(arguments).current_dir(&folder).output().context("npm cannot be run")?;
        ensure!(output.status.success(), "npm {}: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // By the time at which each was published, which is a package's own order of versions only nearly.
    let times: BTreeMap<String, String> = serde_json::from_str(&npm(&["view", package, "time", "--json"])?)?;
    let versions: Vec<String> = serde_json::from_str(&npm(&["view", package, "versions", "--json"])?)?;
    let mut published: Vec<(&String, &String)> =
        versions.iter().filter_map(|version| Some((times.get(version)?, version))).collect();
    published.sort();
    let wanted = &published[published.len().saturating_sub(most)..];
    let names: Vec<String> = wanted.iter().map(|(_, version)| format!("{package}@{version}")).collect();
    for names in names.chunks(20) {
        npm(&[&["pack", "--silent"], names.iter().map(String::as_str).collect::<Vec<_>>().as_slice()].concat())?;
    }
    let archives = wanted.iter().map(|(_, version)| folder.join(format!("{package}-{version}.tgz")));
    let found: Vec<PathBuf> = archives.filter(|archive| archive.is_file()).collect();
    ensure!(found.len() == wanted.len(), "{} of {} releases came", found.len(), wanted.len());
    Ok(found)
}

/// Takes the place of what was there before, the stores aside.
fn unpack(archive: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)?.flatten() {
        if ![".git", ".helios"].iter().any(|kept| entry.file_name() == *kept) {
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    let mut tar = Command::new("tar");
    let done = tar
        .args(["--extract", "--gzip", "--no-same-owner", "--mode=u+rwX", "--file"])
        .arg(archive)
        .arg("--directory")
        .arg(root)
        .output()?;
    ensure!(done.status.success(), "{}: {}", archive.display(), String::from_utf8_lossy(&done.stderr));
    Ok(())
}
