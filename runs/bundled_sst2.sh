#!/usr/bin/env bash
# The bundled model: a SqueezeBERT of 2 layers, 128 wide, with a vocabulary of its own, trained from nothing on SST-2.
#
#     runs/bundled_sst2.sh GLUE OUT
#
# GLUE is the folder that holds SST-2 in the official layout, OUT a new folder for the model in fp32, and OUT-int8 one for
# the model that is bundled. Two minutes on one core, and on one thread, so that sums come in the same order everywhere.
# The best of the evaluations on dev is kept, so dev accuracy is that of a model chosen on dev.
set -euo pipefail
glue=${1:?usage: runs/bundled_sst2.sh GLUE OUT}
out=${2:?usage: runs/bundled_sst2.sh GLUE OUT}
bundled=$(dirname "$0")/../src/pocketbert/bundled/sst2
OMP_NUM_THREADS=1 pocketbert finetune "$glue" --glue sst-2 --output "$out" \
    --from-scratch "$(dirname "$0")/bundled_sst2.json" --vocab-size 10000 --max-length 64 \
    --epochs 2 --batch-size 256 --learning-rate 1e-3 --weight-decay 0.1 --eval-every 66 --no-tensorboard
pocketbert quantize "$out" "$out-int8" --eval "$glue" --glue sst-2
mkdir -p "$bundled"
cp "$out-int8"/{config.json,model.safetensors,run.json,tokenizer.json,tokenizer_config.json,vocab.txt} "$bundled"
pocketbert evaluate "$bundled" "$glue" --glue sst-2
