#!/usr/bin/env bash
# SqueezeBERT's recipe with bells and whistles, on every GLUE task that is there: a student of MNLI from a teacher of MNLI,
# then each other task from that student, with that task's teacher.
#
#     runs/squeezebert_glue.sh GLUE STUDENT TEACHERS OUT [FLAGS]
#
# GLUE is the folder that holds MNLI, MRPC, … in the official layout, STUDENT a pretrained SqueezeBERT
# (squeezebert/squeezebert-uncased), TEACHERS a folder with one fine-tuned classifier a task, TEACHERS/mnli and so on, of
# the student's vocabulary, OUT a new folder. FLAGS go to every run: --seeds 5, --precision bf16. It goes on where it was
# stopped. Epochs, batch size and rate are those of the model card's example; the weight of the teacher (--alpha) and the
# temperature were never published and are ours. `pocketbert distill … --search 20` tries out others.
set -euo pipefail
usage="usage: runs/squeezebert_glue.sh GLUE STUDENT TEACHERS OUT [FLAGS]"
glue=${1:?$usage} student=${2:?$usage} teachers=${3:?$usage} out=${4:?$usage}
shift 4
recipe=(--preset squeezebert --max-length 128 --resume "$@")
pocketbert distill "$glue" --glue mnli --teacher "$teachers/mnli" --student "$student" -o "$out/mnli" "${recipe[@]}"
start=$out/mnli
if [ -e "$start/seeds.json" ]; then # --seeds: from the best of them
    start=$start/seed-$(python3 -c "import json, sys; print(json.load(open(sys.argv[1]))['best'])" "$start/seeds.json")
fi
for task in cola sst-2 mrpc sts-b qqp qnli rte wnli; do
    folder=$(tr '[:lower:]' '[:upper:]' <<<"$task")
    [ "$task" = cola ] && folder=CoLA
    if [ ! -d "$glue/$folder" ] || [ ! -d "$teachers/$task" ]; then
        echo "no $folder or no teacher for it: left out" >&2
        continue
    fi
    pocketbert distill "$glue" --glue "$task" --teacher "$teachers/$task" --student "$start" -o "$out/$task" "${recipe[@]}"
done
