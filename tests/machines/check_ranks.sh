#!/usr/bin/env bash
# Checks what ranks do on two machines: the same model from srun and mpirun, going on from one with the other, and what
# happens when a rank is killed or stands still, a machine falls off the network, or Slurm sends a signal. One line a
# check; "all passed" at the end, else exit code 1. Takes about 6 minutes on 2 cores.
#
#     sudo tests/machines/two_machines.sh tests/machines/check_ranks.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
program=$PWD/build/release/flasheva work=$TWO_MACHINES/work failed=false
export CUDA_VISIBLE_DEVICES="" OMP_WAIT_POLICY=passive OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_plm=rsh OMPI_MCA_plm_rsh_agent=on
export SLURM_PMIX_FENCE=ring  # see scripts/launch/slurm.sbatch
on_slurm=(srun --mpi=pmix --nodes=2 --ntasks=4 --kill-on-bad-exit=1)
on_both=(mpirun --host "nodea:2,nodeb:2" -np 4)
on_head=(mpirun -np 4)

check() {  # TEXT CONDITION...
  if "${@:2}"; then echo "passed: $1"; else echo "FAILED: $1"; failed=true; fi
}
in_log() { [[ $(grep -cE "$2" "$work/$1.log") == ${3:-1} ]]; }  # NAME PATTERN [LINES, a glob]
newest() { basename "$(ls -d "$work/$1"/checkpoints/step-* | tail -n 1)"; }
same_model() { cmp -s "$work/$1/model/model.safetensors" "$work/$2/model/model.safetensors"; }
await() {  # SECONDS CONDITION...: false if it has not come true by then
  local end=$((SECONDS + $1))
  until "${@:2}"; do ((SECONDS < end)) && sleep 0.1 || return 1; done
}
reached() { [[ $(newest "$1" 2>/dev/null) > $2 ]]; }  # NAME CHECKPOINT
none_left() { ! pgrep -x flasheva >/dev/null; }
since() { awk "BEGIN {printf \"%.1f\", $EPOCHREALTIME - $1}"; }
# The machine loses its network, and nobody is told: both ends of the cable still see a link.
unplug() { ip link set "to-$1" nomaster; }
plug_in() { ip link set "to-$1" master switch; }

workspace() {
  mkdir "$work"
  head -c 20000 README.md >"$work/text.txt"
  "$program" data prepare --input "$work/text.txt" --output "$work/train.h5" --validation 0.1 >"$work/prepare.log"
  cat >"$work/tiny.yaml" <<CONF
run: {output: $work/run, seed: 3, device: cpu}
model:
  architecture: {vocab_size: 256, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 64}
  attention: {default: eva, layers: {1: full}, window: 8, chunk: 4}
data: {train: $work/train.h5, validation: $work/train-validation.h5, sequence_length: 32}
batch: {sequences: 5, micro: 2}
phases:
  - {name: pretrain, steps: 1000, train: [all], optimizer: {lr: 1.0e-2}, schedule: {warmup: 2}}
checkpoint: {every: 20, keep: 2}
evaluate: {every: 500, batches: 100}
log: {every: 500}
CONF
}
endless=phases.0.steps=1000000

train() {  # NAME LAUNCHER... -- [key=value ...]: trains into NAME; what it says goes to NAME.log
  local name=$1 launcher=()
  shift
  while [[ $1 != -- ]]; do launcher+=("$1"); shift; done
  exec "${launcher[@]}" "$program" train "$work/tiny.yaml" "run.output=$work/$name" "${@:2}" >>"$work/$name.log" 2>&1
}

start() {  # as train(), in the background; returns when a checkpoint is there: who runs, and since when
  name=$1 process=()
  train "$@" &
  run=$!
  await 60 reached "$name" "$(newest "$name" 2>/dev/null || echo step)" || { cat "$work/$name.log"; exit 1; }
  for p in $(pgrep -x flasheva); do
    process[$(tr '\0' '\n' <"/proc/$p/environ" | sed -nE 's/^(SLURM_PROCID|OMPI_COMM_WORLD_RANK)=//p')]=$p
  done
  step=$(squeue --steps --noheader --format=%i)
  begun=$EPOCHREALTIME
}
end() {  # waits for it: its exit code, and the seconds since start() returned
  code=0
  wait "$run" || code=$?
  seconds=$(since "$begun")
}

