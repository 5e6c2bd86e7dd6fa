#!/usr/bin/env bash
# SqueezeBERT from raw text, as its model card says: LAMB, 8192 examples a step, rate 2.5e-3, warm-up 0.28, masked words
# and sentence order, 56,000 steps of 128 tokens, then 6,000 of 512.
#
#     runs/pretrain_squeezebert.sh CORPUS OUT [--mini|--smoke] [FLAGS]
#
# CORPUS is a folder that `pocketbert prepare` wrote. It goes on where it was stopped. On several GPUs PROCESSES=8 starts
# as many with torchrun, which share every batch. --mini is the same for two processor cores, --smoke a few steps of that.
# The warm-up of the second phase was not published: it is that of the first.
set -euo pipefail
usage="usage: runs/pretrain_squeezebert.sh CORPUS OUT [--mini|--smoke] [FLAGS]"
corpus=${1:?$usage} out=${2:?$usage}
shift 2
source "$(dirname "$0")/pretrain_common.sh"
run pretrain "$corpus" "$out" --preset squeezebert --resume "${size[@]}" "${flags[@]}"
