"""What all tasks of `perception evaluate` check first: labels, results or a model, and where results go."""

from __future__ import annotations

from pathlib import Path

from perception.cli.evaluate_options import SharedOptions
from perception.errors import UserError


def check_inputs(options: SharedOptions) -> tuple[Path, Path | None]:
    """Labels, and results where they are given; exactly one of --results and --model is."""
    check_report(options.report)
    if (options.results is None) == (options.model is None):
        found = "neither --results nor --model" if options.results is None else "--results and --model together"
        raise UserError(
            found, "a folder of results, or a model to run", "--results DIR, or --model M.onnx --data ROOT"
        )
    if options.model is None and (options.ensemble or options.flip or options.scales):
        raise UserError("--ensemble, --flip or --scales without --model", "a model to run", "--model M.onnx")
    if options.model is not None and options.data is None:
        raise UserError("--model without --data", "KITTI's root, with the images", "--data ROOT")
    gt = options.gt if options.gt is not None else options.data
    if gt is None:
        raise UserError("no --gt", "a folder of labels, or KITTI's root", "--gt DIR")
    return gt, options.results


def check_report(report: Path | None) -> None:
    """Refuse --report before the work where its packages are missing."""
    if report is not None:
        from perception.reports.write import require_page_packages

        require_page_packages()


def out_folder(options: SharedOptions, task: str) -> Path:
    return options.out if options.out is not None else Path("runs") / f"evaluate-{task}"
