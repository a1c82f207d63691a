#!/usr/bin/env bash
# Measures the figures: the kernel's bench first, then the spine's, whose table goes into docs/benchmarks.md. Arguments go to the
# spine's bench (`--quick`, `--only PART`); with any, nothing is written into the document. PROFILE=dev measures what tests run on.
set -euo pipefail
cd "$(dirname "$0")/.."
figures=${CARGO_TARGET_DIR:-target}/figures/spine.jsonl
profile=${PROFILE:-release}

# One call for node, worker and bench: the binaries are those that the bench names, with the same features.
spine=$(cargo build --profile "$profile" -p helix -p helix-worker --bins --bench spine --message-format=json-render-diagnostics |
    sed -n 's/.*"name":"spine".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
if [ $# -gt 0 ]; then
    exec "$spine" "$@"
fi
rm -f "$figures"
cargo bench --profile "$profile" -p helix-kernel --bench kernel
exec "$spine" --write
