#!/usr/bin/env bash
# Test under Slurm, with one task per GPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

if [ $# -lt 4 ]; then
  cat >&2 <<'USAGE'
usage: bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT
           [options of tools/test.py]

In the environment: GPUS (of the job, default 8), GPUS_PER_NODE (default 8),
CPUS_PER_TASK (default 5) and SRUN_ARGS (further options of srun).
USAGE
  exit 2
fi
partition=$1
job_name=$2
config=$3
checkpoint=$4
shift 4
gpus=${GPUS:-8}
gpus_per_node=${GPUS_PER_NODE:-8}
read -ra srun_args <<<"${SRUN_ARGS:-}"

use_environment
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec srun \
  --partition="$partition" \
  --job-name="$job_name" \
  --gres="gpu:$gpus_per_node" \
  --ntasks="$gpus" \
  --ntasks-per-node="$gpus_per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" \
  --kill-on-bad-exit=1 \
  ${srun_args[@]+"${srun_args[@]}"} \
  python -u "$root/tools/test.py" "$config" "$checkpoint" \
  --launcher slurm "$@"
