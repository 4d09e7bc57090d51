"""`cache: auto`: one request is sent first, and the others read the prompt that they share with it from the cache.

That needs no other request files: the breakpoint is recorded beside them, and written while they are sent.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from batch_assets.core.pipeline.pipeline import Pipeline
from batch_assets.core.requests.caching import CacheUse
from batch_assets.core.requests.shared_prompt import SharedPrompt
from batch_assets.core.requests.stubs_in_flight import StubInFlight
from batch_assets.core.store.breakpoints import Breakpoint
from batch_assets.core.store.manifest import PartEntry
from batch_assets.core.text import count

_log = logging.getLogger("batch_assets")

# Writing the cache costs twice the tokens, and reading it a tenth at most. So with a stub, three requests cost at
# most 2 + 2 * 0.1 of the prompt in place of 3, and two of them more than without.
FEWEST_REQUESTS = 3

_Headers = frozenset[tuple[str, str]]


@dataclass
class _Group:
    """The requests with the same headers.

    Attributes:
        prompt: What they share.
        owner: The submission of the stub; `None` as long as there is no stub.
        stub: The id of its request file.
        is_hopeless: They have no breakpoint, and more requests share no more.
        joined: The stub of an earlier submission, which they wait for instead; `None` for none.
    """

    prompt: SharedPrompt
    owner: str | None = None
    stub: str = ""
    is_hopeless: bool = False
    joined: _Joined | None = None


class _Joined:
    """The stub of an earlier submission, as long as all requests read what it writes.

    Args:
        stub: The stub.
        prompt: What is shared with it.
    """

    def __init__(self, stub: StubInFlight, prompt: SharedPrompt) -> None:
        self.stub, self._prompt = stub, prompt
        prompt.add([stub.params])

    def fits(self, params: Sequence[bytes]) -> bool:
        """Add requests. Return whether they share the whole prompt up to the stub's breakpoint, and no more."""
        self._prompt.add(params)
        return self._prompt.find() == self.stub.breakpoint


class PromptCaching:
    """The stubs and breakpoints of the submissions that are registered together.

    Args:
        pipeline: The name of the pipeline, for texts.
        may_lack_fields: See `SharedPrompt`.
    """

    def __init__(self, pipeline: str, *, may_lack_fields: bool) -> None:
        self._pipeline, self._may_lack_fields = pipeline, may_lack_fields
        self._groups: dict[_Headers, _Group] = {}
        self._found: dict[_Headers, Breakpoint] | None = None

    @classmethod
    def of(cls, pipeline: Pipeline) -> PromptCaching | None:
        """Return the prompt caching of a pipeline for a build; `None` without `cache: auto`."""
        if pipeline.config.cache is None:
            return None
        return cls(pipeline.name, may_lack_fields=pipeline.hooks.render_request is not None)

    def offer(self, stubs: Iterable[StubInFlight]) -> None:
        """Have requests wait for the stubs of earlier submissions, as far as they share their prompts.

        Args:
            stubs: The stubs. Those whose headers requests were added with before do not count.
        """
        for stub in stubs:
            if self.takes_stub(stub.headers):
                prompt = SharedPrompt(may_lack_fields=self._may_lack_fields)
                self._group(stub.headers).joined = _Joined(stub, prompt)

    def takes_stub(self, headers: Mapping[str, str]) -> bool:
        """Whether requests with some headers may still wait for the stub of an earlier submission."""
        group = self._group(headers)
        return not group.prompt.requests and group.joined is None

    def _group(self, headers: Mapping[str, str]) -> _Group:
        prompt = SharedPrompt(may_lack_fields=self._may_lack_fields)
        return self._groups.setdefault(frozenset(headers.items()), _Group(prompt))

    def add(self, headers: Mapping[str, str], params: Sequence[bytes]) -> bool:
        """Add requests that are about to be written.

        Args:
            headers: Their headers.
            params: Their params, at least one.

        Returns:
            Whether one of them has to be the stub.
        """
        group = self._group(headers)
        group.prompt.add(params)
        self._found = None
        if group.joined is not None and group.joined.fits(params):
            return False
        group.joined = None
        if group.is_hopeless or group.owner is not None or group.prompt.requests < FEWEST_REQUESTS:
            return False
        group.is_hopeless = not isinstance(group.prompt.find(), Breakpoint)
        return not group.is_hopeless

    def set_stub(self, headers: Mapping[str, str], submission_id: str, file_id: str) -> None:
        """Record the file of the stub."""
        group = self._group(headers)
        group.owner, group.stub = submission_id, file_id

    def keep_stubs_of(self, submission_ids: Collection[str]) -> None:
        """Forget the stubs of all submissions but some: those of others are not registered."""
        for group in self._groups.values():
            if group.owner not in submission_ids:
                group.owner = None

    @property
    def stubs(self) -> dict[str, str]:
        """The id of the submission of each stub, by the id of its file."""
        return {
            group.stub: group.owner
            for key, group in self._groups.items()
            if group.owner is not None and key in self._breakpoints
        }

    @property
    def joined(self) -> list[str]:
        """The ids of the files of earlier submissions' stubs that requests wait for."""
        return [
            group.joined.stub.file_id
            for group in self._groups.values()
            if group.joined is not None and group.prompt.requests
        ]

    def with_breakpoint(self, entry: PartEntry, headers: Mapping[str, str]) -> PartEntry:
        """Return the entry of a request file with its stub and its breakpoint, if it has them.

        Args:
            entry: The entry.
            headers: The headers of its requests.
        """
        key = frozenset(headers.items())
        if (joined := self._group(headers).joined) is not None:
            return entry.model_copy(update={"stub": joined.stub.file_id, "breakpoint": joined.stub.breakpoint})
        breakpoint = self._breakpoints.get(key)
        if breakpoint is None or self._groups[key].owner is None:
            return entry
        return entry.model_copy(update={"stub": self._groups[key].stub, "breakpoint": breakpoint})

    def use_by(self, submission_id: str) -> CacheUse:
        """Return what the requests of a submission do with the cache, once all of them are added."""
        tokens, stubs = [], 0
        for key, group in self._groups.items():
            if group.joined is not None and group.prompt.requests:
                tokens.append(group.joined.stub.breakpoint.tokens)
            elif group.owner is not None and key in self._breakpoints:
                tokens.append(self._breakpoints[key].tokens)
                stubs += group.owner == submission_id
        return CacheUse(min(tokens), stubs) if tokens else CacheUse()

    def use_later(self, requests: int, params: Sequence[bytes]) -> CacheUse:
        """Return what requests would do with the cache that are sent later.

        Args:
            requests: Their number.
            params: The params of some of them.
        """
        prompt = SharedPrompt(may_lack_fields=self._may_lack_fields)
        prompt.add(params)
        found = prompt.find() if requests >= FEWEST_REQUESTS and len(params) > 1 else ""
        return CacheUse(found.tokens, 1) if isinstance(found, Breakpoint) else CacheUse()

    @property
    def _breakpoints(self) -> dict[_Headers, Breakpoint]:
        """The breakpoint of each group that has one, once all requests are added."""
        if self._found is None:
            found = {key: group.prompt.find() for key, group in self._groups.items()}
            self._found = {key: each for key, each in found.items() if isinstance(each, Breakpoint)}
        return self._found

    def warn(self) -> None:
        """Log why requests have no breakpoint."""
        for group in self._groups.values():
            found, number = group.prompt.find(), group.prompt.requests
            if group.joined is None and isinstance(found, str) and number >= FEWEST_REQUESTS:
                _log.warning(f"{self._pipeline}: cache: auto does nothing for {count(number, 'request')}: {found}")
