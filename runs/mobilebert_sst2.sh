#!/usr/bin/env bash
# A small MobileBERT that converges: 6 layers, a body of 384 with bottlenecks of 96, distilled on SST-2.
#
#     runs/mobilebert_sst2.sh GLUE TEACHER OUT
#
# GLUE is the folder that holds SST-2, TEACHER what runs/bundled_sst2.sh made (its OUT/teacher), OUT a new folder. Ten
# minutes on one core. It begins with the teacher's embeddings and nothing else, so its rate is that of a start from scratch.
# Weights and residual stream stay in fp32.
set -euo pipefail
usage="usage: runs/mobilebert_sst2.sh GLUE TEACHER OUT"
OMP_NUM_THREADS=1 pocketbert distill "${1:?$usage}" --glue sst-2 --teacher "${2:?$usage}" -o "${3:?$usage}" \
    --from-scratch "$(dirname "$0")/mobilebert_sst2.json" --init copy --keep-vocabulary 13000 --max-length 64 \
    --alpha 1 --temperature 2 --hidden-weight 1 --epochs 1 --batch-size 64 --learning-rate 1e-3 --eval-every 250 \
    --precision fp32 --no-tensorboard --resume
