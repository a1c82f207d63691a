# For scripts that install something pinned into the cache, once; they source this file and define `install`, which fills the folder
# that it is run in.
#
#   once KIND WHAT PIN...   sets `folder` to a folder of KIND that is keyed by the pins, and installs WHAT there where it is missing
#   once --where KIND PIN...   only sets `folder`; it has a file `ready` where everything is installed
#
# Environment: HELIX_CACHE (default: $XDG_CACHE_HOME/helix, else ~/.cache/helix).
once() {
    local kind what= only_where=
    if [ "$1" = --where ]; then
        only_where=yes kind=$2
        shift 2
    else
        kind=$1 what=$2
        shift 2
    fi
    local kinds=${HELIX_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/helix}/$kind
    folder=$kinds/$(printf '%s\n' "$@" | sha256sum | cut -c1-16)
    if [ -n "$only_where" ] || [ -f "$folder/ready" ]; then
        return
    fi
    mkdir -p "$kinds"
    exec 9>"$kinds/.lock"
    flock 9
    if [ ! -f "$folder/ready" ]; then
        echo "installing $what once ..." >&2
        rm -rf "$folder"
        mkdir -p "$folder"
        (cd "$folder" && install >&2)
        touch "$folder/ready"
    fi
}

# Stops the script where a program is missing: `needs WHAT PROGRAM...`, WHAT being what needs it.
needs() {
    local what=$1 program
    shift
    for program in "$@"; do
        if ! command -v "$program" >/dev/null 2>&1; then
            echo "*** $program is missing, which $what need ***" >&2
            exit 1
        fi
    done
}
