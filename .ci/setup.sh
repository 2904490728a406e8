#!/usr/bin/env bash
# Installs what a bare machine lacks: a Vulkan driver on Linux. macOS (Metal) and Windows (DX12) have theirs. With the
# argument `tests` also clang and Python, by which tests/msl.rs runs MSL on Linux; without them it says what it skips.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/env.sh

if ! command -v cargo >/dev/null; then
    echo "cargo is missing; install Rust from https://rustup.rs" >&2
    exit 1
fi
[ "$(uname -s)" = Linux ] || exit 0

# A driver counts if its manifest and the loader are there, whoever's it is.
have_vulkan() {
    # Not `grep -q`, which leaves at the first match: ldconfig then dies of its pipe, now and then, and with it the pipeline.
    ldconfig -p 2>/dev/null | grep 'libvulkan\.so\.1' >/dev/null || return 1
    local dir
    for dir in /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d /etc/vulkan/icd.d; do
        compgen -G "$dir/*.json" >/dev/null && return 0
    done
    [ -n "${VK_ICD_FILENAMES:-}${VK_DRIVER_FILES:-}" ]
}

# Debian 12 and Ubuntu 24.04 offer clang-19; 16 would do.
have_clang() {
    local name
    for name in clang++ clang++-{19,20,21,22,18,17,16}; do
        command -v "$name" >/dev/null || continue
        [ "$("$name" -dumpversion | cut -d. -f1)" -ge 16 ] && return 0
    done
    return 1
}

install() {
    local run=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || return 1
        run=(sudo)
    fi
    command -v apt-get >/dev/null || return 1
    echo "installing $*"
    "${run[@]+"${run[@]}"}" apt-get update -qq || return 1
    "${run[@]+"${run[@]}"}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Crates with C sources need a C compiler; linking needs one too.
wanted=()
have_vulkan || wanted+=(mesa-vulkan-drivers libvulkan1)
command -v cc >/dev/null || wanted+=(build-essential)
if [ ${#wanted[@]} -gt 0 ]; then
    install "${wanted[@]}" || { echo "Please install the equivalents of: ${wanted[*]}" >&2; exit 1; }
    have_vulkan || { echo "a Vulkan driver is still missing" >&2; exit 1; }
fi

[ "${1:-}" = tests ] || exit 0
wanted=()
have_clang || wanted+=(clang-19)
command -v python3 >/dev/null || wanted+=(python3)
if [ ${#wanted[@]} -gt 0 ] && ! install "${wanted[@]}"; then
    echo "${wanted[*]} cannot be installed here: the tests that run MSL will be skipped" >&2
    [ "${CI_REQUIRE_MSL:-0}" != 1 ] || exit 1
fi
