"""Questions about who waits for whom, answered without recursion.

A graph is given by names, `{task: the tasks it waits for}`, or, inside, by rows of
numbers: `rows[i]` lists what node i waits for. Names that are not keys are no part of
the graph: whoever reads a file reports them. All answers are in a fixed order, so the
same graph always gives the same answer.

- Components by Tarjan's algorithm (Depth-first search and linear graph algorithms,
  SIAM J. Comput. 1972), with an explicit stack. Cycles are never enumerated, there can
  be exponentially many: each component is shown by one of its shortest cycles.
- Longest remaining path in one pass over the edges, which is how ready tasks are ranked.
- `Order` keeps a topological order while edges are added: Pearce and Kelly, A dynamic
  topological sort algorithm for directed acyclic graphs, JEA 2006. Its work is bounded
  by the part of the order that lies between the two ends of the new edge.

Some waits have a middle: hundreds of tasks wait for any of hundreds of slots. Rows would
need an edge for each pair, so `components` takes such a meeting point as a node of its own
and `shortest_cycle` takes it as a group, see there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

Rows = Sequence[Sequence[int]]
Waits = Mapping[str, Collection[str]]

# How many edges the search for shorter cycles may look at after the first cycle is known.
# Below about a thousand edges per component the answer is always a shortest one.
CYCLE_EFFORT = 1_000_000


def cycles(waits: Waits) -> list[list[str]]:
    """One shortest cycle per component, each task waiting for the next, the last for the first.

    Each cycle starts with the member that comes first in `waits`; so do the cycles among themselves.
    """
    names, rows = numbered(waits)
    found = [shortest_cycle(rows, members) for members in cyclic(rows, components(rows))]
    return [[names[node] for node in cycle] for cycle in sorted(found)]


def show_cycle(cycle: Sequence[str]) -> str:
    """`A -> B -> C -> A`, as people read it."""
    return " -> ".join([*cycle, cycle[0]])


def layers(waits: Waits) -> list[list[str]]:
    """What could run first, then what could run after it, and so on; the order of `waits` within a layer.

    A task on a cycle, or behind one, is in no layer.
    """
    names, rows = numbered(waits)
    depth = [-1] * len(names)
    for members in components(rows):
        node = members[0]
        if len(members) == 1 and all(depth[other] >= 0 for other in rows[node]):
            depth[node] = 1 + max((depth[other] for other in rows[node]), default=-1)
    stacked: list[list[str]] = [[] for _ in range(1 + max(depth, default=-1))]
    for name, level in zip(names, depth, strict=True):
        if level >= 0:
            stacked[level].append(name)
    return stacked


def longest_remaining(waits: Waits, weights: Mapping[str, float] | None = None) -> dict[str, float]:
    """For each task its own weight plus the heaviest chain of tasks that wait for it, in one O(V + E) pass.

    Weights are seconds where durations are known; without weights each task counts 1, which
    gives the remaining depth. A task that a cycle waits for counts only what waits for it outside of cycles.
    """
    longest = dict.fromkeys(waits, 0.0)
    open_waiters = dict.fromkeys(waits, 0)
    for needed in waits.values():
        for name in needed:
            if name in open_waiters:
                open_waiters[name] += 1
    settled = [name for name, count in open_waiters.items() if not count]
    while settled:
        task = settled.pop()
        remaining = longest[task] = longest[task] + (1.0 if weights is None else weights.get(task, 0.0))
        for name in waits[task]:
            if name not in open_waiters:
                continue
            if longest[name] < remaining:
                longest[name] = remaining
            open_waiters[name] -= 1
            if not open_waiters[name]:
                settled.append(name)
    for task, count in open_waiters.items():
        if count:
            longest[task] += 1.0 if weights is None else weights.get(task, 0.0)
    return longest


def numbered(waits: Waits) -> tuple[list[str], list[list[int]]]:
    """The names in their given order, and the graph as rows of numbers; unknown names are left out."""
    names = list(waits)
    number = {name: place for place, name in enumerate(names)}
    return names, [[number[name] for name in needed if name in number] for needed in waits.values()]


def components(rows: Rows) -> list[list[int]]:
    """All strongly connected components, what is waited for before who waits for it; members ascending."""
    unseen, left = 0, len(rows) + 1  # marks in `entered`; the others are the order of entry, from 1
    entered = [unseen] * len(rows)
    lowest = [0] * len(rows)
    clock = 0
    found: list[list[int]] = []
    for root in range(len(rows)):
        if entered[root] != unseen:
            continue
        clock += 1
        entered[root] = lowest[root] = clock
        path, ahead, open_nodes = [root], [iter(rows[root])], [root]
        while path:
            node = path[-1]
            low = lowest[node]
            for other in ahead[-1]:
                seen = entered[other]
                if seen == unseen:
                    clock += 1
                    entered[other] = lowest[other] = clock
                    path.append(other)
                    open_nodes.append(other)
                    ahead.append(iter(rows[other]))
                    lowest[node] = low
                    break
                if seen < low:
                    low = seen
            else:
                path.pop()
                ahead.pop()
                if low == entered[node]:
                    members = _close(open_nodes, node)
                    for member in members:
                        entered[member] = left
                    found.append(members)
                elif low < lowest[path[-1]]:
                    lowest[path[-1]] = low
    return found


def _close(open_nodes: list[int], root: int) -> list[int]:
    """Take the component of `root` from the end of the open nodes."""
    members = [open_nodes.pop()]
    while members[-1] != root:
        members.append(open_nodes.pop())
    members.sort()
    return members


def cyclic(rows: Rows, found: Iterable[list[int]]) -> list[list[int]]:
    """Those components in which somebody waits for himself, in the end."""
    return [members for members in found if len(members) > 1 or members[0] in rows[members[0]]]


def shortest_cycle(
    rows: Rows,
    members: Sequence[int],
    via: Sequence[int] = (),
    groups: Sequence[Sequence[int]] = (),
    effort: int = CYCLE_EFFORT,
) -> list[int]:
    """One shortest cycle inside the component `members` (ascending), starting with its smallest number.

    Breadth-first from each member in turn, never deeper than the best cycle so far, and never
    again through a member that is done. After `effort` edges the best known cycle is the answer:
    that is at least a shortest one through the first members. A component of one ring has only one cycle.

    A node i with `via[i] >= 0` waits also for all of `groups[via[i]]` except itself.
    """
    inside = set(members)
    for node in members:
        if node in rows[node]:
            return [node]
    if not via and all(len(rows[node]) == 1 for node in members):
        return _ring_from(members[0], rows)
    closing: dict[int, set[int]] = {}
    for group in {via[node] for node in members if via[node] >= 0} if via else ():
        for node in inside.intersection(groups[group]):
            closing.setdefault(node, set()).add(group)
    best: list[int] = []
    for root in members:
        cycle, looked = _cycle_through(
            root, inside, rows, via, groups, closing.get(root, set()), len(best) or len(members) + 1
        )
        if cycle:
            best = cycle
        inside.discard(root)
        effort -= looked
        if len(best) == 2 or (best and effort < 0):
            break
    return best


def _ring_from(node: int, rows: Rows) -> list[int]:
    """The only cycle, where each waits for one."""
    cycle = [node]
    while (node := rows[node][0]) != cycle[0]:
        cycle.append(node)
    return cycle


def _cycle_through(
    root: int,
    inside: set[int],
    rows: Rows,
    via: Sequence[int],
    groups: Sequence[Sequence[int]],
    closing: Collection[int],
    shorter_than: int,
) -> tuple[list[int], int]:
    """The shortest cycle through `root` if it is shorter than that, and how many edges were looked at.

    `closing` are the groups that lead to `root`.
    """
    came_from = {root: root}
    opened: set[int] = set()
    level, length, looked = [root], 1, 0
    while level and length < shorter_than:
        following: list[int] = []
        for node in level:
            group = via[node] if via else -1
            if root in rows[node] or (group in closing and node != root):
                return _path_back(came_from, node), looked
            ahead = rows[node]
            if group >= 0 and group not in opened:
                opened.add(group)
                ahead = [*ahead, *groups[group]]
            looked += len(ahead)
            for other in ahead:
                if other in inside and other not in came_from:
                    came_from[other] = node
                    following.append(other)
        level, length = following, length + 1
    return [], looked


def _path_back(came_from: Mapping[int, int], node: int) -> list[int]:
    path = [node]
    while came_from[node] != node:
        node = came_from[node]
        path.append(node)
    return path[::-1]


class Order:
    """A topological order of tasks that stays one while dependencies are added, one by one.

    A new task goes to the end, so that its dependencies on existing tasks cost only a comparison.
    """

    def __init__(self, waits: Waits | None = None) -> None:
        """Start from these waits. Edges that lie on a cycle already are left out: they are the monitor's."""
        self._needs: dict[str, set[str]] = {}
        self._needed_by: dict[str, set[str]] = {}
        self._place: dict[str, int] = {}
        self._end = 0
        names, rows = numbered(waits or {})
        for members in components(rows):
            for node in members:
                self.add(names[node])
            for node in members:
                for other in set(rows[node]).difference(members):
                    self._connect(names[node], names[other])

    def __contains__(self, task: str) -> bool:
        return task in self._place

    def __len__(self) -> int:
        return len(self._place)

    def add(self, task: str) -> None:
        """Add a task that waits for nothing yet; a known task stays as it is."""
        if task not in self._place:
            self._place[task] = self._end
            self._end += 1
            self._needs[task], self._needed_by[task] = set(), set()

    def remove(self, task: str) -> None:
        """Forget a task and all its edges; the others keep their order."""
        for other in self._needs.pop(task):
            self._needed_by[other].discard(task)
        for other in self._needed_by.pop(task):
            self._needs[other].discard(task)
        del self._place[task]

    def unlink(self, task: str, needed: str) -> None:
        """Forget one dependency."""
        self._needs[task].discard(needed)
        self._needed_by[needed].discard(task)

    def link(self, task: str, needed: str) -> list[str]:
        """Let `task` wait for `needed`, unless that closes a cycle.

        Empty if the edge was added. Otherwise nothing has changed, and the answer is a shortest of the
        cycles that the edge would close: `task`, `needed`, and what `needed` waits for, back to `task`.
        Both tasks must be known (KeyError).
        """
        if task == needed:
            return [task]
        first, last = self._place[task], self._place[needed]
        if first < last:
            later, cycle = self._waiting_for(task, needed, last)
            if cycle:
                return cycle
            self._reorder(later, self._needed_before(needed, first))
        self._connect(task, needed)
        return []

    def _connect(self, task: str, needed: str) -> None:
        self._needs[task].add(needed)
        self._needed_by[needed].add(task)

    def _waiting_for(self, task: str, needed: str, last: int) -> tuple[list[str], list[str]]:
        """Who waits for `task` up to place `last`; or the cycle, if `needed` is among them."""
        came_from = {task: task}
        found = [task]
        for current in found:
            for other in self._needed_by[current]:
                if other not in came_from and self._place[other] <= last:
                    came_from[other] = current
                    found.append(other)
            if needed in came_from:
                cycle = [task]
                while needed != task:
                    cycle.append(needed)
                    needed = came_from[needed]
                return [], cycle
        return found, []

    def _needed_before(self, needed: str, first: int) -> list[str]:
        """What `needed` waits for, down to place `first`."""
        seen = {needed}
        found = [needed]
        for current in found:
            for other in self._needs[current]:
                if other not in seen and self._place[other] >= first:
                    seen.add(other)
                    found.append(other)
        return found

    def _reorder(self, later: list[str], sooner: list[str]) -> None:
        """Share out the places of both again: all of `sooner` first, each in its former order."""
        place = self._place
        tasks = sorted(sooner, key=place.__getitem__) + sorted(later, key=place.__getitem__)
        for task, free in zip(tasks, sorted(place[task] for task in tasks), strict=True):
            place[task] = free
