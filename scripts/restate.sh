#!/usr/bin/env bash
# Installs the Restate server that durable tasks are measured beside, as it is published on npm, and builds the handler that it calls
# (benches/spine/handler, on Restate's Rust SDK). Prints the folder of both programs.
#
#   scripts/restate.sh           installs what is missing
#   scripts/restate.sh --where   only says where they are, or would be, and fails where one of them is not
#
# They are large, so only `make bench` installs them, in the cache of scripts/once.sh. The server's package of this machine alone is
# taken: the one above it, `@restatedev/restate-server`, is a script that starts it.
set -euo pipefail
scripts=$(dirname "$0")
. "$scripts/once.sh"
machine=x64
if [ "$(uname -m)" = aarch64 ]; then machine=arm64; fi
package=@restatedev/restate-server-linux-$machine
handler=$(cd "$scripts/../benches/spine/handler" && pwd)
pins=("$package@1.7.12")
for file in Cargo.toml Cargo.lock src/main.rs; do
    pins+=("$(sha256sum <"$handler/$file")")
done

install() {
    mkdir bin
    echo '{"private": true}' >package.json
    npm install --silent --no-audit --no-fund "${pins[0]}"
    ln -s "../node_modules/$package/bin/restate-server" bin/
    # From there, so that the Rust of this folder is the one that builds it.
    (cd "$handler" && cargo build --quiet --release --locked --target-dir "$folder/build")
    mv build/release/handler bin/
    rm -rf build
}

if [ "${1:-}" = --where ]; then
    once --where restate "${pins[@]}"
else
    needs "the Restate server and its handler" npm cargo
    once restate "the Restate server and its handler" "${pins[@]}"
fi
echo "$folder/bin"
[ -f "$folder/ready" ]
