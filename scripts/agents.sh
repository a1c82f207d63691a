#!/usr/bin/env bash
# Installs agents that people have, as they are published on npm, and prints the folder of their programs.
#
#   scripts/agents.sh           installs what is missing
#   scripts/agents.sh --where   only says where they are, or would be
#
# They are large, so only `make campaign` installs them. They are kept in a cache outside the clone, keyed by the pinned versions.
# Environment: HELIX_CACHE (default: $XDG_CACHE_HOME/helix, else ~/.cache/helix).
set -euo pipefail
cache=${HELIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/helix}
packages=(opencode-ai@1.18.33 @openai/codex@0.171.0 @agentclientprotocol/claude-agent-acp@0.49.0 @anthropic-ai/claude-code@2.1.197)
key=$(printf '%s\n' "${packages[@]}" | sha256sum | cut -c1-16)
folder="$cache/agents/$key"

if [ "${1:-}" = --where ] || [ -f "$folder/ready" ]; then
    echo "$folder/node_modules/.bin"
    exit 0
fi
if ! command -v npm >/dev/null 2>&1; then
    echo "*** npm is missing: no agent from outside is run ***" >&2
    exit 1
fi
mkdir -p "$cache/agents"
exec 9>"$cache/agents/.lock"
flock 9
if [ ! -f "$folder/ready" ]; then
    echo "installing agents from npm once ..." >&2
    rm -rf "$folder"
    mkdir -p "$folder"
    echo '{"private": true}' >"$folder/package.json"
    (cd "$folder" && npm install --silent --no-audit --no-fund "${packages[@]}" >&2)
    touch "$folder/ready"
fi
echo "$folder/node_modules/.bin"
