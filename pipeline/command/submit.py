"""`submit`: an experiment as a job of a Ray cluster, followed to its end; stopped, looked at, or left to itself.

The same experiment has the same id everywhere. Submitted again, it is followed if it runs, and else goes on as a new attempt: what is
stored is not done again.
"""

import os
import shlex
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from foundation.errors import ConfigError, Interrupted, ResourceError
from foundation.sizes import size
from pipeline.command.terminal import say
from pipeline.jobs.logs import follow
from pipeline.jobs.package import Package, package
from pipeline.jobs.request import JobRequest
from pipeline.jobs.server import worded
from pipeline.tracking.backend import SERVERS, without_secrets

if TYPE_CHECKING:
    from ray.dashboard.modules.job.pydantic_models import JobDetails
    from ray.job_submission import JobSubmissionClient

STOP_SECONDS = 120
"""So long a job that is told to stop may take to end cleanly before Ray kills it (Ray's own default is 3)."""
AGENT_SECONDS = 90
"""A head answers before it can start jobs; so long it is asked again."""
LOOK_SECONDS = 0.5
PYTHON = "python"
"""The interpreter on the nodes, where none is named."""


@dataclass(frozen=True)
class Submission:
    """A request and the server that is asked."""

    request: JobRequest
    client: "JobSubmissionClient"
    address: str
    console: Console
    python: str = PYTHON

    def attempts(self) -> list["JobDetails"]:
        """All attempts that the cluster knows of, the first one first."""
        with worded(self.address):
            jobs = self.client.list_jobs()
        found = {number: job for job in jobs if (number := self.request.number(job.submission_id or "")) is not None}
        return [found[number] for number in sorted(found)]

    def command(self, *options: str) -> str:
        """The command line that asks again."""
        address = ["--address", self.address, *(["--python", self.python] if self.python != PYTHON else [])]
        return f"python -m pipeline submit {shlex.join([str(self.request.file), *self.request.overrides, *address, *options])}"


def submit_job(asked: Submission, python: str, wait: bool) -> int:
    """Start the experiment, or join it where it runs; the driver's exit code, 0 at once without `wait`."""
    attempts, console = asked.attempts(), asked.console
    running = attempts[-1] if attempts and not attempts[-1].status.is_terminal() else None
    if running is not None:
        submission = str(running.submission_id)
        say(console, f"{submission} runs already ({running.status}); this is its log")
    else:
        number = 1 + (asked.request.number(str(attempts[-1].submission_id)) or 1) if attempts else 1
        submission = asked.request.attempt(number)
        if _start(asked, submission, python):
            before = f" (after {attempts[-1].submission_id}, {attempts[-1].status}: what is stored is not done again)" if attempts else ""
            say(console, f"submitted {submission} to {asked.address}{before}")
        else:
            say(console, f"{submission} was just submitted by somebody else")
    if not wait:
        say(console, f"follow: {asked.command()}\nstop:   {asked.command('--stop')}")
        return 0
    return _followed(asked, submission)


def stop_job(asked: Submission) -> int:
    """Stop the attempt that runs, cleanly; 5, as a stopped run ends. ConfigError if none runs."""
    attempts = asked.attempts()
    if not attempts or attempts[-1].status.is_terminal():
        last = f"; {attempts[-1].submission_id} has ended ({attempts[-1].status})" if attempts else ""
        raise ConfigError(f"no job of this experiment runs at {asked.address}{last}; see --status, or submit it")
    submission = str(attempts[-1].submission_id)
    with worded(asked.address):
        asked.client.stop_job(submission)
    say(asked.console, f"told {submission} to stop (up to {STOP_SECONDS} s)")
    return _ended(asked, submission, STOP_SECONDS + 30)


def show_status(asked: Submission) -> None:
    """One line per attempt, and the next command."""
    attempts = asked.attempts()
    for job in attempts:
        began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime((job.start_time or 0) / 1000))
        seconds = ((job.end_time or 1000 * time.time()) - (job.start_time or 0)) / 1000
        code = "" if job.driver_exit_code is None else f", exit code {_code(job.driver_exit_code)}"
        say(asked.console, f"{job.submission_id}  {job.status}{code}  {began}, {seconds:.0f} s")
    if not attempts:
        say(asked.console, f"{asked.request.submission} was not submitted to {asked.address}")
    runs = attempts and not attempts[-1].status.is_terminal()
    say(asked.console, f"follow: {asked.command()}\nstop:   {asked.command('--stop')}" if runs else f"next: {asked.command()}")


