#!/usr/bin/env python3
"""Writes questions that only a model which remembers can answer, for `flasheva evaluate MODEL --multiple-choice F`.

    python data/recall_suite.py needle --output needle.jsonl    one fact in filler text, at depths of 0 to 100 %
    python data/recall_suite.py jrt --output jrt.jsonl          many facts in a text that is read once, or twice
    python data/recall_suite.py mqar --output mqar.jsonl        many keys and values, asked for at many distances
    python data/recall_suite.py mqar-training --output FOLDER   token files on which a small model learns the last one

Every line is a question: `context`, `choices` and `answer` (chance: 1 in 4), or `context` and `continuation` (right:
every token of it is the most likely one). `group` and `distance` are what evaluate's table is sorted by: `distance`
is how many characters before the end of the context the answer stands, the nearest time. `length` (characters) and,
of the needle, `depth` (share of the text before the fact) tell more. The same --seed writes the same file.

needle: the fact "The code of NAME is DIGITS." between sentences that say nothing of codes.
jrt: "just read twice" (Arora et al., 2024). The wrong choices are codes of other names of the same text. Groups with
    `twice` give the text two times: a model with little memory then knows what to look for.
mqar: multi-query associative recall (Arora et al., 2023, "Zoology"). A sequence of 128 pairs of words gives N keys,
    each with its value; later, at distances spread evenly on a logarithmic scale, each key comes again and its value
    must follow. All other words are random fillers.
    --tokens writes ids instead (256 a sequence, vocabulary 192; distance counts tokens) for a small model trained on
    the files of mqar-training, which draw N from --pairs. There one token (4 * key + value) stands for key and value,
    and the query of a key (128 + key) must be followed by it: attention of one layer can then answer, and learns to
    within minutes. Chance: 1 in 4. Ids from 160 on are fillers.

Needs h5py and numpy.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

import recall

PLACES = 128  # for pairs of tokens in an MQAR sequence
KEYS, VALUES = 32, 4  # of mqar --tokens
FIRST_QUERY, FIRST_FILLER, VOCABULARY = KEYS * VALUES, KEYS * VALUES + KEYS, 192

CONSONANTS, VOWELS = "bdfghklmnprstvwz", "aeio"
SYLLABLES = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
KEY_WORDS, VALUE_WORDS = [s.capitalize() for s in SYLLABLES], [str(10 + i) for i in range(64)]
NAMES = [a.capitalize() + b + "n" for a in SYLLABLES[::3] for b in SYLLABLES[::5] if a != b]
SUBJECTS = ("The old gardener", "A tired traveller", "My neighbour", "The young teacher", "Their uncle", "The baker")
VERBS = ("watched", "remembered", "painted", "walked past", "sat beside", "left")
OBJECTS = ("the river", "a quiet garden", "the long road", "an empty house", "the market", "two tall trees")
TIMES = ("in the morning", "after the rain", "before dinner", "all summer", "on a cold day", "without a word")


def filler_text(random, characters):
    """Sentences of about that many characters."""
    sentences, length = [], 0
    while length < characters:
        parts = [words[random.integers(len(words))] for words in (SUBJECTS, VERBS, OBJECTS, TIMES)]
        sentences.append(" ".join(parts) + ". ")
        length += len(sentences[-1])
    return sentences


def distinct_codes(random, count):
    return [f"{code:04}" for code in random.choice(10000, count, replace=False)]


def fact(name, code):
    return f"The code of {name} is {code}. "


def choice_question(random, text, name, codes, **fields):
    """The code of `name` is codes[0]; the other codes are wrong choices."""
    context = f"{text}The code of {name} is"
    order = random.permutation(len(codes))
    return {
        "context": context,
        "choices": [" " + codes[i] for i in order],
        "answer": int(np.flatnonzero(order == 0)[0]),
        "distance": len(context) - text.rindex(codes[0]),
        "length": len(context),
        **fields,
    }


def needle(arguments, random):
    for length in arguments.lengths:
        for depth in arguments.depths:
            for _ in range(arguments.questions):
                codes, name = distinct_codes(random, 4), NAMES[random.integers(len(NAMES))]
                sentences = filler_text(random, length)
                sentences.insert(round(depth * len(sentences)), fact(name, codes[0]))
                text = "".join(sentences)
                yield choice_question(random, text, name, codes, group=f"needle {length}", depth=depth)


def jrt(arguments, random):
    for length in arguments.lengths:
        for _ in range(arguments.questions):
            names = random.choice(NAMES, arguments.facts, replace=False)
            codes = distinct_codes(random, arguments.facts)
            sentences = filler_text(random, length)
            for name, code in zip(names, codes):
                sentences.insert(random.integers(len(sentences) + 1), fact(name, code))
            text, asked = "".join(sentences), random.integers(arguments.facts)
            wrong = random.choice([code for code in codes if code != codes[asked]], 3, replace=False)
            for group, times in ((f"jrt {length} once", 1), (f"jrt {length} twice", 2)):
                choices = [codes[asked], *wrong]
                yield choice_question(random, times * text, names[asked], choices, group=group)


def mqar_places(random, pairs):
    """Of each key: where it is given and where it is asked for, of PLACES."""
    free, places = np.ones(PLACES, bool), []
    for _ in range(pairs):
        later = ()
        while len(later) == 0:  # a place for the key, and a free one for its query
            given = random.choice(np.flatnonzero(free))
            distance = int(np.exp(random.uniform(0, np.log(PLACES))))
            later = np.flatnonzero(free[given + distance :])
        asked = int(given + distance + later[0])
        free[[given, asked]] = False
        places.append((int(given), asked))
    return places


def mqar_words(random, pairs):
    """The text's words, two a place, and the places."""
    words = [SYLLABLES[i] for i in random.integers(0, len(SYLLABLES), 2 * PLACES)]
    places, keys = mqar_places(random, pairs), random.choice(KEY_WORDS, pairs, replace=False)
    for key, both in zip(keys, places):
        value = VALUE_WORDS[random.integers(len(VALUE_WORDS))]
        for place in both:
            words[2 * place : 2 * place + 2] = key, value
    return words, places


