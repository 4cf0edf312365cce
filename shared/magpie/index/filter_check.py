"""Whether a filter, a facet or a grouping fits what a customer's products have.

Only what a caller writes is checked, when it comes in: a filter that is kept (in a ranking config) stays good
when the last product with one of its attributes goes, and then holds for none, as `filter_terms` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

from magpie.errors import FilterMismatch, InvalidArgument
from magpie.index.attribute_schema import AttributeSchema, ValueType, type_of
from magpie.index.filter import parse
from magpie.index.filter_terms import And, Comparison, Exists, Filter, In, Literal, Not, Or, written

_NEAR = 0.6  # similarity of two names, [0, 1], from which one may be meant by the other
_NAMES_SHOWN = 3


def check_filter(text: str, schema: AttributeSchema, field: str = "filter") -> None:
    """Raises FilterSyntax if it does not parse, FilterMismatch for the first thing that no product can have.

    That is a name that no product has a value for, or a literal of a type that no product's value has. While
    the schema is not complete (there are no products yet, say), names that are not known are let pass.
    """
    for leaf in _leaves(parse(text)):
        problem = _problem(leaf, schema)
        if problem:
            raise FilterMismatch(text, leaf.position, problem, field)


def check_name(name: str, schema: AttributeSchema, field: str) -> None:
    """Raises InvalidArgument if no product has a value of that name."""
    if not schema.types(name) and schema.is_complete:
        raise InvalidArgument(field, _unknown(name, schema))


def check_text_name(name: str, schema: AttributeSchema, field: str) -> None:
    """Raises InvalidArgument if no product has a text of that name."""
    check_name(name, schema, field)
    types = schema.types(name)
    if types and ValueType.TEXT not in types:
        raise InvalidArgument(field, f"`{name}` is {_listed(types)}: only texts are grouped by")


def _leaves(condition: Filter) -> Iterator[Comparison | In | Exists]:
    match condition:
        case Not(term):
            yield from _leaves(term)
        case And(terms) | Or(terms):
            for term in terms:
                yield from _leaves(term)
        case Comparison() | In() | Exists():
            yield condition


def _problem(leaf: Comparison | In | Exists, schema: AttributeSchema) -> str:
    types = schema.types(leaf.name)
    if not types:
        return _unknown(leaf.name, schema) if schema.is_complete else ""
    literals: tuple[Literal, ...] = ()
    if isinstance(leaf, Comparison):
        literals = (leaf.value,)
    elif isinstance(leaf, In):
        literals = leaf.values
    for literal in literals:
        wanted = type_of(literal)
        if wanted not in types and not (wanted is ValueType.TEXT and ValueType.SET in types):
            got = f"{written(literal):.40} is {_ARTICLE[wanted]}"
            return f"`{leaf.name}` is {_listed(types)}, and {got} ({_fix(types)})"
    return ""


_ARTICLE = {
    ValueType.TEXT: "a text",
    ValueType.NUMBER: "a number",
    ValueType.FLAG: "a flag",
    ValueType.SET: "a set of texts",
}
_FIX = {
    ValueType.TEXT: "compare a text with `=`, `!=` or `in` and a text in quotes, as 'red'",
    ValueType.NUMBER: "compare a number with a number without quotes, as 9.5",
    ValueType.FLAG: "compare a flag by `=` with true or false",
    ValueType.SET: "compare a set with `=`, `!=` or `in` and a text in quotes that it may contain, as 'red'",
}


def _listed(types: list[ValueType]) -> str:
    return " or ".join(_ARTICLE[type_] for type_ in types)


def _fix(types: list[ValueType]) -> str:
    return "; ".join(_FIX[type_] for type_ in types)


def _unknown(name: str, schema: AttributeSchema) -> str:
    near = [other for _, other in sorted(_similarities(name, schema))][:_NAMES_SHOWN]
    hint = f"near are {', '.join(f'`{other}`' for other in near)}; " if near else ""
    return f"no product has `{name:.60}` ({hint}CatalogService.GetAttributes lists all)"


def _similarities(name: str, schema: AttributeSchema) -> Iterator[tuple[float, str]]:
    """(minus the similarity, name) of each name that is near."""
    for other in schema.names:
        similarity = SequenceMatcher(None, name.lower(), other.lower()).ratio()
        if similarity >= _NEAR:
            yield -similarity, other
