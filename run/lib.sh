# Sourced by run/boot, run/image, run/check, run/test and run/bench.
# Picks a Rust toolchain that builds both the host tool and bare-metal crates, builds the tool with
# it and runs it. Everything else (QEMU, GRUB, ...) is the tool's business.

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
bare=x86_64-unknown-none
oldest=95 # minor version of the oldest Rust that builds this workspace
packages="rustc-web cargo-web rust-web-src lld"

say() { printf '%s\n' "$*" >&2; }

# Minor version of a rustc, or 0.
minor() {
    version=$("$1" --version 2>/dev/null) || version=
    found=$(printf '%s\n' "$version" | sed -n 's/^rustc 1\.\([0-9][0-9]*\)\..*/\1/p')
    echo "${found:-0}"
}

# A toolchain in PATH (usually rustup's) that has the prebuilt bare-metal target.
prebuilt_ready() {
    command -v cargo >/dev/null 2>&1 && command -v rustc >/dev/null 2>&1 || return 1
    [ "$(minor rustc)" -ge "$oldest" ] || return 1
    [ -d "$(rustc --print sysroot)/lib/rustlib/$bare/lib" ]
}

# Debian's toolchain with the sources of the standard library, and a linker for bare metal.
debian_ready() {
    [ -x /usr/bin/cargo ] && [ -x /usr/bin/rustc ] || return 1
    [ "$(minor /usr/bin/rustc)" -ge "$oldest" ] || return 1
    [ -f "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/core/src/lib.rs" ] || return 1
    command -v ld.lld >/dev/null 2>&1
}

# Whether the user agreed: --yes, or nobody there to ask, or an answer.
agreed() {
    for arg in "$@"; do
        case $arg in --yes | -y) return 0 ;; esac
    done
    [ -t 0 ] && [ -t 2 ] || return 0
    printf 'Install them now? [Y/n] ' >&2
    read -r answer || return 1
    case $answer in '' | [yY]*) return 0 ;; *) return 1 ;; esac
}

install_debian_toolchain() {
    [ -f /etc/ssl/certs/ca-certificates.crt ] || packages="$packages ca-certificates"
    say "Portico needs a Rust toolchain for $bare. These Debian packages will be installed:"
    say "    $packages"
    say "What is missing of QEMU, GRUB and their like follows and is named then."
    agreed "$@" || { say "Nothing was installed."; exit 1; }
    export PORTICO_AGREED=1 # the tool need not ask again
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2 || say "warning: apt-get update failed; going on with the old lists"
    # shellcheck disable=SC2086 # a list of words
    apt-get install -qq -y --no-install-recommends $packages >&2 || exit 1
}

explain_toolchain() {
    say "No Rust toolchain here can build for $bare. Any one of these helps:"
    say "  - rustup, Rust 1.$oldest or newer:   rustup target add $bare"
    say "  - Debian 12, as root:           apt-get install $packages"
    exit 1
}

portico() {
    if prebuilt_ready; then
        PORTICO_TOOLCHAIN=prebuilt PORTICO_CARGO=$(command -v cargo) PORTICO_RUSTC=$(command -v rustc)
    else
        if ! debian_ready; then
            if [ -f /etc/debian_version ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
                install_debian_toolchain "$@"
            fi
            debian_ready || explain_toolchain
        fi
        PORTICO_TOOLCHAIN=debian PORTICO_CARGO=/usr/bin/cargo PORTICO_RUSTC=/usr/bin/rustc
    fi
    export PORTICO_TOOLCHAIN PORTICO_CARGO PORTICO_RUSTC PORTICO_ROOT="$root"

    target=${CARGO_TARGET_DIR:-$root/target}
    quiet=--quiet
    if [ ! -x "$target/debug/run" ]; then
        say "Building the host tool with $(RUSTC='' "$PORTICO_RUSTC" --version) (once) ..."
        quiet=
    fi
    # shellcheck disable=SC2086 # empty or one word
    (cd "$root" && RUSTC=$PORTICO_RUSTC CARGO_TARGET_DIR=$target CARGO_PROFILE_DEV_DEBUG=line-tables-only \
        "$PORTICO_CARGO" build $quiet --package run --bin run) || exit 1
    CARGO_TARGET_DIR=$target exec "$target/debug/run" "$@"
}
