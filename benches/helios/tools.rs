//! Folders to work in, and the two tools as a person calls them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

/// A temporary folder with an engine of its own, which is stopped at the end.
pub struct Stage {
    folder: TempDir,
}

impl Stage {
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("helios-bench").tempdir()?;
        fs::create_dir(folder.path().join("run"))?;
        Ok(Self { folder })
    }

    /// A new, empty folder.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.path().join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// `helios`, in `folder`.
    pub fn helios(&self, folder: &Path) -> Tool {
        let program = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.join("helios")));
        let mut tool =
            Tool { program: program.unwrap_or_else(|| "helios".into()), folder: folder.to_owned(), variables: Vec::new() };
        tool.variables.push(("XDG_RUNTIME_DIR".to_owned(), self.folder.path().join("run").display().to_string()));
        tool.variables.push(("HELIOS_AUTHOR_NAME".to_owned(), "Bench".to_owned()));
        tool.variables.push(("HELIOS_AUTHOR_EMAIL".to_owned(), "bench@localhost".to_owned()));
        tool
    }

    /// `git`, in `folder`, without the person's own configuration. It keeps its default durability: no sync.
    pub fn git(&self, folder: &Path) -> Tool {
        let settings =
            [("user.name", "Bench"), ("user.email", "bench@localhost"), ("gc.auto", "0"), ("init.defaultBranch", "main")];
        let mut variables = vec![
            ("GIT_CONFIG_GLOBAL".to_owned(), "/dev/null".to_owned()),
            ("GIT_CONFIG_NOSYSTEM".to_owned(), "1".to_owned()),
            ("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string()),
        ];
        for (at, (key, value)) in settings.into_iter().enumerate() {
            variables.push((format!("GIT_CONFIG_KEY_{at}"), key.to_owned()));
            variables.push((format!("GIT_CONFIG_VALUE_{at}"), value.to_owned()));
        }
        Tool { program: "git".into(), folder: folder.to_owned(), variables }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It may never have been started.
        let _ = self.helios(self.folder.path()).output(&["engine", "stop"]);
    }
}

/// A program in a folder.
#[derive(Clone)]
pub struct Tool {
    program: PathBuf,
    folder: PathBuf,
    variables: Vec<(String, String)>,
}

impl Tool {
    /// The same in another folder.
    pub fn at(&self, folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ..self.clone() }
    }

    /// The same with a variable of the environment.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.current_dir(&self.folder).envs(self.variables.iter().cloned()).args(arguments);
        command.output().with_context(|| format!("{} cannot be run", self.program.display()))
    }

    /// Runs it; a failure is an error with what it said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{} {}: {}: {said}", self.program.display(), arguments.join(" "), output.status);
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Stops the engine and waits until its process has ended, so that the next command begins without one.
    pub fn stop_engine(&self) -> Result<()> {
        let said = self.run(&["engine", "stop"])?;
        // `engine 4711 is stopping`
        let Some(process) = said.split_whitespace().find_map(|word| word.parse::<u32>().ok()) else { return Ok(()) };
        let until = Instant::now() + Duration::from_secs(30);
        while Path::new(&format!("/proc/{process}/exe")).exists() {
            ensure!(Instant::now() < until, "engine {process} does not end");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Milliseconds of one command, or of several one after the other.
    pub fn timed(&self, commands: &[&[&str]]) -> Result<f64> {
        let begin = Instant::now();
        for command in commands {
            self.run(command)?;
        }
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}

/// Writes `count` files of source-like text, a hundred in each folder, the same ones for the same count.
pub fn write_files(root: &Path, count: usize) -> Result<()> {
    for number in 0..count {
        let folder = root.join(format!("src/part{:03}", number / 100));
        if number % 100 == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(format!("file{number:05}.py")), text(number, 0))?;
    }
    Ok(())
}

/// One of those files, or a later version of it.
pub fn text(number: usize, version: usize) -> String {
    let mut text = format!("\"\"\"Part {number}, version {version}.\"\"\"\n\n");
    for line in 0..40 {
        text += &format!("def step_{number}_{line}(value):\n    return value * {} + {line}\n\n", number * 31 + line * 7);
    }
    text
}

/// The path of the file that changes between versions.
pub fn changing(root: &Path) -> PathBuf {
    root.join("src/part000/file00042.py")
}

/// Every byte of every file below a folder, as the file system allocates it for sparse ones and as it is long for others.
pub fn bytes_below(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let found = entry.metadata()?;
        sum += if found.is_dir() { bytes_below(&entry.path())? } else { found.len() };
    }
    Ok(sum)
}

/// Both tools have the same folder, committed once.
pub fn twins(stage: &Stage, name: &str, files: usize) -> Result<(Tool, Tool)> {
    let (ours, theirs) = (stage.folder(&format!("{name}-helios"))?, stage.folder(&format!("{name}-git"))?);
    for root in [&ours, &theirs] {
        write_files(root, files.max(100))?;
    }
    let (helios, git) = (stage.helios(&ours), stage.git(&theirs));
    helios.run(&["init"])?;
    helios.run(&["commit", "-m", "first", "--work", "."])?;
    git.run(&["init", "--quiet"])?;
    git.run(&["add", "--all"])?;
    git.run(&["commit", "--quiet", "--message", "first"])?;
    let clean = helios.run(&["status", "--porcelain"])?;
    ensure!(clean.is_empty(), "helios status after a commit: {clean}");
    Ok((helios, git))
}

/// The tool's folder.
pub fn root(tool: &Tool) -> &Path {
    &tool.folder
}
