"""`python tests/support/fault_table.py`: write the table of faults into `docs/reference/testing.md`."""

from pathlib import Path

from jitwarm.testing import FAULTS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "testing.md"
BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"


def table():
    """The table, between its marks."""
    head = "| Fault | What it does | Row | Next start |\n|---|---|---|---|\n"
    rows = (f"| `{f.name}` | {f.what_it_does} | {row(f)} | {next_start(f)} |\n" for f in FAULTS.values())
    return "".join([BEGIN, head, *rows, END])


def row(fault):
    """How the key's row ends, and in what words."""
    said = fault.says.replace("|", "\\|").replace("`", "'")
    return f"{fault.outcome}: `{said}`" if said else fault.outcome


def next_start(fault):
    if fault.is_quarantined:
        return "not tried again"
    return "loaded" if fault.outcome == "compiled" else "tried again"


if __name__ == "__main__":
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + table() + rest.partition(END)[2])
