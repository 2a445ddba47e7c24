"""The page of an explained report: self-contained, escaped, marked, and its pictures drawn where the numbers say."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from explained_reports import explained_report, surely
from PIL import Image
from rich.console import Console

from diffrgen.errors import DataError
from diffrgen.explanation import ExplainedReport
from diffrgen.explanation.routes import layer_routes
from diffrgen.page import NOTICE, PageFolder, render_fragment, render_page
from diffrgen.page.figures import heat_pictures, picture, route_picture
from diffrgen.page.terminal import print_report
from diffrgen.page.words import place_words, prose, route_words, spread_words, strongest, sure_words

HOSTILE = "<script>alert('x')</script>"
TORN = '"><img src=http://evil.example/x onerror=alert(1)>'
VOID = {"meta", "img", "br", "rect"}


class Page(HTMLParser):
    """The elements of a page with their attributes, the texts of some, and what is opened but never closed."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return " ".join(self.texts["article"][0].split())


def pixels(uri: str) -> np.ndarray:
    kind, data = uri.split(",")
    assert kind == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


@pytest.mark.parametrize("prior", [False, True])
def test_page_fetches_nothing_and_runs_nothing(prior):
    html = render_page(explained_report(prior=prior), title="chest.png")
    page = Page(html)
    assert html.startswith("<!DOCTYPE html>")
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "srcset", "action", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:"), tag
    for style in page.texts["style"]:
        assert not re.search(r"url\(|@import|@font-face", style)
    assert "http" not in re.sub(r"data:[^\"]*", "", html).replace('http-equiv="Content-Security-Policy"', "")
    (policy,) = [meta["content"] for meta in page.named("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")


def test_markup_of_others_is_text():
    report = explained_report(said=f"{HOSTILE} seen .", other=TORN, prior=True)
    for html in (render_page(report, title=HOSTILE), render_fragment(report)):
        page = Page(html)
        assert page.named("script") == []
        assert all(image["src"].startswith("data:image/webp;base64,") for image in page.named("img"))
        assert HOSTILE in page.text
        assert TORN in page.text
    assert Page(render_page(report, title=HOSTILE)).texts["title"] == [HOSTILE]


def test_fragment_is_the_body_with_its_style_and_no_head():
    report = explained_report()
    fragment, page = Page(render_fragment(report)), Page(render_page(report, title="chest.png"))
    assert {tag for tag, _ in fragment.elements}.isdisjoint({"html", "head", "body", "title", "h1"})
    assert len(fragment.texts["style"]) == 1
    assert page.texts["h1"] == ["chest.png"]
    assert page.text.replace("Generated report chest.png ", "") == fragment.text


def test_page_tells_everything_in_words():
    page = Page(render_page(explained_report(prior=True), title="chest.png"))
    text = page.text
    assert text.count(NOTICE) == 2
    assert "The heart is normal." in text
    assert "also in 1 of 3 retrieved reports" in text
    assert re.search(r"edema 0\.91 present lung lesion 0\.37 uncertain .*fracture 0\.02 absent", text)
    assert "image 50%, similar 30%, differing 20%" in text
    assert "image 40%, similar 30%, differing 20%, prior 10%" in text
    assert "Half of it on 1 of 4 patches, most in the upper right" in text
    assert re.search(r"1 s0 .*similarity 0\.90 distance furthest of 3 3\.00 direction as usual 0\.50", text)
    assert "inner product (not used) closest of 3 9.00" in text
    assert "Prior study" in text
    assert "Findings in its report: edema absent, fracture present. These states also prompted the new report." in text
    assert "windows of 3 x 3 patches" in text
    assert all(image["alt"] for image in page.named("img"))
    bars = [svg["aria-label"] for svg in page.named("svg")]
    assert "probability that edema is present: 0.91" in bars
    assert all(bars)


def test_a_severity_stands_behind_the_state():
    explained = explained_report(prior=True)
    present = next(name for name, state in explained.written.states.items() if state == "positive")
    written = replace(explained.written, severities={present: "moderate"})
    assert "present, moderate" not in Page(render_page(explained, title="a.png")).text
    page = Page(render_page(replace(explained, written=written), title="a.png"))
    assert page.text.count("present, moderate") == 1
    assert {"class": "state-present"} in page.named("li")
    console = Console(file=io.StringIO(), width=100)
    print_report(console, "a.png", replace(explained, written=written))
    assert console.file.getvalue().count("present, moderate") == 1


def test_bars_are_as_long_as_their_numbers():
    page = Page(render_page(explained_report(), title="chest.png"))
    labels = iter(page.named("svg"))
    lengths = {}
    for tag, attributes in page.elements:
        if tag == "svg":
            label = next(labels)["aria-label"]
        elif tag == "rect" and attributes["class"] == "fill":
            lengths[label] = float(attributes["width"])
    assert lengths["probability that edema is present: 0.91"] == 91.0
    assert lengths["similarity: 0.80"] == 80.0
    assert lengths["distance: furthest of 3"] == 0.0
    assert lengths["inner product: closest of 3"] == 100.0
    assert lengths["weight 0.70"] == 70.0


def test_shared_sentences_are_marked_and_no_others():
    page = Page(render_page(explained_report(), title="chest.png"))
    assert page.texts["mark"] == ["No effusion."]
    assert Page(render_page(explained_report(prior=True), title="x")).texts["mark"] == ["No effusion."] * 2


def test_more_neighbours_than_five_are_folded_away():
    report = explained_report()
    many = replace(
        report,
        written=replace(report.written, neighbours=report.written.neighbours * 3),
        neighbour_sentences=report.neighbour_sentences * 3,
        differences=report.differences * 3,
    )
    page = Page(render_page(many, title="chest.png"))
    assert page.texts["summary"] == ["4 more"]
    assert len(page.texts["mark"]) == 3


def test_a_report_without_sentences_neighbours_or_layers_has_a_page():
    report = explained_report()
    empty = replace(
        report,
        written=replace(report.written, report="", neighbours=(), routing=()),
        sentences=(),
        neighbour_sentences=(),
        differences=(),
        routes=(),
    )
    assert "generated no sentence" in Page(render_page(empty, title="chest.png")).text


def test_strongest_are_the_fewest_patches_that_hold_half():
    heat = np.array([[0.30, 0.05], [0.25, 0.40]])
    assert strongest(heat).tolist() == [[True, False], [False, True]]
    assert strongest(np.array([[0.5, 0.25, 0.25]])).tolist() == [[True, False, False]]
    assert strongest(np.full((1, 4), 0.25)).sum() == 2


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [(0, 0, "upper left"), (3, 3, "centre"), (6, 3, "lower centre"), (3, 6, "middle right"), (1, 1, "upper left")],
)
def test_places_in_words(row, column, words):
    heat = np.zeros((7, 7))
    heat[row, column] = 1.0
    assert place_words(heat) == words
    assert spread_words(heat[None]) == f"half of it on 1 of 49 patches, most in the {words}"


