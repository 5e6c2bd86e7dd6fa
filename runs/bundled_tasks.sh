#!/usr/bin/env bash
# The bundled task models, made from the bundled encoder: sentiment, named entities, and answers to questions.
#
#     runs/bundled_tasks.sh DATA TEACHERS OUT [sentiment|entities|answers]...
#
# DATA has glue/SST-2, ner/conll2003 (CoNLL-2003, for research only), squad and corpus; TEACHERS the encoders mpnet
# (sentence-transformers/all-mpnet-base-v2) and minilm (all-MiniLM-L6-v2), fine-tuned here for the task and then imitated;
# OUT is a new folder. Each model keeps the bundled encoder's embeddings, and in the package leaves them to it: some 4 MB.
# It goes on where it was stopped. The best of the evaluations is kept, on texts that are not among those of the figures
# in the cards.
set -euo pipefail
usage="usage: runs/bundled_tasks.sh DATA TEACHERS OUT [sentiment|entities|answers]..."
data=${1:?$usage} teachers=${2:?$usage} out=${3:?$usage}
shift 3
here=$(dirname "$0")
bundled=$here/../src/pocketbert/bundled
common=(--precision bf16 --no-tensorboard --no-frozen-start --resume)
student=(--student squeezebert-small --freeze embeddings --learning-rate 3e-4 --precision bf16 --no-tensorboard --resume)

bundle() { # bundle NAME: OUT/NAME in int8, without what the encoder has
    rm -rf "$out/$1-int8"
    pocketbert quantize "$out/$1" "$out/$1-int8" --share
    mkdir -p "$bundled/$1"
    cp "$out/$1-int8"/{config.json,model.safetensors,run.json,tokenizer_config.json,vocab.txt} "$bundled/$1"
}

[ $# -gt 0 ] || set -- sentiment entities answers
for name; do
    case $name in
        sentiment)
            [ -f "$out/texts/phrases.csv" ] || python "$here/sentiment_texts.py" "$data/glue/SST-2" "$out/texts"
            pocketbert finetune "$out/texts/sst2.csv" --eval-data "$out/texts/phrases.csv" -o "$out/sst2-teacher" \
                --model "$teachers/mpnet" --freeze embeddings --epochs 1 --batch-size 128 --learning-rate 6e-5 \
                --eval-every 250 "${common[@]}"
            [ -d "$out/sst2-teacher-int8" ] || pocketbert quantize "$out/sst2-teacher" "$out/sst2-teacher-int8"
            [ -f "$out/texts/long.csv" ] || python "$here/sentiment_texts.py" \
                "$data/glue/SST-2" "$out/texts" "$data/corpus" "$out/sst2-teacher-int8"
            pocketbert distill "$out/texts/train.csv" --teacher-logits "$out/texts/logits.jsonl" --alpha 0.9 \
                -o "$out/sentiment" --labels negative,neutral,positive --eval-fraction 0.03 --max-length 512 --epochs 2 \
                "${student[@]}" ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
    bundle "$name"
done
