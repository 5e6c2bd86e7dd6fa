#!/usr/bin/env bash
# A general encoder with 4 groups, SqueezeBERT 6×384, distilled from all-MiniLM-L6-v2 on raw text.
#
#     runs/squeezebert_small.sh CORPUS STSB MINILM OUT [STEPS]
#
# CORPUS is a folder that `pocketbert prepare --tokenizer MINILM` wrote, STSB a folder with STS-B's dev.tsv, MINILM
# sentence-transformers/all-MiniLM-L6-v2 or its folder, OUT a new folder. It begins with the teacher's layers, refitted to
# groups by least squares, trains the layers by themselves for LAYER_STEPS steps [2,500], then the whole model on single
# texts for 1,000 steps and with pairs of segments for STEPS steps [35,000], at a constant rate: 8,192 tokens per step,
# 300 million in all. The same command goes on where it was stopped, bit for bit; with more STEPS it goes further.
# OUT/pairs keeps the constant rate, OUT/decayed is that state with the rate decayed to zero over a fifth as many steps.
# One core of a Zen 4 computes some 2,600 tokens per second: 32 hours.
set -euo pipefail
usage="usage: runs/squeezebert_small.sh CORPUS STSB MINILM OUT [STEPS]"
corpus=${1:?$usage} stsb=${2:?$usage} minilm=${3:?$usage} out=${4:?$usage} steps=${5:-35000}
common=(--task feature-extraction --teacher "$minilm" --precision bf16 --max-length 128 --batch-size 64 --hidden-weight 1
    --short-share 0.1 --schedule constant --eval-every "${EVAL_EVERY:-500}" --similarity-data "$stsb/dev.tsv" --no-tensorboard --resume)

pocketbert distill "$corpus" -o "$out/layers" --from-scratch "$(dirname "$0")/squeezebert_small.json" --init refit \
    --layer-local --freeze embeddings --learning-rate 1e-3 --warmup-steps 50 --max-steps "${LAYER_STEPS:-2500}" "${common[@]}"

whole=(--sentence-weight 0.5 --word-weight 0.25 --learning-rate 5e-4 --warmup-steps 200 "${common[@]}")
pocketbert distill "$corpus" -o "$out/whole" -m "$out/layers" --max-steps 1000 "${whole[@]}"

pairs=(-m "$out/whole" --pair-share 0.5 --pair-weight 10 "${whole[@]}")
pocketbert distill "$corpus" -o "$out/pairs" --max-steps "$steps" "${pairs[@]}"
pocketbert distill "$corpus" -o "$out/decayed" --resume-from "$out/pairs" --decay-now $((steps / 5)) "${pairs[@]}"
