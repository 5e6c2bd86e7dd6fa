"""Make a small student of a large encoder: some of its layers, and of its vocabulary what a table's texts use.

    python runs/cut_student.py ENCODER CONFIG TABLE PIECES OUT

CONFIG is the student's config.json, of BERT or SqueezeBERT and as wide as ENCODER; its layers are taken evenly spread.
OUT is a folder to fine-tune or to distil.
"""

import sys
from collections import Counter
from pathlib import Path

import torch

from pocketbert import AutoModel, AutoTokenizer
from pocketbert.checkpoints.files import read_json
from pocketbert.configs import AutoConfig
from pocketbert.corpus.vocabulary import prune_vocabulary
from pocketbert.data.tables import read_table
from pocketbert.features import encode_texts
from pocketbert.models.auto import model_class
from pocketbert.models.init_from_teacher import init_from_teacher
from pocketbert.tokenization import BertTokenizer
from pocketbert.training.distillation import pair_layers

name, config_file, table, pieces, out = sys.argv[1:]
teacher, whole = AutoModel.from_pretrained(name), AutoTokenizer.from_pretrained(name)
texts = [example.text for example in read_table(table, labelled=False).examples]
counts = Counter(i for one in encode_texts(whole, texts) for i in one.input_ids.tolist())
vocabulary = whole.get_vocab()
kept = prune_vocabulary(vocabulary, counts, int(pieces))
rows = [vocabulary[piece] for piece in kept]
with torch.no_grad():
    words = teacher.get_input_embeddings().weight[rows].clone()
    teacher.resize_token_embeddings(len(rows)).weight.copy_(words)

config = AutoConfig.from_dict(read_json(Path(config_file))).replace(vocab_size=len(kept))
student = model_class(config, "Model")(config)
fresh = init_from_teacher(student, teacher, pair_layers(config.num_hidden_layers, teacher.config.num_hidden_layers))
print(f"{student.num_parameters():,} parameters; fresh: {', '.join(fresh) or 'none'}")
student.save_pretrained(out)
BertTokenizer(vocab=kept, do_lower_case=whole.do_lower_case).save_pretrained(out)
