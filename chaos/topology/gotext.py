"""Values as Go prints them."""

from __future__ import annotations

import math
from typing import Any


def go_text(value: Any) -> str:
    """A value as Go prints it, for keys and for templates.

    Examples:
        >>> [go_text(v) for v in (True, None, 2.50, 4.0, "x", [1, "a"], {"b": 1, "a": 2})]
        ['true', '<nil>', '2.5', '4', 'x', '[1 a]', 'map[a:2 b:1]']
    """
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _go_float(value)
    if isinstance(value, list | tuple):
        return f"[{' '.join(go_text(item) for item in value)}]"
    if isinstance(value, dict):
        pairs = sorted((go_text(key), go_text(item)) for key, item in value.items())
        return f"map[{' '.join(f'{key}:{item}' for key, item in pairs)}]"
    return str(value)


def _go_float(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0 or 1e-4 <= abs(value) < 1e21:
        shown = f"{value:.0f}" if value == int(value) else f"{value!r}"
        return shown if "e" not in shown else f"{value:f}".rstrip("0")
    digits, _, exponent = f"{value!r}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent):+03d}"
