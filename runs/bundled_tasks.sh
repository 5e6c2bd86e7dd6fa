#!/usr/bin/env bash
# The bundled task models, made from the bundled encoder: sentiment, named entities, and answers to questions.
#
#     runs/bundled_tasks.sh DATA OUT [sentiment|entities|answers]...
#
# DATA has glue/SST-2, ner/conll2003 (CoNLL-2003, for research only), squad and corpus; OUT is a new folder. Each model
# keeps the encoder's embeddings, and in the package leaves them to it: some 4 MB. It goes on where it was stopped. The
# best of the evaluations is kept, on texts that are not among those of the figures in the cards.
set -euo pipefail
usage="usage: runs/bundled_tasks.sh DATA OUT [sentiment|entities|answers]..."
data=${1:?$usage} out=${2:?$usage}
shift 2
here=$(dirname "$0")
bundled=$here/../src/pocketbert/bundled
common=(--model squeezebert-small --freeze embeddings --learning-rate 3e-4 --precision bf16 --no-tensorboard --resume)

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
            [ -f "$out/texts/long.csv" ] ||
                python "$here/sentiment_texts.py" "$data/glue/SST-2" "$data/corpus" sst2 "$out/texts"
            pocketbert finetune "$out/texts/train.csv" -o "$out/sentiment" "${common[@]}" \
                --labels negative,neutral,positive --eval-fraction 0.03 --max-length 512 --epochs 2 ;;
        entities)
            pocketbert finetune "$data/ner/conll2003/eng.train" -o "$out/entities" "${common[@]}" \
                --task token-classification --eval-data "$data/ner/conll2003/eng.testa" --epochs 6 ;;
        answers)
            pocketbert finetune "$data/squad/train-v1.1.44articles.json" -o "$out/answers" "${common[@]}" \
                --task question-answering --epochs 3 ;;
        *) echo "$usage" >&2; exit 2 ;;
    esac
    bundle "$name"
done
