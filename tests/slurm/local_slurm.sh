#!/usr/bin/env bash
# A real Slurm of one node on this machine, for tests: two pretend GPUs; no systemd, no cgroups, no accounting.
#
#   local_slurm.sh install   Slurm and MUNGE from Debian's or Ubuntu's packages; no daemon is started
#   local_slurm.sh start     start munged, slurmctld and slurmd, and wait until the node takes jobs
#   local_slurm.sh status    say which of them run; fails unless all do
#   local_slurm.sh env       the variable that Slurm's commands read: eval "$(local_slurm.sh env)"
#   local_slurm.sh stop      cancel all jobs and end exactly the daemons that were started here
#
# Everything is in one folder, EAST_SLURM_DIR, and on two ports from EAST_SLURM_PORT. The one trace outside is a link,
# /etc/slurm/slurm.conf, while it runs: snakemake-executor-plugin-slurm-jobstep hides SLURM_CONF from the `srun` of a job,
# which then looks only there. Needs root.
set -euo pipefail

ROOT=${EAST_SLURM_DIR:-/tmp/east-slurm}
PORT=${EAST_SLURM_PORT:-16927}
LINK=/etc/slurm/slurm.conf
NODE=$(hostname -s)
DAEMONS=(munged slurmctld slurmd)
export SLURM_CONF=$ROOT/slurm.conf

fail() {
  echo "local_slurm.sh: $*" >&2
  exit 1
}

pid_of() { cat "$ROOT/run/$1.pid" 2>/dev/null; }

# A daemon that has ended may stay in the process table where nobody reaps it; that is not running.
runs() {
  local pid
  pid=$(pid_of "$1") && [[ $(cat "/proc/$pid/stat" 2>/dev/null) == "$pid ($1) "[!Z]* ]]
}

all_run() {
  local name
  for name in "${DAEMONS[@]}"; do runs "$name" || return 1; done
}

# await SECONDS COMMAND...: whether the command succeeds within that time.
await() {
  local tries=$(($1 * 5))
  shift
  until "$@"; do
    ((tries-- > 0)) || return 1
    sleep 0.2
  done
}

node_is_idle() { [[ $(sinfo --noheader --format %T 2>/dev/null) == idle ]]; }
no_job_left() { [[ -z $(squeue --noheader 2>/dev/null) ]]; }
has_ended() { ! runs "$1"; }

install_packages() {
  if hash sbatch slurmctld slurmd munged 2>/dev/null; then
    slurmctld -V
    return
  fi
  [[ $(id -u) == 0 ]] || fail "installing Slurm needs root."
  command -v apt-get >/dev/null || fail "there is no apt-get here: install Slurm and MUNGE by hand."
  # What Debian asks before a package starts its daemon: these are started by hand.
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap "rm -f $policy" EXIT
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge >"${TMPDIR:-/tmp}/slurm-install.log"
  slurmctld -V
}

link_is_ours() { [[ $(readlink "$LINK" 2>/dev/null) == "$SLURM_CONF" ]]; }

write_configuration() {
  mkdir -p "$ROOT"/{run,log,state,spool,munge}
  chmod 755 "$ROOT" "$ROOT"/{run,log,state,spool}
  chmod 700 "$ROOT/munge"
  [[ -s $ROOT/munge/key ]] || (umask 077 && head -c 1024 /dev/urandom >"$ROOT/munge/key")
  # Each GPU must be a character device of its own, or Slurm only counts them and tells no job which one it has.
  cat >"$ROOT/gres.conf" <<'CONF'
Name=gpu Type=pretend File=/dev/zero
Name=gpu Type=pretend File=/dev/full
CONF
  # More cores and memory than there are, so that only the GPUs limit how many trainings run at once.
  cat >"$SLURM_CONF" <<CONF
ClusterName=pretend
SlurmctldHost=$NODE(127.0.0.1)
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$ROOT/run/munge.socket,cred_expire=5
StateSaveLocation=$ROOT/state
SlurmdSpoolDir=$ROOT/spool
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_interval=2
AccountingStorageType=accounting_storage/none
MinJobAge=600
MailProg=/bin/true
ReturnToService=2
GresTypes=gpu
NodeName=$NODE NodeAddr=127.0.0.1 CPUs=16 RealMemory=100000 Gres=gpu:pretend:2
PartitionName=pretend Nodes=$NODE Default=YES
CONF
}

start() {
  hash sbatch slurmctld slurmd munged 2>/dev/null || fail "Slurm is not installed. Run: $0 install"
  [[ $(id -u) == 0 ]] || fail "Slurm's daemons need root."
  if all_run; then
    echo "runs already"
    return
  fi
  if [[ -e $LINK || -L $LINK ]] && ! link_is_ours; then
    fail "$LINK is there and belongs to another Slurm, which a test must not replace."
  fi
  write_configuration
  mkdir -p "$(dirname "$LINK")"
  ln -sfn "$SLURM_CONF" "$LINK"
  runs munged || munged --force --key-file="$ROOT/munge/key" --socket="$ROOT/run/munge.socket" \
    --pid-file="$ROOT/run/munged.pid" --seed-file="$ROOT/munge/seed" --log-file="$ROOT/log/munged.log"
  runs slurmctld || slurmctld -c
  runs slurmd || slurmd
  await 30 node_is_idle || {
    tail -n 20 "$ROOT"/log/*.log >&2
    fail "the node takes no jobs. To stop what has been started: $0 stop"
  }
  echo "runs"
}

status() {
  local name
  for name in "${DAEMONS[@]}"; do
    if runs "$name"; then echo "$name runs ($(pid_of "$name"))"; else echo "$name does not run"; fi
  done
  all_run && sinfo --format '%P %T %c cores, %m MB, %G'
}

stop() {
  local name
  if runs slurmctld && runs slurmd; then
    scancel --user=root && scancel --user=root --signal=KILL --full && await 20 no_job_left ||
      echo "local_slurm.sh: some jobs did not end" >&2
  fi
  for name in slurmd slurmctld munged; do
    runs "$name" || continue
    kill "$(pid_of "$name")"
    await 20 has_ended "$name" || fail "$name ($(pid_of "$name")) does not end."
    echo "stopped $name"
  done
  if link_is_ours; then rm "$LINK"; fi
}

case ${1:-} in
install) install_packages ;;
start) start ;;
status) status ;;
env) echo "export SLURM_CONF=$SLURM_CONF" ;;
stop) stop ;;
*)
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0"
  exit 2
  ;;
esac
