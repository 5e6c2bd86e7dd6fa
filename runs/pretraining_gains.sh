#!/usr/bin/env bash
# What pretraining adds on SST-2, MRPC and RTE: each model pretrained, and the same architecture from nothing, for as many steps.
#
#     runs/pretraining_gains.sh GLUE MODELS OUT [SEEDS]
#
# GLUE is the folder that holds SST-2, MRPC and RTE; MODELS holds squeezebert and mobilebert, as
# runs/pretrain_squeezebert.sh and runs/pretrain_mobilebert.sh made them with --mini; OUT is a new folder. Half an hour on
# one core; it goes on where it was stopped. runs/pretraining_report.py makes table and plot.
set -euo pipefail
usage="usage: runs/pretraining_gains.sh GLUE MODELS OUT [SEEDS]"
glue=${1:?$usage} models=${2:?$usage} out=${3:?$usage} seeds=${4:-3}
export OMP_NUM_THREADS=1
common=(--batch-size 32 --learning-rate 2e-4 --precision bf16 --no-tensorboard --resume)

for model in ${MODELS:-squeezebert mobilebert}; do
    for task in sst-2 mrpc rte; do
        case $task in
        sst-2) how=(--epochs 1 --max-length 64 --eval-every 500 --seeds 1) ;; # the longest by far: one seed
        *) how=(--epochs 3 --max-length 128 --seeds "$seeds") ;;
        esac
        pocketbert finetune "$glue" --glue $task -o "$out/$model/$task/pretrained" --model "$models/$model" \
            "${common[@]}" "${how[@]}"
        pocketbert finetune "$glue" --glue $task -o "$out/$model/$task/scratch" --tokenizer "$models/$model" \
            --from-scratch "$models/$model/config.json" "${common[@]}" "${how[@]}"
    done
done
