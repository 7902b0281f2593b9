#!/usr/bin/env bash
# Hands stages to Slurm, one job each; a job starts when the one before it is completed, and is cancelled when that
# one failed. Prints the jobs' numbers. Options go to every sbatch:  submit.sh --partition=gpu --time=4:00:00
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cd "$here"/../..

job=
submit() { # submit STAGE FILE
  local name
  name=$(basename "$2")
  # Of two equal options the later one wins: a --dependency of the caller's is for the first job alone.
  job=$(sbatch --parsable --job-name="${name%.*}" ${options[@]+"${options[@]}"} \
    ${job:+--dependency=afterok:"$job"} --kill-on-invalid-dep=yes "$here"/one_process.sbatch "$1" "$2")
  job=${job%%;*} # --parsable may put the cluster's name behind the number
  echo "$1 $2: job $job" >&2
  echo "$job"
}

options=("$@")
submit sft configs/quickstart/base.yaml
submit sft configs/quickstart/sft.yaml
submit collect configs/quickstart/collect.yaml
submit train-rm configs/quickstart/train_rm.yaml
submit ppo configs/quickstart/ppo.yaml
submit dpo configs/quickstart/dpo.yaml