same_everywhere() {
  srun --mpi=pmix --nodes=2 --ntasks=4 "$program" info >"$work/info.log"
  check "info names rank, hosts and shares of the cores: $(grep -m 1 -o '4 ranks:.*' "$work/info.log")" \
    in_log info 'rank [0-3] of 4 ranks: 0-1 on nodea, [0-9]+ threads? each; 2-3 on nodeb, ' 4
  (train srun "${on_slurm[@]}" --)
  (train both "${on_both[@]}" --)
  (train head "${on_head[@]}" --)
  check "srun and mpirun on two machines, mpirun on one: the same bits after 1000 steps" \
    eval 'same_model srun head && same_model both head'

  local codes=()
  start changing "${on_slurm[@]}" --; scancel --signal=USR1 "$step"; end; codes+=("$code after $(newest changing)")
  start changing "${on_head[@]}" --; kill -USR1 "$run"; end; codes+=("$code after $(newest changing)")
  start changing "${on_both[@]}" --; kill -USR1 "$run"; end; codes+=("$code after $(newest changing)")
  (train changing "${on_slurm[@]}" --)
  check "srun, mpirun on one and on two, srun again (exit code$(printf ' %s,' "${codes[@]}") end): the same bits" \
    eval 'same_model changing head && [[ "${codes[*]}" =~ ^7\ .*\ 7\ .*\ 7\  ]]'
}

named_by_others() {  # RANK WHAT: every other rank has said so in one line, and none runs any more
  for r in 0 1 2 3; do
    [[ $r == "$1" ]] ||
      in_log "$name" "^flasheva: rank $r: rank $1 \(process ${process[$1]} on node[ab]\) $2" || return 1
  done
  none_left
}

ranks_in_trouble() {
  for launcher in on_slurm on_both; do
    local -n words=$launcher
    for victim in 3 0; do
      start "killed-$victim-$launcher" "${words[@]}" -- $endless
      kill -9 "${process[$victim]}"; end
      check "rank $victim killed, ${words[0]}: named by all others, all gone in $seconds s, exit code $code" \
        eval "named_by_others $victim died && ((code == 137)) && (( ${seconds%.*} < 5))"
    done
  done
  start stopped "${on_slurm[@]}" -- $endless distributed.timeout=3
  kill -STOP "${process[3]}"; end
  check "rank 3 stopped: named by all others, all gone in $seconds s (timeout 3 s), exit code $code" \
    eval "named_by_others 3 'has .* for [3-5] s' && ((code == 5)) && (( ${seconds%.*} < 8))"
}

network_in_trouble() {
  start outage "${on_slurm[@]}" -- $endless distributed.timeout=60
  unplug nodeb; sleep 10
  local at; at=$(newest outage)
  plug_in nodeb
  check "nodeb without network for 10 s of distributed.timeout 60: goes on from $at" await 50 reached outage "$at"
  scancel --signal=USR1 "$step"; end
  check "stopped after that: exit code $code" [ "$code" = 7 ]

  start unplugged "${on_slurm[@]}" -- $endless distributed.timeout=3
  unplug nodeb
  await 20 none_left || true
  local gone; gone=$(since "$begun")
  plug_in nodeb; end
  check "nodeb without network: all gone on both machines after $gone s (timeout 3 s), exit code $code" \
    eval "((code == 5)) && (( ${gone%.*} < 6)) &&
      in_log unplugged '^flasheva: rank [01]: rank [23] \(process [0-9]+ on nodeb\) has given no sign of life' 2 &&
      in_log unplugged '^flasheva: rank [23]: rank 0 \(process [0-9]+ on nodea\) has given no sign of life' 2"
}

same_addresses() {  # as Docker gives every machine
  for node in nodea nodeb; do
    on $node "ip link add docker0 type bridge; ip address add 172.17.0.1/16 dev docker0; ip link set docker0 up"
  done
  begun=$EPOCHREALTIME
  timeout 90 "${on_slurm[@]}" "$program" info >"$work/docker.log" 2>&1 || true
  check "the same docker0 on both: said after $(since "$begun") s" \
    in_log docker '^flasheva: rank [0-3]: no message .* export OMPI_MCA_btl_tcp_if_include=' '[1-4]'
  OMPI_MCA_btl_tcp_if_include=10.77.0.0/24 "${on_slurm[@]}" "$program" info >"$work/named.log" 2>&1 || true
  check "with the network named, it works" in_log named 'rank [0-3] of 4 ranks' 4
  for node in nodea nodeb; do on $node "ip link delete docker0"; done
}

