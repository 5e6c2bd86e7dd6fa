#!/usr/bin/env bash
# Plain against distilled on five tasks of GLUE: the same pretrained student, the same examples and steps.
#
#     runs/distillation_glue.sh GLUE MINILM OUT [SEEDS]
#
# GLUE is the folder that holds SST-2, MRPC, RTE, CoLA and STS-B, MINILM the weights that the student is cut from and the
# teachers are made of (sentence-transformers/all-MiniLM-L6-v2, or its folder), OUT a new folder. On one core the teachers
# take forty minutes, and each seed as long again; it goes on where it was stopped, and more SEEDS may be asked for later.
# TASKS="mrpc rte" does these alone. runs/distillation_glue.py makes table and plot of OUT.
set -euo pipefail
usage="usage: runs/distillation_glue.sh GLUE MINILM OUT [SEEDS]"
glue=${1:?$usage} minilm=${2:?$usage} out=${3:?$usage} seeds=${4:-5}
here=$(dirname "$0")
export OMP_NUM_THREADS=1
[ -e "$out/start/vocab.txt" ] ||
    python3 "$here/cut_student.py" "$minilm" "$here/bundled_sst2.json" "$glue/SST-2/train.tsv" 30522 "$out/start"

common=(--max-length 128 --batch-size 32 --no-tensorboard --resume)
declare -A epochs=([sst-2]=0.5 [mrpc]=3 [rte]=3 [cola]=3 [sts-b]=2)
for task in ${TASKS:-mrpc sts-b cola rte sst-2}; do
    [ "$task" = sst-2 ] && often=(--eval-every 1000) || often=()
    pocketbert finetune "$glue" --glue "$task" --model "$minilm" -o "$out/$task/teacher" "${common[@]}" "${often[@]}" \
        --epochs "${epochs[$task]}" --learning-rate 5e-5
    # The last step counts, so one evaluation is enough: nothing is chosen on dev.
    student=("${common[@]}" "${often[@]}" --epochs "${epochs[$task]}" --learning-rate 1e-4)
    [ "$seeds" = 0 ] && continue
    pocketbert finetune "$glue" --glue "$task" --model "$out/start" -o "$out/$task/plain" "${student[@]}" --seeds "$seeds"
    pocketbert distill "$glue" --glue "$task" --student "$out/start" -o "$out/$task/distilled" "${student[@]}" \
        --teacher "$out/$task/teacher" --temperature 2 --hidden-weight 1 --cache "$out/$task/said" --seeds "$seeds"
done
