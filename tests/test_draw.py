"""Networks as pictures: ``Network.draw`` and ``python -m fastops draw``."""

from __future__ import annotations

import itertools
import re
import sys
import xml.etree.ElementTree as ET

import pytest

from fastops import models
from fastops.cli import draw as command
from fastops.cli import main
from fastops.models import Builder
from fastops.models.drawing.boxes import Region, boxes_of, decompose
from fastops.models.drawing.layout import Layout
from fastops.models.inception import inception_block

needs_matplotlib = pytest.mark.skipif("not __import__('importlib.util').util.find_spec('matplotlib')")


def width(text, size, bold):
    return 0.6 * size * len(text)


def laid_out(model, *shape, collapse=True):
    boxes = boxes_of(model, model.shapes(*([shape] if shape else [])))
    return boxes, Layout(boxes, width, collapse)


def inception():
    net = Builder("inception_block")
    return net.build(inception_block(net, net.input(192, 28, 28), 64, 96, 128, 16, 32, 32))


def densely():
    """Every layer takes what all before it made."""
    net = Builder("dense")
    values = [net.input(3, 8, 8)]
    for i in range(3):
        x = net.concat(*values) if i else values[0]
        values.append(net.relu(net.conv(f"conv{i}", x, 4, 3, padding=1)))
    return net.build(net.concat(*values))


NETWORKS = {
    "vgg16": (models.vgg16, (3, 224, 224)),
    "resnet18": (models.resnet18, (3, 224, 224)),
    "resnet50": (models.resnet50, (3, 224, 224)),
    "inception": (inception, ()),
    "shufflenet": (models.shufflenet, (3, 224, 224)),
    "unet": (models.unet, (1, 512, 512)),
    "fpn": (models.fpn, (3, 224, 224)),
    "transformer": (models.transformer, (8, 8)),
    "gcn": (models.gcn, ()),
    "dense": (densely, ()),
}


class TestDecomposition:
    def test_series_and_parallels(self):
        #   0 -> 1 -> 4 -> 5 and 0 -> 2 -> 3 -> 4
        region = decompose([(), (0,), (0,), (2,), (1, 3), (4,)], range(6))
        first, branches, *rest = region.items
        assert (first, rest) == (0, [4, 5])
        assert branches.side_by_side
        assert [branch.items for branch in branches.items] == [[1], [2, 3]]
        assert region.arcs == []

    def test_a_shortcut_is_an_arc(self):
        region = decompose([(), (0,), (1,), (2, 0)], range(4))
        assert (region.items, region.arcs) == ([0, 1, 2, 3], [(0, 3)])

    def test_what_is_no_series_parallel_graph_comes_apart_by_arcs(self):
        # A bridge between two branches.
        region = decompose([(), (0,), (0, 1), (1, 2)], range(4))
        assert region.boxes() == [0, 1, 2, 3]
        assert region.arcs

    @pytest.mark.parametrize("name", NETWORKS)
    def test_nothing_is_lost_and_edges_are_steps_arcs_or_branches(self, name):
        make, shape = NETWORKS[name]
        model = make()
        boxes = boxes_of(model, model.shapes(*([shape] if shape else [])))
        assert sorted(step.output for box in boxes for step in box.steps) == [step.output for step in model.steps]
        region = decompose([box.sources for box in boxes], range(len(boxes)))
        assert sorted(region.boxes()) == list(range(len(boxes)))

        def arcs(region):
            return region.arcs + [arc for item in region.items if isinstance(item, Region) for arc in arcs(item)]

        edges = {(s, t) for t, box in enumerate(boxes) for s in box.sources}
        assert set(arcs(region)) <= edges


class TestLayout:
    @pytest.mark.parametrize("collapse", [True, False])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_boxes_do_not_overlap(self, name, collapse):
        make, shape = NETWORKS[name]
        boxes, found = laid_out(make(), *shape, collapse=collapse)
        places = [*found.picture.places.values(), *(place for _, place in found.picture.ports)]
        for a, b in itertools.combinations(places, 2):
            apart = a.right <= b.left or b.right <= a.left or a.bottom <= b.y or b.bottom <= a.y
            assert apart, (a, b)
        if not collapse:
            assert set(found.picture.places) == set(range(len(boxes)))

    def test_every_edge_is_drawn_once(self):
        for make, shape in NETWORKS.values():
            boxes, found = laid_out(make(), *shape, collapse=False)
            picture = found.picture
            count = sum(len(box.sources) for box in boxes)
            # An edge that goes over to the next column is a line from the port there; the wire leads to the port.
            assert len(picture.edges) + len(picture.arcs) + len(picture.across) == count

    def test_shortcuts_of_a_residual_network_are_arcs(self):
        _, found = laid_out(models.resnet18(), 3, 224, 224)
        assert len(found.picture.arcs) == 5  # the three others have a convolution, and are branches
        assert [frame.title for frame in found.picture.frames] == [f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)]

    def test_equal_blocks_are_drawn_once(self):
        _, found = laid_out(models.resnet50(), 3, 224, 224)
        assert {frame.title: frame.count for frame in found.picture.frames if frame.count > 1} == {"layer2.1 … 3": 3, "layer3.1 … 5": 5}

    def test_widths_follow_channels_and_heights_the_image(self):
        boxes, found = laid_out(models.vgg16(), 3, 224, 224)
        first, last = (next(p for i, p in found.picture.places.items() if boxes[i].name == name) for name in ("features.2", "features.28"))
        assert last.width > first.width
        assert last.height < first.height

    def test_branches_stand_side_by_side(self):
        boxes, found = laid_out(inception())
        places = {boxes[i].name: place for i, place in found.picture.places.items()}
        tops = [places[f"branch{i}.0.conv"] for i in (2, 3)]
        assert tops[0].y == tops[1].y
        assert tops[0].right < tops[1].left

    @pytest.mark.parametrize("name", ["unet", "fpn"])
    def test_the_way_up_stands_beside_the_way_down(self, name):
        make, shape = NETWORKS[name]
        _, found = laid_out(make(), *shape)
        skips = [(a, b) for a, b, skip in found.picture.across if skip]
        assert len(skips) == {"unet": 4, "fpn": 3}[name]
        for a, b in skips:
            assert a.right < b.left
            assert abs(a.middle - b.middle) < 60


