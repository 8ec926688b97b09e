#!/usr/bin/env bash
# Train under Slurm, with one task per GPU.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"

if [ $# -lt 4 ]; then
  cat >&2 <<'USAGE'
usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR
           [options of tools/train.py]

In the environment: GPUS (of the job, default 8), GPUS_PER_NODE (default 8),
CPUS_PER_TASK (default 5) and SRUN_ARGS (further options of srun).
USAGE
  exit 2
fi
partition=$1
job_name=$2
config=$3
work_dir=$4
shift 4

run_slurm "$partition" "$job_name" "$root/tools/train.py" "$config" \
  --work-dir "$work_dir" --launcher slurm "$@"
