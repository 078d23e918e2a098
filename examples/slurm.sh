#!/usr/bin/env bash
# Occlude a folder of images on several nodes of a SLURM cluster, one process per node.
#
#   sbatch examples/slurm.sh MODEL FOLDER STORE [options of jaxviz occlude]
#
# SLURM tells every process who it is and where the first one runs; `--distributed` reads that. Each
# process writes its own chunks to STORE, which all nodes must see. A job that is preempted, dies or
# runs out of time is put back into the queue, and goes on where it was: nothing is computed twice.
#SBATCH --job-name=jaxviz
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

if (($# < 3)); then
  echo "usage: sbatch $0 MODEL FOLDER STORE [options of jaxviz occlude]" >&2
  exit 2
fi
model=$1 folder=$2 store=$3
shift 3

# Two minutes before the time is up SLURM sends TERM: ask for another turn, and end.
again() {
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
}
trap again TERM

srun --kill-on-bad-exit=0 \
  jaxviz occlude "$model" "$folder" --store "$store" --distributed --log "$store.log.jsonl" "$@" &
wait $!
