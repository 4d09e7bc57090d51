"""The tools that are compared: what is installed, and how it is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

RUNNERS = Path(__file__).with_name("runners")


@dataclass(frozen=True)
class Tool:
    """A tool that runs on the emulator.

    Attributes:
        name: Its name, as docs/comparison.md has it.
        packages: What is installed in its environment. Packages after the first keep it working.
        runner: The script that runs it; "" for this project.
        python: The version of Python that it needs.
        environment: More variables.
    """

    name: str
    packages: tuple[str, ...] = ()
    runner: str = ""
    python: str = "3.11"
    environment: dict[str, str] = field(default_factory=dict)


TOOLS = (
    Tool("batch-assets"),
    Tool(
        "AnthropicLlmBatchComponent",
        ("dagster-community-components==0.10.120", "anthropic==0.125.0"),
        "run_community_components.py",
    ),
    Tool(
        "LLMBatchOperator",
        ("apache-airflow-providers-common-ai==1.0.0", "apache-airflow==3.3.2", "anthropic==2.14.0"),
        "run_airflow.py",
    ),
    Tool("curator", ("bespokelabs-curator==0.1.31", "instructor==1.13.0", "anthropic<1"), "run_curator.py"),
    Tool("batchor", ("batchor[anthropic]==0.0.7", "anthropic==0.125.0"), "run_batchor.py", python="3.12"),
    Tool("llm-batch-py", ("llm-batch-py==0.1.8", "anthropic==2.14.0"), "run_llm_batch_py.py"),
    Tool("firming", ("firming[anthropic]==0.4.0", "anthropic==2.14.0"), "run_firming.py"),
)
