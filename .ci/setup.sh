#!/usr/bin/env bash
# Installs what a bare machine lacks: a Vulkan driver on Linux. macOS (Metal) and Windows (DX12) have theirs.
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
    ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1' || return 1
    local dir
    for dir in /usr/share/vulkan/icd.d /usr/local/share/vulkan/icd.d /etc/vulkan/icd.d; do
        compgen -G "$dir/*.json" >/dev/null && return 0
    done
    [ -n "${VK_ICD_FILENAMES:-}${VK_DRIVER_FILES:-}" ]
}

# Crates with C sources need a C compiler; linking needs one too.
wanted=()
have_vulkan || wanted+=(mesa-vulkan-drivers libvulkan1)
command -v cc >/dev/null || wanted+=(build-essential)
[ ${#wanted[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "Please install the equivalents of: ${wanted[*]}" >&2
    exit 1
fi
run=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "Please install as root: ${wanted[*]}" >&2; exit 1; }
    run=(sudo)
fi
echo "installing ${wanted[*]}"
"${run[@]+"${run[@]}"}" apt-get update -qq
"${run[@]+"${run[@]}"}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}" >/dev/null
have_vulkan || { echo "a Vulkan driver is still missing" >&2; exit 1; }