def test_sentences_are_spaced_as_one_writes_them():
    assert prose("no effusion , or edema .") == "No effusion, or edema."


def test_equal_weights_are_called_so():
    equal, clear = layer_routes(((0.34, 0.33, 0.33), (0.1, 0.1, 0.8)), layers=2, grid=(7, 7), reports=21)
    assert route_words(equal) == "Nearly equal weights. Most weight: the complete image."
    assert route_words(clear) == (
        "Most weight: windows of 5 x 5 patches. The image shows the window of retrieved report 17, around the patch in row 3, "
        "column 3."
    )


def test_heat_is_drawn_on_its_patches_and_enclosed():
    grey = np.full((32, 32), 100, dtype=np.uint8)
    heat = np.full((4, 4), 0.02)
    heat[1, 2] = 0.7
    drawn = pixels(heat_pictures(grey[None], heat[None])[0])
    side = drawn.shape[0] / 4
    warmth = drawn[..., 0] - drawn[..., 2]
    middles = [[warmth[int((r + 0.5) * side), int((c + 0.5) * side)] for c in range(4)] for r in range(4)]
    assert middles[1][2] > 100
    assert max(value for r, row in enumerate(middles) for c, value in enumerate(row) if (r, c) != (1, 2)) < 10
    line = drawn.min(-1)
    assert line[int(1 * side), int(2.5 * side)] > 200  # above the patch
    assert line[int(1.5 * side), int(3 * side)] > 200  # on its right
    assert line[int(2.5 * side), int(3 * side)] < 200  # not further down


