#!/usr/bin/env bash
# All tests on this machine's adapter. One process a test binary: a process a test (nextest) would open the device
# and compile the pipelines anew for each of hundreds of cases, which takes several times as long.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/env.sh
# Software Vulkan compiles thousands of pipelines for one small launch each: that takes a third less without optimisations.
export GALLIVM_PERF="${GALLIVM_PERF:-nopt}"
cargo test --release --no-fail-fast "$@"
