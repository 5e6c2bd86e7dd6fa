"""Made-up labelled data in Chinese and Arabic, as people of these languages write tables."""

import csv
import json
import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Language:
    """Words of a language, and how they stand beside each other."""

    name: str
    space: str
    """Between words."""
    header: tuple[str, str]
    """Names of the columns of texts and labels."""
    labels: tuple[str, str]
    good: tuple[str, ...]
    bad: tuple[str, ...]
    rest: tuple[str, ...]
    """Words that decide nothing, some with marks or of full width."""
    stops: tuple[str, ...]
    """What ends a sentence."""
    people: tuple[str, ...]
    places: tuple[str, ...]
    lives: str
    """Between a person and a place."""
    who: str
    where: str
    digits: str
    """Of 0 to 9."""
    comma: str

    def reviews(self, count: int, seed: int = 0) -> list[tuple[str, str]]:
        """Texts of words that decide the label, and words that do not; no two are alike."""
        chance = random.Random(seed)
        rows: dict[str, str] = {}
        while len(rows) < count:
            label = len(rows) % 2
            words = [chance.choice((self.bad, self.good)[label]), *chance.choices(self.rest, k=chance.randint(2, 6))]
            chance.shuffle(words)
            rows[self.space.join(words) + chance.choice(self.stops)] = self.labels[label]
        return list(rows.items())

    def stories(self, count: int, seed: int = 0) -> list[tuple[str, str, str]]:
        """Sentences about a person and a place."""
        chance = random.Random(seed)
        pairs = [(chance.choice(self.people), chance.choice(self.places)) for _ in range(count)]
        return [(self.space.join((who, self.lives, where)) + self.stops[0], who, where) for who, where in pairs]

    def table(self, path: Path, count: int, seed: int = 0) -> Path:
        """A CSV file of reviews."""
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([self.header, *self.reviews(count, seed)])
        return path

    def tagged(self, path: Path, count: int, seed: int = 0) -> Path:
        """A CoNLL file; of Chinese, a character is a word."""
        lines = []
        for _, who, where in self.stories(count, seed):
            for text, kind in ((who, "PER"), (self.lives, ""), (where, "LOC"), (self.stops[0], "")):
                for place, word in enumerate(text if not self.space else text.split()):
                    tag = f"{'BI'[place > 0]}-{kind}" if kind else "O"
                    lines.append(f"{word}\t{tag}")
            lines.append("")
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    def choices(self, path: Path, count: int, seed: int = 0) -> Path:
        """A file of prompts, each with two places to choose from."""
        rows = []
        for number, (_, who, where) in enumerate(self.stories(count, seed)):
            other = self.places[(self.places.index(where) + 1) % len(self.places)]
            pair = [where, other] if number % 2 else [other, where]
            prompt = self.space.join((who, self.lives))
            rows.append({"prompt": prompt, "choices": pair, "label": pair.index(where)})
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
        return path

    def questions(self, path: Path, count: int, seed: int = 0) -> Path:
        """A SQuAD file."""
        paragraphs = []
        for number, (text, who, where) in enumerate(self.stories(count, seed)):
            asked = [(self.who, who), (self.where, where)]
            qas = [
                {"id": f"{number}-{i}", "question": q, "answers": [{"text": a, "answer_start": text.index(a)}]}
                for i, (q, a) in enumerate(asked)
            ]
            paragraphs.append({"context": text, "qas": qas})
        data = {"data": [{"title": self.name, "paragraphs": paragraphs}]}
        path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        return path


CHINESE = Language(
    name="zh", space="", header=("文本", "标签"), labels=("差评", "好评"),
    good=("精彩", "好看", "感人"), bad=("无聊", "难看", "失望"),
    rest=("这部电影", "故事", "，", "（全集）", "演员", "ＩＭＡＸ", "２０２３年", "真的", "BERT"),
    stops=("。", "！", "？"),
    people=("小明", "王芳", "李雷"), places=("北京", "上海", "广州"), lives="住在", who="谁？", where="在哪里？",
    digits="０１２３４５６７８９", comma="，",
)  # fmt: skip
ARABIC = Language(
    name="ar", space=" ", header=("النص", "التصنيف"), labels=("سلبي", "إيجابي"),
    good=("رائع", "مُمتاز", "جميل"), bad=("مُمِلّ", "سيئ", "ضعيف"),
    rest=("الفيلم", "القصة،", "جدًّا", "هذا", "الممثلون", "كتـــاب", "٢٠٢٣", "في", "BERT"), stops=(".", "؟", "!"),
    people=("أحمد", "مُحَمَّدٌ", "فاطمة"), places=("القاهرة", "دمشق", "الرِّيَاضِ"), lives="يسكن في", who="من؟", where="أين؟",
    digits="٠١٢٣٤٥٦٧٨٩", comma="،",
)  # fmt: skip
LANGUAGES = {language.name: language for language in (CHINESE, ARABIC)}
