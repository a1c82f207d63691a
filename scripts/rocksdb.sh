#!/usr/bin/env bash
# Builds librocksdb.a once and prints the folder that holds it.
#
# The library comes from the source of the very crate that Cargo.lock names, so the bindings and
# the library always agree. It costs about 18 CPU-minutes, so it is kept in a cache outside the
# clone, keyed by the crate's version, the C++ compiler and the features: every profile, every
# clone and CI link the same file through ROCKSDB_LIB_DIR.
#
# Environment: HELIX_CACHE (default: $XDG_CACHE_HOME/helix, else ~/.cache/helix).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cache=${HELIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/helix}

# The `rocksdb` crate version that the lock file pins, and the features that change the C++ build.
version=$(awk '/^name = "rocksdb"$/ { getline; gsub(/version = |"/, ""); print; exit }' "$root/Cargo.lock")
[ -n "$version" ] || { echo "rocksdb.sh: Cargo.lock names no rocksdb crate" >&2; exit 1; }
features=lz4
cxx=${CXX:-c++}
compiler=$("$cxx" --version | head -n 1)
key=$(printf '%s\n%s\n%s\n%s\n' "$version" "$features" "$compiler" "$(uname -m)" | sha256sum | cut -c1-16)
lib="$cache/rocksdb/$version-$key"

if [ ! -f "$lib/librocksdb.a" ]; then
    mkdir -p "$cache/rocksdb"
    exec 9>"$cache/rocksdb/.lock"
    flock 9 # a second clone waits here instead of building it again
    if [ ! -f "$lib/librocksdb.a" ]; then
        echo "building RocksDB once (crate $version; about 9 minutes on two cores) ..." >&2
        work=$(mktemp -d "$cache/rocksdb/build.XXXXXX")
        mkdir -p "$work/src"
        echo 'fn main() {}' >"$work/src/main.rs"
        cat >"$work/Cargo.toml" <<TOML
[package]
name = "rocksdb-cache"
version = "0.0.0"
edition = "2024"

[dependencies]
rocksdb = { version = "=$version", default-features = false, features = ["bindgen-runtime", "$features"] }

[workspace]
TOML
        started=$(date +%s)
        (
            while sleep 30; do
                done_=$(find "$work/target" -name '*.o' -path '*librocksdb-sys*' 2>/dev/null | wc -l)
                echo "  RocksDB: $done_ of about 340 files, $(($(date +%s) - started)) s" >&2
            done
        ) &
        ticker=$!
        trap 'kill $ticker 2>/dev/null || true; rm -rf "$work"' EXIT
        # Release flags, no debug information: this is what every profile of ours links.
        (cd "$work" && env -u ROCKSDB_LIB_DIR -u ROCKSDB_STATIC -u RUSTFLAGS CARGO_TARGET_DIR="$work/target" \
            cargo build --release --quiet >&2)
        built=$(find "$work/target/release/build" -name librocksdb.a | head -n 1)
        mkdir -p "$lib.new"
        cp "$built" "$lib.new/"
        sync "$lib.new/librocksdb.a"
        mv "$lib.new" "$lib"
        echo "RocksDB is ready after $(($(date +%s) - started)) s" >&2
    fi
fi
echo "$lib"
