#!/usr/bin/env bash
# The bundled model: a SqueezeBERT of 4 layers, 384 wide, distilled on SST-2 from a fine-tuned MiniLM of 6 layers.
#
#     runs/bundled_sst2.sh GLUE MINILM OUT
#
# GLUE is the folder that holds SST-2 in the official layout, MINILM the pretrained weights
# (sentence-transformers/all-MiniLM-L6-v2, or its folder), OUT a new folder: OUT/teacher, OUT/student, and OUT/int8, which
# is bundled. An hour on one core, and on one thread, so that sums come in the same order everywhere; it goes on where
# it was stopped. The best of the evaluations on dev is kept, so dev accuracy is that of models chosen on dev.
set -euo pipefail
usage="usage: runs/bundled_sst2.sh GLUE MINILM OUT"
glue=${1:?$usage} minilm=${2:?$usage} out=${3:?$usage}
here=$(dirname "$0")
bundled=$here/../src/pocketbert/bundled/sst2
export OMP_NUM_THREADS=1
common=(--glue sst-2 --max-length 64 --batch-size 32 --precision bf16 --no-tensorboard --resume)
pocketbert finetune "$glue" --model "$minilm" -o "$out/teacher" "${common[@]}" \
    --epochs 3 --learning-rate 5e-5 --eval-every 1000
pocketbert distill "$glue" --teacher "$out/teacher" -o "$out/student" "${common[@]}" \
    --from-scratch "$here/bundled_sst2.json" --init copy --keep-vocabulary 13000 \
    --temperature 2 --hidden-weight 1 --augment 1 --epochs 1 --learning-rate 8e-5 --eval-every 500
pocketbert quantize "$out/student" "$out/int8" --eval "$glue" --glue sst-2
mkdir -p "$bundled"
cp "$out"/int8/{config.json,model.safetensors,run.json,tokenizer.json,tokenizer_config.json,vocab.txt} "$bundled"
pocketbert evaluate "$bundled" "$glue" --glue sst-2
