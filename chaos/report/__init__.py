"""A record as a page to read (`page`) and as JUnit XML (`junit`). Pure: data in, text out."""

from chaos.report.junit import junit
from chaos.report.page import page

__all__ = ["junit", "page"]
