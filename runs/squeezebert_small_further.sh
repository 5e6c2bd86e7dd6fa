#!/usr/bin/env bash
# squeezebert-small, trained further from the bundled file.
#
#     runs/squeezebert_small_further.sh CORPUS STSB MINILM OUT [STEPS]
#
# CORPUS is a folder that `pocketbert prepare --tokenizer squeezebert-small` wrote, STSB a folder with STS-B's dev.tsv, MINILM
# sentence-transformers/all-MiniLM-L6-v2 or its folder, OUT a new folder. After 200 steps of warm-up the rate is constant for
# STEPS steps [35,000] of 8,192 tokens, half of the text in pairs; the embeddings, which the bundled task models share, stay
# as they are. The same command continues where it was stopped, or with more STEPS goes further. OUT/pairs keeps the constant
# rate, OUT/decayed is that state with the rate decayed to zero over a fifth as many steps: `runs/bundle_encoder.py
# OUT/decayed squeezebert-small` bundles it. One core of a Xeon with AMX computes 5,000 to 8,000 tokens per second.
set -euo pipefail
usage="usage: runs/squeezebert_small_further.sh CORPUS STSB MINILM OUT [STEPS]"
corpus=${1:?$usage} stsb=${2:?$usage} minilm=${3:?$usage} out=${4:?$usage} steps=${5:-35000}
common=(--task feature-extraction --student squeezebert-small --freeze embeddings --teacher "$minilm" --precision bf16
    --max-length 128 --batch-size 64 --hidden-weight 1 --short-share 0.1 --sentence-weight 0.5 --word-weight 0.25
    --pair-share 0.5 --pair-weight 10 --learning-rate 5e-4 --warmup-steps 200 --schedule constant
    --eval-every "${EVAL_EVERY:-500}" --similarity-data "$stsb/dev.tsv" --no-tensorboard --resume)

pocketbert distill "$corpus" -o "$out/pairs" --max-steps "$steps" "${common[@]}"
pocketbert distill "$corpus" -o "$out/decayed" --resume-from "$out/pairs" --decay-now $((steps / 5)) "${common[@]}"
