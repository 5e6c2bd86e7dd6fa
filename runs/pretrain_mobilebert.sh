#!/usr/bin/env bash
# MobileBERT from raw text: its teacher IB-BERT, then the student, layer by layer (240,000 steps) and as a whole (500,000).
#
#     runs/pretrain_mobilebert.sh CORPUS OUT [--mini|--smoke] [FLAGS]
#
# CORPUS is a folder that `pocketbert prepare` wrote; OUT gets ib-bert/ and mobilebert/, or with STUDENT=mobilebert-tiny
# that. STRATEGY=joint or auxiliary are the paper's other ways. It goes on where it was stopped. On several GPUs
# PROCESSES=8 starts as many with torchrun, which share every batch. --mini is the same for two processor cores, --smoke a
# few steps of that. FLAGS go to both runs. Batch (2048) and rate (1.5e-3) of the student are those of the released
# command; of the teacher's, the paper says 500,000 steps of 4096 examples with LAMB, the rate is the student's.
set -euo pipefail
usage="usage: runs/pretrain_mobilebert.sh CORPUS OUT [--mini|--smoke] [FLAGS]"
corpus=${1:?$usage} out=${2:?$usage} student=${STUDENT:-mobilebert}
shift 2
source "$(dirname "$0")/pretrain_common.sh"
run pretrain "$corpus" "$out/ib-bert" --preset ib-bert --resume "${size[@]}" "${flags[@]}"
run transfer "$corpus" "$out/$student" --preset "$student" --teacher "$out/ib-bert" \
    --strategy "${STRATEGY:-progressive}" --resume "${layers[@]}" "${size[@]}" "${flags[@]}"
