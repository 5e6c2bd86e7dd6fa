#!/usr/bin/env bash
# A general MobileBERT encoder, 18 layers of 384 channels, distilled from all-MiniLM-L6-v2 on raw text.
#
#     runs/mobilebert_small.sh CORPUS STSB MINILM OUT [STEPS]
#
# CORPUS is a folder that `pocketbert prepare --tokenizer MINILM` wrote, STSB a folder with STS-B's dev.tsv, MINILM
# sentence-transformers/all-MiniLM-L6-v2 or its folder, OUT a new folder. Three layers begin as one of the teacher's, cut
# into thirds and fitted by least squares. They are trained in threes for LAYER_STEPS steps [1000], then the whole model for STEPS
# steps in all [24400] at a constant rate: 8,192 tokens per step, 200 million in all. The same command goes on where it was
# stopped, bit for bit; with more STEPS it goes further. OUT/whole keeps the constant rate, OUT/decayed is that state
# with the rate decayed to zero over a fifth as many steps.
set -euo pipefail
usage="usage: runs/mobilebert_small.sh CORPUS STSB MINILM OUT [STEPS]"
corpus=${1:?$usage} stsb=${2:?$usage} minilm=${3:?$usage} out=${4:?$usage} steps=${5:-24400}
common=(--task feature-extraction --teacher "$minilm" --precision bf16 --max-length 128 --batch-size 64 --hidden-weight 1
    --layers 3:1,6:2,9:3,12:4,15:5,18:6 --short-share 0.1 --schedule constant --eval-every "${EVAL_EVERY:-500}"
    --similarity-data "$stsb/dev.tsv" --no-tensorboard --resume)

pocketbert distill "$corpus" -o "$out/layers" --from-scratch "$(dirname "$0")/mobilebert_small.json" --init refit \
    --layer-local --freeze embeddings --learning-rate 1e-3 --warmup-steps 50 --max-steps "${LAYER_STEPS:-1000}" "${common[@]}"

whole=(-m "$out/layers" --sentence-weight 0.5 --learning-rate 1e-3 --warmup-steps 200 "${common[@]}")
pocketbert distill "$corpus" -o "$out/whole" --max-steps "$steps" "${whole[@]}"
pocketbert distill "$corpus" -o "$out/decayed" --resume-from "$out/whole" --decay-now $((steps / 5)) "${whole[@]}"
