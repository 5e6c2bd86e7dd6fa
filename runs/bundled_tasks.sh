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
common=(--precision bf16 --no-tensorboard --no-frozen-start --resume)
student=(--student squeezebert-small --freeze embeddings --precision bf16 --no-tensorboard --resume)

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
                --learning-rate 3e-4 --eval-every 1000 "${student[@]}" ;;
        entities)
            pocketbert finetune "$data/ner/conll2003/eng.train" --eval-data "$data/ner/conll2003/eng.testa" \
                -o "$out/entities-teacher" --model "$teachers/minilm" --task token-classification --epochs 5 \
                --learning-rate 2e-4 "${common[@]}"
            pocketbert distill "$data/ner/conll2003/eng.train" --eval-data "$data/ner/conll2003/eng.testa" \
                -o "$out/entities" --task token-classification --teacher "$out/entities-teacher" --alpha 0.9 \
                --hidden-weight 1 --cache-gigabytes 3 --epochs 6 --learning-rate 5e-4 "${student[@]}" ;;
        answers)
            pocketbert finetune "$data/squad/train-v1.1.44articles.json" -o "$out/answers-teacher" \
                --model "$teachers/minilm" --task question-answering --freeze embeddings --epochs 3 \
                --learning-rate 1.5e-4 "${common[@]}"
            pocketbert distill "$data/squad/train-v1.1.44articles.json" -o "$out/answers" --task question-answering \
                --teacher "$out/answers-teacher" --alpha 0.9 --hidden-weight 1 --epochs 4 --learning-rate 5e-4 \
                "${student[@]}" ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
    python "$here/bundle_task.py" "$out/$name" "$name"
done
