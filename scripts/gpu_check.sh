#!/usr/bin/env bash
# Tests and measures flasheva on a machine with a GPU, CUDA 13 and little else: what scripts/package_for_gpu.sh
# collected, beside this repository's files. No part stops the next; one table of all that was measured comes last.
# The summary goes to RESULTS_FOLDER/PARTS/summary.md, every log and figure behind it to RESULTS_FOLDER/PARTS/
# results.tar.gz. Both are written after every step and every 20 seconds; scripts/summarize_gpu_check.py makes files of
# benchmarks/results/ of them. On a GPU, whatever did not pass makes the exit status 1.
#
#     scripts/gpu_check.sh [OPTION...] [PACKAGE [RESULTS_FOLDER]]   default: build/gpu-package.tar.gz, build/gpu-results
#
#     --parts LIST      some of machine,tests,losses,memcheck,steps,attention,decode,pytorch,sanitizer, in that
#                       order (default: all)
#     --seconds N       time for everything (default 560); a step gets no more than what is left
#     --try-on-cpu      tiny shapes, without a GPU: do the parts run?
#
# Where a command may take ten minutes and the GPU is there for thirty, the short first call says whether all works,
# while there is time to repair it; the last one is for what is left:
#
#     scripts/gpu_check.sh --parts machine,tests,losses,memcheck --seconds 300 build/gpu-package.tar.gz "$OUT"
#     scripts/gpu_check.sh --parts steps,attention,decode --seconds 420 build/gpu-package.tar.gz "$OUT"
#     scripts/gpu_check.sh --parts pytorch --seconds 540 build/gpu-package.tar.gz "$OUT"
#     scripts/gpu_check.sh --parts sanitizer --seconds 400 build/gpu-package.tar.gz "$OUT"
set -uo pipefail
shopt -s extglob
cd "$(dirname "$0")/.." || exit

all_parts=(machine tests losses memcheck steps attention decode pytorch sanitizer)
parts=all seconds=560 device=cuda places=()
while (($#)); do
  case $1 in
    --parts) parts=${2:?--parts LIST}; shift ;;
    --seconds) seconds=${2:?--seconds N}; shift ;;
    --try-on-cpu) device=cpu ;;
    -*) sed -n '2,21s/^# \{0,1\}//p' "$0"; exit 2 ;;
    *) places+=("$1") ;;
  esac
  shift
