"""The params of a follow-up request: those of the request that was answered, with the answer or more tokens.

After an answer that calls tools, the next message has their results and nothing else: only so does the API go on
with the turn, and run the calls of server tools that have no result yet.

An answer is passed back as the API sent it, thinking and its signatures included.
https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools
"""

from __future__ import annotations

from typing import Any, assert_never

from batch_assets.core.answers.follow_up_rules import FollowUpKind, FollowUpRules
from batch_assets.core.io.json_text import dump, load_exactly

_GO_ON = "Continue."


def follow_up_params(
    kind: FollowUpKind,
    params: bytes,
    message: str,
    reason: str | None,
    rules: FollowUpRules,
    most: int | None,
    tool_results: list[dict[str, Any]],
) -> bytes | None:
    """Make the params of a follow-up request.

    Args:
        kind: Why it follows.
        params: The params of the request that was answered.
        message: The answer, as the API sent it.
        reason: Why the answer does not match the output schema.
        rules: The rules that ask for it.
        most: The most tokens of an answer of the model; `None` if that is not known.
        tool_results: The results of the tools that the answer calls.

    Returns:
        `None` if it would be the same request again: it has the largest max_tokens already.
    """
    request = load_exactly(params)
    match kind:
        case FollowUpKind.TRUNCATED:
            assert rules.truncated is not None
            raised = rules.truncated.raised(request["max_tokens"], most)
            if raised is None:
                return None
            request["max_tokens"] = raised
        case FollowUpKind.PAUSED:
            content = _content(message)
            added = [{"role": "assistant", "content": content}] if content else []
            if tool_results:
                added.append({"role": "user", "content": tool_results})
            elif not content or content[-1].get("type") == "text":
                # Newer models refuse messages that end with text of the assistant.
                added.append({"role": "user", "content": _GO_ON})
            request["messages"] = [*request["messages"], *added]
        case FollowUpKind.INVALID:
            content = _content(message)
            added = [{"role": "assistant", "content": content}] if content else []
            added.append({"role": "user", "content": _correction(content, reason or "")})
            request["messages"] = [*request["messages"], *added]
        case _:
            assert_never(kind)
    return dump(request).encode()


def _content(message: str) -> list[dict[str, Any]]:
    """Return the blocks of an answer. The API refuses to take back empty texts, which it may send."""
    blocks = load_exactly(message.encode()).get("content") or []
    return [block for block in blocks if block.get("type") != "text" or block.get("text")]


def _correction(content: list[dict[str, Any]], reason: str) -> list[dict[str, Any]]:
    """Return what tells the model that its answer does not match: each of its tool calls needs a result."""
    text = f"Your answer could not be used: {reason}. Answer again, in the form that was asked for."
    calls = [block["id"] for block in content if block.get("type") == "tool_use"]
    if not calls:
        return [{"type": "text", "text": text}]
    return [{"type": "tool_result", "tool_use_id": id_, "is_error": True, "content": text} for id_ in calls]
