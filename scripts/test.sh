#!/usr/bin/env bash
# Builds and runs every test: the release build, formatting, the exports in transformers 5 and 4, what reads files under
# the address and undefined behaviour sanitizers, and the fuzz targets for 10 s each.
#
#     scripts/test.sh          20 to 25 minutes on 2 cores, the first build included
#     scripts/test.sh --long   tests all with sanitizers, fuzzes each target for 20 minutes, kills 1,000 ranks, makes
#                              every call on a file fail, compares 100,000 texts' tokens with the tokenizers package,
#                              gives the kernels other random inputs
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p build

long=false fuzz_seconds=10
[[ ${1:-} == --long ]] && long=true fuzz_seconds=1200

part() {  # NAME COMMAND...: runs it and says how long it took
  local name=$1 start=$SECONDS
  shift
  echo "== $name"
  "$@"
  echo "== $name: $((SECONDS - start)) s"
}

check_format() {
  git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs .venv/bin/clang-format --dry-run -Werror
}

run_tests() {  # PRESET: as many tests at once as there are cores; two threads each
  local folder program commands
  commands=$(ctest --preset "$1" --show-only=json-v1)
  for folder in $(sed -n 's/^subdirs("\(.*\)")$/\1/p' "build/$1/tests/CTestTestfile.cmake"); do  # those configured now
    for program in $(find "build/$1/tests/$folder" -name 'test_*' -type f -executable); do
      grep -qF "/$program\"" <<<"$commands" && continue
      echo "no test starts $program (delete it if an earlier build left it)" >&2
      exit 1
    done
  done
  OMP_NUM_THREADS=2 ctest --preset "$1" --parallel "$(nproc)" --output-on-failure --progress --quiet \
    --output-log "build/$1-tests.log" || { tail -n 100 "build/$1-tests.log" >&2; exit 1; }
  grep -aE 'tests passed|Total Test time' "build/$1-tests.log"
  # A test that skips itself has tested nothing. Tests of a GPU may, and are counted; any other has failed to set up.
  local skipped
  skipped=$(grep -aF '***Skipped' "build/$1-tests.log" || true)
  if grep -avi cuda <<<"$skipped" | grep -q .; then
    grep -avi cuda <<<"$skipped" | sed 's/\.\.\.\.*/ /' >&2
    exit 1
  fi
  [[ -z $skipped ]] || echo "skipped, without a GPU: $(grep -c . <<<"$skipped")"
}

run_python_tests() {  # with transformers 5 and, at the same time, with 4
  local version path pids=()
  for version in 5 4; do
    path=$([[ $version == 4 ]] && echo .venv/transformers-4 || true)
    OMP_NUM_THREADS=1 PYTHONPATH=$path .venv/bin/python -m pytest -q -p no:cacheprovider tests/python \
      >"build/python-tests-$version.log" 2>&1 &
    pids+=($!)
  done
  local failed=false
  wait "${pids[0]}" || { failed=true; tail -n 60 build/python-tests-5.log >&2; }
  wait "${pids[1]}" || { failed=true; tail -n 60 build/python-tests-4.log >&2; }
  $failed && exit 1
  grep -E '[0-9]+ passed' build/python-tests-{5,4}.log
  if grep -qE 'skipped|no tests ran' build/python-tests-{5,4}.log; then exit 1; fi
  .venv/bin/python tests/python/tokenizer_parity.py
}

fuzz() {  # NAME
  local found=build/fuzz/found-$1 inputs=build/fuzz/inputs-$1
  mkdir -p "$found" "$inputs"
  build/fuzz/tests/fuzz/fuzz_"$1" -max_total_time="$fuzz_seconds" -max_len=4096 -artifact_prefix="$found/" \
    -print_final_stats=1 "$inputs" "tests/fuzz/corpus/$1" >"build/fuzz/$1.log" 2>&1 ||
    { tail -n 40 "build/fuzz/$1.log" >&2; exit 1; }
  echo "fuzz_$1: $(grep -oE 'number_of_executed_units: *[0-9]+' "build/fuzz/$1.log" | grep -oE '[0-9]+') inputs, no finding"
}

fuzz_both() {  # NAME NAME: a target is one thread
  fuzz "$1" & local first=$!
  fuzz "$2"
  wait "$first"
}

# The Python packages are 6 GB, which come while the compiler works.
scripts/install_dependencies.sh
scripts/install_dependencies.sh --python-tests >build/python-install.log 2>&1 & python_install=$!
python_installed() { wait "$python_install" || { tail -n 20 build/python-install.log >&2; exit 1; }; }

# Everything is tested as it is built for use, and what takes bytes from outside with sanitizers, in the build of the
# fuzz targets: compiling is half of the time. --long tests everything with sanitizers.
as_built="core;kernels;distributed;model;training;inference;evaluation;commands;python;faults"
$long && as_built=""

part "build release" scripts/build.sh release -DFLASHEVA_TESTS="$as_built"
part "format" check_format
part "Python packages" python_installed
part "tests" run_tests release
part "Python tests" run_python_tests
if $long; then
  part "faults" env FLASHEVA_TRIALS=1000 FLASHEVA_EVERY_CALL=1 build/release/tests/faults/test_faults
  part "damaged checkpoints" env FLASHEVA_TRIALS=10000 build/release/tests/io/test_io_models \
    --gtest_filter='Checkpoints.*'
  part "tokenizer" .venv/bin/python tests/python/tokenizer_parity.py --long
  seed=$RANDOM
  part "kernels, inputs of FLASHEVA_TEST_SEED=$seed" env FLASHEVA_TEST_SEED=$seed \
    build/release/tests/kernels/test_kernels --gtest_brief=1
  part "build with sanitizers" scripts/build.sh asan -DFLASHEVA_PROGRAM=ON
  part "tests with sanitizers" run_tests asan
fi
part "build fuzz targets" scripts/build.sh fuzz chosen_tests fuzz_safetensors fuzz_config fuzz_tokenizer fuzz_megatron
part "tests of input with sanitizers" run_tests fuzz
part "fuzz safetensors, config" fuzz_both safetensors config
part "fuzz tokenizer, megatron" fuzz_both tokenizer megatron
echo "all passed in $((SECONDS / 60)) min $((SECONDS % 60)) s"
