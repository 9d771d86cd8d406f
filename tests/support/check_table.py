"""`python tests/support/check_table.py`: write the table of checks into `docs/reference/testing.md`."""

from pathlib import Path

from jitwarm.testing.rules import RULES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "testing.md"
BEGIN, END = "<!-- checks: begin -->\n", "<!-- checks: end -->\n"


def table():
    """The table, between its marks."""
    head = "| Check | What it promises |\n|---|---|\n"
    rows = (f"| `{name}` | {rule.__doc__} |\n" for name, rule in RULES.items())
    return "".join([BEGIN, head, *rows, END])


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + table() + rest.partition(END)[2])
