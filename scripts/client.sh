#!/usr/bin/env bash
# Builds `helios` as it is given to people, in a profile (default: release), and prints where it is.
#
# It is linked statically at a fixed place. So the kernel has nothing to load or to put right in it, and the common case is done before
# the C library is set up (adapters/helios/src/begin.rs): a fifth of the time that the same program takes to start when it is linked as usual.
# Where that cannot be linked (another processor, no static C library) it is linked as usual.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${1:-release}
folder=$profile
[ "$profile" = dev ] && folder=debug
target=${CARGO_TARGET_DIR:-target}
triple=x86_64-unknown-linux-gnu
usual() {
    cargo build --profile "$profile" -p helios --bin helios >&2
    echo "$target/$folder/helios"
}

if [ "$(rustc --print host-tuple)" != "$triple" ]; then
    usual
    exit
fi
if ! RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
    cargo build --profile "$profile" -p helios --bin helios --target "$triple" >&2; then
    echo "helios is linked as usual, since it cannot be linked statically here (Debian: libc6-dev, Fedora: glibc-static)" >&2
    usual
    exit
fi
client=$target/$triple/$folder/helios
# What is uncommon must still begin as every program does.
said=$(HELIOS_NO_ENGINE=1 HELIOS_ENGINE=/bin/echo "$client" begins)
[ "$said" = "--one-shot begins" ] || { echo "client.sh: $client does not begin well: $said" >&2 && exit 1; }
echo "$client"
