"""The page in a real browser: what it runs and loads, sorts and opens, and how it looks in each medium."""

import pytest
from playwright.sync_api import expect

PHONE = {"viewport": {"width": 390, "height": 844}}
DESKTOP = {"viewport": {"width": 1280, "height": 900}}

CONTRASTS = """() => {
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const channel = (value) => linear(value / 255);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = parts(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("body *")]
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()))
    .filter((element) => element.checkVisibility() && !["SCRIPT", "STYLE"].includes(element.tagName))
    .map((element) => {
      const levels = [light(parts(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
      return [(levels[0] + 0.05) / (levels[1] + 0.05), element.className, element.textContent.trim().slice(0, 40)];
    })
    .filter(([contrast]) => contrast < 4.5);
}"""

NAMES = """found => found.map((one) =>
  one.ariaLabel || one.alt || document.getElementById(one.getAttribute("aria-labelledby"))?.textContent)"""


def column(page, table, index):
    return page.locator(f"{table} tbody tr > :nth-child({index})").all_inner_texts()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_quiet_whole_and_readable(visit, tmp_path, scheme):
    page = visit(color_scheme=scheme, **DESKTOP)
    expect(page.locator("h1")).to_contain_text("<script>window.hacked = 1</script>")
    assert page.evaluate("window.hacked") is None
    assert page.evaluate(CONTRASTS) == []
    red, *_ = map(int, page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))
    assert (red > 128) == (scheme == "light")
    image = page.locator("figure.plot img")
    assert image.evaluate("image => image.complete && image.naturalWidth > 100")
    page.screenshot(path=tmp_path / f"{scheme}.png", full_page=True)
    assert (tmp_path / f"{scheme}.png").stat().st_size > 50_000


def test_the_first_screen_says_what_ran_and_what_became_of_it(visit):
    page = visit(**DESKTOP)
    for text in ("4 of 6 runs finished, 1 diverged, 1 not finished", "No table is decided yet."):
        expect(page.get_by_text(text)).to_be_in_viewport()


def test_a_heading_sorts_its_column_there_and_back_again(visit):
    page = visit(**DESKTOP)
    printed = column(page, "#table2", 6)
    header = page.locator("#table2 thead th", has_text="Test Accuracy").first
    button = header.get_by_role("button")
    button.click()
    assert header.get_attribute("aria-sort") == "ascending"
    assert column(page, "#table2", 6)[0].startswith("80.50")
    button.click()
    assert header.get_attribute("aria-sort") == "descending"
    assert column(page, "#table2", 6)[0].startswith("85.00")
    button.click()
    assert header.get_attribute("aria-sort") is None
    assert column(page, "#table2", 6) == printed


def test_the_keyboard_sorts_and_cells_without_a_number_stay_last(visit):
    page = visit(**DESKTOP)
    button = page.locator("#table2 thead").get_by_role("button", name="Multiplier")
    for order in ("ascending", "descending"):
        button.focus()
        page.keyboard.press("Enter")
        assert page.locator("#table2 th[aria-sort]").get_attribute("aria-sort") == order
        assert column(page, "#table2", 3) == ["10", "–"]


@pytest.mark.parametrize("script", [True, False], ids=["with the script", "without"])
def test_a_cell_opens_its_runs_by_keyboard_and_gives_the_focus_back(visit, script):
    page = visit(java_script_enabled=script, **DESKTOP)
    cell = page.locator("#table2").get_by_role("button", name="85.00")
    opened = page.get_by_role("dialog")
    expect(opened).to_have_count(0)
    cell.focus()
    page.keyboard.press("Enter")
    expect(opened).to_be_visible()
    expect(opened).to_contain_text("Seed 18 diverged in epoch 7")
    expect(opened).to_contain_text("not finished, 250 epochs so far")
    expect(opened.get_by_role("img", name="Test accuracy from 20.0 % after epoch 1")).to_have_count(2)
    expect(opened.get_by_role("button", name="Close")).to_be_focused()
    page.keyboard.press("Escape")
    expect(opened).to_have_count(0)
    expect(cell).to_be_focused()


def test_on_a_phone_tables_scroll_and_the_page_does_not(visit, tmp_path):
    page = visit(**PHONE)
    sideways = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(sideways) == 0
    box = page.locator("#table2 .scroll")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.evaluate("box => box.scrollTo(400, 0)")
    page.locator("button.opens").first.click()
    expect(page.get_by_role("dialog")).to_be_in_viewport()
    assert page.evaluate(sideways) == 0
    page.screenshot(path=tmp_path / "phone.png")


def test_on_paper_there_is_the_report_and_nothing_to_press(visit, tmp_path):
    page = visit(color_scheme="dark", **DESKTOP)
    page.locator("button.opens").first.click()
    page.emulate_media(media="print")
    for gone in ("nav", ".downloads", ".runs", "details", "footer"):
        assert not any(page.locator(gone).evaluate_all("found => found.map(one => one.checkVisibility())")), gone
    expect(page.locator("#table2")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(31, 41, 51)"
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_a_screen_reader_finds_landmarks_and_names(visit):
    page = visit(**DESKTOP)
    for landmark in ("banner", "main", "contentinfo"):
        assert page.get_by_role(landmark).count() == 1
    assert page.get_by_role("navigation", name="Contents").count() == 1
    for role in ("table", "region", "img"):
        named = page.get_by_role(role).evaluate_all(NAMES)
        assert named
        assert all(named), role
    assert page.locator("tbody th:not([scope])").count() == page.locator("thead th:not([scope])").count() == 0


def test_the_focus_can_be_seen(visit):
    page = visit(**DESKTOP)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the verdict")).to_be_in_viewport()
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_the_policy_forbids_requests_and_foreign_scripts(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    tried = """async () => {
      const broken = [];
      const allBroken = new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) => {
          if (broken.push(event.effectiveDirective) === 3) resolve();
        });
        setTimeout(resolve, 10000);
      });
      const script = document.createElement("script");
      script.textContent = "window.hacked = 1";
      document.body.append(script);
      const style = document.createElement("style");
      style.textContent = "body { display: none }";
      document.body.append(style);
      await fetch("https://example.org/").catch(() => null);
      await allBroken;
      return [broken.sort().join(" "), window.hacked ?? null, getComputedStyle(document.body).display];
    }"""
    assert page.evaluate(tried) == ["connect-src script-src-elem style-src-elem", None, "grid"]
    page.close()
