//! The binary `helix`.

fn main() -> std::process::ExitCode {
    helix::cli::main()
}
