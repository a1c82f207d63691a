#!/usr/bin/env bash
# Installs the official model clients that the gateway is tested with, and prints the folder that holds them.
#
#   scripts/clients.sh           installs what is missing
#   scripts/clients.sh --where   only says where they are, or would be
#
# Python's are in a virtual environment, Node's in a folder; both are kept in a cache outside the clone, keyed by the pinned versions.
# Environment: HELIX_CACHE (default: $XDG_CACHE_HOME/helix, else ~/.cache/helix).
set -euo pipefail
cache=${HELIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/helix}
python=(openai==3.57.0 anthropic==2.14.0 google-genai==3.6.1 ollama==0.6.3)
node=(openai@6.49.0 @anthropic-ai/sdk@1.14.0)
key=$(printf '%s\n' "${python[@]}" "${node[@]}" | sha256sum | cut -c1-16)
folder="$cache/clients/$key"

if [ "${1:-}" = --where ] || [ -f "$folder/ready" ]; then
    echo "$folder"
    exit 0
fi
for program in python3 node npm; do
    if ! command -v "$program" >/dev/null 2>&1; then
        echo "*** $program is missing: the gateway will NOT be tested with the official clients ***" >&2
        exit 0
    fi
done
mkdir -p "$cache/clients"
exec 9>"$cache/clients/.lock"
flock 9
if [ ! -f "$folder/ready" ]; then
    echo "installing the official model clients once ..." >&2
    rm -rf "$folder"
    mkdir -p "$folder/node"
    python3 -m venv "$folder/python"
    "$folder/python/bin/pip" install --quiet --disable-pip-version-check "${python[@]}" >&2
    echo '{"private": true, "type": "module"}' >"$folder/node/package.json"
    (cd "$folder/node" && npm install --silent --no-audit --no-fund "${node[@]}" >&2)
    touch "$folder/ready"
fi
echo "$folder"
