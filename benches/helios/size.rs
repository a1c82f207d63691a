//! How small many similar versions become.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::report::{Figure, Scale, readable};
use crate::tools::{Stage, bytes_below, text};

/// Packages whose published releases are taken, as pip knows them.
const PACKAGES: [&str; 3] = ["requests", "flask", "click"];

/// Every byte of the store after `gc --aggressive`, beside every byte of git's after its own.
pub fn after_packing(stage: &Stage, scale: Scale) -> Result<Vec<Figure>> {
    let mut figures = variants(stage, scale.pick(2_000, 100))?;
    for package in PACKAGES.into_iter().take(scale.pick(3, 1)) {
        match releases(stage, package, scale.pick(60, 5)) {
            Ok(versions) => {
                figures.extend(compare(stage, package, &format!("{} releases of {package}", versions.len()), |root, at| {
                    match versions.get(at) {
                        Some(version) => unpack(version, root).map(|()| true),
                        None => Ok(false),
                    }
                })?)
            }
            Err(error) => eprintln!("the releases of {package} could not be fetched: {error:#}"),
        }
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

/// Commits version after version with both tools, then packs with both.
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
            .against(format!("git gc --aggressive: {} ms", readable(git_millis)))
            .times(git_millis / millis, Some(1.0)),
    ])
}

/// The newest source releases of a package, oldest first.
fn releases(stage: &Stage, package: &str, most: usize) -> Result<Vec<PathBuf>> {
    let folder = stage.folder("releases")?;
    let said = Command::new("pip").args(["index", "versions", package]).output().context("pip cannot be run")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let list = said.lines().find_map(|line| line.strip_prefix("Available versions: ")).context("pip lists no versions")?;
    let mut found = Vec::new();
    for version in list.split(", ").take(most) {
        let target = folder.join(format!("{package}-{version}"));
        let wanted = format!("{package}=={version}");
        let fetched = Command::new("pip")
            .args(["download", "--quiet", "--no-deps", "--no-build-isolation", "--only-binary", ":all:", "--dest"])
            .arg(&target)
            .arg(&wanted)
            .output()?;
        if fetched.status.success()
            && let Some(archive) = fs::read_dir(&target)?.flatten().next()
        {
            found.push(archive.path());
        }
    }
    ensure!(found.len() > 1, "fewer than two releases have a wheel");
    found.reverse();
    Ok(found)
}

/// A wheel is a zip archive; what was there before is replaced, the stores aside.
fn unpack(archive: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(root)?.flatten() {
        if ![".git", ".helios"].iter().any(|kept| entry.file_name() == *kept) {
            if entry.file_type()?.is_dir() { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    let done = Command::new("python3").args(["-m", "zipfile", "-e"]).arg(archive).arg(root).output()?;
    ensure!(done.status.success(), "{}: {}", archive.display(), String::from_utf8_lossy(&done.stderr));
    Ok(())
}
