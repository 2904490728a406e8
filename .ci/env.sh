# Sourced by the scripts: what every command needs.
export XDG_RUNTIME_DIR="${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}/wgmarlin-run-$(id -u)}"
mkdir -p "$XDG_RUNTIME_DIR" && chmod 700 "$XDG_RUNTIME_DIR"
export RUST_BACKTRACE="${RUST_BACKTRACE:-0}"
