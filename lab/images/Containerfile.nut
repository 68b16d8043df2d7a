ARG BASE
FROM $BASE
RUN apt-get update --quiet \
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet --no-install-recommends libnss3-tools nut-client nut-server \
 && rm -rf /var/lib/apt/lists/*
