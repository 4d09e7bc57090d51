"""`dg scaffold defs batch_assets.MessageBatchComponent NAME`: writes a pipeline that runs without changes."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Self

import click
import dagster as dg
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from batch_assets.core.errors import SettingsError
from batch_assets.core.settings import find_project

if TYPE_CHECKING:
    from batch_assets.dagster.scaffold_dataset import FoundDataset

_MODEL = "claude-haiku-5-5"
_MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.:@/-]*")
_DATASET = """\
id,text
1,"The parcel came two days late, but everything in it was as ordered."
2,"I have tried three times to change my address in the app and it forgets it every time."
3,"Best rucksack I ever had. Ten years and not one seam has opened."
"""


class MessageBatchScaffoldParams(BaseModel):
    """The options of `dg scaffold defs`. They are checked before anything is written."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(default=None, description=f"The model to ask. Default: {_MODEL}.")
    dataset: str | None = Field(
        default=None,
        description=(
            "CSV, TSV, JSON Lines or Parquet, or PDFs, pictures or text files: a file, folder, glob or URL. "
            "Default: a small dataset is written."
        ),
    )
    sql: str | None = Field(default=None, description="A query whose rows are the dataset. Needs url_env.")
    url_env: str | None = Field(
        default=None, description="Environment variable that holds the SQLAlchemy URL of the query's database."
    )
    asset: str | None = Field(
        default=None, description="Key of the asset whose table is the dataset, with slashes between its parts."
    )
    _found: FoundDataset | None = PrivateAttr(default=None)

    @field_validator("model")
    @classmethod
    def _can_be_a_model(cls, model: str | None) -> str | None:
        if model is not None and not _MODEL_NAME.fullmatch(model):
            raise click.ClickException(f"--model: {model!r} is not the name of a model; an example is {_MODEL}")
        return model

    @model_validator(mode="after")
    def _look_at_the_dataset(self) -> Self:
        if len([kind for kind in (self.dataset, self.sql, self.asset) if kind is not None]) > 1:
            raise click.ClickException("give one of --dataset, --sql and --asset")
        if (self.sql is None) != (self.url_env is None):
            raise click.ClickException(
                "--sql needs --url-env, the environment variable with the database's URL, and the other way round"
            )
        if (self.dataset, self.sql, self.asset) != (None, None, None):
            self._found = self._look()
        return self

    def _look(self) -> FoundDataset:
        from batch_assets.dagster.scaffold_dataset import FoundDataset, find_dataset, look_at

        if self.asset is not None:
            return FoundDataset({"asset": self.asset})
        if self.sql is not None and self.url_env is not None:
            return look_at({"sql": self.sql, "url_env": self.url_env}, find_project())
        assert self.dataset is not None
        return find_dataset(self.dataset, find_project())

    @property
    def found(self) -> FoundDataset | None:
        """The dataset that the options name, as it was when they were checked; None without one."""
        return self._found


class MessageBatchScaffolder(dg.Scaffolder[MessageBatchScaffoldParams]):
    """Writes a pipeline file, a question, an output schema and, if no dataset is named, a small one."""

    @classmethod
    def get_scaffold_params(cls) -> type[MessageBatchScaffoldParams]:
        return MessageBatchScaffoldParams

    def scaffold(self, request: dg.ScaffoldRequest[MessageBatchScaffoldParams]) -> None:
        from batch_assets.dagster import scaffold_files
        from batch_assets.dagster.scaffold_dataset import Columns, FoundDataset, Subject

        if request.scaffold_format != "yaml" or request.append:
            raise ValueError(
                "a pipeline needs its own folder with a defs.yaml: use --format yaml, or leave the option out"
            )
        folder = request.target_path
        project = request.project_root or find_project(folder)
        found = request.params.found
        if found is None:
            path = folder.resolve() / "dataset.csv"
            path.write_text(_DATASET, "utf-8")
            found = FoundDataset({"path": str(path)}, Columns("id", "text", ("id", "text")), Subject.TEXT)
        model = request.params.model or _MODEL
        _warn_of_unknown(model)
        name = re.sub(r"[^A-Za-z0-9_]", "_", folder.name)
        dataset, columns = found.located(project), found.columns
        content = scaffold_files.pipeline_file(request.type_name, name, dataset, columns, found.subject, model)
        (folder / "defs.yaml").write_text(content, "utf-8")
        (folder / "system.md").write_text(scaffold_files.question(columns, found.subject), "utf-8")
        (folder / "output.schema.json").write_text(scaffold_files.output_schema(columns), "utf-8")
        _show_next(name, found)


def _show_next(name: str, found: FoundDataset) -> None:
    """Print what is left to do: what is wrong with the dataset, and the next three commands."""
    if found.problem is not None:
        click.echo(
            f"Warning: {found.problem}. The pipeline is written all the same. When its dataset is there, choose "
            "the key and the text in defs.yaml.",
            err=True,
        )
    for problem in found.columns.problems:
        click.echo(f"Warning: {problem}.", err=True)
    click.echo(
        "\nNext:\n"
        f"  batch-assets check {name}      # the file, its dataset, and one row as a request\n"
        f"  batch-assets preview {name}    # the first requests, as the API would get them\n"
        f"  batch-assets emulator -- batch-assets run {name} --limit 20    # answers are made up, and cost nothing"
    )


def _warn_of_unknown(model: str) -> None:
    """Warn of a model that has no price. It may still work: the API may know models that this version does not."""
    from batch_assets.core.prices.prices import prices_in
    from batch_assets.core.settings import prices_file_in

    try:
        prices = prices_in(prices_file_in(os.environ))
    except SettingsError as error:
        click.echo(f"Warning: {error}", err=True)
        return
    if not prices.knows(model):
        click.echo(
            f"Warning: {model} is not in prices.yaml, which has {', '.join(prices.models)}. If the API knows it, "
            "the pipeline runs, and its `cost_usd` is null.",
            err=True,
        )
