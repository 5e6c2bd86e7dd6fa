#!/usr/bin/env bash
# How a pretrained MobileBERT is fine-tuned: rates on SST-2, the pooler, and MRPC as for BERT and as for MobileBERT.
#
#     runs/mobilebert_recipe.sh CORPUS GLUE MINILM OUT
#
# CORPUS is a folder that `pocketbert prepare --tokenizer MINILM` wrote, GLUE the folder that holds SST-2 and MRPC, MINILM
# sentence-transformers/all-MiniLM-L6-v2 or its folder, OUT a new folder. The MobileBERT (6 layers, a body of 384,
# bottlenecks of 96) begins with MiniLM's embeddings and learns its hidden states from raw text; then it is fine-tuned,
# all in fp32. Forty minutes on one core; it goes on where it was stopped. runs/mobilebert_recipe.py makes table and plot of OUT.
set -euo pipefail
usage="usage: runs/mobilebert_recipe.sh CORPUS GLUE MINILM OUT"
corpus=${1:?$usage} glue=${2:?$usage} minilm=${3:?$usage} out=${4:?$usage}
export OMP_NUM_THREADS=1
common=(--max-length 128 --precision fp32 --no-tensorboard --resume)
pocketbert distill "$corpus" --task feature-extraction --teacher "$minilm" -o "$out/encoder" --hidden-weight 1 \
    --from-scratch "$(dirname "$0")/mobilebert_recipe.json" --init copy --epochs 0.05 --batch-size 32 \
    --learning-rate 1e-3 --eval-every 100 "${common[@]}"

# A quarter of an epoch at each rate; the published search ends at 1e-4.
sst2=(--glue sst-2 --epochs 0.25 --batch-size 32 --eval-every 132 "${common[@]}")
for rate in 1e-5 1e-4 1e-3; do
    pocketbert finetune "$glue" --model "$out/encoder" -o "$out/sst-2-$rate" --learning-rate $rate "${sst2[@]}"
done
# The same model with BERT's pooler, which starts fresh.
if [ ! -e "$out/pooled/model.safetensors" ]; then
    mkdir -p "$out/pooled"
    cp "$out"/encoder/{model.safetensors,tokenizer.json,tokenizer_config.json,vocab.txt} "$out/pooled"
    sed 's/"classifier_activation": false/"classifier_activation": true/' "$out/encoder/config.json" >"$out/pooled/config.json"
fi
pocketbert finetune "$glue" --model "$out/pooled" -o "$out/sst-2-pooled" --learning-rate 1e-3 "${sst2[@]}"

mrpc=(--glue mrpc "${common[@]}")
pocketbert finetune "$glue" --model "$out/encoder" -o "$out/mrpc-as-bert" --epochs 3 --learning-rate 2e-5 "${mrpc[@]}"
pocketbert finetune "$glue" --model "$out/encoder" -o "$out/mrpc-preset" --preset mobilebert "${mrpc[@]}"
