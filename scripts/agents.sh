#!/usr/bin/env bash
# Installs agents that people have, as they are published on npm, and prints the folder of their programs.
#
#   scripts/agents.sh           installs what is missing
#   scripts/agents.sh --where   only says where they are, or would be
#
# They are large, so only `make campaign` installs them, in the cache of scripts/once.sh.
set -euo pipefail
. "$(dirname "$0")/once.sh"
packages=(opencode-ai@1.18.33 @openai/codex@0.171.0 @agentclientprotocol/claude-agent-acp@0.49.0 @anthropic-ai/claude-code@2.1.197)

install() {
    echo '{"private": true}' >package.json
    npm install --silent --no-audit --no-fund "${packages[@]}"
}

if [ "${1:-}" = --where ]; then
    once --where agents "${packages[@]}"
else
    needs 1 "no agent from outside is run" npm
    once agents "agents from npm" "${packages[@]}"
fi
echo "$folder/node_modules/.bin"
