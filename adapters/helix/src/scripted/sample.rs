//! The sample program of the demo: small, tested, and wrong in two places. Needs `sh` and `awk`.

/// A file of the sample program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleFile {
    /// Its path.
    pub path: &'static str,
    /// Its content.
    pub content: &'static str,
    /// Whether it is a program.
    pub executable: bool,
}

macro_rules! file {
    ($path:literal) => {
        SampleFile { path: $path, content: include_str!(concat!("../../sample/", $path)), executable: false }
    };
    ($path:literal, executable) => {
        SampleFile { path: $path, content: include_str!(concat!("../../sample/", $path)), executable: true }
    };
}

/// Every file of the sample program, by path.
pub const SAMPLE: &[SampleFile] = &[
    file!("AGENTS.md"),
    file!("README.md"),
    file!("bin/csv", executable),
    file!("bin/roman", executable),
    file!("lib/csv.awk"),
    file!("lib/roman.awk"),
    file!("run-tests", executable),
    file!("tests/csv.cases"),
    file!("tests/data/dos.csv"),
    file!("tests/data/plain.csv"),
    file!("tests/data/quoted.csv"),
    file!("tests/roman.cases"),
];
