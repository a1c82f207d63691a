//! Says whether the program may begin before the C library: where it is linked statically at a fixed place, nothing has to be
//! put right in it first. `scripts/client.sh` builds it so.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(before_libc)");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let is = |name: &str, value: &str| variable(name) == value;
    let machine = is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    let is_static = variable("CARGO_CFG_TARGET_FEATURE").split(',').any(|feature| feature == "crt-static");
    let flags = variable("CARGO_ENCODED_RUSTFLAGS");
    let is_fixed = flags.split('\u{1f}').any(|flag| flag.ends_with("relocation-model=static"));
    if machine && is_static && is_fixed {
        println!("cargo::rustc-cfg=before_libc");
        println!("cargo::rustc-link-arg-bins=-Wl,--entry=helios_begin");
    }
}
