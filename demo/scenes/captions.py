"""Sentences about clips, true to their descriptions, in varied wording."""

import gzip
from collections.abc import Iterator

import numpy as np

from .clips import FILLS, MOTIONS, RADII, SHAPES, Clip, Event, Group

_NUMBERS = ('a', 'two', 'three')
_SIZES = {'small': ('small', 'little', 'tiny'), 'large': ('large', 'big')}
_RELATIONS = {'above': ('above', 'over'), 'to the left of': ('to the left of', 'left of')}
_VERBS = ('moves', 'goes', 'travels')
_ORDERED = (', then ', ', followed by ', ', and after that ', ', later ')
_LISTS = ('{} and {}', '{} and {} come and go', 'a clip with {} and {}', '{} and {} are seen')


def caption_clip(rng: np.random.Generator, clip: Clip, ordered: bool) -> str:
    """A sentence that names everything that a clip shows.

    Args:
        rng: chooses the wording.
        clip: what is seen.
        ordered: tell the events in their order, with words for it; if not, list them in any order.
    """
    phrases = [_event(rng, event) for event in clip.events]
    if ordered:
        sentence = phrases[0]
        for phrase in phrases[1:]:
            sentence += str(rng.choice(_ORDERED)) + phrase
        return sentence
    rng.shuffle(phrases)
    if len(phrases) == 1:
        return phrases[0]
    return str(rng.choice(_LISTS)).format(', '.join(phrases[:-1]), phrases[-1])


def vocabulary() -> list[str]:
    """Every word that captions are made of, sorted."""
    plurals = [_plural(shape) for shape in SHAPES]
    sizes = [word for size in RADII for word in _SIZES[size]]
    relations = [text for texts in _RELATIONS.values() for text in texts]
    texts = (*_NUMBERS, *sizes, *FILLS, *SHAPES, *plurals, *relations, *MOTIONS, *_VERBS, *_ORDERED, *_LISTS)
    return sorted({word for text in texts for word in text.replace(',', ' , ').replace('{}', ' ').split()})


def tokenizer_file() -> bytes:
    """The file of CLIP's tokenizer (open_clip's `bpe_path`) that has a token for each word of the captions."""
    lines = ['#version: words of demo.scenes.captions', *map(' '.join, _byte_pairs(vocabulary()))]
    return gzip.compress('\n'.join(lines).encode(), mtime=0)


def _byte_pairs(words: list[str]) -> Iterator[tuple[str, str]]:
    """Byte-pair merges for CLIP's tokenizer that leave each of the words whole, the most frequent pair first.

    Only for words of ASCII characters.
    """
    pieces = [[*word[:-1], word[-1] + '</w>'] for word in words]
    while True:
        pairs = [pair for word in pieces for pair in zip(word[:-1], word[1:])]
        if not pairs:
            return
        best = max(sorted(set(pairs)), key=pairs.count)
        yield best
        pieces = [_merge(word, best) for word in pieces]


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for piece in word:
        if merged and (merged[-1], piece) == pair:
            merged[-1] += piece
        else:
            merged.append(piece)
    return merged


def _event(rng: np.random.Generator, event: Event) -> str:
    phrase = _group(rng, event.groups[0])
    if event.relation:
        phrase += f' {rng.choice(_RELATIONS[event.relation])} {_group(rng, event.groups[1])}'
    if event.motion:
        phrase += f' {rng.choice(_VERBS)} {event.motion}'
    return phrase


def _group(rng: np.random.Generator, group: Group) -> str:
    count = len(group.places)
    shape = group.shape if count == 1 else _plural(group.shape)
    return f'{_NUMBERS[count - 1]} {rng.choice(_SIZES[group.size])} {group.fill} {shape}'


def _plural(shape: str) -> str:
    return shape + ('es' if shape.endswith('s') else 's')
