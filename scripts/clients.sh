#!/usr/bin/env bash
# Installs the official model clients that the gateway is tested with, and prints the folder that holds them.
#
#   scripts/clients.sh           installs what is missing
#   scripts/clients.sh --where   only says where they are, or would be, and fails where they are not
#
# Python's are in a virtual environment, Node's in a folder; both are in the cache of scripts/once.sh.
set -euo pipefail
. "$(dirname "$0")/once.sh"
python=(openai==3.57.0 anthropic==2.14.0 google-genai==3.6.1 ollama==0.6.3)
node=(openai@6.49.0 @anthropic-ai/sdk@1.14.0)

install() {
    mkdir node
    python3 -m venv python
    python/bin/pip install --quiet --disable-pip-version-check "${python[@]}"
    echo '{"private": true, "type": "module"}' >node/package.json
    (cd node && npm install --silent --no-audit --no-fund "${node[@]}")
}

if [ "${1:-}" = --where ]; then
    once --where clients "${python[@]}" "${node[@]}"
else
    needs "the official model clients" python3 node npm
    once clients "the official model clients" "${python[@]}" "${node[@]}"
fi
echo "$folder"
[ -f "$folder/ready" ]
