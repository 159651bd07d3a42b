#!/bin/bash
# One training run on all hosts of a TPU pod slice. It has not been run on a TPU so far.
#
#     NAME=... ZONE=... BUCKET=gs://... SOURCE=... experiments/tpu/pod.sh create
#     NAME=... ZONE=... BUCKET=gs://... SOURCE=... experiments/tpu/pod.sh train agent=ppo total_steps=100_000_000
#     NAME=... ZONE=... experiments/tpu/pod.sh delete
#
# NAME    of the slice
# ZONE    where it is, such as us-central2-b
# TYPE    its accelerators, such as v4-32 (the default): four chips on each of four hosts
# VERSION the TPU VM image
# BUCKET  a Cloud Storage bucket for runs: every host must see the same folder, with the data in it
# SOURCE  what pip installs on each host, such as git+https://HOST/OWNER/jaxtrade
#
# agent.num_envs must be a multiple of the number of chips.
set -euo pipefail

TYPE=${TYPE:-v4-32}
VERSION=${VERSION:-tpu-ubuntu2204-base}
RUNS=/mnt/runs

on_all_hosts() {
  gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"
}

case "${1:-}" in
  create)
    gcloud compute tpus tpu-vm create "$NAME" --zone="$ZONE" \
      --accelerator-type="$TYPE" --version="$VERSION"
    on_all_hosts "set -e
      key=/usr/share/keyrings/cloud.google.asc apt=https://packages.cloud.google.com/apt
      curl -fsS \$apt/doc/apt-key.gpg | sudo tee \$key > /dev/null
      echo deb [signed-by=\$key] \$apt gcsfuse-jammy main |
        sudo tee /etc/apt/sources.list.d/gcsfuse.list
      sudo apt-get update -q && sudo apt-get install -qy gcsfuse python3.11-venv
      python3.11 -m venv ~/jaxtrade
      ~/jaxtrade/bin/pip install -q 'jaxtrade @ $SOURCE' 'jax[tpu]'
      sudo mkdir -p $RUNS && sudo chown \$USER $RUNS
      gcsfuse --implicit-dirs ${BUCKET#gs://} $RUNS"
    ;;
  train)
    shift
    # Each host starts the same command; they find each other, and the first one writes the run.
    on_all_hosts "JAXTRADE_COORDINATOR=auto ~/jaxtrade/bin/jaxtrade train \
      device=tpu output_dir=$RUNS $(printf '%q ' "$@")"
    ;;
  delete)
    gcloud compute tpus tpu-vm delete "$NAME" --zone="$ZONE" --quiet
    ;;
  *)
    sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
    exit 2
    ;;
esac
