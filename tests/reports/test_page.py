"""The page in a real browser: it is whole, it asks for nothing, a keyboard is enough, and what a log says is never markup."""

import json
import re

import made_logs
import pytest

from jitwarm.contract.keys import key_digest
from jitwarm.reports.folding import read_starts
from jitwarm.reports.page import page

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'><!--"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The page of a start with something of everything, and the start."""
    return written(tmp_path_factory.mktemp("small"), n_keys=60)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """The page of a start with 5,000 keys on two ranks, and the start."""
    return written(tmp_path_factory.mktemp("large"), n_keys=5000, n_kernels=24, n_workers=8)


def written(directory, **how):
    (start,) = read_starts([str(made_logs.make(directory / "run", **how))], directory)
    file = directory / "page.html"
    file.write_text(page(start), encoding="utf-8")
    return file, start


def rows(page):
    """The rows that are drawn: their texts by column."""
    return page.eval_on_selector_all(
        "#rows .row",
        "rows => rows.map(row => Object.fromEntries([...row.children].map(c => [c.className, c.textContent])))",
    )


def focused(page):
    return page.evaluate(
        "document.activeElement.id || document.activeElement.className || document.activeElement.tagName"
    )


def background(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("width", [390, 820, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_width_in_both_colour_schemes(look, small, width, scheme):
    with look(small[0], width, scheme) as page:
        assert page.inner_text("#verdict") == "1 key is not warm"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("(grid => grid.scrollWidth <= grid.clientWidth)(document.getElementById('grid'))")
        brightness = sum(map(int, re.findall(r"\d+", background(page))[:3]))
        assert (brightness > 600) if scheme == "light" else (brightness < 150)
        drawn = page.evaluate(
            "[...document.getElementById('canvas').getContext('2d').getImageData(0, 0, 400, 200).data].some(Boolean)"
        )
        assert drawn


def test_the_switch_of_colours_is_stronger_than_the_system(look, small):
    with look(small[0], scheme="light") as page:
        light = background(page)
        page.get_by_label("Dark").check(force=True)
        dark = background(page)
        page.emulate_media(color_scheme="dark")
        page.get_by_label("Light").check(force=True)
        assert background(page) == light != dark
        page.get_by_label("Auto").check(force=True)
        assert background(page) == dark


def test_texts_have_enough_contrast_in_both_schemes(look, small):
    for scheme in ("light", "dark"):
        with look(small[0], scheme=scheme) as page:
            colours = {
                name: page.evaluate(RESOLVED, name)
                for name in ("ink", "quiet", "failed", "ground", "panel", "raised", "chosen")
            }
            for text in ("ink", "quiet", "failed"):
                for below in ("ground", "panel"):
                    assert contrast(colours[text], colours[below]) >= 4.5, (scheme, text, below)
            assert contrast(colours["quiet"], colours["raised"]) >= 4.5
            assert contrast(colours["quiet"], colours["chosen"]) >= 4.5


RESOLVED = """name => {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return found;
}"""


def contrast(a, b):
    """The ratio of the WCAG, of two sRGB colours."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_a_keyboard_is_enough_to_find_and_read_a_key(look, small):
    file, start = small
    key = next(key for key in start.keys.values() if key.outcome == "failed")
    with look(file) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the keys"
        page.keyboard.press("/")
        assert focused(page) == "search"
        page.keyboard.type(f"{key.kernel} n=13")
        assert page.inner_text("#count").startswith("1 of 60 keys")
        page.keyboard.press("ArrowDown")
        assert focused(page) == "grid"
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        active = page.get_attribute("#grid", "aria-activedescendant")
        assert page.get_attribute(f"#{active}", "aria-selected") == "true"
        page.keyboard.press("Enter")
        assert focused(page) == "detail"
        shown = page.inner_text("#detail")
        for text in (
            key.kernel,
            key.digest,
            "failed",
            "uses too much shared data",
            f"jitwarm repro {key.digest[:12]}",
            "block_m",
        ):
            assert text in shown
        page.keyboard.press("Escape")
        assert focused(page) == "grid"
        page.keyboard.press("/")
        page.keyboard.press("Escape")
        assert page.inner_text("#count").startswith("60 keys")


def test_arrows_move_through_the_grid_and_columns_sort(look, small):
    with look(small[0]) as page:
        page.focus("#grid")
        for _ in range(3):
            page.keyboard.press("ArrowDown")
        assert page.get_attribute("#grid", "aria-activedescendant") == "row-3"
        page.keyboard.press("End")
        assert page.get_attribute("#grid", "aria-activedescendant") == "row-59"
        page.keyboard.press("Home")
        assert page.get_attribute("#grid", "aria-activedescendant") == "row-0"
        assert page.get_attribute("#columns [data-name=seconds]", "aria-sort") == "descending"
        page.get_by_role("button", name="Key", exact=True).click()
        labels = [row["label"] for row in rows(page)]
        assert labels == sorted(
            labels, key=lambda label: [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", label)]
        )


def test_filters_narrow_by_outcome_kernel_and_use(look, small):
    file, start = small
    with look(file) as page:
        page.get_by_role("button", name=re.compile("^failed")).click()
        assert [row["outcome"] for row in rows(page)] == ["failed"]
        page.get_by_role("button", name=re.compile("^failed")).click()
        page.get_by_role("button", name=re.compile("^never used")).click()
        page.select_option("#kernel", "acme:kernel_0")
        expected = {key.label for key in start.never_used if key.kernel == "acme:kernel_0"}
        assert {row["label"] for row in rows(page)} == expected != set()
        assert {row["used"] for row in rows(page)} == {"never"}


def test_it_says_what_is_cold_and_why(look, small):
    with look(small[0]) as page:
        said = page.inner_text("#cold")
        for text in (
            "Compiled after the warm-up: 3",
            "stride_kv: other -> multiple of 16",
            "stride_kv=Choices(IntClass.OTHER, IntClass.MULTIPLE_OF_16)",
            "acme/ops.py:118 in forward",
            "kernel not declared by any plugin",
            "Not warm: 1 key",
            "Entry function uses too much shared data",
            "Never used: 13 keys",
        ):
            assert text in said
        page.get_by_role("button", name=re.compile(r"^example:kernel_1 \[")).click()
        assert focused(page) == "grid"
        assert "failed" in page.inner_text("#detail")


def test_the_timeline_is_told_slice_by_slice(look, small):
    with look(small[0]) as page:
        page.focus("#canvas")
        page.keyboard.press("ArrowDown")
        assert "plan: 0.20 s" in page.inner_text("#readout")
        for _ in range(2):
            page.keyboard.press("ArrowDown")
        readout = page.inner_text("#readout")
        assert re.search(r"^\S+:kernel_\d \[.*\]: .* s, from .* rank 0 \(node1:1000\), worker 20\d\d\d", readout)
        for key in ("+", "+", "ArrowRight", "-", "0"):
            page.keyboard.press(key)
        label = re.search(r"\[(.*)\]", page.inner_text("#readout"))[1]
        page.keyboard.press("Enter")
        assert focused(page) == "grid"
        chosen = page.get_attribute("#grid", "aria-activedescendant")
        assert label in page.inner_text(f"#{chosen}")


def test_every_control_has_a_name(look, small):
    with look(small[0]) as page:
        nameless = page.evaluate(
            """[...document.querySelectorAll("button, input, select, a, [role=grid], [role=application], [tabindex]")]
            .filter(e => !e.textContent.trim() && !e.ariaLabel && !e.getAttribute("aria-labelledby") && !e.labels?.length)
            .length"""
        )
        assert nameless == 0
        names = page.eval_on_selector_all(
            "[aria-labelledby]", "all => all.flatMap(e => e.getAttribute('aria-labelledby').split(' '))"
        )
        assert all(page.locator(f"#{name}").count() == 1 for name in names)


def test_five_thousand_keys_can_be_scrolled_searched_and_read(look, large):
    file, start = large
    last = min(start.keys.values(), key=lambda key: (key.seconds, -list(start.keys).index((key.kernel, key.digest))))
    with look(file) as page:
        assert page.inner_text("#count").startswith("5,000 keys")
        assert page.get_attribute("#grid", "aria-rowcount") == "5001"
        assert len(rows(page)) < 100
        page.focus("#grid")
        page.keyboard.press("End")
        assert len(rows(page)) < 100
        assert rows(page)[-1]["label"] == last.label
        page.fill("#search", last.digest[:16])
        assert [row["label"] for row in rows(page)] == [last.label]


def test_what_a_log_says_is_text_and_never_markup(look, tmp_path):
    log = made_logs.Writer(tmp_path / "run", "node1", 7)
    kernel, text = f"evil:{HOSTILE}", json.dumps({HOSTILE: ["str", HOSTILE]})
    log.emit(0, "run_start", target=HOSTILE, root=HOSTILE, on_device=True)
    log.emit(0.1, "config", config={HOSTILE: HOSTILE})
    log.emit(0.1, "versions", versions={HOSTILE: HOSTILE})
    log.emit(0.1, "plugin_refused", plugin=HOSTILE, distribution=HOSTILE, reason=HOSTILE)
    log.emit(
        0.2, "kernel_planned", kernel=kernel, backend=HOSTILE, distribution=HOSTILE, import_path="", notes=[HOSTILE]
    )
    digest = key_digest(kernel, text)
    log.emit(0.2, "key_planned", kernel=kernel, digest=digest, key=text, label=HOSTILE)
    log.emit(0.2, "key_regions", kernel=kernel, digest=digest, regions=[HOSTILE], n=1, witness={HOSTILE: HOSTILE})
    log.emit(0.3, "key_end", kernel=kernel, digest=digest, outcome="failed", error=HOSTILE, seconds=0.1)
    log.emit(0.4, "run_end")
    log.emit(0.5, "monitor_armed", by="jitwarm", mode="warn")
    names = (
        "backend",
        "what",
        "function",
        "kernel",
        "plugin",
        "key",
        "digest",
        "label",
        "nearest",
        "why",
        "line",
        "site",
    )
    log.emit(
        0.6, "unexpected_compile", **dict.fromkeys(names, HOSTILE), differences=[HOSTILE], seconds=1.0, thread=HOSTILE
    )
    log.close()
    (start,) = read_starts([str(tmp_path / "run")], tmp_path)
    file = tmp_path / "page.html"
    file.write_text(page(start), encoding="utf-8")
    with look(file) as opened:
        assert opened.evaluate("typeof window.hacked") == "undefined"
        assert opened.locator("img").count() == 0
        assert opened.locator("script").count() == 2
        for place in ("#detail", "#cold", "#coverage", "#slowest", "#warnings", "#run"):
            assert HOSTILE in opened.inner_text(place)


def test_nothing_but_its_own_script_and_style_may_run(look, small):
    """Should a text ever become markup, the page's policy stops it: a handler, a script, a request."""
    with look(small[0]) as page:
        policy = page.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy


@pytest.mark.xdist_group("a real start")
def test_the_page_of_a_real_start_shows_its_keys(look, real, tmp_path):
    (start,) = read_starts(["cold"], real)
    file = tmp_path / "page.html"
    file.write_text(page(start), encoding="utf-8")
    with look(file) as opened:
        assert opened.inner_text("#verdict") == "All keys are warm"
        assert {row["kernel"] for row in rows(opened)} == {
            "example:fused_add_rms_norm",
            "example:silu_and_mul",
            "example:gemm",
        }
        assert "2 processes" in opened.inner_text("#run")
