#!/usr/bin/env bash
# A general encoder with 4 groups, SqueezeBERT 6×384, distilled from all-MiniLM-L6-v2 on raw text.
#
#     runs/squeezebert_small.sh CORPUS STSB MINILM OUT [STEPS]
#
# CORPUS is a folder that `pocketbert prepare --tokenizer MINILM` wrote, STSB a folder with STS-B's dev.tsv, MINILM
# sentence-transformers/all-MiniLM-L6-v2 or its folder, OUT a new folder. It begins with the teacher's layers, refitted to
# groups by least squares, trains the layers by themselves for 2,500 steps, then the whole model for STEPS steps in all [36,600] at a
# constant rate: 8,192 tokens per step, 300 million in all. The same command goes on where it was stopped, bit for bit; with more STEPS
# it goes further. OUT/whole keeps the constant rate, OUT/decayed is that state with the rate decayed to zero over a fifth
# as many steps. One core of a Zen 4 computes some 2,000 tokens per second: 21 hours on two cores.
set -euo pipefail
usage="usage: runs/squeezebert_small.sh CORPUS STSB MINILM OUT [STEPS]"
corpus=${1:?$usage} stsb=${2:?$usage} minilm=${3:?$usage} out=${4:?$usage} steps=${5:-36600}
common=(--task feature-extraction --teacher "$minilm" --precision bf16 --max-length 128 --batch-size 64 --hidden-weight 1
    --short-share 0.1 --schedule constant --eval-every "${EVAL_EVERY:-500}" --similarity-data "$stsb/dev.tsv" --no-tensorboard --resume)

pocketbert distill "$corpus" -o "$out/layers" --from-scratch "$(dirname "$0")/squeezebert_small.json" --init refit \
    --layer-local --freeze embeddings --learning-rate 1e-3 --warmup-steps 50 --max-steps "${LAYER_STEPS:-2500}" "${common[@]}"

whole=(-m "$out/layers" --sentence-weight 0.5 --word-weight 0.25 --learning-rate 5e-4 --warmup-steps 200 "${common[@]}")
pocketbert distill "$corpus" -o "$out/whole" --max-steps "$steps" "${whole[@]}"
pocketbert distill "$corpus" -o "$out/decayed" --resume-from "$out/whole" --decay-now $((steps / 5)) "${whole[@]}"
