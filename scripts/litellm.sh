#!/usr/bin/env bash
# Installs the LiteLLM proxy that the gateway is measured beside and that our providers are driven over, and prints its program.
#
#   scripts/litellm.sh           installs it where it is missing
#   scripts/litellm.sh --where   only says where it is, or would be, and fails where it is not
#
# It is large, so only `make campaign` and `make bench-models` install it, in the cache of scripts/once.sh.
set -euo pipefail
. "$(dirname "$0")/once.sh"
package="litellm[proxy]==1.106.12"

install() {
    python3 -m venv .
    bin/pip install --quiet --disable-pip-version-check "$package"
}

if [ "${1:-}" = --where ]; then
    once --where litellm "$package"
else
    needs "the LiteLLM proxy" python3
    once litellm "the LiteLLM proxy" "$package"
fi
echo "$folder/bin/litellm"
[ -f "$folder/ready" ]
