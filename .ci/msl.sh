#!/usr/bin/env bash
# Every case of tests/msl.rs: under all schedules, then as Metal's fast math builds it, then with another layout of matrices
# in the registers.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/env.sh
for plan in all fast-math alt-layout; do
    echo "=== $plan"
    WGMARLIN_MSL=$plan cargo test --release --test msl -- "$@"
done
