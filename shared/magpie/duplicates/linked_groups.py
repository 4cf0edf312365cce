"""Groups of things that are linked in pairs, each with each: no chains.

That A is like B and B like C does not say that A is like C; along a chain of such links a whole shelf of
milk cartons would end in one group. So a group is a clique of the graph: every two of its members are linked.
Where B belongs to A and to C, but these not to one another, there are two groups, and B stands in both. No
link is left out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping


def linked_groups(links: Mapping[tuple[str, str], float]) -> list[list[str]]:
    """Groups of two or more, each grown from the strongest link that is in no group yet.

    `links` holds each pair once, in either order, with its strength. Members come in the order in which they
    joined: whoever's weakest link to those before is the strongest.
    """
    linked: dict[str, dict[str, float]] = defaultdict(dict)
    for (one, other), strength in links.items():
        linked[one][other] = linked[other][one] = strength
    covered: set[tuple[str, str]] = set()
    groups = []
    for one, other in sorted(links, key=lambda pair: (-links[pair], pair)):
        if (one, other) in covered:
            continue
        group = [one]
        weakest = dict(linked[one])  # thing that is linked with all of the group -> its weakest link to it
        joining = other
        while True:
            covered.update(pair for member in group for pair in ((member, joining), (joining, member)))
            group.append(joining)
            links_of_it = linked[joining]
            weakest = {
                thing: min(strength, links_of_it[thing])
                for thing, strength in weakest.items()
                if thing in links_of_it
            }
            if not weakest:
                break
            joining = max(weakest, key=lambda thing: (weakest[thing], thing))
        groups.append(group)
    return groups
