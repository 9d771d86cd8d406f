"""TOML as users give it: a file, of which an error can name the line, and `name=value` on the command line."""

import re
import tomllib
from pathlib import Path
from typing import Any

from jitwarm.errors import SettingsError


class Source:
    """A TOML file: its top-level table, and the line on which a name stands."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._text = ""
        self.table: dict[str, Any] = {}
        if file is None:
            return
        try:
            self._text = file.read_text(encoding="utf-8")
            self.table = tomllib.loads(self._text)
        except OSError as exc:
            raise SettingsError(f"cannot read {file}: {exc.strerror}", "--config takes a TOML file") from exc
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
            raise SettingsError(f"{file} is no TOML: {exc}") from exc

    def table_of(self, name: str) -> dict[str, Any]:
        """Take a table out of the file's top level; empty where there is none."""
        found = self.table.pop(name, {})
        if not isinstance(found, dict):
            raise SettingsError(f"{name!r} is a table, not {found!r}", f"write [{name}]", self.place(name))
        return dict(found)

    def place(self, name: str, section: str = "") -> str:
        """`file:line` of a name in a section; the file alone where it is not found; empty where there is no file."""
        current = ""
        for number, line in enumerate(self._text.splitlines(), 1):
            header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
            if header:
                current = header[1]
                if current == name:
                    return f"{self._file}:{number}"
            elif current == section and re.match(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[.=]", line):
                return f"{self._file}:{number}"
        return str(self._file) if self._file else ""


def assignment(text: str) -> tuple[str, str, Any]:
    """(plugin or empty, name, value) of one `--set`."""
    name, equals, literal = text.partition("=")
    if not equals or not name.strip():
        raise SettingsError(f"--set {text}: no value", "write --set name=value")
    plugin, _, own = name.strip().removeprefix("extra.").rpartition(".")
    if plugin == "settings" or (not plugin and own in ("extra", "settings")):
        hint = "settings are JITWARM_<NAME> or [settings] in a file; a plugin's value is --set <plugin>.<name>=<value>"
        raise SettingsError(f"--set {text}: not a field of the configuration", hint)
    try:
        value = tomllib.loads(f"value = {literal}")["value"]
    except tomllib.TOMLDecodeError:
        value = literal
    return plugin, own, value