def with_two_views(report: ExplainedReport) -> ExplainedReport:
    """The report with a frontal view behind a lateral one, which got most of the attention."""
    sentences = tuple(
        replace(sentence, heat=np.concatenate([0.1 * sentence.heat, 0.9 * sentence.heat])) for sentence in report.sentences
    )
    images = np.stack([report.image, 255 - report.image])
    return replace(report, written=replace(report.written, views=("lateral", "frontal")), images=images, sentences=sentences)


def test_each_view_is_shown_and_its_share_of_the_heat():
    report = with_two_views(explained_report())
    np.testing.assert_array_equal(report.image, report.images[1])
    page = Page(render_page(report, title="study"))
    described = [image["alt"] for image in page.named("img")]
    assert described[:2] == [
        f"The X-ray, {kind} view, as the network input: grey, scaled and cropped" for kind in ("lateral", "frontal")
    ]
    words = "half of it on 1 of 8 patches, most in the upper right of the frontal view"
    assert described[2:4] == [f"Attention to the {kind} view for sentence 1: {words}" for kind in ("lateral", "frontal")]
    assert "Input of the network: lateral view, frontal view, 32" in page.text
    assert report.to_dict()["views"] == ("lateral", "frontal")
    assert np.array(report.to_dict()["sentences"][0]["heat"]).shape == (2, 2, 2)


def test_heat_of_two_views_is_drawn_on_one_scale():
    grey = np.full((2, 32, 32), 100, dtype=np.uint8)
    heat = np.full((2, 4, 4), 0.01)
    heat[1, 1, 2] = 0.69
    cold, warm = (pixels(uri) for uri in heat_pictures(grey, heat))
    side = warm.shape[0] / 4
    assert warm[int(1.5 * side), int(2.5 * side), 0] - warm[int(1.5 * side), int(2.5 * side), 2] > 100
    assert abs(cold[..., 0] - cold[..., 2]).max() < 10
    assert cold.min(-1).max() < 200  # no line: the half is in the other view


def test_an_even_heat_is_no_heat():
    drawn = pixels(heat_pictures(np.full((1, 32, 32), 100, dtype=np.uint8), np.full((1, 4, 4), 1 / 16))[0])
    side = drawn.shape[0] // 8
    assert abs(drawn[side::2, side::2, 0] - drawn[side::2, side::2, 2]).max() < 10


def test_the_window_is_bright_and_the_rest_is_dark():
    grey = np.full((32, 32), 200, dtype=np.uint8)
    whole, windowed = layer_routes(((1.0,), (0.1, 0.9)), layers=2, grid=(4, 4), reports=16)
    assert windowed.centre == (1, 1)
    plain, drawn = (pixels(route_picture(grey, route)) for route in (whole, windowed))
    side = drawn.shape[0] / 4
    at = [(int((r + 0.3) * side), int((c + 0.7) * side)) for r in range(4) for c in range(4)]
    bright = [drawn[place].mean() > 150 for place in at]
    assert bright == [r < 3 and c < 3 for r in range(4) for c in range(4)]
    assert all(plain[place].mean() > 150 for place in at)