def mqar_tokens(random, pairs):
    """The same as ids (2 * PLACES)."""
    tokens = random.integers(FIRST_FILLER, VOCABULARY, 2 * PLACES)
    places, keys = mqar_places(random, pairs), random.choice(KEYS, pairs, replace=False)
    for key, (given, asked) in zip(keys, places):
        item = VALUES * key + random.integers(0, VALUES)
        tokens[2 * given] = item
        tokens[2 * asked : 2 * asked + 2] = FIRST_QUERY + key, item
    return tokens, places


def mqar(arguments, random):
    for pairs in arguments.pairs:
        for _ in range(arguments.sequences):
            sequence, places = (mqar_tokens if arguments.tokens else mqar_words)(random, pairs)
            for given, asked in places:
                context, answer = sequence[: 2 * asked + 1], sequence[2 * asked + 1]
                if arguments.tokens:
                    question = {"context_tokens": context.tolist(), "continuation_tokens": [int(answer)]}
                    distance = 2 * (asked - given) + 1
                else:
                    context = " ".join(context)
                    question = {"context": context, "continuation": " " + answer}
                    distance = 6 * (asked - given) - 1
                yield {**question, "group": f"mqar {pairs}", "distance": distance, "length": len(context)}


def write_questions(arguments, make):
    questions = list(make(arguments, np.random.default_rng(arguments.seed)))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.output.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(question) + "\n" for question in questions))
    temporary.replace(arguments.output)
    print(f"{arguments.output}: {len(questions)} questions")


def write_mqar_training(arguments):
    arguments.output.mkdir(parents=True, exist_ok=True)
    files = (("mqar.h5", arguments.train_sequences), ("mqar-validation.h5", arguments.validation_sequences))
    for part, (name, sequences) in enumerate(files):
        random = np.random.default_rng([arguments.seed, part])
        tokens, mask = np.zeros((2, sequences, 2 * PLACES), np.int64)
        for row in range(sequences):
            tokens[row], places = mqar_tokens(random, random.choice(arguments.pairs))
            mask[row, [2 * asked + 1 for _, asked in places]] = 1
        source = f"data/recall_suite.py, {sequences} sequences, seed {arguments.seed}"
        recall.write(arguments.output / name, tokens, mask.astype(np.uint8), VOCABULARY, FIRST_FILLER, source)


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    options = {name: commands.add_parser(name) for name in ("needle", "jrt", "mqar", "mqar-training")}
    for name in ("needle", "jrt"):
        options[name].add_argument("--lengths", type=int, nargs="+", default=[512, 2048], help="characters of filler")
        options[name].add_argument("--questions", type=int, default=20, help="of each length (and depth)")
    options["needle"].add_argument("--depths", type=float, nargs="+", default=[0, 0.1, 0.25, 0.5, 0.75, 0.9, 1])
    options["jrt"].add_argument("--facts", type=int, default=8, help="names with a code in each text, 4 or more")
    for name in ("mqar", "mqar-training"):
        options[name].add_argument("--pairs", type=int, nargs="+", default=[4, 8, 16, 32], help="N, at most 32")
    options["mqar"].add_argument("--sequences", type=int, default=16, help="of each N; each asks N questions")
    options["mqar"].add_argument("--tokens", action="store_true", help="ids instead of text")
    options["mqar-training"].add_argument("--train-sequences", type=int, required=True)
    options["mqar-training"].add_argument("--validation-sequences", type=int, required=True)
    for command in options.values():
        command.add_argument("--output", type=pathlib.Path, required=True)
        command.add_argument("--seed", type=int, default=1234)
    arguments = parser.parse_args(words)
    if max(getattr(arguments, "pairs", [0])) > KEYS:
        parser.error(f"--pairs: at most {KEYS}")
    if getattr(arguments, "facts", 4) < 4:
        parser.error("--facts: 4 or more, for four choices")

    if arguments.command == "mqar-training":
        write_mqar_training(arguments)
    else:
        write_questions(arguments, {"needle": needle, "jrt": jrt, "mqar": mqar}[arguments.command])


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"data/recall_suite.py: {error}")
