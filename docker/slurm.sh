#!/usr/bin/env bash
# One recipe on one node: sbatch docker/slurm.sh qwen3-4b-deepmath. A job that is preempted or out of time is queued
# again and goes on at the last finished unit. In place of the last line, `prefect worker start --pool p2o --limit 1`
# makes the node a worker for as long as the job lasts.
#SBATCH --job-name=p2o
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=512G
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?start it with sbatch, from the repository}"
source .venv/bin/activate
export PREFECT_API_URL="${PREFECT_API_URL:-}" MLFLOW_TRACKING_URI="${MLFLOW_TRACKING_URI:-sqlite:///$PWD/mlflow.db}"
[ -n "$PREFECT_API_URL" ] || unset PREFECT_API_URL  # the run then has a server of its own
# a first look costs nothing, and says what would not fit
p2o doctor --recipe "${1:?a recipe}" "${@:2}"
srun --ntasks=1 p2o run --recipe "$1" "${@:2}" --wait
