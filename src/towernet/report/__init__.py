"""One self-contained offline page that says what was compared, what came out, and how."""

from towernet.report.page import write_report

__all__ = ["write_report"]