@needs_matplotlib
class TestPicture:
    @pytest.mark.parametrize("name", ["resnet50", "unet", "fpn", "transformer"])
    def test_svg_has_every_layer(self, name, tmp_path):
        make, shape = NETWORKS[name]
        model = make()
        model.draw(tmp_path / "a.svg", *([shape] if shape else []), collapse=False)
        root = ET.parse(tmp_path / "a.svg").getroot()
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert {step.name for step in model.steps} <= set(ids)
        assert len(set(ids)) == len(ids)
        text = " ".join(root.itertext())
        for number, box in enumerate(boxes_of(model, model.shapes(*([shape] if shape else [])))):
            assert "×".join("?" if n is None else str(n) for n in box.shape) in text, number

    def test_the_same_network_gives_the_same_file(self, tmp_path):
        for name in "ab":
            models.lenet5().draw(tmp_path / f"{name}.svg")
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()

    @pytest.mark.parametrize("ending, begin", [("png", b"\x89PNG"), ("pdf", b"%PDF")])
    def test_formats(self, ending, begin, tmp_path):
        models.lenet5().draw(tmp_path / f"a.{ending}")
        assert (tmp_path / f"a.{ending}").read_bytes().startswith(begin)

    def test_shapes_must_fit(self, tmp_path):
        with pytest.raises(ValueError, match="lenet5: input must have samples of shape"):
            models.lenet5().draw(tmp_path / "a.svg", (3, 32, 32))
        assert not list(tmp_path.iterdir())


class TestCommand:
    def refused(self, capsys, *argv):
        assert main.main(["draw", *map(str, argv)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("python -m fastops draw: error: ")
        assert "Traceback" not in err
        return err

    @needs_matplotlib
    def test_draws(self, tmp_path, capsys):
        assert main.main(["draw", "shufflenet_small", str(tmp_path / "a.svg"), "--classes", "7"]) == 0
        assert capsys.readouterr() == ("", "")
        text = " ".join(ET.parse(tmp_path / "a.svg").getroot().itertext())
        assert "1×32×32 in" in text
        assert "linear, 7" in text
        assert main.main(["draw", "resnet18", str(tmp_path / "b.svg"), "--input", "3x64x96"]) == 0
        assert "512×2×3" in (tmp_path / "b.svg").read_text()

    @needs_matplotlib
    def test_every_network_can_be_drawn(self, tmp_path):
        for name in models.networks():
            model = getattr(models, name)()
            boxes = boxes_of(model, model.shapes(*command.default_shapes(model)))
            assert Layout(boxes, width).width > 0, name

    @needs_matplotlib
    def test_what_is_refused(self, tmp_path, capsys, monkeypatch):
        file = tmp_path / "a.svg"
        assert re.search(r"unknown network 'resnet19'; there are .*resnet18", self.refused(capsys, "resnet19", file))
        assert "the name's ending must be one of" in self.refused(capsys, "lenet5", tmp_path / "a.doc")
        assert "there is no folder" in self.refused(capsys, "lenet5", tmp_path / "none" / "a.svg")
        assert "fpn has no classes" in self.refused(capsys, "fpn", file, "--classes", 3)
        assert "input must have samples of shape" in self.refused(capsys, "lenet5", file, "--input", "3x32x32")
        (tmp_path / "folder.svg").mkdir()
        assert "folder.svg: this is a folder" in self.refused(capsys, "lenet5", tmp_path / "folder.svg")
        assert not file.exists()

    @needs_matplotlib
    def test_nothing_is_left_of_what_cannot_be_written(self, tmp_path, capsys, monkeypatch):
        def full(self, path, **options):
            path.write_bytes(b"begun")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
        (tmp_path / "old.svg").write_text("old")
        for name in ("old.svg", "new.svg"):
            assert main.main(["draw", "lenet5", str(tmp_path / name)]) == 1
            assert capsys.readouterr().err == f"python -m fastops draw: error: {tmp_path / name}: cannot be written: No space left on device\n"
        assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("old.svg", "old")]

    @pytest.mark.parametrize("classes", ["0", "abc"])
    def test_no_number_of_classes(self, capsys, classes):
        with pytest.raises(SystemExit):
            main.main(["draw", "lenet5", "a.svg", "--classes", classes])
        assert f"argument --classes: must be a whole number from 1 on, got '{classes}'" in capsys.readouterr().err

    def test_no_shape(self, capsys):
        with pytest.raises(SystemExit) as stop:
            main.main(["draw", "lenet5", "a.svg", "--input", "3x0"])
        assert stop.value.code == 2
        assert "'3x0' is no shape such as 3x224x224" in capsys.readouterr().err

    def test_without_matplotlib(self, tmp_path, capsys, monkeypatch):
        for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        assert 'drawing takes matplotlib (pip install "fastops[plot]")' in self.refused(capsys, "lenet5", tmp_path / "a.svg")

    def test_help_names_the_networks(self, capsys):
        with pytest.raises(SystemExit):
            main.main(["draw", "--help"])
        text = capsys.readouterr().out
        assert all(name in text for name in ("resnet18", "unet_small", "--input"))
