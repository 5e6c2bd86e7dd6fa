#!/usr/bin/env bash
# What each part of distillation brings: the same student, data and steps, on SST-2.
#
#     runs/distillation_sst2.sh GLUE MINILM TEACHER OUT [SEEDS]
#
# GLUE is the folder that holds SST-2, MINILM the weights that the student is cut from
# (sentence-transformers/all-MiniLM-L6-v2, or its folder), TEACHER what runs/bundled_sst2.sh made of them (its
# OUT/teacher), OUT a new folder. Half an epoch and two minutes a run on one free core, the two ends first; it goes on
# where it was stopped. runs/distillation_sst2.py makes table and plot of OUT.
set -euo pipefail
usage="usage: runs/distillation_sst2.sh GLUE MINILM TEACHER OUT [SEEDS]"
glue=${1:?$usage} minilm=${2:?$usage} teacher=${3:?$usage} out=${4:?$usage} seeds=${5:-5}
here=$(dirname "$0")
export OMP_NUM_THREADS=1
[ -e "$out/start/vocab.txt" ] ||
    python3 "$here/cut_student.py" "$minilm" "$here/bundled_sst2.json" "$glue/SST-2/train.tsv" 13000 "$out/start"

common=(--glue sst-2 --max-length 64 --batch-size 32 --learning-rate 8e-5 --eval-every 527 --precision bf16
    --no-tensorboard --resume --seeds "$seeds")
taught=(--teacher "$teacher" --temperature 2)
begins=(--from-scratch "$here/bundled_sst2.json" --keep-vocabulary 13000 --init copy)
pocketbert finetune "$glue" --model "$out/start" -o "$out/labels" "${common[@]}" --epochs 0.5
# As many steps: with an altered copy of each phrase an epoch is twice as long.
pocketbert distill "$glue" "${begins[@]}" -o "$out/everything" "${taught[@]}" --hidden-weight 1 --augment 1 \
    "${common[@]}" --epochs 0.25
pocketbert distill "$glue" --student "$out/start" -o "$out/soft" "${taught[@]}" --cache "$out/said" \
    "${common[@]}" --epochs 0.5
pocketbert distill "$glue" "${begins[@]}" -o "$out/inherited" "${taught[@]}" --hidden-weight 1 "${common[@]}" --epochs 0.5
pocketbert distill "$glue" --student "$out/start" -o "$out/hidden" "${taught[@]}" --hidden-weight 1 "${common[@]}" \
    --epochs 0.5
