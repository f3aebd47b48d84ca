"""Where the boxes of a picture stand, in points; y grows downwards.

Boxes stand one under the other, in columns where they are many. Where a network makes its image small and large again, the
way down stands at the left and the way up at the right, boxes of one extent beside one another.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from fastops.models.drawing.boxes import Box, Region, decompose
from fastops.models.drawing.sizes import (
    ARC,
    GAP,
    HEAD,
    MARK,
    PAD,
    SHEETS,
    SIDE,
    Frame,
    Item,
    Picture,
    Place,
    Width,
    local_name,
    shape_words,
    size_of,
    stack,
)  # fmt: skip

COLUMN = 42.0  # between columns
ASPECT = 1.5  # of width to height that columns are made for
REPEATS = 3  # so many equal blocks in a row are drawn as one


class Layout:
    """The picture of some boxes.

    Attributes:
        picture: what is found.
        width, height: of the whole.
    """

    def __init__(self, boxes: Sequence[Box], text: Width, collapse: bool = True) -> None:
        self.boxes = boxes
        self.text = text
        self.picture = Picture()
        self.names: dict[int, str] = {}
        self._stands: dict[int, int] = {}  # boxes of repeated blocks, and those of the one that is drawn
        self._inside: dict[int, int] = {}  # boxes of folded blocks, and the one that stands for them
        self._column: dict[int, int] = {}
        self._turns: dict[int, list[float]] = {}  # heights above and below branches, by the boxes at their ends
        self._folds = False
        self._jumps: list[tuple[int, int]] = []
        self._at = 0
        self._sources = [tuple(box.sources) for box in boxes]
        self._collapse = collapse
        bottom = self._bottom()
        if bottom is None:
            self._columns(self._tree(range(len(boxes))))
        else:
            self._hourglass(bottom)
        self._fit()

    # --- the tree

    def _tree(self, members: Sequence[int]) -> tuple[list[Item], Region]:
        inside = set(members)
        leaves = inside - {s for t in inside for s in self._sources[t]}
        sources: list[Sequence[int]] = list(self._sources)
        end = len(sources)
        if len(leaves) > 1:  # one end for all
            sources.append(sorted(leaves))
            members = [*members, end]
        region = decompose(sources, members)
        region.items = [item for item in region.items if item != end]
        region.arcs = [(s, t) for s, t in region.arcs if t != end]
        self._jumps = region.arcs
        return self._grouped(self._elements(region), ()), region

    def _elements(self, region: Region) -> list[tuple[tuple[str, ...], int | Region]]:
        found = []
        for item in region.items:
            scopes = [self.boxes[i].scope for i in ([item] if isinstance(item, int) else item.boxes())]
            found.append((_common(scopes), item))
        return found

    def _grouped(self, elements: Sequence[tuple[tuple[str, ...], int | Region]], scope: tuple[str, ...]) -> list[Item]:
        """Frames around the blocks: the outermost scopes that do not hold several blocks themselves."""
        depth = len(scope)
        runs: list[tuple[tuple[str, ...], list[tuple[tuple[str, ...], int | Region]]]] = []
        for of, item in elements:
            key = of[: depth + 1] if len(of) > depth else ()
            if runs and key and runs[-1][0] == key:
                runs[-1][1].append((of, item))
            else:
                runs.append((key, [(of, item)]))
        found: list[Item] = []
        for key, run in runs:
            if key and _count(run) > 1:
                if self._folds and _blocks(run, len(key)) > 1 and not _stages(run, len(key)):
                    found.append(self._fold(".".join(key), run))
                elif _blocks(run, len(key)) > 1:
                    found += self._grouped(run, key)
                else:
                    found.append(self._frame(".".join(key), run))
            else:
                found += [self._item(item, "") for _, item in run]
        return self._repeated(found)

    def _frame(self, title: str, run: Sequence[tuple[tuple[str, ...], int | Region]]) -> Item:
        return self._framed(title, [self._item(item, title) for _, item in run])

    def _fold(self, title: str, run: Sequence[tuple[tuple[str, ...], int | Region]]) -> Item:
        """Several blocks as one box."""
        numbers = [i for _, item in run for i in ([item] if isinstance(item, int) else item.boxes())]
        last = numbers[-1]
        self._inside.update(dict.fromkeys(numbers[:-1], last))
        blocks = _blocks(run, title.count(".") + 1)
        words = f"{sum(len(self.boxes[i].steps) for i in numbers)} layers in {blocks} blocks"
        self.picture.folded[last] = title, words, blocks
        width = self.text(title, 8, True) + self.text(shape_words(self.boxes[last].shape), 7, False) + 50
        width = max(width, size_of(self.boxes[last], title, self.text)[0])
        return Item(width / 2, width / 2 + SHEETS, 40 + SHEETS + 2.6 * math.log2(self._extent(last)), box=last)

    def _framed(self, title: str, items: list[Item], count: int = 1) -> Item:
        left, right, height = stack(items)
        inside = {i for item in items for i in item.boxes()}
        right += ARC if any(t in inside for _, t in self._jumps) else 0
        head = self.text(title, 8, True) + (40 if count > 1 else 14)
        right = max(right, head - left) if head > left + right else right
        sheets = SHEETS if count > 1 else 0
        return Item(left + PAD, right + PAD + sheets, height + HEAD + PAD + sheets, frame=title, items=items, count=count)

    def _item(self, item: int | Region, scope: str) -> Item:
        if isinstance(item, int):
            self.names[item] = name = local_name(self.boxes[item], scope)
            width, height = size_of(self.boxes[item], name, self.text)
            return Item(width / 2, width / 2, height, box=item)
        branches = [self._series(branch, scope) for branch in item.items if isinstance(branch, Region)]
        height = max(b.height for b in branches)
        # One long branch with short ones beside it stays on the line; others are spread evenly.
        longest = max(range(len(branches)), key=lambda i: len(branches[i].boxes()))
        if len(branches) == 2 and len(branches[longest].boxes()) > len(branches[1 - longest].boxes()):
            main, other = branches[longest], branches[1 - longest]
            placed = [(0.0, main), (main.right + SIDE + other.left, other)]
        else:
            placed, x = [], 0.0
            for branch in branches:
                placed.append((x + branch.left, branch))
                x += branch.left + branch.right + SIDE
            middle = (x - SIDE) / 2
            placed = [(at - middle, branch) for at, branch in placed]
        left = max(branch.left - at for at, branch in placed)
        right = max(branch.right + at for at, branch in placed)
        return Item(left, right, height + 2 * GAP * (len(branches) > 1), branches=placed)

    def _series(self, region: Region, scope: str) -> Item:
        items = [self._item(item, scope) for item in region.items]
        left, right, height = stack(items)
        return Item(left, right + (ARC if region.arcs else 0), height, items=items, region=region)

    def _repeated(self, items: list[Item]) -> list[Item]:
        """Equal frames in a row as one."""
        if not self._collapse:
            return items
        found: list[Item] = []
        i = 0
        while i < len(items):
            j = i + 1
            if items[i].frame:
                pattern = self._pattern(items[i])
                while j < len(items) and items[j].frame and self._pattern(items[j]) == pattern:
                    j += 1
            if j - i < REPEATS:
                found += items[i:j] if items[i].frame else [items[i]]
                i = j if items[i].frame else i + 1
                continue
            kept = items[i]
            for other in items[i + 1 : j]:
                self._stands.update(zip(other.boxes(), kept.boxes()))
            title = f"{kept.frame} … {items[j - 1].frame.split('.')[-1]}"
            found.append(self._framed(title, kept.items, j - i))
            i = j
        return found

    def _pattern(self, frame: Item) -> list[tuple[object, ...]]:
        """What makes frames equal: layers, shapes, and how the boxes hang together."""
        numbers = frame.boxes()
        place = {box: i for i, box in enumerate(numbers)}
        return [
            (
                tuple((s.layer.kind, s.layer.describe()) for s in self.boxes[i].steps),
                self.boxes[i].shape,
                tuple(place.get(s, -1) for s in self._sources[i]),
                self.boxes[numbers[0]].shape,
            )
            for i in numbers
        ]

    def _of(self, box: int) -> int:
        box = self._stands.get(box, box)
        return self._inside.get(box, box)

    # --- placing

    def _put(self, item: Item, x: float, y: float) -> None:
        if item.box is not None:
            sheets = SHEETS if item.box in self.picture.folded else 0
            self.picture.places[item.box] = Place(x, y, item.left + item.right - sheets, item.height - sheets)
            self._column[item.box] = self._at
        elif item.branches:
            for at, branch in item.branches:
                if len(item.branches) > 1:
                    for i in branch.boxes():
                        self._turns.setdefault(i, [y + GAP, y + item.height - GAP])
                self._put(branch, x + at, y + (item.height - branch.height) / 2)
        else:
            if item.frame:
                sheets = SHEETS if item.count > 1 else 0
                place = Place(x + (item.right - item.left - sheets) / 2, y, item.left + item.right - sheets, item.height - sheets)
                self.picture.frames.append(Frame(item.frame, place, item.count))
                y += HEAD
            for inner in item.items:
                self._put(inner, x, y)
                y += inner.height + GAP
            if item.region is not None:
                self._arcs(item.region.arcs, item.boxes())

    def _arcs(self, arcs: Sequence[tuple[int, int]], near: Sequence[int]) -> None:
        """Arcs at the right of the boxes that they jump over; the shorter ones first, the others around them."""
        places = self.picture.places
        done: list[tuple[int, float, float, float]] = []
        pairs = {(self._of(s), t) for s, t in arcs if t in places and self._of(s) in places and t not in self.picture.folded}
        found = [(self._begin(s, t), places[t], self._column[t]) for s, t in pairs if s != t]
        for a, b, column in sorted(found, key=lambda arc: arc[1].y - arc[0].y):
            over = [p.right for i in near if (p := places.get(i)) and self._column[i] == column and p.y >= a.bottom - 1 and p.bottom <= b.y + 1]
            reach = max([a.right, b.right, *over])
            crossed = [at + ARC * 0.8 for of, top, bottom, at in done if of == column and top < b.y and bottom > a.bottom]
            reach = max([reach + ARC, *crossed])
            done.append((column, a.bottom, b.y, reach))
            self.picture.arcs.append((a, b, reach))

    def _begin(self, source: int, target: int) -> Place:
        """Where an edge comes from: the box, or the port of it at the top of the target's column."""
        ports = [port for column, (of, port) in enumerate(self.picture.ports, 1) if of == source and column == self._column[target]]
        return ports[0] if ports else self.picture.places[source]

    def _columns(self, tree: tuple[list[Item], Region]) -> None:
        items, region = tree
        columns = self._divided(self._breakable(items))
        x = 0.0
        last: int | None = None
        for self._at, column in enumerate(columns):
            left, right, _ = stack(column)
            port = MARK + GAP if last is not None else 0.0
            middle = x + left
            y = port
            if last is not None:
                width = self.text(shape_words(self.boxes[last].shape), 7, False) + 20
                place = Place(middle, 0.0, width, MARK)
                self.picture.ports.append((last, place))
                before = self.picture.places[last]
                gutter = x - COLUMN / 2
                self.picture.wires.append(
                    [(before.x, before.bottom), (before.x, before.bottom + GAP), (gutter, before.bottom + GAP), (gutter, -GAP), (middle, -GAP), (middle, 0.0)]
                )
            for item in column:
                self._put(item, middle, y)
                y += item.height + GAP
            x = middle + max(right, 0) + COLUMN + (ARC if region.arcs else 0)
            last = self._of(column[-1].boxes()[-1])
        self._arcs(region.arcs, list(self.picture.places))
        self._edges()

    def _breakable(self, items: list[Item]) -> list[Item]:
        """Frames that are long in themselves, a box at a time."""
        total = sum(item.height + GAP for item in items)
        found: list[Item] = []
        for item in items:
            if item.frame and item.count == 1 and len(item.items) > 7 and item.height > 0.3 * total:
                pieces: list[list[Item]] = [[]]
                for inner in item.items:
                    before = pieces[-1][-1].box if pieces[-1] else None
                    if before is not None and len(pieces[-1]) > 1 and self._shrinks(before):
                        pieces.append([])
                    pieces[-1].append(inner)
                found += [self._framed(item.frame, piece) for piece in pieces]
            else:
                found.append(item)
        return found

    def _shrinks(self, box: int) -> bool:
        return any(self.boxes[s].extents > self.boxes[box].extents for s in self._sources[box])

    def _divided(self, items: list[Item]) -> list[list[Item]]:
        """Columns of about equal height, so many that the picture is a little wider than high."""
        best: tuple[float, list[list[Item]]] | None = None
        for count in range(1, 9):
            limit = _lowest(items, count)
            columns = _filled(items, limit)
            sizes = [stack(column) for column in columns]
            width = sum(left + right + COLUMN for left, right, _ in sizes)
            height = max(height for *_, height in sizes) + 40
            filled = sum(h for *_, h in sizes) / len(sizes) / height
            badness = abs(math.log(width / height / ASPECT)) + 0.15 * (len(columns) - 1) + 0.8 * (1 - filled)
            if best is None or badness < best[0]:
                best = badness, columns
        assert best is not None
        return best[1]

    def _edges(self) -> None:
        """All edges that are neither arcs nor go over to another column or side."""
        places = self.picture.places
        drawn = {(id(a), id(b)) for a, b, _ in self.picture.arcs} | {(id(a), id(b)) for a, b, _ in self.picture.across}
        for t, sources in enumerate(self._sources):
            target = self._inside.get(t, t)
            if target not in places:
                continue
            for s in sources:
                source = self._of(s)
                if source == target:
                    continue
                a, b = self._begin(source, target), places[target]
                if (id(a), id(b)) not in drawn:
                    drawn.add((id(a), id(b)))
                    down = b.y >= a.bottom
                    low = min(max(a.bottom, self._turns[source][1]), b.y) if down and source in self._turns and a is places[source] else a.bottom
                    high = max(min(b.y, self._turns[target][0]), low) if down and target in self._turns else b.y
                    if self._turns.get(source) == self._turns.get(target):
                        low, high = a.bottom, b.y
                    self.picture.edges.append((a, b, low, high) if down else (a, b, a.y, b.bottom))

    # --- down and up again

    def _bottom(self) -> int | None:
        """The box at which the image is smallest, if it is enlarged from there and joined with what was larger before."""
        boxes = self.boxes
        ups = [
            (s, t) for t, box in enumerate(boxes) for s in box.sources[:1]
            if box.extents and boxes[s].extents and box.extents[0] > boxes[s].extents[0] and box.kind in ("upsample", "conv_transpose")
        ]  # fmt: skip
        if not ups:
            return None
        bottom = ups[0][0]
        before = self._ancestors(bottom)
        joined = [t for t, box in enumerate(boxes) if t not in before and t != bottom for s in box.sources if s in before]
        return bottom if len(joined) >= 1 else None

    def _ancestors(self, box: int) -> set[int]:
        found: set[int] = set()
        todo = list(self._sources[box])
        while todo:
            i = todo.pop()
            if i not in found:
                found.add(i)
                todo += self._sources[i]
        return found

    def _hourglass(self, bottom: int) -> None:
        down = sorted(self._ancestors(bottom) | {bottom})
        way_down = set(down)
        up = [i for i in range(len(self.boxes)) if i not in way_down]
        spine, lanes, rows = self._upward(bottom, up)
        groups = self._chains(spine, up)
        sizes = {i: self._item(i, ".".join(self.boxes[i].scope) if framed else "") for chain, framed in groups for i in chain}
        sizes |= {i: self._item(i, "") for i in up if i not in sizes}
        row = {i: max(sizes[j].height for j in up if rows[j] == i) for i in spine}
        needed: dict[int, float] = {}
        for chain, framed in groups:
            extent = self._extent(chain[0])
            needed[extent] = needed.get(extent, 0.0) + sum(row[i] + GAP for i in chain) + (HEAD + 2 * PAD if framed else 0)
        items, region = self._tree(down)
        if self._collapse and stack(items)[2] > 1.5 * sum(needed.values()):
            self._folds = True
            self._stands.clear()
            items, region = self._tree(down)
        # The way down, with room at each extent for what the way up has there.
        self._at = 0
        left, right, _ = stack(items)
        y, bands = 0.0, {}
        for extent, group in groupby(items, lambda item: self._extent(item.boxes()[-1])):
            band = list(group)
            room = max(0.0, needed.get(extent, 0.0) - sum(item.height + GAP for item in band))
            for item in band:
                if item is band[-1]:  # about as high as what takes it over
                    y += room / 2
                self._put(item, left, y)
                y += item.height + GAP
            y += room / 2
            bands[extent] = y - GAP
            y += GAP / 2
        self._arcs(region.arcs, down)
        # The way up, from each band's bottom, and beside it what leads to it and away from it.
        widest = {lane: max(sizes[i].left + sizes[i].right for i in up if lanes[i] == lane) for lane in set(lanes.values())}
        at, x = {}, left + right + ARC + 5 * SIDE
        for lane in sorted(widest):
            at[lane] = x + widest[lane] / 2
            x += widest[lane] + 1.8 * SIDE
        lines = dict(bands)
        for chain, framed in groups:
            extent = self._extent(chain[0])
            line = lines.get(extent, min(lines.values()) if extent > max(lines) else max(lines.values()))
            if framed:
                line -= PAD
                low = line
            for i in chain:
                line -= row[i]
                for j in up:
                    if rows[j] == i:
                        self._put(sizes[j], at[lanes[j]], line + (row[i] - sizes[j].height) / 2)
                line -= GAP
            if framed:
                top = line + GAP - HEAD - PAD / 2
                width = max(sizes[i].left + sizes[i].right for i in chain) + 2 * PAD
                self.picture.frames.append(Frame(".".join(self.boxes[chain[0]].scope), Place(at[0], top, width, low + PAD - top)))
                line = top - GAP
            lines[extent] = line
        places = self.picture.places
        for j in up:
            if rows[j] == bottom:
                self._put(sizes[j], at[lanes[j]], places[bottom].middle - sizes[j].height / 2)
        for t in up:
            for s in self._sources[t]:
                if s in way_down or lanes[s] != lanes[t]:
                    self.picture.across.append((places[self._of(s)], places[t], s in way_down and s != bottom))
        self._edges()

    def _extent(self, box: int) -> int:
        return max(self.boxes[box].extents, default=1)

    def _chains(self, spine: Sequence[int], up: Sequence[int]) -> list[tuple[list[int], bool]]:
        """The path up in pieces of one extent and scope, and whether nothing else has the scope, so that a frame can show it."""
        groups: list[list[int]] = []
        for i in spine:
            before = self.boxes[groups[-1][-1]] if groups else None
            if before and before.scope == self.boxes[i].scope and self._extent(groups[-1][-1]) == self._extent(i):
                groups[-1].append(i)
            else:
                groups.append([i])
        return [(g, len(g) > 1 and bool(self.boxes[g[0]].scope) and sum(self.boxes[j].scope == self.boxes[g[0]].scope for j in up) == len(g)) for g in groups]

    def _upward(self, bottom: int, up: list[int]) -> tuple[list[int], dict[int, int], dict[int, int]]:
        """The longest path up, and for every box its lane beside that path and the box of the path that it stands beside."""
        starts = {t for t in up if bottom in self._sources[t]}
        longest: dict[int, list[int]] = {}
        for t in up:
            paths = [[*longest[s], t] if s in longest else [t] for s in self._sources[t]]
            longest[t] = max(paths, key=lambda p: (p[0] in starts, len(p)))
        spine = max((p for p in longest.values() if p[0] in starts), key=lambda p: (self._extent(p[-1]), len(p)))
        while len(spine) > 2 and self._extent(spine[-1]) == self._extent(spine[-2]) and self._is_exit(spine, longest):
            spine = spine[:-1]
        lanes = dict.fromkeys(spine, 0)
        rows = {i: i for i in spine}
        for t in up:  # behind the path, or behind the bottom
            if t in lanes or self._leads_to(t, set(spine)):
                continue
            near = next((s for s in self._sources[t] if s in lanes), None)
            lanes[t] = 1 if near is None else lanes[near] + 1
            rows[t] = bottom if near is None else rows[near]
        for s in reversed(up):  # on the way to it
            if s not in lanes:
                near = next(t for t in up if s in self._sources[t] and t in lanes)
                lanes[s], rows[s] = lanes[near] - 1, rows[near]
        return spine, lanes, rows

    def _is_exit(self, spine: list[int], longest: dict[int, list[int]]) -> bool:
        """Whether the path's last box is what leads away from every level of it."""
        kind = self.boxes[spine[-1]].kind
        return any(t not in spine and self.boxes[t].kind == kind and any(s in spine[:-2] for s in self._sources[t]) for t in longest)

    def _leads_to(self, box: int, targets: set[int]) -> bool:
        return any(box in self._ancestors(t) for t in targets)

    # --- the whole

    def _rectangles(self) -> Iterator[tuple[float, float, float, float]]:
        for place in [*self.picture.places.values(), *(f.place for f in self.picture.frames), *(p for _, p in self.picture.ports)]:
            yield place.left, place.y, place.right, place.bottom
        for _, b, reach in self.picture.arcs:
            yield reach, b.y, reach + 2, b.y
        for wire in self.picture.wires:
            for x, y in wire:
                yield x, y, x, y

    def _fit(self) -> None:
        lefts, tops, rights, bottoms = zip(*self._rectangles())
        self.left, self.top = min(lefts), min(tops)
        self.width, self.height = max(rights) - self.left, max(bottoms) - self.top


