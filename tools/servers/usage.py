"""What each of the servers here says of its tokens, in the shape of OpenAI's API."""

import json


def usage_of(words: int) -> dict[str, dict[str, int]]:
    """Of so many words."""
    return {"usage": {"prompt_tokens": 2, "completion_tokens": words}}


def event(number: int) -> str:
    """One word, as it comes."""
    return f"data: {json.dumps({'word': number})}\n\n"


def last_event(words: int) -> str:
    """What ends a stream."""
    return f"data: {json.dumps(usage_of(words))}\n\ndata: [DONE]\n\n"
