#!/usr/bin/env bash
# Installs agents that people have, as they are published on npm and PyPI, and prints the folder of their programs.
#
#   scripts/agents.sh           installs what is missing
#   scripts/agents.sh --where   only says where they are, or would be, and fails where one of them is not
#
# They are large, so only `make campaign` installs them, in the cache of scripts/once.sh.
set -euo pipefail
. "$(dirname "$0")/once.sh"
node=(
    opencode-ai@1.18.33 @openai/codex@0.171.0 @agentclientprotocol/claude-agent-acp@0.49.0 @anthropic-ai/claude-code@2.1.197
    @google/gemini-cli@0.61.0
)
# goose is published there for this machine alone.
goose=@aaif/goose-binary-linux-x64
if [ "$(uname -sm)" = "Linux x86_64" ]; then node+=("$goose@1.52.0"); fi
python=(aider-chat==0.86.2)

install() {
    mkdir bin
    echo '{"private": true}' >package.json
    npm install --silent --no-audit --no-fund "${node[@]}"
    for program in opencode codex claude-agent-acp claude gemini; do
        ln -s "../node_modules/.bin/$program" bin/
    done
    if [ -e "node_modules/$goose" ]; then ln -s "../node_modules/$goose/bin/goose" bin/; fi
    # It is published for some versions of Python only.
    if python3 -m venv python && python/bin/pip install --quiet --disable-pip-version-check "${python[@]}"; then
        ln -s ../python/bin/aider bin/
    fi
    # What could be installed stays, for those who go on without the rest.
    for program in goose aider; do
        if [ ! -e "bin/$program" ]; then
            echo "*** $program could not be installed on $(uname -sm) with $(python3 --version) ***" >&2
            return 1
        fi
    done
}

if [ "${1:-}" = --where ]; then
    once --where agents "${node[@]}" "${python[@]}"
else
    needs "agents from npm and PyPI" npm python3
    once agents "agents from npm and PyPI" "${node[@]}" "${python[@]}"
fi
echo "$folder/bin"
[ -f "$folder/ready" ]