submit() {  # NAME OPTION... -- [key=value ...]: scripts/launch/slurm.sbatch with a task or two a machine
  local name=$1 options=()
  shift
  while [[ $1 != -- ]]; do options+=("$1"); shift; done
  job=$(sbatch --parsable --output="$work/$name.log" --ntasks-per-node=1 --cpus-per-task=1 "${options[@]}" \
    scripts/launch/slurm.sbatch "$work/tiny.yaml" "run.output=$work/$name" "${@:2}")
}
state() { scontrol --oneliner show job "$job" | grep -oE "\\b$1=\\S+" | cut -d= -f2; }
is() { [[ $(state "$1") == "$2" ]]; }
# SECONDS: it waits to be started again by then. Slurm would leave it two minutes, of which the remains of the run
# before need a few seconds: srun starts nothing else, and says 0 of it.
requeued() {
  await "$1" eval 'is Restarts 1 && is JobState PENDING' && sleep 8 && scontrol update jobid="$job" StartTime=now
}

goes_on() { await 60 in_log "$1" "^going on from .*step-"; }  # NAME

jobs_of_slurm() {
  SLURM_CPU_BIND=cores submit cores --cpus-per-task="$(nproc)" -- phases.0.steps=20
  await 60 is JobState COMPLETED || true
  check "sbatch: $(grep -o '2 ranks:.*' "$work/cores.log")" in_log cores "on nodea, $(nproc) threads? each"

  submit signalled --ntasks-per-node=2 --
  await 60 reached signalled step && scancel --signal=USR1 "$job"
  check "job sent USR1: saves, and queues itself again" requeued 30
  await 60 is JobState COMPLETED || true
  check "goes on to the end by itself ($(state JobState)): the same bits" same_model signalled head

  submit killed -- $endless
  await 60 reached killed step && kill -9 "$(pgrep -nx flasheva)"
  check "job with a killed rank: queues itself again" requeued 30
  check "and goes on" goes_on killed
  scancel "$job" && await 30 none_left

  submit limited --time=2 --signal=USR1@45 -- $endless
  begun=$EPOCHREALTIME
  await 110 is Restarts 1 || true
  check "job of 2 minutes, USR1@45: saves at $(newest limited) after $(since "$begun") s, and queues itself again" \
    eval "in_log limited 'stopped by a signal, checkpoint saved' && requeued 30"
  check "and goes on" goes_on limited
  scancel "$job" && await 30 none_left

  submit cut_off -- $endless distributed.timeout=3
  await 60 reached cut_off step && unplug nodeb
  begun=$EPOCHREALTIME
  await 120 eval 'is Restarts 1 && is JobState PENDING' || true
  check "job that loses nodeb's network: waits for it after $(since "$begun") s" is JobState PENDING
  plug_in nodeb
  sleep 8
  scontrol update jobid="$job" StartTime=now 2>>"$work/scontrol.log" || true  # it may have begun
  check "and goes on when it is back" goes_on cut_off
  scancel "$job" && await 30 none_left
}

ipv6_alone() {  # at the end: Slurm knows its machines by IPv4
  printf '%s\n' '127.0.0.1 localhost' 'fd77::1 head' 'fd77::11 nodea' 'fd77::12 nodeb' >"$TWO_MACHINES/hosts"
  ip address add fd77::1/64 dev switch nodad
  for machine in nodea.11 nodeb.12; do
    on "${machine%.*}" "ip address flush dev eth0; ip address add fd77::${machine#*.}/64 dev eth0 nodad"
  done
  (export OMPI_MCA_oob_tcp_disable_family=4 OMPI_MCA_btl_tcp_disable_family=4; train ipv6 "${on_both[@]}" --) || true
  check "mpirun on two machines that share IPv6 alone: the same bits" same_model ipv6 head
}

workspace
same_everywhere
ranks_in_trouble
network_in_trouble
same_addresses
jobs_of_slurm
ipv6_alone
if $failed; then exit 1; fi
echo "all passed"
