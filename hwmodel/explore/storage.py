"""Every design that was timed, in an Optuna storage: what was done once is found again.

A study holds the designs of one problem for one set of objectives: its attributes say which space, programs and
version of fick, each trial's which design. It is read and made by Optuna. Trials are written by one transaction for a
chunk of designs, straight into Optuna's tables: one by one they take a hundred times longer than timing them.
"""

from __future__ import annotations

import datetime
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ir.errors import UserError, first_line
from .problem import Outcome, Problem, digest_of_facts
from .space import SOFTWARE
from .version import version

BATCH = 400
"""Rows of an INSERT."""


class _Journalled(sqlite3.Connection):
    """A process that is killed loses nothing that was committed; only a machine that loses power may."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **settings)
        self.execute("PRAGMA journal_mode=WAL")
        self.execute("PRAGMA synchronous=NORMAL")


def database(url: str) -> Any:
    """Optuna's storage there, made if it is new. Raises UserError if it cannot be reached."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = {"connect_args": {"factory": _Journalled}} if url.startswith("sqlite:") else {}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=settings)
    except Exception as error:
        raise _unreachable(url, error) from None


def _unreachable(url: str, error: Exception) -> UserError:
    """Of whatever a driver raises: a module that is missing, a server that is not there, a file that is none."""
    return UserError(
        f"storage {hidden(url)} cannot be reached: {first_line(error)}; give an SQLAlchemy URL such as "
        "sqlite:///points.db."
    )


class Storage:
    """The designs of a problem at a database URL, such as sqlite:///points.db. Raises UserError if there is none."""

    def __init__(self, url: str, problem: Problem) -> None:
        import optuna
        import sqlalchemy
        from optuna.study import StudyDirection

        self._problem = problem
        facts = {**problem.facts, "objectives": [one.name for one in problem.objectives]}
        self.name = f"fick-{digest_of_facts([version(), facts])}"
        storage = database(url)
        try:
            directions = [
                StudyDirection.MAXIMIZE if one.maximised else StudyDirection.MINIMIZE
                for one in problem.objectives
            ]
            self._study = optuna.create_study(
                study_name=self.name, storage=storage, directions=directions, load_if_exists=True
            )
            if not self._study.user_attrs:
                self._study.set_user_attr("version", version())
                self._study.set_user_attr("problem", facts)
        except Exception as error:
            raise _unreachable(url, error) from None
        self._id: int = self._study._study_id
        self._engine = storage.engine
        tables = sqlalchemy.MetaData()
        tables.reflect(self._engine)
        self._tables = tables.tables
        self._next = len(self._study.get_trials(deepcopy=False))

    def load(self) -> dict[int, Outcome]:
        """What earlier runs found, by number."""
        found: dict[int, Outcome] = {}
        for trial in self._study.get_trials(deepcopy=False):
            if "design" in trial.user_attrs:
                number = int(trial.user_attrs["design"])
                reason = str(trial.user_attrs.get("misfit", ""))
                measures = trial.user_attrs["measures"]
                found[number] = Outcome(number, "misfit" if reason else "evaluated", measures, reason)
        return found

    def save(self, outcomes: Sequence[Outcome]) -> None:
        """All of them or none."""
        import sqlalchemy

        if not outcomes:
            return
        now, problem = datetime.datetime.now(), self._problem
        with self._engine.begin() as connection:
            trials = self._tables["trials"]
            connection.execute(
                sqlalchemy.insert(trials),
                [
                    {
                        "number": self._next + place,
                        "study_id": self._id,
                        "state": "FAIL" if one.status == "misfit" else "COMPLETE",
                        "datetime_start": now,
                        "datetime_complete": now,
                    }
                    for place, one in enumerate(outcomes)
                ],
            )
            mine = sqlalchemy.select(trials.c.number, trials.c.trial_id).where(
                trials.c.study_id == self._id, trials.c.number >= self._next
            )
            ids = {number - self._next: identifier for number, identifier in connection.execute(mine)}
            rows: dict[str, list[dict[str, Any]]] = {
                "trial_params": [], "trial_values": [], "trial_user_attributes": []
            }  # fmt: skip
            for place, outcome in enumerate(outcomes):
                for table, row in self._rows(problem, outcome):
                    rows[table].append({"trial_id": ids[place], **row})
            for table, some in rows.items():
                for start in range(0, len(some), BATCH):
                    connection.execute(sqlalchemy.insert(self._tables[table]), some[start : start + BATCH])
        self._next += len(outcomes)

    @property
    def count(self) -> int:
        """Trials that it holds."""
        return self._next

    def close(self) -> None:
        self._engine.dispose()

    def _rows(self, problem: Problem, outcome: Outcome) -> Iterable[tuple[str, dict[str, Any]]]:
        """A trial in Optuna's tables: (table, row)."""
        space = problem.space
        for axis, digit in zip(space.axes, space.digits(outcome.number), strict=True):
            choices = json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": axis.labels}})
            yield "trial_params", {
                "param_name": axis.name, "param_value": digit, "distribution_json": choices
            }  # fmt: skip
        attributes: dict[str, Any] = {
            "design": outcome.number,
            "measures": dict(outcome.measures),
            "spec": {"hardware": space.hardware.spec.name, **space.changes(outcome.number)},
            "program": self._program(problem, outcome.number),
            "version": version(),
        }
        if outcome.status == "misfit":
            attributes["misfit"] = outcome.reason
        else:
            for place, one in enumerate(problem.objectives):
                yield "trial_values", {
                    "objective": place, "value": outcome.measures[one.column], "value_type": "FINITE"
                }  # fmt: skip
        for key, value in attributes.items():
            yield "trial_user_attributes", {"key": key, "value_json": json.dumps(value)}

    def _program(self, problem: Problem, number: int) -> str:
        software, bits = problem.space.labels(number)[SOFTWARE], problem.space.spec(number).bits
        programs: Mapping[str, str] = problem.facts["programs"]
        return programs[f"{software} {bits!r}"]


def hidden(url: str) -> str:
    """A URL without the password that may stand in it."""
    head, at, tail = url.rpartition("@")
    return f"{head.split('://')[0]}://...{at}{tail}" if at else url


def default_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'points.db'}"