done
for part in ${parts//,/ }; do
  [[ " all ${all_parts[*]} " == *" $part "* ]] || { echo "gpu_check: no part $part; there are ${all_parts[*]}" >&2; exit 2; }
done
package=$(realpath -m "${places[0]:-build/gpu-package.tar.gz}")  # the archive, or its folder
results=$(realpath -m "${places[1]:-build/gpu-results}")/${parts//,/-}
mkdir -p "$results"
work=$(mktemp -d) unpacked=$(mktemp -d)
clocks=  # the process that watches them
trap '[[ -z $clocks ]] || kill "$clocks"; rm -rf "$work" "$unpacked"' EXIT
if [[ -f $package ]]; then
  tar -C "$unpacked" -xzf "$package" && package=$unpacked
fi
flasheva=$package/flasheva
[[ -x $flasheva ]] || { echo "gpu_check: $flasheva is missing: scripts/package_for_gpu.sh makes it" >&2; exit 2; }
deadline=$((SECONDS + seconds))
repository=${FLASHEVA_COMMIT:-$(git describe --always --dirty 2>/dev/null)}
FLASHEVA_COMMIT=$(cat "$package/commit" 2>/dev/null || echo "${repository:-unknown}")
export FLASHEVA_COMMIT PYTHONUNBUFFERED=1

# --- helpers ---

keep() {  # what there is so far: whoever stops this script, even within a step, still finds it
  python3 scripts/summarize_gpu_check.py "$work" >"$results/summary.md.part" 2>"$work/summary.log" ||
    cp "$work/steps.tsv" "$results/summary.md.part"
  mv "$results/summary.md.part" "$results/summary.md"
  tar -C "$work" -czf "$results/results.tar.gz.part" . || (($? == 1)) || return 0  # 1: a log grew meanwhile
  mv "$results/results.tar.gz.part" "$results/results.tar.gz"
}

row() {  # PART NAME FATE [SECONDS] of the summary
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "${4:-0}" >>"$work/steps.tsv"
  keep
}

part=- name=- command=  # of the step that runs
trap '[[ -z $command ]] || kill "$command"; row "$part" "$name" "stopped from outside"; exit 143' TERM INT

step() {  # PART NAME LIMIT COMMAND...: at most LIMIT seconds, its output in PART-NAME.log, its $fate in steps.tsv
  local part=$1 name=$2 limit=$3 left=$((deadline - SECONDS)) start=$SECONDS rc=0 log=$work/$1-$2.log
  shift 3
  ((limit < left)) || limit=$left
  if ((limit < 5)); then
    fate='no time left'
    row "$part" "$name" "$fate"
    return
  fi
  echo "[$SECONDS s] $part $name"
  echo "+ $*" >"$log"
  timeout --kill-after=5 "$limit" "$@" >>"$log" 2>&1 </dev/null &
  command=$!
  until timeout 20 tail -f -s 0.1 --pid=$command /dev/null & wait $!; do keep; done  # a trap cuts `wait` short
  wait $command || rc=$?
  command=
  case $rc in
    0) fate=passed ;;
    77) fate=skipped ;;
    124) fate="over its $limit s" ;;
    137) fate='killed (137)' ;;  # after its time too, or for want of memory
    *) fate="failed, exit $rc" ;;
  esac
  if [[ $rc == 0 ]] && grep -q '^\[=* *\] Running' "$log" && ! grep -q '^\[ *OK \]' "$log"; then
    fate='failed, no test ran'
  fi
  row "$part" "$name" "$fate" $((SECONDS - start))
}

bench() {  # PART NAME LIMIT ARGUMENTS...: a `flasheva bench` whose figures go to PART-NAME.json
  step "$1" "$2" "$3" "$flasheva" bench "${@:4}" --device $device --json "$work/$1-$2.json"
}

