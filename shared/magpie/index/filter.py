"""The grammar of filters, one for the API, the command line and ranking configs.

    filter     = all { "or" all }
    all        = term { "and" term }
    term       = "not" term | "(" filter ")" | "exists" NAME | NAME comparison
    comparison = ( "=" | "!=" ) VALUE | ( "<" | "<=" | ">" | ">=" ) NUMBER | "in" "(" VALUE { "," VALUE } ")"
    VALUE      = TEXT | NUMBER | "true" | "false"

A TEXT stands in single or double quotes, and doubles a quote of its own kind: 'Ben''s', "Ben's". Keywords are
read in any case; names and texts are not. A NAME is `id`, `title`, `category`, `price`, `stock`, `group` or
an attribute, [A-Za-z_][A-Za-z0-9_]*, other than a keyword. What filters mean is in `filter_terms`.
"""

from __future__ import annotations

import math
import re
from functools import lru_cache
from typing import NamedTuple

from magpie.errors import FilterSyntax
from magpie.index.filter_terms import ORDERING, And, Comparison, Exists, Filter, In, Literal, Not, Or

MAX_CHARACTERS = 2000
MAX_DEPTH = 32  # of parentheses and `not` within one another

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number> [+-]? (?: \d+ (?:\.\d*)? | \.\d+ ) (?:[eE][+-]?\d+)? (?![\w.]) )
    | (?P<text>   '(?:[^']|'')*' | "(?:[^"]|"")*" )
    | (?P<word>   [A-Za-z_][A-Za-z0-9_]* )
    | (?P<sign>   != | <= | >= | [=<>(),] )
    | (?P<end>    \Z )
    )""",
    re.VERBOSE | re.ASCII,
)
_KEYWORDS = frozenset({"and", "or", "not", "in", "exists", "true", "false"})


class _Token(NamedTuple):
    kind: str  # number, text, name, end; a keyword or a sign is its own kind
    text: str
    position: int


@lru_cache(maxsize=512)  # a query parses the same filters in every stage, and a config's for every object
def parse(text: str) -> Filter:
    """Read a filter. Raises FilterSyntax with the position and what was expected there."""
    if len(text) > MAX_CHARACTERS:
        kept = text[:MAX_CHARACTERS]
        raise FilterSyntax(
            kept, MAX_CHARACTERS, f"more than the {MAX_CHARACTERS} characters a filter may have"
        )
    return _Parser(text).parse()


class _Parser:
    """Recursive descent over the grammar above, one method a rule."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._at = 0
        self._depth = 0

    def parse(self) -> Filter:
        filter_ = self._filter()
        self._take("end", expected="`and`, `or` or the end")
        return filter_

    def _filter(self) -> Filter:
        terms = [self._all()]
        while self._accept("or"):
            terms.append(self._all())
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _all(self) -> Filter:
        terms = [self._term()]
        while self._accept("and"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _term(self) -> Filter:
        start = self._next
        if start.kind in ("not", "("):
            self._depth += 1
            if self._depth > MAX_DEPTH:
                raise self._error(f"more than {MAX_DEPTH} parentheses and `not` within one another", start)
            self._at += 1
            if start.kind == "not":
                inner: Filter = Not(self._term())
            else:
                inner = self._filter()
                self._take(")", expected="`and`, `or` or `)`")
            self._depth -= 1
            return inner
        if self._accept("exists"):
            name = self._take("name", expected="a name")
            return Exists(name.text, name.position)
        return self._comparison(self._take("name", expected="a name, `exists`, `not` or `(`"))

    def _comparison(self, name: _Token) -> Filter:
        if self._accept("in"):
            self._take("(", expected="`(`")
            values = [self._value()]
            while self._accept(","):
                values.append(self._value())
            self._take(")", expected="`,` or `)`")
            return In(name.text, tuple(values), name.position)
        sign = self._next
        if sign.kind not in ("=", "!=") and sign.kind not in ORDERING:
            raise self._error("expected `=`, `!=`, `<`, `<=`, `>`, `>=` or `in`", sign)
        self._at += 1
        if sign.kind in ORDERING and self._next.kind != "number":
            raise self._error(f"expected a number after `{sign.kind}`", self._next)
        return Comparison(name.text, sign.kind, self._value(), name.position)

    def _value(self) -> Literal:
        token = self._next
        self._at += 1
        match token.kind:
            case "number":
                return self._number(token)
            case "text":
                quote = token.text[0]
                return token.text[1:-1].replace(quote * 2, quote)
            case "true" | "false":
                return token.kind == "true"
        raise self._error("expected a text in quotes, a number, `true` or `false`", token)

    def _number(self, token: _Token) -> float:
        value = float(token.text)
        if not math.isfinite(value):
            raise self._error("expected a number of double precision", token)
        return value

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _accept(self, kind: str) -> bool:
        found = self._next.kind == kind
        self._at += found
        return found

    def _take(self, kind: str, *, expected: str) -> _Token:
        token = self._next
        if token.kind != kind:
            raise self._error(f"expected {expected}", token)
        self._at += 1
        return token

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while not tokens or tokens[-1].kind != "end":
            match = _TOKEN.match(self._text, at)
            if match is None:
                raise self._unreadable(at)
            group = str(match.lastgroup)
            text, position = match[group], match.start(group)
            kind = group
            if group == "sign":
                kind = text
            elif group == "word":
                kind = text.lower() if text.lower() in _KEYWORDS else "name"
            tokens.append(_Token(kind, text, position))
            at = match.end()
        return tokens

    def _unreadable(self, at: int) -> FilterSyntax:
        position = at + len(self._text[at:]) - len(self._text[at:].lstrip())
        character = self._text[position]
        if character in "'\"":
            problem = "a text that no quote ends"
        elif character.isdigit() or character in "+-.":
            problem = "expected a number"
        else:
            problem = f"unexpected {character!r}"
        return FilterSyntax(self._text, position, problem)

    def _error(self, problem: str, token: _Token) -> FilterSyntax:
        return FilterSyntax(self._text, token.position, problem)
