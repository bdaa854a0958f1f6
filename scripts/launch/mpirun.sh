#!/usr/bin/env bash
# Trains on several ranks of this machine and goes on by itself after a lost rank.
#
#     scripts/launch/mpirun.sh RANKS CONFIG [key=value ...]
#
# To stop with a checkpoint: kill -USR1 the mpirun process (SIGTERM leaves the ranks one second).
set -uo pipefail

if [[ ! ${1:-} =~ ^[1-9][0-9]*$ || $# -lt 2 ]]; then
  echo "mpirun.sh: expected RANKS CONFIG [key=value ...]" >&2
  exit 2
fi
ranks=$1
shift
peer_lost=5 preempted=7
for attempt in 1 2 3; do
  mpirun -np "$ranks" build/release/flasheva train "$@"
  code=$?
  # mpirun ends a job of which a rank was killed itself, with 128 + signal.
  ((code == peer_lost || code > 128)) || break
  echo "attempt $attempt ended with exit code $code" >&2
done
((code != preempted)) || echo "stopped with a checkpoint; the same command goes on" >&2
exit "$code"
