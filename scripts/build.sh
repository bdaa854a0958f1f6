#!/usr/bin/env bash
# Configures and builds a preset (default: release), with everything it needs installed first.
#
#     scripts/build.sh [PRESET] [TARGET ...]
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release}
scripts/install_dependencies.sh
log=build/$preset-configure.log
mkdir -p build
cmake --preset "$preset" >"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }
grep -E '^-- (CPU code|CUDA|MPI|NCCL)' "$log" || true
cmake --build --preset "$preset" ${2:+--target "${@:2}"}
