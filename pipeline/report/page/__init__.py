"""The report as one HTML page that needs nothing else: figures, heat maps, curves, and the answers that changed."""

from pipeline.report.page.page import Content, report_page
from pipeline.report.page.write import PAGE_FILE, write_page

__all__ = ["PAGE_FILE", "Content", "report_page", "write_page"]
