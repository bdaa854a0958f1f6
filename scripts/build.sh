#!/usr/bin/env bash
# Configures and builds a preset (default: release), with everything it needs installed first.
#
#     scripts/build.sh [PRESET [-DNAME=VALUE ...] [TARGET ...]]
set -euo pipefail
cd "$(dirname "$0")/.."

preset=${1:-release} definitions=() targets=()
for word in "${@:2}"; do
  if [[ $word == -D* ]]; then definitions+=("$word"); else targets+=("$word"); fi
done
scripts/install_dependencies.sh
log=build/$preset-configure.log
mkdir -p build
cmake --preset "$preset" "${definitions[@]}" >"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }
grep -E '^-- (CPU code|CUDA|MPI|NCCL)' "$log" || true
cmake --build --preset "$preset" ${targets:+--target "${targets[@]}"}