def test_the_picture_is_the_image():
    grey = np.repeat(np.repeat(np.array([[0, 80], [160, 255]], dtype=np.uint8), 16, 0), 16, 1)
    drawn = pixels(picture(grey)).mean(-1)
    quarter = drawn.shape[0] // 4
    values = [drawn[a * quarter, b * quarter] for a in (1, 3) for b in (1, 3)]
    assert values == pytest.approx([0, 80, 160, 255], abs=6)


def test_pages_are_named_after_images_and_never_collide(tmp_path):
    folder, report = PageFolder(tmp_path / "pages"), explained_report()
    names = ["a/chest.png", "b/chest.dcm", "CHEST.jpg", "index.png", "<b>x.png", "..png", "a b#?%.png", f"{'n' * 240}.png"]
    pages = [folder.write(report, Path(name)).name for name in names]
    assert pages[:4] == ["chest.html", "chest-2.html", "CHEST-3.html", "index-2.html"]
    assert pages[4:7] == ["b_x.html", "study.html", "a_b.html"]
    assert pages[7] == f"{'n' * 60}.html"
    index = Page(folder.write_index([f"{HOSTILE} is no image"]).read_text(encoding="utf-8"))
    assert [link["href"] for link in index.named("a")] == pages
    assert all((tmp_path / "pages" / link["href"]).is_file() for link in index.named("a"))
    assert index.texts["a"] == names
    assert index.named("script") == []
    assert f"{HOSTILE} is no image" in index.text
    assert NOTICE in index.text


def test_a_name_that_no_encoding_holds_has_a_page(tmp_path):
    folder = PageFolder(tmp_path / "pages")
    page = folder.write(explained_report(), Path("chest\udcff\x1b[2J.png"))
    assert page.name == "chest_2J.html"
    assert Page(page.read_text(encoding="utf-8")).texts["title"] == ["chest\ufffd\ufffd[2J.png"]


def test_one_page_needs_no_index(tmp_path):
    folder = PageFolder(tmp_path / "pages")
    folder.write(explained_report(), Path("chest.png"))
    assert folder.write_index([]) is None
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["chest.html"]


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="needed a new or empty folder"):
        PageFolder(tmp_path / "pages")
    with pytest.raises(DataError, match="needed the name of a folder"):
        PageFolder(tmp_path / "page.html")
    with pytest.raises(DataError, match="needed a folder to write pages to"):
        PageFolder(tmp_path / "pages" / "mine.txt")
    folder = PageFolder(tmp_path / "later")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "chest.html").write_text("mine")
    with pytest.raises(DataError, match="the page cannot be written"):
        folder.write(explained_report(), Path("chest.png"))
    assert (tmp_path / "later" / "chest.html").read_text() == "mine"


def test_sentences_are_marked_by_how_sure_the_run_is_in_words_too():
    page = Page(render_fragment(surely(explained_report(), 0.83, 0.2)))
    classes = [item["class"] for item in page.named("li") if (item.get("class") or "").startswith("sure-")]
    assert classes == ["sure-likely", "sure-unlikely"]
    said = page.texts["small"]
    assert [text for text in said if "%" in text] == ["83% likely to be true", "20% likely to be true"]
    assert "likely: 80% to 100%" in page.text
    assert "Not mentioned, although the classifier is confident: pneumothorax (87%)" in page.text
    assert [sure_words(p) for p in (1.0, 0.8, 0.79, 0.5, 0.49, 0.0)] == ["likely"] * 2 + ["uncertain"] * 2 + ["unlikely"] * 2


def test_a_sentence_without_findings_and_a_run_without_calibration_have_no_mark():
    page = Page(render_fragment(surely(explained_report(), None, 0.6)))
    assert sum((item.get("class") or "").startswith("sure-") for item in page.named("li")) == 1
    html = render_fragment(explained_report())
    assert not any((item.get("class") or "").startswith("sure-") for item in Page(html).named("li"))
    assert "likely to be true" not in html
    assert "Not mentioned, although" not in html
