#!/usr/bin/env bash
# Installs peers: programs that were not written here and that Helix is tested and measured with. Each has a script of its name,
# which says in which versions: clients, litellm, agents, restate.
#
#   scripts/peers.sh PEER...             installs those that are missing, and fails where one cannot be installed
#   scripts/peers.sh --missing PEER...   only says which are missing
#
# Environment: HELIX_WITHOUT_PEERS=1 installs none, and tests and benches do without those that are missing, and say so.
set -euo pipefail
scripts=$(dirname "$0")
only_say=${HELIX_WITHOUT_PEERS:-}
if [ "$1" = --missing ]; then
    only_say=1
    shift
fi

missing=()
for peer in "$@"; do
    "$scripts/$peer.sh" --where >/dev/null && continue
    [ "$only_say" != 1 ] && "$scripts/$peer.sh" >/dev/null && continue
    missing+=("$peer")
done
[ ${#missing[@]} -gt 0 ] || exit 0
echo "*** missing: ${missing[*]}; nothing is tested or measured with what is missing ***" >&2
if [ "$only_say" != 1 ]; then
    echo "*** why is said above; HELIX_WITHOUT_PEERS=1 goes on without ***" >&2
    exit 1
fi
