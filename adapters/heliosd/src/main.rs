//! The binary `heliosd`.

fn main() -> std::process::ExitCode {
    helios_engine::main()
}
