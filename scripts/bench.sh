#!/usr/bin/env bash
# Measures figures: `scripts/bench.sh spine`, `helios` or `models`. The table goes into docs/benchmarks.md. Further arguments go
# to the bench (`--quick`, `--only PART`); with any, nothing is written into the document. PROFILE=dev measures what tests run on.
set -euo pipefail
cd "$(dirname "$0")/.."
bench=$1
shift
profile=${PROFILE:-release}
case $bench in
    spine) packages=(-p helix -p helix-worker) ;;
    helios) packages=(-p heliosd -p helios) ;;
    models) packages=(-p helix) ;;
    *) echo "there is no bench $bench: spine, helios or models" >&2 && exit 2 ;;
esac

# One call for the programs and the bench: the binaries are those that the bench names, with the same features.
program=$(cargo build --profile "$profile" "${packages[@]}" --bins --bench "$bench" --message-format=json-render-diagnostics |
    sed -n 's/.*"kind":\["bench"\].*"name":"'"$bench"'".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
if [ "$bench" = helios ]; then
    # What people are given is measured. It takes the place of the client that cargo put beside the engine, which is a link.
    client=$(scripts/client.sh "$profile")
    beside=$(dirname "$program")/../helios
    [ "$client" -ef "$beside" ] || install "$client" "$beside"
fi
if [ $# -gt 0 ]; then
    exec "$program" "$@"
fi
rm -f "${CARGO_TARGET_DIR:-target}/figures/$bench.jsonl"
if [ "$bench" = spine ]; then
    # Its size is a figure.
    scripts/dist.sh worker
    # Its figures come first in the same table.
    cargo bench --profile "$profile" -p helix-kernel --bench kernel
fi
if [ "$bench" = models ]; then
    # What tests count is in the same table: cache hits and edits in any build, a sandbox's start in this one.
    figures=${CARGO_TARGET_DIR:-target}/figures/models.jsonl
    mkdir -p "$(dirname "$figures")"
    {
        cargo test -p helix-actor-agents -p helix-actor-runner --lib -- --nocapture --test-threads 1 cache of_200_generated
        cargo test --profile "$profile" -p helix-worker --test worker_process -- --nocapture a_sandbox_costs_little
    } | tee /dev/stderr | sed -n 's/^.*figure \({.*}\)$/\1/p' >"$figures"
fi
exec "$program" --write
