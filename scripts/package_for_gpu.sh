#!/usr/bin/env bash
# Builds the program and the tests that run on a GPU (preset gpu) and collects them in build/gpu-package, with the
# shared libraries that a bare machine lacks, and in build/gpu-package.tar.gz, which scripts/gpu_check.sh takes on a
# machine that has a GPU, CUDA 13 and little else. It belongs beside this repository's files there: the tests read
# tests/fixtures of the current folder.
#
#     scripts/package_for_gpu.sh
set -euo pipefail
cd "$(dirname "$0")/.."

build=build/gpu package=build/gpu-package limit_mib=64  # of what is carried there, these files included
jobs=${JOBS:-$(nproc)}

log=$build-configure.log
mkdir -p build
cmake --preset gpu >"$log" 2>&1 || { tail -n 30 "$log" >&2; exit 1; }
grep -qE '^-- CUDA [0-9]' "$log" || { echo "package_for_gpu: nvcc was not found, see $log" >&2; exit 1; }
mapfile -t tests < <(cmake --build "$build" --target help | grep -oE '\btest_[a-z_]+_cuda\b' | sort -u)
cmake --build "$build" -j "$jobs" --target flasheva "${tests[@]}"

rm -rf "$package"
mkdir -p "$package/lib"
for name in flasheva "${tests[@]}"; do
  strip -o "$package/$name" "$(find "$build" -name "$name" -type f -executable -print -quit)"
done
git describe --always --dirty >"$package/commit"

# All but the C library, which every machine has in a version of its own, and what comes with the driver and CUDA.
left_out='^(linux-vdso|ld-linux-x86-64|lib(c|m|dl|rt|pthread|resolv|util|anl)|libcuda|libcudart|libcublas|libcublasLt|libnccl|libnvidia-[a-z-]+)\.so'
for name in flasheva "${tests[@]}"; do ldd "$build/$(cd "$build" && find . -name "$name" -type f -print -quit)"; done |
  awk '$2 == "=>" && $3 ~ /^\// {print $1, $3} / not found/ {print "package_for_gpu: " $1 " not found" >"/dev/stderr"}' |
  sort -u | while read -r name path; do
    [[ $name =~ $left_out ]] || strip -o "$package/lib/$name" "$path"
  done

# Do they run where nothing else of this machine's libraries is looked for, in another folder?
here=$PWD
for name in flasheva "${tests[@]}"; do
  if env -u LD_LIBRARY_PATH ldd "$package/$name" | grep -E ' => /' | grep -vE "$here/$package/lib/" |
      awk '{print $1}' | grep -vE "$left_out"; then
    echo "package_for_gpu: $name takes these from this machine" >&2
    exit 1
  fi
done
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
ln -s "$here/tests" "$elsewhere/tests"
cd "$elsewhere"
env -u LD_LIBRARY_PATH "$here/$package/flasheva" info >/dev/null
for name in "${tests[@]}"; do
  rc=0
  env -u LD_LIBRARY_PATH "$here/$package/$name" --gtest_filter='-*' || rc=$?
  [[ $rc == 0 || $rc == 77 ]] || { echo "package_for_gpu: $name does not start" >&2; exit 1; }
done
cd "$here"

du -h --apparent-size "$package"/* | sort -rh
tar -C "$package" -czf "$package.tar.gz" .
bytes() { du --summarize --total --apparent-size --block-size=1 "$@" | tail -n 1 | cut -f1; }
carried=$(bytes "$package.tar.gz") files=$(git ls-files -z | bytes --files0-from=-)
mib() { echo $((($1 + 1048575) / 1048576)); }
echo "$package.tar.gz: $(mib "$carried") MiB, with this repository's files $(mib $((carried + files))) of at most $limit_mib"
(($(mib $((carried + files))) <= limit_mib)) || { echo "package_for_gpu: too large" >&2; exit 1; }