find_cuda_libraries() {  # where the loader does not know them: PyTorch's, which is compared with, then CUDA's own
  local missing folder python_folders
  local programs=("$flasheva" "$package"/test_*_cuda)
  [[ $(ldd "${programs[@]}" 2>/dev/null) == *'not found'* ]] || return 0
  python_folders=$(python3 -c 'import glob, sysconfig
print(*glob.glob(sysconfig.get_paths()["purelib"] + "/nvidia/*/lib"))' 2>/dev/null)
  for missing in $(ldd "${programs[@]}" | awk '/not found/ {print $1}' | sort -u); do
    for folder in $python_folders /usr/local/cuda*/lib64 /usr/local/cuda*/lib /usr/local/cuda*/targets/x86_64-linux/lib; do
      [[ -e $folder/$missing ]] || continue
      export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
      break
    done
  done
}

# --- parts ---

small=() sizes=(160m 410m 1.4b 70m)
if [[ $device == cpu ]]; then
  sizes=(160m)
  small=(model.architecture.{hidden_size=128,intermediate_size=256,num_attention_heads=2,num_hidden_layers=1}
    model.architecture.vocab_size=1000 data.sequence_length=512 batch.sequences=2 batch.micro=2)
fi

machine() {
  if [[ $device == cuda ]]; then
    step machine gpu 20 nvidia-smi
    step machine clocks 20 nvidia-smi -q -d CLOCK,POWER,TEMPERATURE,PERFORMANCE
  fi
  step machine cpu 10 lscpu
  step machine libraries 10 ldd "$flasheva"
  step machine info 30 "$flasheva" info
}

by_suite() {  # PROGRAM: every suite of tests in a process of its own
  local suite suites rc failed=0
  suites=$("$1" --gtest_list_tests | awk '/^[^ ]+\.($| )/ && !seen[$1]++ {print $1}')
  for suite in $suites; do
    rc=0
    timeout --foreground --kill-after=5 30 "$1" --gtest_filter="$suite*" || rc=$?
    ((rc == 0)) || { failed=1; echo "$suite exit $rc"; }
  done
  [[ -n $suites ]] && return $failed
}
export -f by_suite

tests() {  # the ranks last, never suite by suite: each start of theirs is several processes
  local program name
  local fault='cudaError(IllegalAddress|MisalignedAddress|LaunchFailure|LaunchTimeout|IllegalInstruction'
  fault+='|InvalidAddressSpace|InvalidPc|HardwareStackError|Assert|ECCUncorrectable)'
  for program in "$package"/test_!(*ranks)_cuda; do
    name=$(basename "$program")
    step tests "$name" 90 "$program"
    # What these leave behind fails every later test of the process.
    if [[ $fate =~ ^(over|killed|failed, exit 1[34]) ]] || grep -qE "$fault" "$work/tests-$name.log"; then
      step tests "$name-by-suite" 240 bash -c "by_suite ${program@Q}"
    fi
  done
  step tests test_gpu_ranks_cuda 150 env NCCL_DEBUG=WARN NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1 \
    "$package/test_gpu_ranks_cuda"  # both ranks are here, whatever network there is
}

losses() {  # two phases of the quickstart's recipe on our own code: do the losses follow the CPU's?
  local folder=$unpacked/losses run
  local train=("$flasheva" train configs/quickstart-finetune.yaml model.from="$folder/pretrain/model"
    "data."{train,validation}"=$folder/code.h5" phases.{0,1}.steps=25 log.every=1)
  mkdir -p "$folder"
  step losses data 20 "$flasheva" data prepare --input src/*/*.cpp --tokenizer bytes --output "$folder/code.h5"
  step losses pretrain 60 "$flasheva" train configs/quickstart-pretrain.yaml run.output="$folder/pretrain" \
    run.device=$device data.{train,validation}="$folder/code.h5" phases.0.steps=40
  for run in fp32-cpu fp32-gpu bf16-cpu bf16-wide-cpu bf16-gpu; do  # AVX2 has no products of bfloat16: they are widened
    step losses $run 60 env $([[ $run != *wide* ]] || echo DNNL_MAX_CPU_ISA=AVX2) \
      "${train[@]}" phases.1.precision=${run%%-*} run.output="$folder/$run" \
      run.device="$([[ $run == *gpu ]] && echo $device || echo cpu)"
  done
  step losses compared 10 python3 scripts/compare_losses.py "$folder"/{fp32-cpu,fp32-gpu,bf16-cpu,bf16-wide-cpu,bf16-gpu}
}

# Every kernel at small shapes: tests that need no float64, which a GPU skips. The first three run the most kernels.
sanitized=(
  attention='*AttentionPrecision.IsAsGoodAsThePlainFormula/*'
  operations='*/PrecisionTest.LowPrecision*'
  summaries=ChunkSummary.EveryHeadDimension
  replay=ReplayTest.GivesWhatTheCallsGive
  attention-dimensions='*AttentionPrecision.TakesEveryHeadDimension/bfloat16'
  cache=CacheTest.DoesNotDependOnTheBatch
  cache-rows='*CacheRowsTest.AreThoseOfWholeSequences/*'
  adamw='*AdamWTest.FollowsTheFormulaOverSteps/*:AdamWOfManyTest.*'
  sums='SumOfSquares.*'
  attention-float32=Attention.Float32IsCloseToFloat64
  operations-float32='*/PrecisionTest.Float32*'
)

sanitize() {  # PART TOOL NAME=FILTER...
  local tool=$2 filter program
  program=$(PATH=$PATH:/usr/local/cuda/bin command -v compute-sanitizer)
  if [[ -z $program ]]; then
    row "$1" "$tool" 'compute-sanitizer is not installed'
    return
  fi
  # Some virtual machines lend a GPU that it cannot look into.
  if [[ $device == cuda && $(timeout 60 "$program" "$package/test_kernels_cuda" \
    --gtest_filter=SumOfSquares.TakesLowPrecision 2>&1) == *'Device not supported'* ]]; then
    row "$1" "$tool" 'warning: compute-sanitizer does not support the GPU of this machine'
    return
  fi
  for filter in "${@:3}"; do
    step "$1" "$tool-${filter%%=*}" 90 "$program" --tool "$tool" --error-exitcode 9 \
      "$package/test_kernels_cuda" --gtest_filter="${filter#*=}"
  done
}

memcheck() { sanitize memcheck memcheck "${sanitized[@]:0:3}"; }

sanitizer() {  # what memcheck() leaves
  sanitize sanitizer memcheck "${sanitized[@]:3}"
  sanitize sanitizer racecheck "${sanitized[@]}"
}

steps() {
  local size kind
  for size in "${sizes[@]}"; do
    for kind in eva full; do
      bench steps "$size-$kind" 60 step "benchmarks/configs/gpu-$size.yaml" model.attention.default=$kind \
        "${small[@]}" --steps 8
    done
  done
  for size in "${sizes[@]}"; do  # timing every operation waits for each, so the whole step is slower here
    for kind in eva full; do
      bench steps "$size-$kind-operations" 60 step "benchmarks/configs/gpu-$size.yaml" \
        model.attention.default=$kind "${small[@]}" --steps 2 --operations
    done
  done
}

attention() {
  local kind tokens lengths=(2048 8192 32768) all=65536 heads=16
  [[ $device == cuda ]] || lengths=(512) all=1024 heads=2
  for tokens in "${lengths[@]}"; do
    for kind in eva full; do
      bench attention "$kind-$tokens" 30 attention --kind $kind --tokens "$tokens" --batch $((all / tokens)) \
        --heads $heads --head-dim 64 --precision bf16 --repeats 20 --operations
    done
  done
  for kind in eva full; do
    bench attention "$kind-${lengths[1]:-512}-one-sequence" 30 attention --kind $kind --tokens "${lengths[1]:-512}" \
      --batch 1 --heads $heads --head-dim 64 --precision bf16 --repeats 20 --operations
  done
}

decode() {
  local cache=(--context 4096 --new-tokens 1024 --batch 32 --steps 16) variant
  [[ $device == cuda ]] || cache=(--context 256 --new-tokens 32 --batch 2 --steps 2)
  local -A settings=([eva-block]='default=eva' [eva-sliding]='window_kind=sliding' [full]='default=full')
  for variant in eva-block full eva-sliding; do
    bench decode "160m-$variant" 30 decode benchmarks/configs/gpu-160m.yaml "model.attention.${settings[$variant]}" \
      "${small[@]}" "${cache[@]}" --precision bf16
  done
  bench decode 160m-eva-block-operations 30 decode benchmarks/configs/gpu-160m.yaml "${small[@]}" "${cache[@]}" \
    --precision bf16 --operations
}

pytorch() {
  local limit=$((deadline - SECONDS - 10)) where=()
  [[ $device == cuda ]] || where=(--try-on-cpu)
  step pytorch comparison "$limit" python3 benchmarks/gpu_against_pytorch.py --binary "$flasheva" --output "$work" \
    --seconds $((limit - 15)) "${where[@]}"
}

# --- all of them ---

find_cuda_libraries
: >"$work/steps.tsv"
echo "$FLASHEVA_COMMIT" >"$work/commit"
if [[ -n $repository && $repository != "$FLASHEVA_COMMIT" ]]; then
  row package commit "warning: built from $FLASHEVA_COMMIT, beside files of $repository"
fi
if command -v nvidia-smi >/dev/null; then
  nvidia-smi --query-gpu=timestamp,clocks.sm,power.draw,temperature.gpu,clocks_throttle_reasons.active --format=csv \
    -l 2 >"$work/clocks.csv" 2>&1 </dev/null &
  clocks=$!
fi
for part in "${all_parts[@]}"; do
  [[ ,$parts, == *,$part,* || $parts == all ]] && $part
done
keep
echo
cat "$results/summary.md"
good='passed|warning'
[[ $device == cuda ]] || good+='|skipped|no time left|compute-sanitizer'
awk -F '\t' -v good="^($good)" '$3 !~ good {bad = 1} END {exit bad || !NR}' "$work/steps.tsv"
