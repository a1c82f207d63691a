#!/usr/bin/env bash
# Checks what a build needs and installs what is missing.
#
#   scripts/setup.sh build    what compiling and the demo need
#   scripts/setup.sh test     that, and what the tests start: PostgreSQL, an OpenSSH server and the official clients of model APIs
#
# On Debian and Ubuntu packages are installed with apt: at once as root, after asking with sudo, and
# without asking where YES=1. Elsewhere the exact command is printed and nothing is changed.
set -euo pipefail
purpose=${1:-build}
rust_needed=1.95

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

# How a person who reads it becomes root.
sudo=
[ "$(id -u)" = 0 ] || sudo="sudo "

# What another system calls the packages that Debian calls so; and its command, where it is known.
elsewhere() {
    local command names package
    declare -A names
    if has dnf; then
        command="${sudo}dnf install -y"
        names=([libc6-dev]=glibc-devel [g++]=gcc-c++ [libclang-dev]=clang-devel [postgresql]=postgresql-server [openssh-client]=openssh-clients)
    elif has zypper; then
        command="${sudo}zypper install -y"
        names=([libc6-dev]=glibc-devel [g++]=gcc-c++ [libclang-dev]=clang-devel [postgresql]=postgresql-server [openssh-server]=openssh [openssh-client]=openssh)
    elif has pacman; then
        command="${sudo}pacman -S --needed"
        names=([libc6-dev]=glibc [g++]=gcc [libclang-dev]=clang [openssh-server]=openssh [openssh-client]=openssh)
    else
        say "this machine has no apt; install with its own package manager what Debian calls: ${packages[*]}"
        return
    fi
    for package in "${packages[@]}"; do command+=" ${names[$package]:-$package}"; done
    say "this machine has no apt; run this, then try again:"
    say "  $command"
}

packages=()
has git || packages+=(git)
has cc || packages+=(gcc libc6-dev)
has c++ || packages+=(g++)
has make || packages+=(make)
has_libclang || packages+=(libclang-dev)
if [ "$purpose" = test ]; then
    has_postgres || packages+=(postgresql)
    [ -x /usr/sbin/sshd ] || packages+=(openssh-server)
    has ssh || packages+=(openssh-client)
fi

if [ ${#packages[@]} -gt 0 ]; then
    say "missing: ${packages[*]}"
    install="apt-get install -y --no-install-recommends ${packages[*]}"
    if ! has apt-get; then
        elsewhere
        exit 1
    elif [ "$(id -u)" = 0 ]; then
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq >&2
        $install -qq >&2
    elif has sudo; then
        if [ "${YES:-}" != 1 ]; then
            if [ ! -t 0 ]; then
                say "run this, then try again (or set YES=1):"
                say "  sudo apt-get update && sudo $install"
                exit 1
            fi
            read -r -p "install them with sudo apt-get? [y/N] " answer
            case $answer in
                y | Y | yes) ;;
                *)
                    say "nothing was installed; this does it:"
                    say "  sudo apt-get update && sudo $install"
                    exit 1
                    ;;
            esac
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
    if has rustup && [ "${RUSTUP_AUTO_INSTALL:-1}" != 0 ] && { [ "${YES:-}" = 1 ] || [ -t 0 ]; }; then
        say "installing Rust $rust_needed with rustup"
        rustup toolchain install "$rust_needed" --profile minimal >&2
        rustup override set "$rust_needed" >&2
    else
        say "Rust $rust_needed or newer is needed; found: $(cargo --version 2>/dev/null || echo none). Run this, then try again:"
        if has rustup; then
            say "  rustup toolchain install $rust_needed --profile minimal && rustup override set $rust_needed"
        else
            say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain $rust_needed && . ~/.cargo/env"
        fi
        exit 1
    fi
fi

if [ "$purpose" = test ]; then
    "$(dirname "$0")/clients.sh" >/dev/null || say "*** the official model clients could not be installed: the gateway is NOT tested with them ***"
fi
