#!/usr/bin/env bash
# Says before anything happens what a command will need, as far as it is not there yet: `scripts/needs.sh demo` or `test`.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
purpose=${1:-demo}
cache=${HELIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/helix}
target=${CARGO_TARGET_DIR:-target}
cores=$(nproc 2>/dev/null || echo 1)

minutes() { echo $((($1 + cores - 1) / cores)); } # CPU-minutes to minutes on this machine

disk=4
[ "$purpose" = demo ] || disk=9
rocks=0
compgen -G "$cache/rocksdb/*/librocksdb.a" >/dev/null || rocks=$(minutes 18)
build=0
[ -x "$target/debug/helix" ] || build=$(minutes 13)
tests=0
if [ "$purpose" = test ]; then
    # What checks them only leaves files of that name too, which are no programs.
    built=$(find "$target/debug/deps" -name 'product-*' -perm -u+x -print -quit 2>/dev/null || true)
    [ -n "$built" ] || tests=$(minutes 9)
fi

echo "This needs: 4 GiB of memory, $disk GiB of disk (${target} and ${cache}),"
if [ $((rocks + build + tests)) = 0 ]; then
    echo "and the time to compile what has changed since it was built."
else
    [ "$rocks" = 0 ] || echo "about $rocks min to compile RocksDB (once; kept in ${cache}),"
    [ "$build" = 0 ] || echo "about $build min to compile Helix and its libraries,"
    [ "$tests" = 0 ] || echo "about $tests min to compile the tests,"
    echo "on this machine's $cores cores."
fi
case $purpose in
    demo) echo "Packages: git, a C++ compiler, libclang. The demo itself takes about a minute." ;;
    test) echo "Packages: git, a C++ compiler, libclang, python3, openssl, PostgreSQL, an OpenSSH server (on loopback),"
          echo "Node with npm for the official clients of model APIs. The tests themselves take about 8 minutes." ;;
esac
