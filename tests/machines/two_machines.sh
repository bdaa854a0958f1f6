#!/usr/bin/env bash
# Runs a command beside two machines under Slurm that are simulated on this one: each has a network and a host name of
# its own; cores, files and processes are shared. `on nodea COMMAND` runs a command on one of them, srun and sbatch
# work as on a cluster. All of it lives in namespaces whose first process is this script: when it ends, however it
# ends, the kernel takes daemons, networks and mounts away.
#
#     sudo tests/machines/two_machines.sh tests/machines/check_ranks.sh
#     sudo tests/machines/two_machines.sh bash          # to look around
#
# Needs root, slurm-wlm, munge, iproute2; installs nothing and leaves the system's own Slurm and munge alone.
set -euo pipefail

for program in slurmctld slurmd srun munged ip nsenter; do
  PATH=$PATH:/usr/sbin command -v "$program" >/dev/null ||
    { echo "$program is missing: apt-get install slurm-wlm munge iproute2" >&2; exit 1; }
done
((EUID == 0)) || { echo "needs root: namespaces and daemons" >&2; exit 1; }
(($# > 0)) || { sed -n '2,/^set/s/^# \?//p' "$0" >&2; exit 2; }
if [[ -z ${TWO_MACHINES:-} ]]; then
  TWO_MACHINES=$(mktemp -d /tmp/two_machines.XXXXXX)
  export TWO_MACHINES
  trap 'rm -rf "$TWO_MACHINES"' EXIT
  setpriv --pdeathsig KILL unshare --net --uts --mount --pid --fork --kill-child --mount-proc "$0" "$@"
  exit
fi

cd "$TWO_MACHINES"
export PATH=$TWO_MACHINES/bin:$PATH:/usr/sbin SLURM_CONF=$TWO_MACHINES/slurm.conf
cores=$(nproc)

# The head, with the switch that joins all, and behind it the two machines.
network() {
  hostname head
  printf '%s\n' '127.0.0.1 localhost' '10.77.0.1 head' '10.77.0.11 nodea' '10.77.0.12 nodeb' >hosts
  mount --bind hosts /etc/hosts
  ip link set lo up
  ip link add switch type bridge
  ip address add 10.77.0.1/24 dev switch
  ip link set switch up
  machine nodea 10.77.0.11
  machine nodeb 10.77.0.12
}

machine() {  # NAME ADDRESS
  unshare --net --uts sh -c "hostname $1; exec sleep infinity" &
  echo $! >"$1.pid"
  until [[ $(nsenter --target $! --uts hostname) == "$1" ]]; do sleep 0.05; done
  ip link add "to-$1" master switch up type veth peer name eth0 netns $!
  nsenter --target $! --net sh -c "ip link set lo up; ip address add $2/24 dev eth0; ip link set eth0 up"
}

slurm() {
  mkdir -m 700 munge
  head -c 128 /dev/urandom >munge/key
  chmod 400 munge/key
  munged --force --key-file=munge/key --socket="$PWD/munge.socket" --pid-file="$PWD/munge/pid" \
    --log-file="$PWD/munge/log" --seed-file="$PWD/munge/seed" 2>/dev/null
  cat >slurm.conf <<CONF
ClusterName=two
SlurmctldHost=head(10.77.0.1)
SlurmUser=root
AuthInfo=socket=$PWD/munge.socket
StateSaveLocation=$PWD/state
SlurmdSpoolDir=$PWD/spool-%n
TmpFS=$PWD/tmp-%n
SlurmctldPidFile=$PWD/slurmctld.pid
SlurmdPidFile=$PWD/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5
SlurmdTimeout=20
KillWait=5
ReturnToService=2
NodeName=nodea NodeAddr=10.77.0.11 CPUs=$cores
NodeName=nodeb NodeAddr=10.77.0.12 CPUs=$cores
PartitionName=all Nodes=nodea,nodeb Default=YES
CONF
  mkdir state {spool,tmp}-node{a,b}
  slurmctld -D >slurmctld.log 2>&1 &
  for node in nodea nodeb; do on "$node" slurmd -D >"slurmd-$node.log" 2>&1 & done
  for _ in {1..100}; do
    [[ $(sinfo --noheader --format=%T%D 2>/dev/null) != idle2 ]] || return 0
    sleep 0.2
  done
  tail -n 5 slurmctld.log slurmd-*.log >&2
  return 1
}

mkdir bin
cat >bin/on <<'EOS'
#!/bin/sh
# MACHINE COMMAND...: that command on that machine, by its shell, as ssh does; mpirun starts its daemons so.
machine=$1
shift
exec nsenter --target "$(cat "$TWO_MACHINES/$machine.pid")" --net --uts sh -c "$*"
EOS
chmod +x bin/on
network
slurm
cd "$OLDPWD"
trap 'exit 1' INT TERM
"$@"
