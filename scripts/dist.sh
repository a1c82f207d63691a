#!/usr/bin/env bash
# Builds what is given to people: stripped release binaries in target/dist.
#
# helix-worker must start on machines with any libc, so it is linked statically: with musl where the
# target is installed or can be added, else with glibc's static libraries (it resolves no names and loads
# no libraries, which is what static glibc cannot do). For the other architecture the target must be addable.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-target}
dist=$target/dist
mkdir -p "$dist"

has_target() {
    local sysroot
    sysroot=$(rustc --print sysroot)
    [ -d "$sysroot/lib/rustlib/$1/lib" ] && return 0
    command -v rustup >/dev/null && [ "${RUSTUP_AUTO_INSTALL:-1}" != 0 ] && rustup target add "$1" >/dev/null 2>&1
}

worker() { # architecture
    local arch=$1 host compiler triple flags="" variable
    host=$(uname -m)
    # The other architecture's compiler, as Debian names it; blake3 has C and assembly in it, and it links.
    if [ "$arch" = "$host" ]; then compiler=${CC:-cc}; else compiler=$arch-linux-gnu-gcc; fi
    if has_target "$arch-unknown-linux-musl"; then
        triple=$arch-unknown-linux-musl
    elif [ "$arch" = "$host" ]; then
        triple=$arch-unknown-linux-gnu
        flags="-C target-feature=+crt-static"
    else
        echo "skipped: helix-worker for $arch (its Rust target is missing: rustup target add $arch-unknown-linux-musl)" >&2
        return 0
    fi
    if [ "$arch" != "$host" ] && ! command -v "$compiler" >/dev/null && ! scripts/setup.sh cross; then
        echo "skipped: helix-worker for $arch ($compiler is missing: what is said above installs it)" >&2
        return 0
    fi
    variable=$(echo "$triple" | tr 'a-z-' 'A-Z_')
    # musl has none of glibc's checked functions, which some compilers call where nobody asks them to.
    env "CARGO_TARGET_${variable}_LINKER=$compiler" "CC_${triple//-/_}=$compiler" "CFLAGS_${triple//-/_}=-U_FORTIFY_SOURCE" \
        RUSTFLAGS="$flags" cargo build --release --package helix-worker --target "$triple"
    cp "$target/$triple/release/helix-worker" "$dist/helix-worker-$arch"
}

worker x86_64
worker aarch64
cargo build --release --package helix --package heliosd
cp "$target/release/helix" "$target/release/heliosd" "$(scripts/client.sh)" "$dist/"
# Beside `helix`, under its own name, is where the node looks for this machine's worker program.
cp "$dist/helix-worker-$(uname -m)" "$dist/helix-worker"
ls -l "$dist"
