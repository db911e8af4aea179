"""Calls of an unmodified `inference_sdk` against a server; run by that package's own interpreter. Prints JSON."""

from __future__ import annotations

import json
import sys
import warnings

warnings.simplefilter("ignore")

from inference_sdk import InferenceConfiguration, InferenceHTTPClient  # noqa: E402


def run(url, calls):
    """Answers, or errors, of calls: `[name, arguments, configuration, api]`."""
    found = []
    for name, arguments, configuration, api in calls:
        client = InferenceHTTPClient(api_url=url, api_key="any-key")
        client = client.select_api_v0() if api == "v0" else client.select_api_v1()
        client.configure(InferenceConfiguration(**configuration))
        try:
            answer = getattr(client, name)(**arguments)
            answer = answer if isinstance(answer, (dict, list)) else json.loads(json.dumps(answer, default=vars))
            found.append({"answer": answer})
        except Exception as error:
            found.append({"error": repr(error)[:500]})
    return found


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], json.loads(sys.stdin.read())), default=vars))
