"""What a search is asked for: a speed, or how well the outputs are to agree."""

import re
from dataclasses import dataclass

_NUMBER = r'(\d+(?:\.\d*)?|\.\d+)'
_SPEED = re.compile(rf'{_NUMBER}\s*[x×]', re.IGNORECASE)
_COSINE = re.compile(rf'cosine\s*(?:>=|≥)\s*{_NUMBER}', re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """One of the two.

    Attributes:
        speedup: how many times as fast as the full model.
        cosine: of the outputs' tokens with the full model's, at least.
    """

    speedup: float | None = None
    cosine: float | None = None

    @classmethod
    def parse(cls, text: str) -> 'Target':
        """Reads '2x' or 'cosine >= 0.98'.

        Raises:
            ValueError: the text is neither, or is of a value that nothing can have.
        """
        speed, cosine = _SPEED.fullmatch(text.strip()), _COSINE.fullmatch(text.strip())
        if speed and float(speed[1]) > 1:
            return cls(speedup=float(speed[1]))
        if cosine and 0 < float(cosine[1]) < 1:
            return cls(cosine=float(cosine[1]))
        raise ValueError(
            f"target {text!r} must be a speed of more than 1x, such as '2x', or an agreement below 1, such as "
            "'cosine >= 0.98'"
        )

    def __str__(self) -> str:
        return f'cosine >= {self.cosine:g}' if self.speedup is None else f'{self.speedup:g}x'
