"""What goes into the report of a plan: the rules hand it over as JSON, and the files are read when it is written."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from east.config.run import Frozen

EvidencePart = Literal["comparison", "claims", "audit"]


class ReportFigure(Frozen):
    """A figure: its SVG file, what it shows, and how that is told to those who cannot see it."""

    svg: Path
    caption: str
    alt: str = ""


class FigureGroup(Frozen):
    """Figures that answer one question."""

    heading: str
    text: str = ""
    figures: tuple[ReportFigure, ...]


class ReportSection(Frozen):
    """A table under a heading: either a summarised one, whose cells open their runs, or one that is there as HTML."""

    id: str = Field(description="name of the table, which links lead to")
    heading: str
    aggregated: Path | None = Field(default=None, description="a summarised table (JSON)")
    table: Path | None = Field(default=None, description="a table that is there as an HTML document")
    downloads: tuple[Path, ...] = Field(default=(), description="the same in other formats, put into the page")
    figures: tuple[ReportFigure, ...] = ()


class Reading(Frozen):
    """A matter that the paper leaves open, and how this plan reads it."""

    matter: str
    value: str = Field(description="the reading in force")
    default: str = Field(description="the project's reading unless the config says otherwise")
    other: str = Field(default="", description="what else it can mean")
    key: str = Field(default="", description="the config key that sets it")
    reason: str = ""

    @property
    def changed(self) -> bool:
        """Whether the plan departs from the default."""
        return self.value != self.default


class ReportSpec(Frozen):
    """All that goes into a report but the runs."""

    title: str
    name: str = Field(description="the plan's name, such as `demo`")
    introduction: tuple[str, ...] = Field(default=(), description="paragraphs under the title")
    tables: tuple[ReportSection, ...] = ()
    evidence: Path | None = Field(default=None, description="comparison, claims and audit, as `east analyse` writes")
    evidence_files: dict[EvidencePart, tuple[Path, ...]] = Field(
        default_factory=dict, description="the same as tables in other formats, put into the page"
    )
    figures: tuple[FigureGroup, ...] = ()
    cost: ReportSection | None = None
    readings: tuple[Reading, ...] = ()
    facts: dict[str, str] = Field(default_factory=dict, description="provenance in words: config files, command, ...")
    logs: Path | None = Field(default=None, description="folder of the logs, which are named by run")
    config: str | None = Field(default=None, description="the resolved config, shown as it is")
