#!/usr/bin/env bash
# Says before anything happens what a command will need, as far as it is not there yet.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
cache=${HELIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/helix}
target=${CARGO_TARGET_DIR:-target}
cores=$(nproc 2>/dev/null || echo 1)

minutes() { echo $((($1 + cores - 1) / cores)); } # CPU-minutes to minutes on this machine

rocks=0
compgen -G "$cache/rocksdb/*/librocksdb.a" >/dev/null || rocks=$(minutes 26)
build=0
[ -x "$target/debug/helix" ] || build=$(minutes 24)

echo "This needs: 4 GiB of memory, 6 GiB of disk (${target} and ${cache}),"
if [ $((rocks + build)) = 0 ]; then
    echo "and, as it is built already, the time cargo takes to see that."
else
    [ "$rocks" = 0 ] || echo "about $rocks min to compile RocksDB (once; kept in ${cache}),"
    [ "$build" = 0 ] || echo "about $build min to compile Helix and its libraries,"
    echo "on this machine's $cores cores."
fi
case ${1:-demo} in
    demo) echo "Packages: git, a C++ compiler, libclang. The demo itself takes about a minute." ;;
    test) echo "Packages: git, a C++ compiler, libclang, PostgreSQL and an OpenSSH server (started by the tests, on loopback)."
          echo "The tests themselves take about 10 minutes." ;;
esac