def show_plan(request: JobRequest, packed: Package, python: str, address: str, console: Console) -> None:
    """What would be submitted, file by file."""
    for place, path in sorted(packed.files.items()):
        say(console, f"{path.stat().st_size:>9,}  {place}")
    say(console, f"{len(packed.files)} files, {size(packed.bytes)}, would travel to {address}")
    say(console, f"submission  {request.submission}")
    say(console, f"command     {request.entrypoint(python)}")
    say(console, f"variables   {', '.join(f'{name}={value}' for name, value in sorted(environment().items()))}")


def show_request(request: JobRequest, console: Console) -> None:
    """What the cluster must have that cannot be checked from here."""
    if request.summary:
        say(console, f"{request.file}: {request.summary}")
    for place in request.places:
        unseen = "; it is not on this machine, so it was not checked" if place in request.elsewhere else ""
        say(console, f"the nodes must have {place}{unseen}")
    say(console, f"all nodes must share {request.workspace}, the workspace")
    tracked = os.environ.get("MLFLOW_TRACKING_URI")
    if tracked is not None and "MLFLOW_TRACKING_URI" not in environment():
        say(
            console,
            f"MLFLOW_TRACKING_URI ({without_secrets(tracked)}) holds credentials or is a file here: set it on the nodes, it is not sent",
        )


def environment() -> dict[str, str]:
    """The environment variables of the job: nothing secret, for everyone who may use the cluster can read them."""
    from pipeline.graph.cluster import code_commit
    from pipeline.graph.perform import COMMIT_VARIABLE

    variables = {COMMIT_VARIABLE: code_commit(), "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    variables["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"  # the driver says some of them again, for its workers
    tracked = os.environ.get("MLFLOW_TRACKING_URI", "")
    if tracked.startswith(SERVERS) and without_secrets(tracked) == tracked:
        variables["MLFLOW_TRACKING_URI"] = tracked
    return variables


def _start(asked: Submission, submission: str, python: str) -> bool:
    """Send the code and start the job; False where somebody else has just done so."""
    packed = package(asked.request)
    say(asked.console, f"sending {len(packed.files)} files, {size(packed.bytes)}: the code and {asked.request.packed_file}")
    deadline = time.monotonic() + AGENT_SECONDS
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "job.zip"
        packed.write(archive)
        while True:
            try:
                with worded(asked.address):
                    asked.client.submit_job(
                        entrypoint=asked.request.entrypoint(python),
                        submission_id=submission,
                        runtime_env={"working_dir": str(archive), "env_vars": environment()},
                        metadata={"run": asked.request.name, "workspace": str(asked.request.workspace)},
                    )
                return True
            except ResourceError as error:
                if "already exists" in str(error):
                    return False
                if "does not answer in time" in str(error):
                    raise ResourceError(f"{error}\n{submission} may have been started; look: {asked.command('--status')}") from error
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(1)


def _followed(asked: Submission, submission: str) -> int:
    try:
        for piece in follow(asked.client, submission):
            asked.console.file.write(piece)
            asked.console.file.flush()
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(
            f"no longer watching; job {submission} runs on.\nfollow: {asked.command()}\nstop:   {asked.command('--stop')}"
        ) from error
    except ResourceError as error:
        raise ResourceError(f"{error}.\nfollow: {asked.command()}") from error
    return _ended(asked, submission, AGENT_SECONDS)


def _ended(asked: Submission, submission: str, seconds: float) -> int:
    """Wait for a job's end, say how it ended; its driver's exit code, 5 where it was stopped."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with worded(asked.address):
                job = asked.client.get_job_info(submission)
        except ResourceError as error:  # the connection may come back
            if time.monotonic() > deadline:
                raise ResourceError(f"{error}\njob {submission} may run on; look again: {asked.command('--status')}") from error
            time.sleep(LOOK_SECONDS)
            continue
        if job.status.is_terminal():
            break
        if time.monotonic() > deadline:
            raise ResourceError(f"job {submission} is still {job.status} after {seconds:.0f} s; look again: {asked.command('--status')}")
        time.sleep(LOOK_SECONDS)
    again = f"next: {asked.command()}   (what is stored is not done again)"
    if job.status == "STOPPED":
        with worded(asked.address):
            clean = "stopped by SIG" in asked.client.get_job_logs(submission)[-4000:]
        how = "stopped cleanly" if clean else "stopped before it could say so; what it had finished is stored"
        say(asked.console, f"{submission} {how}\n{again}")
        return Interrupted.exit_code
    if job.driver_exit_code is None and job.status == "FAILED":
        raise ResourceError(
            f"the cluster could not run {submission}: {without_secrets(job.message or 'it gave no reason')[-1500:]}\n{again}"
        )
    code = _code(job.driver_exit_code or 0)
    if code:
        say(asked.console, f"{submission} ended with exit code {code}\n{again}")
    return code


def _code(driver: int) -> int:
    """A driver's exit code as a shell gives it: 128 and the signal for one that was killed."""
    return 128 + signal.Signals(-driver) if driver < 0 else driver
