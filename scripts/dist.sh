#!/usr/bin/env bash
# Builds what is given to people: stripped release binaries in target/dist. `scripts/dist.sh worker` builds this machine's
# helix-worker alone.
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

# The program of this machine, which starts where there is nothing but itself.
own_worker() {
    local built=$dist/helix-worker-$(uname -m) empty
    empty=$(mktemp -d "$dist/empty.XXXXXX")
    cp "$built" "$empty/helix-worker"
    # Who may make no root of his own is content with what the file says.
    if unshare --map-root-user true 2>/dev/null; then
        unshare --map-root-user chroot "$empty" /helix-worker --version >/dev/null
    elif ldd "$built" 2>/dev/null | grep -q '=>'; then
        false
    fi || { echo "$built needs libraries of its machine" >&2 && rm -r "$empty" && exit 1; }
    rm -r "$empty"
    # Beside `helix`, under its own name, is where the node looks for it.
    cp "$built" "$dist/helix-worker"
}

if [ "${1:-}" = worker ]; then
    worker "$(uname -m)"
    own_worker
    exit
fi
worker x86_64
worker aarch64
cargo build --release --package helix --package heliosd
cp "$target/release/helix" "$target/release/heliosd" "$(scripts/client.sh)" "$dist/"
own_worker
ls -l "$dist"
