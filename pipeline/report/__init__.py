"""The report room: scores of runs as plain data, the figures taken from them, and their tables, CSV files, plots and Markdown."""

from pipeline.report.run_scores import RunScores, StageScores, score_matrix, stage_metrics, summary
from pipeline.report.terminal import print_tables
from pipeline.report.write import write_report

__all__ = ["RunScores", "StageScores", "print_tables", "score_matrix", "stage_metrics", "summary", "write_report"]
