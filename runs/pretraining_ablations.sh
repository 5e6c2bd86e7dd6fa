#!/usr/bin/env bash
# What the choices of pretraining bring, in models small enough for a minute or two: MobileBERT's transfer, the optimiser at
# large batches, the pairs.
#
#     runs/pretraining_ablations.sh CORPUS OUT
#
# CORPUS is a folder that `pocketbert prepare --vocab-size 8192` wrote; OUT gets a folder a run. Runs that are compared take
# as many steps of as many examples. Ten minutes on one core; it goes on where it was stopped.
# runs/pretraining_report.py makes tables and plots.
set -euo pipefail
usage="usage: runs/pretraining_ablations.sh CORPUS OUT"
corpus=${1:?$usage} out=${2:?$usage}
small=$(dirname "$0")/small
export OMP_NUM_THREADS=1
common=(--mini --length 32 --precision bf16 --eval-batches 16 --no-tensorboard --resume)
steps=700 each=45 # so many steps a layer, where layers are taught

begin() { # NAME CONFIG FLAGS: from nothing
    local name=$1 config=$2
    shift 2
    echo "$name"
    pocketbert pretrain "$corpus" "$out/$name" --model-config "$small/$config.json" "${common[@]}" "$@"
}
taught() { # NAME FLAGS: from the teacher
    local name=$1
    shift
    echo "$name"
    pocketbert transfer "$corpus" "$out/$name" --model-config "$small/mobilebert.json" --teacher "$out/teacher" \
        --batch-size 32 --layer-batch-size 32 --layer-rate 4e-3 --learning-rate 8e-3 --eval-every 100 "${common[@]}" "$@"
}
alone=(--steps $steps --layer-steps 0) layers=(--steps $((steps - 4 * each)) --layer-steps $each)

usual=(--batch-size 32 --learning-rate 8e-3 --eval-every 100)
begin teacher ib_bert --preset ib-bert --steps 1000 "${usual[@]}"
begin bare mobilebert --preset mobilebert --steps $steps "${usual[@]}"
taught pd "${alone[@]}"
taught progressive "${layers[@]}"
taught joint "${layers[@]}" --strategy joint
taught auxiliary "${layers[@]}" --strategy auxiliary
taught features "${layers[@]}" --attention-weight 0

large=(--preset squeezebert --steps 120 --batch-size 256 --warmup 0.2 --eval-every 20)
begin lamb-8e-3 squeezebert "${large[@]}" --learning-rate 8e-3
begin adamw-1e-3 squeezebert "${large[@]}" --learning-rate 1e-3 --optimizer adamw
begin lamb-24e-3 squeezebert "${large[@]}" --learning-rate 24e-3
begin adamw-3e-3 squeezebert "${large[@]}" --learning-rate 3e-3 --optimizer adamw

for pairs in sop none; do
    begin pairs-$pairs squeezebert --preset squeezebert --steps $steps --pairs $pairs "${usual[@]}"
done
