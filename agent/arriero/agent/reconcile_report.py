"""What a reconciliation found, as text, JSON lines in one document, or a page of HTML; written as it is found."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from html import escape
from typing import Any, TextIO

from arriero.agent.reconcile_findings import REPAIRS, SAYS, Finding

SHOWN = 1000
"""Findings of a page of HTML; the JSON has all of them."""

_STYLE = (
    "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1b1f24}"
    "table{border-collapse:collapse;width:100%;margin:1rem 0}th,td{text-align:left;padding:.3rem .6rem;"
    "border-bottom:1px solid #d8dee4;vertical-align:top;overflow-wrap:anywhere}th{background:#f6f8fa}"
    "caption{text-align:left;font-weight:600;padding:.4rem 0}"
)


def record(one: Finding) -> dict[str, Any]:
    """Write a finding as plain values."""
    plain = {
        key: str(value) if key.endswith("_id") and value else value for key, value in asdict(one).items()
    }
    return {**plain, "says": SAYS[one.kind], "repair": REPAIRS[one.kind]}


class Report:
    """Counts findings as they pass, and writes the report at the end.

    Parameters
    ----------
    butler
        Its name.
    repair
        Whether they are mended.
    """

    def __init__(self, butler: str, *, repair: bool) -> None:
        self.butler = butler
        self.repair = repair
        self.counts: Counter[str] = Counter()
        self.mended: Counter[str] = Counter()
        self.files = 0
        self.datasets = 0
        self._kept: list[Finding] = []

    def passing(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """Count findings on their way."""
        for one in findings:
            self.counts[one.kind] += 1
            if len(self._kept) < SHOWN:
                self._kept.append(one)
            yield one

    def summary(self) -> dict[str, Any]:
        """Write the counts."""
        return {
            "butler": self.butler,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": self.files,
            "datasets": self.datasets,
            "findings": dict(sorted(self.counts.items())),
            "repaired": dict(sorted(self.mended.items())) if self.repair else None,
        }

    def sentence(self) -> str:
        """Say it in a line."""
        read = f"{self.files} files of the ledger and {self.datasets} datasets of {self.butler}"
        if not self.counts:
            return f"{read} agree."
        found = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in sorted(self.counts.items()))
        mended = f"; {sum(self.mended.values())} repaired" if self.repair else ""
        return f"{read}: {found}{mended}."

    def write_json(self, file: TextIO) -> None:
        """Write counts and the first findings."""
        json.dump({**self.summary(), "details": [record(one) for one in self._kept]}, file, indent=2)
        file.write("\n")

    def write_html(self, file: TextIO) -> None:
        """Write a page that needs nothing else."""
        title = f"Butler {escape(self.butler)}: ledger, Butler and storage"
        file.write(f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>')
        file.write(f"<style>{_STYLE}</style><h1>{title}</h1><p>{escape(self.sentence())}</p>")
        file.write(
            "<table><caption>What was found</caption><tr><th>Kind<th>Files<th>Repaired<th>It means<th>Repair"
        )
        for kind, count in sorted(self.counts.items()):
            cells = (kind, str(count), str(self.mended.get(kind, 0)), SAYS[kind], REPAIRS[kind])  # type: ignore[index]
            file.write("<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells))
        file.write(
            "</table><table><caption>Files</caption><tr><th>Kind<th>File<th>RSE<th>State<th>Detail<th>URI"
        )
        for one in self._kept:
            name = f"{one.scope}:{one.name}" if one.name else ""
            told = (one.kind, name, one.rse or "", one.state or "", one.detail, one.uri or "")
            file.write("<tr>" + "".join(f"<td>{escape(cell)}" for cell in told))
        file.write("</table>")
        if sum(self.counts.values()) > len(self._kept):
            file.write(f"<p>The first {len(self._kept)}; all of them: <code>-o jsonl</code>.</p>")
        file.write(f"<p>{escape(self.summary()['at'])}</p></html>\n")
