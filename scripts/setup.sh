#!/usr/bin/env bash
# Checks what a build needs and installs what is missing.
#
#   scripts/setup.sh build [PEER...]   what compiling and the demo need
#   scripts/setup.sh test [PEER...]    that, and what the tests start: PostgreSQL, an OpenSSH server and Python
#   scripts/setup.sh releases          what the build needs, and what fetches the releases that bench-helios packs
#   scripts/setup.sh cross             what compiling for the other architecture of scripts/dist.sh needs: its C compiler
#
# Peers are those of scripts/peers.sh, which are installed last.
#
# On Debian and Ubuntu packages are installed with apt: at once as root, after asking with sudo, and
# without asking where YES=1. Elsewhere the exact command is printed and nothing is changed. Rust comes
# from rustup, which is installed where it is missing: after asking, and without asking where YES=1.
set -euo pipefail
purpose=${1:-build}
peers=("${@:2}")
rust_needed=1.95
scripts=$(dirname "$0")

say() { printf '%s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

# `libclang-cpp.so`, which a plain compiler brings along, is another library and does not count.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    ldconfig -p 2>/dev/null | grep -Eq 'libclang(-[0-9.]+)?\.so' && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || compgen -G '/usr/lib/llvm-*/lib/libclang-[0-9]*.so*' >/dev/null
}

has_postgres() {
    has initdb && has postgres && return 0
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

rust_is_new_enough() {
    has cargo || return 1
    local found
    found=$(cargo --version | awk '{print $2}')
    [ "$(printf '%s\n%s\n' "$rust_needed" "$found" | sort -V | head -n 1)" = "$rust_needed" ]
}

# What rustup's own page says to run, for those whose packages do not bring it.
get_rustup="curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain $rust_needed"

# True where somebody has said yes: beforehand, or now.
agreed() { # question
    [ "${YES:-}" != 1 ] || return 0
    [ -t 0 ] || return 1
    local answer
    read -r -p "$1 [y/N] " answer
    [[ "$answer" =~ ^(y|Y|yes)$ ]]
}

# How a person who reads it becomes root.
sudo=
[ "$(id -u)" = 0 ] || sudo="sudo "

# What another system calls the packages that Debian calls so; and its command, where it is known.
elsewhere() {
    local command names package
    declare -A names
    if [ "$purpose" = cross ]; then
        say "this machine has no apt; install with its own package manager what Debian calls: ${packages[*]}"
        return
    elif has dnf; then
        command="${sudo}dnf install -y"
        names=([libc6-dev]=glibc-devel [g++]=gcc-c++ [libclang-dev]=clang-devel [postgresql]=postgresql-server [openssh-client]=openssh-clients
            [python3-venv]=python3)
    elif has zypper; then
        command="${sudo}zypper install -y"
        names=([libc6-dev]=glibc-devel [g++]=gcc-c++ [libclang-dev]=clang-devel [postgresql]=postgresql-server [openssh-server]=openssh [openssh-client]=openssh
            [python3-venv]=python3 [nodejs]=nodejs-default [npm]=npm-default)
    elif has pacman; then
        command="${sudo}pacman -S --needed"
        names=([libc6-dev]=glibc [g++]=gcc [libclang-dev]=clang [openssh-server]=openssh [openssh-client]=openssh
            [python3]=python [python3-venv]=python)
    else
        say "this machine has no apt; install with its own package manager what Debian calls: ${packages[*]}"
        return
    fi
    for package in "${packages[@]}"; do
        package=${names[$package]:-$package}
        # What is two packages to Debian may be one.
        [[ "$command " == *" $package "* ]] || command+=" $package"
    done
    say "this machine has no apt; run this, then try again:"
    say "  $command"
}

packages=()
has git || packages+=(git)
has cc || packages+=(gcc libc6-dev)
has c++ || packages+=(g++)
has make || packages+=(make)
has_libclang || packages+=(libclang-dev)
if ! rust_is_new_enough && ! has rustup && has apt-get; then
    if apt-cache policy rustup 2>/dev/null | grep -q 'Candidate: [0-9]'; then
        packages+=(rustup)
    else
        has curl || packages+=(curl ca-certificates)
    fi
fi
if [ "$purpose" = test ]; then
    has_postgres || packages+=(postgresql)
    has openssl || packages+=(openssl)
    [ -x /usr/sbin/sshd ] || packages+=(openssh-server)
    has ssh || packages+=(openssh-client)
    has python3 || packages+=(python3)
fi
if [ "$purpose" = releases ]; then
    has npm || packages+=(npm)
fi
if [ "$purpose" = cross ]; then
    case $(uname -m) in
        x86_64) has aarch64-linux-gnu-gcc || packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross) ;;
        aarch64) has x86_64-linux-gnu-gcc || packages+=(gcc-x86-64-linux-gnu libc6-dev-amd64-cross) ;;
    esac
fi
absent=
if [ "${HELIX_WITHOUT_PEERS:-}" != 1 ]; then
    for peer in "${peers[@]}"; do
        "$scripts/$peer.sh" --where >/dev/null || absent+=" $peer "
    done
fi
case $absent in
    *" clients "* | *" agents "* | *" litellm "*)
        # Debian's Python leaves out what makes a virtual environment.
        python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
        ;;
esac
case $absent in
    *" clients "* | *" agents "*)
        has node || packages+=(nodejs)
        has npm || packages+=(npm)
        ;;
    *" restate "*) has npm || packages+=(npm) ;;
esac

if [ ${#packages[@]} -gt 0 ]; then
    say "missing: ${packages[*]}"
    [ -z "$absent" ] || say "HELIX_WITHOUT_PEERS=1 goes on without what only these need:$absent"
    install="apt-get install -y --no-install-recommends ${packages[*]}"
    if ! has apt-get; then
        elsewhere
        exit 1
    elif [ "$(id -u)" = 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >&2
        $install -qq >&2
    elif has sudo; then
        if ! agreed "install them with sudo apt-get?"; then
            say "nothing was installed; run this, then try again (or set YES=1):"
            say "  sudo apt-get update && sudo $install"
            exit 1
        fi
        sudo apt-get update -qq >&2
        sudo DEBIAN_FRONTEND=noninteractive $install -qq >&2
    else
        say "run this as root, then try again:"
        say "  apt-get update && $install"
        exit 1
    fi
fi

if ! rust_is_new_enough; then
    say "Rust $rust_needed or newer is needed; found: $(cargo --version 2>/dev/null || echo none)"
    if has rustup; then
        if [ "${RUSTUP_AUTO_INSTALL:-1}" = 0 ] || ! agreed "install Rust $rust_needed with rustup, for this folder?"; then
            say "nothing was installed; run this, then try again (or set YES=1):"
            say "  rustup toolchain install $rust_needed --profile minimal && rustup override set $rust_needed"
            exit 1
        fi
        rustup toolchain install "$rust_needed" --profile minimal >&2
        rustup override set "$rust_needed" >&2
    elif has curl && agreed "install rustup and Rust $rust_needed from https://sh.rustup.rs, for this user?"; then
        bash -o pipefail -c "$get_rustup" >&2
        if ! rust_is_new_enough; then
            say "Rust $rust_needed is installed, and another one is found first. Run this, then try again:"
            say "  . ~/.cargo/env"
            exit 1
        fi
    else
        say "nothing was installed; run this, then try again:"
        say "  $get_rustup && . ~/.cargo/env"
        exit 1
    fi
fi

[ ${#peers[@]} = 0 ] || "$scripts/peers.sh" "${peers[@]}"
