#!/usr/bin/env bash
# Tests of the Coop tier on software Vulkan: Mesa 26 and later offers cooperative matrices (8x8x8) there. Debian sid
# carries it; the test binaries run in a minimal sid tree as they are. Where that cannot be (no root, not Linux, no
# network) the tests are SKIPPED, said so, and count as passed unless CI_REQUIRE_COOP=1.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/env.sh

skip() {
    echo "coop tests SKIPPED: $1"
    [ "${CI_REQUIRE_COOP:-0}" != 1 ] || { echo "CI_REQUIRE_COOP=1: that is a failure" >&2; exit 1; }
    exit 0
}

[ "$(uname -s)" = Linux ] || skip "they need Linux"
[ "$(id -u)" -eq 0 ] || skip "they need root for a chroot"
root="${WGMARLIN_COOP_ROOT:-/var/tmp/wgmarlin-sid}"
manifest="$root/usr/share/vulkan/icd.d"
# debootstrap removes its folder last, so a tree that still has it was interrupted.
complete() { [ ! -e "$root/debootstrap" ] && compgen -G "$manifest/lvp_icd*.json" >/dev/null; }
mkdir -p "$(dirname "$root")"
if command -v flock >/dev/null; then
    exec 9>"$root.lock"
    flock 9
fi
if ! complete; then
    if ! command -v debootstrap >/dev/null; then
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap; } >/dev/null 2>&1 \
            || skip "debootstrap cannot be installed"
    fi
    echo "making a Debian sid tree in $root (about 2 minutes, 1 GB)"
    rm -rf "$root"
    debootstrap --variant=minbase --include=mesa-vulkan-drivers,libvulkan1 sid "$root" \
        "${WGMARLIN_DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$root.log" 2>&1 \
        || skip "debootstrap failed: $(tail -n 1 "$root.log")"
    complete || skip "no lavapipe in $root"
fi
lavapipe=$(compgen -G "$manifest/lvp_icd*.json" | head -n 1)

# Cargo names the binaries in its messages.
binaries=$(cargo test --release --no-run --test catalogue --message-format=json 2>/dev/null \
    | sed -n 's/.*"executable":"\([^"]*\/catalogue-[^"]*\)".*/\1/p' | tail -n 1)
cargo build --release --quiet --example audit
[ -x "$binaries" ] || { echo "the catalogue tests were not built" >&2; exit 1; }
work="$root/opt/wgmarlin"
mkdir -p "$work" "$root/dev" "$root/tmp"
cp "$binaries" "$work/catalogue"
cp target/release/examples/audit "$work/audit"
[ -e "$root/dev/null" ] || mknod -m 666 "$root/dev/null" c 1 3
[ -e "$root/dev/urandom" ] || mknod -m 444 "$root/dev/urandom" c 1 9

inside() {
    chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin XDG_RUNTIME_DIR=/tmp WGMARLIN_ADAPTER=llvmpipe GALLIVM_PERF=nopt \
        VK_ICD_FILENAMES="${lavapipe#"$root"}" RUST_BACKTRACE=0 "$@"
}

# The canary has multiplied two tiles before the audit says so.
audit=$(inside /opt/wgmarlin/audit --quick --kernel rms_norm 2>&1) || { echo "$audit"; skip "the audit does not run there"; }
capabilities=$(grep '^capabilities:' <<<"$audit")
echo "Debian sid: $capabilities"
case "$capabilities" in
    *"coop side 8"*) ;;
    *) skip "this lavapipe offers no usable cooperative matrices" ;;
esac
echo "running the Coop tier"
inside /opt/wgmarlin/catalogue ::coop:: --test-threads 2
