"""What LitServe serves in tools/real_servers.py: words at once, and words as they come."""

import sys
import time

import litserve
from usage import event, last_event, usage_of

from taximeter.asgi import Meter


class AtOnce(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["words"]

    def predict(self, words):
        if words < 0:
            raise ValueError("no words")
        time.sleep(words / 100)
        return usage_of(words)

    def encode_response(self, output):
        return output


class Streamed(AtOnce):
    def predict(self, words):
        for number in range(words):
            time.sleep(0.01)
            yield event(number)
        yield last_event(words)

    def encode_response(self, output):
        yield from output


if __name__ == "__main__":
    apis = [AtOnce(api_path="/predict"), Streamed(api_path="/stream", stream=True)]
    server = litserve.LitServer(apis, accelerator="cpu", workers_per_device=2, middlewares=[Meter])
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, num_api_servers=1)
