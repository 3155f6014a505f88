#!/bin/sh
# The predictor behind the example unit, in the bed: ready, then serving until it is told to stop.
trap 'exit 0' TERM
systemd-notify --ready
while :; do sleep 1 & wait $!; done
