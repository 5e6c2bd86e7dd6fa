#!/usr/bin/env bash
# Plain against distilled on small tasks of GLUE: the same pretrained student, the same examples and steps. SST-2 has a
# script of its own, runs/distillation_sst2.sh.
#
#     runs/distillation_glue.sh GLUE MINILM OUT [SEEDS]
#
# GLUE is the folder that holds MRPC, STS-B, CoLA and RTE, MINILM the weights that the student is cut from and the
# teachers are made of (sentence-transformers/all-MiniLM-L6-v2, or its folder), OUT a new folder. Some 20 minutes of one
# core that multiplies in bf16 for the teachers, and 20 for each seed; on others fp32 is the faster, and takes twice as
# long. It goes on where it was stopped, and more SEEDS may be asked for later.
# TASKS="mrpc rte" does these alone. runs/distillation_glue.py makes table and plot of OUT.
set -euo pipefail
usage="usage: runs/distillation_glue.sh GLUE MINILM OUT [SEEDS]"
glue=${1:?$usage} minilm=${2:?$usage} out=${3:?$usage} seeds=${4:-5}
here=$(dirname "$0")
export OMP_NUM_THREADS=1
[ -e "$out/start/vocab.txt" ] ||
    python3 "$here/cut_student.py" "$minilm" "$here/bundled_sst2.json" "$glue/RTE/train.tsv" 30522 "$out/start"

common=(--max-length 128 --batch-size 32 --precision bf16 --no-tensorboard --resume)
for task in ${TASKS:-mrpc sts-b cola rte}; do
    run=("${common[@]}" --glue "$task")
    pocketbert finetune "$glue" "${run[@]}" --model "$minilm" -o "$out/$task/teacher" \
        --epochs 3 --learning-rate 5e-5
    run+=(--epochs 2 --learning-rate 1e-4 --seeds "$seeds")
    pocketbert finetune "$glue" "${run[@]}" --model "$out/start" -o "$out/$task/plain"
    pocketbert distill "$glue" "${run[@]}" --student "$out/start" -o "$out/$task/distilled" \
        --teacher "$out/$task/teacher" --temperature 2 --hidden-weight 1 --cache "$out/$task/said"
done