def _common(scopes: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    first = scopes[0]
    depth = next((d for d in range(len(first)) if any(scope[: d + 1] != first[: d + 1] for scope in scopes)), len(first))
    return first[:depth]


def _boxes(item: int | Region) -> int:
    return 1 if isinstance(item, int) else len(item.boxes())


def _count(run: Sequence[tuple[tuple[str, ...], int | Region]]) -> int:
    return sum(_boxes(item) for _, item in run)


def _blocks(run: Sequence[tuple[tuple[str, ...], int | Region]], depth: int) -> int:
    """How many scopes right inside have several boxes."""
    sizes: dict[str, int] = {}
    for scope, item in run:
        if len(scope) > depth:
            sizes[scope[depth]] = sizes.get(scope[depth], 0) + _boxes(item)
    return sum(size > 1 for size in sizes.values())


def _stages(run: Sequence[tuple[tuple[str, ...], int | Region]], depth: int) -> bool:
    """Whether a scope right inside holds several blocks itself."""
    inner: dict[str, list[tuple[tuple[str, ...], int | Region]]] = {}
    for scope, item in run:
        if len(scope) > depth:
            inner.setdefault(scope[depth], []).append((scope, item))
    return any(_blocks(part, depth + 1) > 1 for part in inner.values())


def _filled(items: Sequence[Item], limit: float) -> list[list[Item]]:
    """Columns no higher than ``limit``, ended only behind a single box, which everything goes through."""
    columns: list[list[Item]] = [[]]
    height = 0.0
    for item in items:
        if columns[-1] and height + item.height > limit and _single_end(columns[-1][-1]):
            columns.append([])
            height = 0.0
        columns[-1].append(item)
        height += item.height + GAP
    return columns


def _lowest(items: Sequence[Item], count: int) -> float:
    """The least height at which so many columns are enough."""
    low, high = max(item.height for item in items), sum(item.height + GAP for item in items)
    for _ in range(30):
        middle = (low + high) / 2
        if len(_filled(items, middle)) <= count:
            high = middle
        else:
            low = middle
    return high


def _single_end(item: Item) -> bool:
    return item.box is not None or (bool(item.items) and _single_end(item.items[-1]))
