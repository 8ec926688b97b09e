# shellcheck shell=bash
# Sourced by the scripts beside it: which Python they use, and how it gets
# what it needs.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

die() {
  echo "error: $*" >&2
  exit 2
}

supported() {
  "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
    >/dev/null 2>&1
}

# The active environment, if there is one.
active_prefix() {
  if [ -n "${VIRTUAL_ENV:-}" ]; then
    echo "$VIRTUAL_ENV"
  elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
    echo "$CONDA_PREFIX"
  fi
}

# Make `python` that of the active environment or, without one, of .venv.
use_environment() {
  local prefix
  prefix=$(active_prefix)
  prefix=${prefix:-$root/.venv}
  if [ -x "$prefix/bin/python" ]; then
    export PATH="$prefix/bin:$PATH"
  fi
}

find_python() {
  local name
  for name in python3 python3.13 python3.12 python3.11 python3.10; do
    if supported "$name"; then
      echo "$name"
      return
    fi
  done
  die "Python 3.10 to 3.13 is needed and none is on the PATH" \
    "(python3 is $(python3 --version 2>&1 || echo missing))."
}

# Install, once, what this project needs: into the active environment or, with
# the pinned versions throughout, into .venv. Then use it.
set_up_environment() {
  local prefix python
  prefix=$(active_prefix)
  if [ -n "$prefix" ]; then
    supported "$prefix/bin/python" || die "the active environment $prefix" \
      "has no Python 3.10 to 3.13: activate another one, or none."
    "$prefix/bin/python" "$root/tools/setup_env.py" || exit
  else
    prefix=$root/.venv
    if [ ! -e "$prefix/bin/python" ]; then
      python=$(find_python) || exit
      echo "Making the environment .venv with $("$python" --version)"
      "$python" -m venv "$prefix" || exit
    fi
    supported "$prefix/bin/python" || die "$prefix does not work or has no" \
      "Python 3.10 to 3.13: remove this folder and start again."
    "$prefix/bin/python" "$root/tools/setup_env.py" --pinned || exit
  fi
  use_environment
}

# Threads for each of N processes, so that they share the cores.
threads_for() {
  local threads=$(($(getconf _NPROCESSORS_ONLN) / $1))
  echo $((threads > 0 ? threads : 1))
}

# run_processes N SCRIPT [ARGS...]: N processes on this machine by torchrun,
# and as many on each of NNODES.
run_processes() {
  local processes=$1
  shift
  use_environment
  export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(threads_for "$processes")}
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$processes" \
    "$@"
}

# run_slurm PARTITION JOB_NAME SCRIPT [ARGS...]: one task per GPU.
run_slurm() {
  local partition=$1 job_name=$2 srun_args
  shift 2
  read -ra srun_args <<<"${SRUN_ARGS:-}"
  use_environment
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
  exec srun \
    --partition="$partition" \
    --job-name="$job_name" \
    --gres="gpu:${GPUS_PER_NODE:-8}" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${srun_args[@]+"${srun_args[@]}"} \
    python -u "$@"
}
