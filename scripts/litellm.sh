#!/usr/bin/env bash
# Installs the LiteLLM proxy that the gateway is measured beside and that our providers are driven over, and prints its program.
#
#   scripts/litellm.sh           installs it where it is missing
#   scripts/litellm.sh --where   only says where it is, or would be
#
# It is large, so only `make campaign` and `make bench-models` install it. It is kept in a virtual environment in a cache
# outside the clone, keyed by the pinned version. Environment: HELIX_CACHE (default: $XDG_CACHE_HOME/helix, else ~/.cache/helix).
set -euo pipefail
cache=${HELIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/helix}
package="litellm[proxy]==1.106.12"
key=$(printf '%s\n' "$package" | sha256sum | cut -c1-16)
folder="$cache/litellm/$key"
program="$folder/bin/litellm"

if [ "${1:-}" = --where ] || [ -f "$folder/ready" ]; then
    echo "$program"
    exit 0
fi
if ! command -v python3 >/dev/null 2>&1; then
    echo "*** python3 is missing: nothing is measured or tested beside LiteLLM ***" >&2
    exit 1
fi
mkdir -p "$cache/litellm"
exec 9>"$cache/litellm/.lock"
flock 9
if [ ! -f "$folder/ready" ]; then
    echo "installing the LiteLLM proxy once ..." >&2
    rm -rf "$folder"
    python3 -m venv "$folder"
    "$folder/bin/pip" install --quiet --disable-pip-version-check "$package" >&2
    touch "$folder/ready"
fi
echo "$program"
