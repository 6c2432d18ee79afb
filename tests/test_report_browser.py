"""The page in headless Chromium: nothing runs, nothing is fetched, nothing overflows, and both themes draw."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from fault.test_L_report import INJECTIONS, LONG
from polygraft.report import render
from polygraft.result import Estimate, Sample, Table
from reporting import a_map, a_meta, a_result

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
pytestmark = [pytest.mark.browser,
              pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt-get install chromium fonts-noto-core fonts-noto-cjk")]
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--hide-scrollbars")


def browse(html: str, folder: Path, *more: str) -> str:
    """Open a page in a fresh profile and return what Chromium prints."""
    page = folder / "page.html"
    page.write_text(html, encoding="utf-8")
    profile = tempfile.mkdtemp(dir=folder)  # one each: a browser that is still closing may hold the last one
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *more, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def shot(html: str, folder: Path, width: int, height: int, *more: str):
    """A screenshot as an array of bytes, height x width x 3."""
    import numpy as np
    from PIL import Image

    target = folder / "shot.png"
    target.unlink(missing_ok=True)
    browse(html, folder, f"--window-size={width},{height}", f"--screenshot={target}", *more)
    return np.asarray(Image.open(target).convert("RGB"))


PROBE = """<script>document.documentElement.dataset.facts = [document.documentElement.scrollWidth, innerWidth,
 [...document.querySelectorAll('svg.lm text')].filter(t => t.getBBox().x < -1).length,
 performance.getEntriesByType('resource').length, document.title].join('|')</script></body>"""


def facts(html: str, folder: Path, width: int) -> list[str]:
    """Let a script of our own measure the page, for which its own ban on scripts is lifted: width, window, labels cut at the left."""
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace("</body>", PROBE)
    out = browse(open_page, folder, f"--window-size={width},900", "--dump-dom")
    return re.search(r'data-facts="([^"]*)"', out)[1].split("|")


def everything_hostile() -> str:
    """One page with every payload in it; half of the steps leave out the charts, which are slow to draw."""
    texts = list(INJECTIONS.values())
    return render([a_result("\n".join(texts[:11])), *(a_result(text, curves=()) for text in texts)], a_meta("question"))


def test_hostile_texts_run_nothing_even_where_scripts_may_run(tmp_path):
    page_width, window, cut, fetched, title = facts(everything_hostile(), tmp_path, 500)
    assert title == "question · Report" and int(fetched) == 0
    assert int(page_width) <= int(window), "the page is wider than the window"
    assert int(cut) == 0, "a label leaves the drawing at its left"


def worldly() -> str:
    """Labels in many scripts, 200 layers, one layer."""
    rows = ("العربية", "हिन्दी", "日本語", "ภาษาไทย", "עברית", "Kiswahili")
    samples = tuple(Sample(str(i), tag, text, {"m": text}) for i, (tag, text) in enumerate((("ar", LONG[1]), ("ja", LONG[2]), ("hi", rows[1]))))
    maps = (a_map(200, rows, LONG[1]), a_map(1, rows, LONG[2]), a_map(30, LONG))
    return render([a_result(maps=maps, samples=samples, summary=LONG)], a_meta(LONG[1]))


def test_every_script_fits_its_page(tmp_path):
    page_width, window, cut, _, _ = facts(worldly(), tmp_path, 500)
    assert int(page_width) <= int(window) and int(cut) == 0


def test_light_and_dark_pages_are_drawn(tmp_path):
    light = shot(worldly(), tmp_path, 900, 1600)
    dark = shot(worldly(), tmp_path, 900, 1600, "--blink-settings=preferredColorScheme=0")
    assert light[2, 2].min() > 240 and dark[2, 2].max() < 40
    for picture in (light, dark):
        colours = {tuple(p) for p in picture[::3, ::3].reshape(-1, 3).tolist()}
        assert len(colours) > 60, "text and maps must be there"


def test_a_reading_order_override_reorders_nothing(tmp_path):
    """What the page shows for text with U+202E is what it shows for the visible sign of it: pixel for pixel."""
    hostile = render([a_result(summary=("safe \u202egnp.exe",))])
    visible = render([a_result(summary=("safe [U+202E]gnp.exe",))])
    assert (shot(hostile, tmp_path, 900, 900) == shot(visible, tmp_path, 900, 900)).all()


WIDEST = """<script>document.documentElement.dataset.over = Math.max(...[...document.querySelectorAll('.table .scroll')]
 .map(e => e.firstElementChild.getBoundingClientRect().right - e.getBoundingClientRect().right))</script></body>"""


@pytest.mark.parametrize("width, printed", [(1200, False), (718, True)])  # 718: what A4 leaves between Chromium's margins
def test_a_table_of_a_verdict_shows_its_last_column(tmp_path, width, printed):
    effect = Estimate(-0.069, -0.091, -0.043, 14, "nats/token")
    rows = tuple((way, kind, effect, effect, effect, 0.0006, 0.853, "helps, not shown to beat random ones")
                 for way, kind in (("zero", "neurons"), ("residual-diff=1", "comparator")))
    columns = ("way", "kind", "effect", "random control", "beyond random", "p", "p beyond random", "verdict")
    html = render([a_result(tables=(Table("Does editing help?", columns, rows),))])
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace("</body>", WIDEST)
    page = page.replace("@media print", "@media all") if printed else page
    out = browse(page, tmp_path, f"--window-size={width},900", "--dump-dom")
    assert float(re.search(r'data-over="([^"]*)"', out)[1]) <= 0.5
