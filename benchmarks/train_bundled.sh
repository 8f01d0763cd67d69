#!/usr/bin/env bash
# Trains the bundled model for some minutes, on whatever JAX finds, and leaves what is to be kept of it in OUT: the weights
# of the best average in float16, curves (metrics.jsonl), configuration and log.
#
#     benchmarks/train_bundled.sh OUT PACKED MINUTES [--FIELD.SUB VALUE ...]
#
# PACKED is the folder that `python -m samjax.train.packing` makes, or a tar of it. The command runs from the source tree;
# where samjax is not installed, the wheels of benchmarks/gpu_requirements.txt have what else it needs.
set -euo pipefail
out=$(mkdir -p "$1" && cd "$1" && pwd)
packed=$(realpath "$2")
minutes=$3
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ ! -d "$packed" ]; then
  mkdir "$scratch/packed"
  tar -xf "$packed" -C "$scratch/packed" --strip-components 1
  packed="$scratch/packed"
fi
"$python" -m samjax train tiny_gpu --data.train "sa1b=$packed/train" --data.val "sa1b=$packed/val" \
  --run.minutes "$minutes" --out "$scratch/run" "${@:4}" 2>&1 | tee "$out/training.log"
cp "$scratch/run/config.json" "$scratch/run/metrics.jsonl" "$out"
"$python" -m samjax export "$scratch/run" "$out/samjax-tiny.safetensors" --dtype float16 --overwrite
